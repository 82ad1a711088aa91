package provider

import (
	"strings"
	"testing"
	"testing/synctest"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi-go-provider/integration"
	"github.com/pulumi/pulumi/sdk/v3/go/property"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/plan"
)

// labelled are containerInputs that belong to a stack.
var labelled = merged(containerInputs, map[string]any{"labels": []any{
	map[string]any{"label": stackLabel, "value": "dev"}, map[string]any{"label": identityLabel, "value": "id-1"},
}})

// madeBy is the container that a create with these inputs makes, as it runs.
func madeBy(t *testing.T, inputs map[string]any) *container.InspectResponse {
	t.Helper()
	e := &fakeEngine{inspect: []container.InspectResponse{healthy}}
	_, err := withEngine(t, e).Create(p.CreateRequest{Urn: urnOf(containerToken), Properties: properties(inputs)})
	require.NoError(t, err)
	config := *healthy.Config
	config.Labels = e.created.Config.Labels
	return &container.InspectResponse{
		ID: "o1", Name: "/stack_db", Image: "sha256:one", State: healthy.State, Config: &config,
		HostConfig:      healthy.HostConfig,
		NetworkSettings: &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{"one": {}, "two": {}}},
	}
}

func TestOrphanedContainer(t *testing.T) {
	t.Parallel()
	labels := func(stack, identity string) func(*container.InspectResponse) {
		return func(c *container.InspectResponse) {
			c.Config.Labels = map[string]string{stackLabel: stack, identityLabel: identity}
			if identity == "" {
				delete(c.Config.Labels, identityLabel)
			}
		}
	}
	state := func(s container.State) func(*container.InspectResponse) {
		return func(c *container.InspectResponse) { c.State = &s }
	}
	same := []string(nil)
	replaced := []string{"stop o1", "remove o1", "create stack_db", "start c1"}
	cases := map[string]struct {
		made     map[string]any // nil: what is wanted
		changed  func(*container.InspectResponse)
		startErr error
		calls    []string
		err      string
	}{
		"exactly what is wanted":            {calls: same},
		"stopped":                           {changed: state(container.State{Status: "exited", ExitCode: 137, Health: health(container.Unhealthy, 0)}), calls: []string{"start o1"}},
		"paused":                            {changed: func(c *container.InspectResponse) { c.State = paused.State }, calls: []string{"unpause o1"}},
		"cut before its start":              {changed: state(container.State{Status: "created"}), calls: replaced},
		"unhealthy":                         {changed: state(container.State{Running: true, Health: health(container.Unhealthy, 3)}), calls: replaced},
		"of another image":                  {changed: func(c *container.InspectResponse) { c.Image = "sha256:two" }, calls: replaced},
		"of another password":               {made: map[string]any{"envs": []any{"A=1", "B=3"}}, calls: replaced},
		"of another file":                   {made: map[string]any{"uploads": []any{map[string]any{"file": "/etc/db.conf", "content": "y"}}}, calls: replaced},
		"with another waitTimeout":          {made: map[string]any{"waitTimeout": 31}, calls: same},
		"disconnected":                      {changed: func(c *container.InspectResponse) { delete(c.NetworkSettings.Networks, "two") }, calls: replaced},
		"which cannot be started":           {changed: state(container.State{Status: "exited"}), startErr: errEngine, calls: append([]string{"start o1"}, replaced...)},
		"of an older version":               {changed: labels("dev", ""), calls: replaced},
		"of another stack":                  {changed: labels("other", "id-1"), err: "the name is used"},
		"of another user's stack":           {changed: labels("dev", "id-2"), err: "the name is used"},
		"of nobody":                         {changed: labels("", ""), err: "the name is used"},
		"whose engine does not know it yet": {changed: func(c *container.InspectResponse) { c.Image = "" }, calls: replaced},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := &fakeEngine{
					orphan: madeBy(t, merged(labelled, c.made)), startErr: c.startErr,
					inspect: []container.InspectResponse{healthy}, images: map[string]string{"sha256:one": "sha256:one"},
				}
				if c.changed != nil {
					c.changed(e.orphan)
				}
				resp, err := withEngine(t, e).Create(p.CreateRequest{Urn: urnOf(containerToken), Properties: properties(labelled)})
				if c.err != "" {
					require.ErrorContains(t, err, c.err)
					assert.Empty(t, e.calls)
					return
				}
				require.NoError(t, err)
				assert.Equal(t, c.calls, e.calls)
				assert.True(t, resp.Properties.Get(driftKey).IsNull())
				if len(c.calls) == len(replaced) {
					assert.Equal(t, "c1", resp.ID)
					assert.Equal(t, 60, *e.stopped[0].Timeout, "its grace time")
				}
			})
		})
	}
}

