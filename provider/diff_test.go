package provider

import (
	"testing"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// containerInputs is a container with something of everything.
var containerInputs = map[string]any{
	"name": "stack_db", "image": "sha256:one", "command": []any{"run", "it"},
	"envs":        []any{"A=1", "B=2"},
	"healthcheck": map[string]any{"tests": []any{"CMD", "probe"}, "interval": "90s", "timeout": "5s", "retries": 3},
	"networksAdvanced": []any{
		map[string]any{"name": "one", "aliases": []any{"db", "sql"}, "ipv4Address": "10.9.0.2"},
		map[string]any{"name": "two", "aliases": []any{"db"}},
	},
	"ports":     []any{map[string]any{"internal": 5432, "external": 5433, "ip": "127.0.0.1"}},
	"volumes":   []any{map[string]any{"volumeName": "data", "containerPath": "/data"}, map[string]any{"hostPath": "/h", "containerPath": "/c", "readOnly": true}},
	"uploads":   []any{map[string]any{"file": "/etc/db.conf", "content": "x"}},
	"labels":    []any{map[string]any{"label": "a", "value": "1"}, map[string]any{"label": "b", "value": "2"}},
	"logDriver": "json-file", "logOpts": map[string]any{"max-size": "1m", "max-file": "2"},
	"restart": "unless-stopped", "memory": 64, "memorySwap": 64, "wait": true, "waitTimeout": 30,
	"destroyGraceSeconds": 60,
}

var ourState = map[string]any{markerKey: "1"}

func TestContainerDiff(t *testing.T) {
	t.Parallel()
	const update, replace = p.Update, p.UpdateReplace
	cases := map[string]struct {
		changes map[string]any
		state   map[string]any
		want    map[string]p.DiffKind
	}{
		"nothing": {},
		"another spelling of a duration": {changes: map[string]any{
			"healthcheck": map[string]any{"tests": []any{"CMD", "probe"}, "interval": "1m30s", "timeout": "5000ms", "retries": 3},
		}},
		"another order of what has none": {changes: map[string]any{
			"envs":   []any{"B=2", "A=1"},
			"labels": []any{map[string]any{"label": "b", "value": "2"}, map[string]any{"label": "a", "value": "1"}},
			"networksAdvanced": []any{
				map[string]any{"name": "two", "aliases": []any{"db"}},
				map[string]any{"name": "one", "aliases": []any{"sql", "db"}, "ipv4Address": "10.9.0.2"},
			},
		}},
		"a secret of the same value":      {changes: map[string]any{"envs": secret([]any{"A=1", "B=2"})}},
		"an absent property and its zero": {changes: map[string]any{"readOnly": false, "user": "", "securityOpts": []any{}}},
		"the order of a command": {
			changes: map[string]any{"command": []any{"it", "run"}}, want: map[string]p.DiffKind{"command": replace},
		},
		"a healthcheck, which no engine changes on a live container": {
			changes: map[string]any{"healthcheck": map[string]any{"tests": []any{"CMD", "probe"}, "interval": "2s", "timeout": "5s", "retries": 4}},
			want:    map[string]p.DiffKind{"healthcheck.interval": replace, "healthcheck.retries": replace},
		},
		"no healthcheck any more": {
			changes: map[string]any{"healthcheck": nil}, want: map[string]p.DiffKind{"healthcheck": p.DeleteReplace},
		},
		"what an older plugin forgot": {
			changes: map[string]any{"tmpfs": map[string]any{"/t": ""}, "init": true},
			want:    map[string]p.DiffKind{"tmpfs": p.AddReplace, "init": p.AddReplace},
		},
		"security options": {
			changes: map[string]any{"securityOpts": []any{"no-new-privileges:true"}}, want: map[string]p.DiffKind{"securityOpts": p.AddReplace},
		},
		"an image that is built in this run": {
			changes: map[string]any{"image": unknown}, want: map[string]p.DiffKind{"image": replace},
		},
		"an unknown in a list": {
			changes: map[string]any{"envs": []any{"A=1", unknown}}, want: map[string]p.DiffKind{"envs": replace},
		},
		"what a live container takes": {
			changes: map[string]any{"restart": "always", "memory": 96, "memorySwap": 96, "cpuShares": 2048},
			want:    map[string]p.DiffKind{"cpuShares": p.Add, "restart": update, "memory": update, "memorySwap": update},
		},
		"a memory limit taken away": {
			changes: map[string]any{"memory": nil, "memorySwap": nil},
			want:    map[string]p.DiffKind{"memory": p.DeleteReplace, "memorySwap": p.DeleteReplace},
		},
		"what lives in the state only": {
			changes: map[string]any{"wait": false, "waitTimeout": 10, "destroyGraceSeconds": 5, "removeVolumes": false},
			want: map[string]p.DiffKind{
				"wait": update, "waitTimeout": update, "destroyGraceSeconds": update, "removeVolumes": p.Add,
			},
		},
		"a start that failed": {
			state: map[string]any{failedKey: "exited with code 1"}, want: map[string]p.DiffKind{failedKey: replace},
		},
		"a container that stopped": {
			state: map[string]any{driftKey: map[string]any{"running": "exited"}},
			want:  map[string]p.DiffKind{"drift.running": update},
		},
		"a wait that was cancelled": {
			state: map[string]any{driftKey: map[string]any{"health": "cancelled"}},
			want:  map[string]p.DiffKind{"drift.health": update},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := withEngine(t, nil).Diff(p.DiffRequest{
				Urn: urnOf(containerToken), OldInputs: properties(containerInputs),
				State:  properties(merged(merged(containerInputs, ourState), c.state)),
				Inputs: properties(merged(containerInputs, c.changes)),
			})
			require.NoError(t, err)
			got := map[string]p.DiffKind{}
			for path, diff := range resp.DetailedDiff {
				got[path] = diff.Kind
			}
			if len(c.want) == 0 {
				assert.Empty(t, got)
				assert.False(t, resp.HasChanges)
				return
			}
			assert.Equal(t, c.want, got)
			assert.True(t, resp.DeleteBeforeReplace)
		})
	}
}

