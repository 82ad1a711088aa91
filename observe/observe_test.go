package observe_test

import (
	"context"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/engine/enginetest"
	"trading-platform/observe"
	"trading-platform/plan"
)

const export = `{"version": 3, "deployment": {"resources": [
	{"urn": "a", "type": "pulumi:pulumi:Stack", "outputs": {"identity": "ours"}},
	{"urn": "b", "type": "docker:index/container:Container", "id": "c1", "inputs": {"name": "x_postgres"}, "outputs": {}},
	{"urn": "c", "type": "docker:index/container:Container", "id": "c2", "inputs": {"name": "x_redis"}, "outputs": {}},
	{"urn": "d", "type": "docker:index/container:Container", "id": "c3", "inputs": {"name": "x_failed"}, "outputs": {"failed": "is unhealthy"}},
	{"urn": "e", "type": "docker:index/container:Container", "id": "c4", "inputs": {"name": "x_init"}, "outputs": {}, "initErrors": ["no"]},
	{"urn": "f", "type": "docker:index/container:Container", "id": "c5", "inputs": {"name": "x_drifted"}, "outputs": {"drift": {"running": "exited"}}},
	{"urn": "g", "type": "docker:index/network:Network", "id": "n1", "inputs": {"name": "x_default"}, "outputs": {}},
	{"urn": "i", "type": "docker:index/remoteImage:RemoteImage", "id": "i1", "inputs": {"name": "docker.io/library/redis:7"}, "outputs": {"imageId": "sha256:redis:7"}},
	{"urn": "j", "type": "docker:index/remoteImage:RemoteImage", "id": "i2", "inputs": {"name": "x/app:local"}, "outputs": {"imageId": "sha256:x/app:local"}},
	{"urn": "k", "type": "docker:index/remoteImage:RemoteImage", "id": "i3", "inputs": {"name": "x/gone:local"}, "outputs": {"imageId": "sha256:other"}},
	{"urn": "h", "type": "docker:index/volume:Volume", "id": "x_pgdata", "inputs": {"name": "x_pgdata"}, "outputs": {}}
]}}`

func labels(id string) map[string]string {
	return map[string]string{plan.StackLabel: "test", plan.IdentityLabel: id}
}

func made(id, name, state string, labels map[string]string) container.Summary {
	return container.Summary{ID: id, Names: []string{"/" + name}, State: container.ContainerState(state), Labels: labels}
}

func look(t *testing.T, e *enginetest.Engine) *observe.Findings {
	t.Helper()
	state, err := observe.ReadState([]byte(export))
	require.NoError(t, err)
	assert.Equal(t, "ours", state.Outputs["identity"])
	c, err := client.New(client.WithHost(e.Start(t)))
	require.NoError(t, err)
	found, err := observe.Compare(context.Background(), c, &plan.Plan{Stack: "test", Identity: "ours"}, state)
	require.NoError(t, err)
	return found
}

func TestAnEngineThatAgreesWithTheState(t *testing.T) {
	ours := labels("ours")
	found := look(t, &enginetest.Engine{
		Containers: []container.Summary{
			made("c1", "x_postgres", "running", ours), made("c2", "x_redis", "restarting", ours), made("c3", "x_failed", "exited", ours),
			made("c4", "x_init", "exited", ours), made("c5", "x_drifted", "exited", ours),
			made("c9", "y_postgres", "running", labels("theirs")), made("c8", "web", "running", nil),
		},
		Networks: []network.Summary{{Network: network.Network{ID: "n1", Name: "x_default", Labels: ours}}, {Network: network.Network{ID: "n9", Name: "y", Labels: labels("theirs")}}},
		Volumes:  []volume.Volume{{Name: "x_pgdata"}},
		Images:   map[string][]string{"redis:7": nil, "x/app:local": nil, "y/app:local": nil},
	})
	assert.Equal(t, &observe.Findings{}, found)
	assert.Empty(t, found.Down())
	assert.True(t, found.None())
}

func TestDifferences(t *testing.T) {
	ours := labels("ours")
	old := map[string]string{plan.StackLabel: "test"} // of a version without identities
	found := look(t, &enginetest.Engine{
		Containers: []container.Summary{
			made("c1", "x_postgres", "paused", ours), made("c3", "x_failed", "exited", ours), made("c4", "x_init", "exited", ours),
			made("c5", "x_drifted", "exited", ours), made("o1", "x_orphan", "created", ours), made("o2", "x_old", "running", old),
		},
		Networks: []network.Summary{{Network: network.Network{ID: "n2", Name: "x_default", Labels: ours}}},
	})
	assert.Equal(t, []string{"x_redis", "x_default"}, found.Missing)
	assert.Equal(t, []string{"x_pgdata"}, found.MissingVolumes)
	require.Len(t, found.Paused, 1)
	assert.Empty(t, found.Stopped)
	require.Len(t, found.Containers, 2)
	assert.Equal(t, []string{"x_orphan", "x_old"}, []string{observe.Name(found.Containers[0]), observe.Name(found.Containers[1])})
	require.Len(t, found.Networks, 1, "one of the same name that the state does not know")
	assert.Equal(t, "n2", found.Networks[0].ID)
	assert.Equal(t, []string{"x_redis", "x_default", "x_pgdata", "x_postgres"}, found.Down())
	assert.False(t, found.None())
}

func TestAnImageThatIsAnotherOneNow(t *testing.T) {
	state, err := observe.ReadState([]byte(strings.Replace(export, "sha256:x/app:local", "sha256:before", 1)))
	require.NoError(t, err)
	e := &enginetest.Engine{Images: map[string][]string{"redis:7": nil, "x/app:local": nil}}
	c, err := client.New(client.WithHost(e.Start(t)))
	require.NoError(t, err)
	found, err := observe.Compare(context.Background(), c, &plan.Plan{Stack: "test", Identity: "ours"}, state)
	require.NoError(t, err)
	assert.Equal(t, []string{"x/app:local"}, found.MovedImages)
	assert.False(t, (&observe.Findings{MovedImages: found.MovedImages}).None())
}

func TestPendingOperationsAreRemoved(t *testing.T) {
	cut := `{"version": 3, "deployment": {"manifest": {}, "secrets_providers": {"type": "passphrase"}, "resources": [{"urn": "a", "type": "t"}],
		"pending_operations": [{"type": "creating", "resource": {"urn": "b", "type": "t"}}]}}`
	state, err := observe.ReadState([]byte(cut))
	require.NoError(t, err)
	assert.True(t, state.Pending)
	whole, err := observe.WithoutPending([]byte(cut))
	require.NoError(t, err)
	assert.JSONEq(t, `{"version": 3, "deployment": {"manifest": {}, "secrets_providers": {"type": "passphrase"}, "resources": [{"urn": "a", "type": "t"}]}}`, string(whole))
	state, err = observe.ReadState(whole)
	require.NoError(t, err)
	assert.False(t, state.Pending)
}

func TestInvalidState(t *testing.T) {
	for _, text := range []string{"", "{", `{"version": 3, "deployment": []}`} {
		_, err := observe.ReadState([]byte(text))
		assert.ErrorContains(t, err, "reading the stack's state: ", text)
	}
	state, err := observe.ReadState([]byte(`{"version": 3}`))
	require.NoError(t, err)
	assert.Empty(t, state.Containers, "an empty stack has none")
}