// A resource with a new name in the program is created first, and the old one deleted then.
func TestRenamedResourceKeepsTheContainer(t *testing.T) {
	t.Parallel()
	e := &fakeEngine{orphan: madeBy(t, labelled), inspect: []container.InspectResponse{healthy}, images: map[string]string{"sha256:one": "sha256:one"}}
	server, renamed := withEngine(t, e), urnOf(containerToken)+"-renamed"
	_, err := server.Create(p.CreateRequest{Urn: renamed, Properties: properties(labelled)})
	require.NoError(t, err)
	old := p.DeleteRequest{Urn: urnOf(containerToken), ID: "o1", OldInputs: properties(labelled), Properties: properties(merged(labelled, ourState))}
	err = server.Delete(old)
	require.NoError(t, err)
	assert.Empty(t, e.calls)
	old.Urn = renamed
	err = server.Delete(old)
	require.NoError(t, err)
	assert.Equal(t, []string{"stop o1", "remove o1"}, e.calls)
}

func TestOrphanedNetwork(t *testing.T) {
	t.Parallel()
	inputs := map[string]any{"name": "net", "labels": labelled["labels"], "ipamConfigs": []any{map[string]any{"subnet": "10.9.0.0/24"}}}
	made := &fakeEngine{gone: false}
	made.networkInspect = func(name string) (network.Inspect, error) {
		if name == "net" {
			return network.Inspect{}, cerrdefs.ErrNotFound
		}
		return network.Inspect{Network: network.Network{ID: name, Driver: "bridge"}}, nil
	}
	_, err := withEngine(t, made).Create(p.CreateRequest{Urn: urnOf(networkToken), Properties: properties(inputs)})
	require.NoError(t, err)
	require.Equal(t, []string{"create net"}, made.calls)

	ours, foreign := map[string]string{stackLabel: "dev", identityLabel: "id-1"}, map[string]string{}
	cases := map[string]struct {
		labels   map[string]string
		attached map[string]string // the labels of the container that is attached
		calls    []string
		err      string
	}{
		"exactly what is wanted":                   {labels: made.networkLabels, attached: ours},
		"other than wanted":                        {labels: ours, calls: []string{"remove o1", "create net"}},
		"other than wanted, with our container":    {labels: ours, attached: ours, calls: []string{"disconnect c1 from o1", "remove o1", "create net"}},
		"other than wanted, with another's in it":  {labels: ours, attached: foreign, err: "still used by containers that do not belong to this stack: db"},
		"of another stack":                         {labels: map[string]string{stackLabel: "other"}, err: "does not belong to this stack"},
		"of another user's stack of the same name": {labels: map[string]string{stackLabel: "dev", identityLabel: "id-2"}, err: "does not belong to this stack"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attached := healthy
			attached.Config = &container.Config{Labels: c.attached}
			e := &fakeEngine{inspect: []container.InspectResponse{attached}}
			e.networkInspect = func(name string) (network.Inspect, error) {
				if name != "net" {
					return network.Inspect{Network: network.Network{ID: name, Driver: "bridge"}}, nil
				}
				found := network.Inspect{Network: network.Network{ID: "o1", Driver: "bridge", Labels: c.labels}}
				if c.attached != nil {
					found.Containers = map[string]network.EndpointResource{"c1": {Name: "db"}}
				}
				return found, nil
			}
			resp, err := withEngine(t, e).Create(p.CreateRequest{Urn: urnOf(networkToken), Properties: properties(inputs)})
			assert.Equal(t, c.calls, e.calls)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.calls == nil, resp.ID == "o1")
		})
	}
}