func TestOtherDiffs(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		token     string
		olds, new map[string]any
		want      map[string]p.DiffKind
	}{
		"keepLocally is for the delete": {
			remoteImageToken, map[string]any{"name": "a:1"}, map[string]any{"name": "a:1", "keepLocally": true},
			map[string]p.DiffKind{"keepLocally": p.Add},
		},
		"another image": {
			remoteImageToken, map[string]any{"name": "a:1"}, map[string]any{"name": "a:2"},
			map[string]p.DiffKind{"name": p.UpdateReplace},
		},
		"an edit in the context": {
			imageType, map[string]any{"imageName": "a", "contextHash": "1"}, map[string]any{"imageName": "a", "contextHash": "2"},
			map[string]p.DiffKind{"contextHash": p.Update},
		},
		"a build argument": {
			imageType,
			map[string]any{"imageName": "a", "build": map[string]any{"args": map[string]any{"A": "1"}}},
			map[string]any{"imageName": "a", "build": map[string]any{"args": map[string]any{"A": "2"}}},
			map[string]p.DiffKind{"build.args": p.Update},
		},
		"a subnet": {
			networkToken,
			map[string]any{"name": "n", "ipamConfigs": []any{map[string]any{"subnet": "10.0.0.0/24"}}},
			map[string]any{"name": "n", "ipamConfigs": []any{map[string]any{"subnet": "10.0.1.0/24"}}},
			map[string]p.DiffKind{"ipamConfigs": p.UpdateReplace},
		},
		"a volume's label": {
			volumeToken, map[string]any{"name": "v"},
			map[string]any{"name": "v", "labels": []any{map[string]any{"label": "a", "value": "b"}}},
			map[string]p.DiffKind{"labels": p.AddReplace},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := withEngine(t, nil).Diff(p.DiffRequest{
				Urn: urnOf(c.token), OldInputs: properties(c.olds),
				State: properties(merged(c.olds, ourState)), Inputs: properties(c.new),
			})
			require.NoError(t, err)
			got := map[string]p.DiffKind{}
			for path, diff := range resp.DetailedDiff {
				got[path] = diff.Kind
			}
			assert.Equal(t, c.want, got)
			isImage := c.token == remoteImageToken || c.token == imageType
			assert.Equal(t, !isImage, resp.DeleteBeforeReplace, "a pull or a build that fails stops nothing")
		})
	}
}

func TestStatesOfTheOfficialPluginAreRefused(t *testing.T) {
	t.Parallel()
	official := properties(map[string]any{"name": "a", "__meta": `{"schema_version":"2"}`})
	server := withEngine(t, &fakeEngine{})
	const want = "created with the official docker plugin"

	_, err := server.Diff(p.DiffRequest{Urn: urnOf(containerToken), State: official})
	require.ErrorContains(t, err, want)
	_, err = server.Read(p.ReadRequest{Urn: urnOf(containerToken), Properties: official})
	require.ErrorContains(t, err, want)
	_, err = server.Update(p.UpdateRequest{Urn: urnOf(containerToken), State: official})
	require.ErrorContains(t, err, want)
	err = server.Delete(p.DeleteRequest{Urn: urnOf(containerToken), Properties: official})
	require.ErrorContains(t, err, want)
	assert.ErrorContains(t, err, "`pulumi destroy` it with the official plugin (volumes and their data stay)")
}

func TestWire(t *testing.T) {
	t.Parallel()
	marshal := func(values map[string]any) *pulumirpc.DiffRequest {
		s, err := plugin.MarshalProperties(resource.ToResourcePropertyMap(properties(values)), plugin.MarshalOptions{})
		require.NoError(t, err)
		return &pulumirpc.DiffRequest{News: s}
	}
	olds := marshal(merged(containerInputs, ourState)).GetNews()
	served, err := newProvider(nil)
	require.NoError(t, err)
	server, err := p.RawServer("docker", Version, served)(nil)
	require.NoError(t, err)
	info, err := server.GetPluginInfo(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, Version, info.GetVersion())
	resp, err := server.Diff(t.Context(), &pulumirpc.DiffRequest{
		Urn:  "urn:pulumi:s::p::docker:index/container:Container::db",
		Olds: olds, OldInputs: marshal(containerInputs).GetNews(),
		News: marshal(merged(containerInputs, map[string]any{
			"healthcheck": map[string]any{"tests": []any{"CMD", "other"}, "interval": "2s", "timeout": "5s", "retries": 3},
		})).GetNews(),
	})
	require.NoError(t, err)
	assert.True(t, resp.GetHasDetailedDiff())
	assert.Equal(t, []string{"healthcheck"}, resp.GetDiffs())
	assert.Equal(t, []string{"healthcheck"}, resp.GetReplaces())
	assert.Contains(t, resp.GetDetailedDiff(), "healthcheck.interval")
	assert.Contains(t, resp.GetDetailedDiff(), "healthcheck.tests")
}
