package provider

import (
	"io"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	p "github.com/pulumi/pulumi-go-provider"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDeleteOfWhatIsInUseNamesTheUsers(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		token  string
		engine *fakeEngine
		inputs map[string]any
		want   []string // none: no error
	}{
		"a network with containers": {
			networkToken, &fakeEngine{networkRemoveErr: cerrdefs.ErrPermissionDenied, attached: []string{"web", "db"}},
			map[string]any{"name": "net"},
			[]string{"network net is still used by containers that do not belong to this stack: db, web", "docker rm -f db web", "docker network disconnect -f net"},
		},
		"a network of which the engine has lost track": {
			networkToken, &fakeEngine{networkRemoveErr: cerrdefs.ErrPermissionDenied}, map[string]any{"name": "net"},
			[]string{"no container uses it", "Fix: restart the engine"},
		},
		"a network that is gone": {networkToken, &fakeEngine{networkRemoveErr: cerrdefs.ErrNotFound}, map[string]any{"name": "net"}, nil},
		"a volume with containers": {
			volumeToken, &fakeEngine{volumeRemoveErr: cerrdefs.ErrConflict, attached: []string{"db"}},
			map[string]any{"name": "data"}, []string{"volume data is still used by db", "docker rm -f db"},
		},
		"a volume that is gone": {volumeToken, &fakeEngine{volumeRemoveErr: cerrdefs.ErrNotFound}, map[string]any{"name": "data"}, nil},
		"a connection that broke off": {
			volumeToken, &fakeEngine{volumeRemoveErr: io.ErrUnexpectedEOF}, map[string]any{"name": "data"},
			[]string{"the connection to the Docker engine at unix:///fake.sock was cut: ", "unexpected EOF", "Fix: make sure that `docker info` works"},
		},
		"a volume that cannot be removed":        {volumeToken, &fakeEngine{volumeRemoveErr: errEngine}, map[string]any{"name": "data"}, []string{"volume data: engine says no"}},
		"a pulled image, which others may use":   {remoteImageToken, &fakeEngine{}, map[string]any{"name": "a", "keepLocally": true}, nil},
		"a built image stays for the next build": {imageType, &fakeEngine{}, map[string]any{"imageName": "a"}, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := withEngine(t, c.engine).Delete(p.DeleteRequest{
				Urn: urnOf(c.token), ID: "id", OldInputs: properties(c.inputs), Properties: properties(merged(c.inputs, ourState)),
			})
			if len(c.want) == 0 {
				require.NoError(t, err)
			}
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

func TestNetworkOfThatNameExists(t *testing.T) {
	t.Parallel()
	_, err := withEngine(t, &fakeEngine{}).Create(p.CreateRequest{
		Urn: urnOf(networkToken), Properties: properties(map[string]any{"name": "net"}),
	})
	require.ErrorContains(t, err, "network net exists already and does not belong to this stack")
	require.ErrorContains(t, err, "docker network rm net")
}

func TestRemoteImage(t *testing.T) {
	t.Parallel()
	create := func(e *fakeEngine) (p.CreateResponse, error) {
		return withEngine(t, e).Create(p.CreateRequest{
			Urn: urnOf(remoteImageToken), Properties: properties(map[string]any{"name": "registry.example.com/app:1"}),
		})
	}
	t.Run("is not pulled when it is there", func(t *testing.T) {
		t.Parallel()
		e := &fakeEngine{images: map[string]string{"registry.example.com/app:1": "sha256:here"}}
		resp, err := create(e)
		require.NoError(t, err)
		assert.Equal(t, "sha256:here", resp.Properties.Get("imageId").AsString())
		assert.Empty(t, e.pulled)
	})
	t.Run("is pulled when it is not", func(t *testing.T) {
		t.Parallel()
		e := &fakeEngine{images: map[string]string{}}
		resp, err := create(e)
		require.NoError(t, err)
		assert.Equal(t, "sha256:pulled", resp.ID)
	})
	t.Run("says what to do when it cannot be had", func(t *testing.T) {
		t.Parallel()
		_, err := create(&fakeEngine{images: map[string]string{}, pullErr: errEngine})
		for _, want := range []string{
			"image registry.example.com/app:1 could not be pulled from registry.example.com: engine says no", "Fix: docker pull registry.example.com/app:1",
		} {
			require.ErrorContains(t, err, want)
		}
	})
}

func TestImageThatWasPrunedIsGone(t *testing.T) {
	t.Parallel()
	inputs := map[string]any{"imageName": "app:dev", "skipPush": true, "build": map[string]any{"context": ".", "dockerfile": "Dockerfile"}}
	for name, images := range map[string]map[string]string{"there": {"sha256:built": "sha256:built"}, "pruned": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := withEngine(t, &fakeEngine{images: images}).Read(p.ReadRequest{
				Urn: urnOf(imageType), ID: "app:dev", Inputs: properties(inputs),
				Properties: properties(merged(inputs, map[string]any{markerKey: "1", "repoDigest": "sha256:built"})),
			})
			require.NoError(t, err)
			assert.Equal(t, name == "pruned", resp.ID == "")
		})
	}
}