func TestAnotherEngineIsRefused(t *testing.T) {
	t.Parallel()
	recorded := func(id string) property.Map {
		return properties(merged(merged(containerInputs, ourState), map[string]any{engineKey: id}))
	}
	inputs := properties(containerInputs)
	calls := map[string]func(server integration.Server, recorded property.Map) error{
		"read": func(server integration.Server, recorded property.Map) error {
			_, err := server.Read(p.ReadRequest{Urn: urnOf(containerToken), ID: "c1", Inputs: inputs, Properties: recorded})
			return err
		},
		"update": func(server integration.Server, recorded property.Map) error {
			_, err := server.Update(p.UpdateRequest{Urn: urnOf(containerToken), ID: "c1", Inputs: inputs, State: recorded})
			return err
		},
		"delete": func(server integration.Server, recorded property.Map) error {
			err := server.Delete(p.DeleteRequest{Urn: urnOf(containerToken), ID: "c1", OldInputs: inputs, Properties: recorded})
			return err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &fakeEngine{id: "THIS", gone: true}
			server := withEngine(t, e)
			err := call(server, recorded("THAT"))
			for _, want := range []string{"lives on the Docker engine THAT", "(unix:///fake.sock) is THIS", "nothing was touched", "`DOCKER_HOST`", "`docker context use`", "`platform down`"} {
				require.ErrorContains(t, err, want)
			}
			require.EqualError(t, call(server, recorded("THAT")), "it is on the other Docker engine too, and was not touched")
			assert.Empty(t, e.calls)
			if name != "update" { // one that is gone cannot be updated
				require.NoError(t, call(server, recorded("THIS")), "gone counts as deleted on the right engine")
			}
		})
	}
	t.Run("a state of an older version learns its engine", func(t *testing.T) {
		t.Parallel()
		server := withEngine(t, &fakeEngine{id: "THIS", inspect: []container.InspectResponse{healthy}})
		resp, err := server.Read(p.ReadRequest{
			Urn: urnOf(containerToken), ID: "c1", Inputs: inputs, Properties: properties(merged(containerInputs, ourState)),
		})
		require.NoError(t, err)
		assert.Equal(t, "THIS", resp.Properties.Get(engineKey).AsString())
	})
	t.Run("a preview keeps what is recorded", func(t *testing.T) {
		t.Parallel()
		resp, err := withEngine(t, nil).Update(p.UpdateRequest{Urn: urnOf(containerToken), DryRun: true, Inputs: inputs, State: recorded("THAT")})
		require.NoError(t, err)
		assert.Equal(t, "THAT", resp.Properties.Get(engineKey).AsString())
	})
}

// A container that was created by its image's name stays as it is while the name means
// the same image; the label that names the image's id replaces it when it does not.
func TestContainerByItsImagesName(t *testing.T) {
	t.Parallel()
	byName := func(id string) map[string]any {
		return merged(containerInputs, map[string]any{"image": "postgres:16", "labels": []any{map[string]any{"label": "image", "value": id}}})
	}
	found := healthy
	config := *healthy.Config
	config.Image, config.Labels = "postgres:16", map[string]string{"image": "sha256:one"}
	found.Config = &config
	e := &fakeEngine{inspect: []container.InspectResponse{found}}
	server := withEngine(t, e)
	made, err := server.Create(p.CreateRequest{Urn: urnOf(containerToken), Properties: properties(byName("sha256:one"))})
	require.NoError(t, err)
	assert.Equal(t, "postgres:16", e.created.Config.Image, "what `docker ps` shows")
	read, err := server.Read(p.ReadRequest{Urn: urnOf(containerToken), ID: "c1", Inputs: properties(byName("sha256:one")), Properties: made.Properties})
	require.NoError(t, err)
	for id, want := range map[string][]string{"sha256:one": nil, "sha256:two": {"labels"}} {
		diff, err := server.Diff(p.DiffRequest{
			Urn: urnOf(containerToken), OldInputs: read.Inputs, State: read.Properties, Inputs: properties(byName(id)),
		})
		require.NoError(t, err)
		var got []string
		for path, d := range diff.DetailedDiff {
			got = append(got, path)
			assert.True(t, strings.HasSuffix(string(d.Kind), "&replace"))
		}
		assert.Equal(t, want, got)
	}
}

func TestLabelsAreThePlans(t *testing.T) {
	t.Parallel()
	assert.Equal(t, []string{plan.StackLabel, plan.IdentityLabel}, []string{stackLabel, identityLabel})
}
