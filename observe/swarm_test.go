package observe_test

import (
	"context"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/engine/enginetest"
	"trading-platform/observe"
	"trading-platform/plan"
	"trading-platform/settings"
)

func service(id, name string, running, desired uint64, labels map[string]string) swarm.Service {
	return swarm.Service{
		ID: id, Spec: swarm.ServiceSpec{Annotations: swarm.Annotations{Name: name, Labels: labels}},
		ServiceStatus: &swarm.ServiceStatus{RunningTasks: running, DesiredTasks: desired},
	}
}

func onSwarm(services ...plan.Service) *plan.Plan {
	return &plan.Plan{Stack: "test", Identity: "ours", Orchestrator: settings.Swarm, Services: services}
}

func TestServices(t *testing.T) {
	ours, one := labels("ours"), func(name, place string) plan.Service {
		return plan.Service{Name: name, Containers: []string{"x_" + name}, Placement: place}
	}
	two := one("two", plan.AnyNode)
	two.Containers = append(two.Containers, "x_two_2")
	e := &enginetest.Engine{Services: []swarm.Service{
		service("1", "x_up", 1, 1, ours), service("2", "x_two", 1, 1, ours), service("3", "x_off", 0, 0, ours),
		service("4", "x_everywhere", 3, 3, ours), service("5", "x_theirs", 1, 1, labels("theirs")),
	}}
	c, err := client.New(client.WithHost(e.Start(t)))
	require.NoError(t, err)
	statuses, err := observe.Statuses(context.Background(), c, onSwarm(
		one("up", plan.DataNode), two, one("off", plan.AnyNode), one("everywhere", plan.EveryNode), one("theirs", plan.AnyNode)))
	require.NoError(t, err)
	assert.Equal(t, []observe.Status{
		{Service: "up", Container: "x_up", Health: "healthy", State: "1 of 1 tasks run, on data node"},
		{Service: "two", Container: "x_two", Health: "starting", State: "1 of 2 tasks run, on any node"},
		{Service: "off", Container: "x_off", Health: "stopped", State: "0 of 1 tasks run, on any node"},
		{Service: "everywhere", Container: "x_everywhere", Health: "healthy", State: "3 of 3 tasks run, on every node"},
		{Service: "theirs", Container: "x_theirs", Health: "missing"},
	}, statuses)
}

func TestServicesThatDifferFromTheState(t *testing.T) {
	state := &observe.State{Services: []observe.Resource{{ID: "1", Name: "x_postgres"}, {ID: "2", Name: "x_gone"}}}
	task := made("c1", "x_postgres.1.abc", "running", labels("ours"))
	task.Labels["com.docker.swarm.service.name"] = "x_postgres"
	e := &enginetest.Engine{
		Containers: []container.Summary{task},
		Services:   []swarm.Service{service("1", "x_postgres", 1, 1, labels("ours")), service("3", "x_left", 1, 1, labels("ours")), service("4", "x_other", 1, 1, labels("theirs"))},
	}
	c, err := client.New(client.WithHost(e.Start(t)))
	require.NoError(t, err)
	p := onSwarm(plan.Service{Name: "postgres", Containers: []string{"x_postgres"}}, plan.Service{Name: "far", Containers: []string{"x_far"}})
	found, err := observe.Compare(context.Background(), c, p, state)
	require.NoError(t, err)
	assert.Equal(t, []string{"x_gone"}, found.Down())
	assert.Empty(t, found.Containers, "those of its services are not left behind")
	require.Len(t, found.Services, 1)
	assert.Equal(t, "x_left", found.Services[0].Spec.Name)
	assert.False(t, found.None())

	require.NoError(t, observe.OnThisNode(context.Background(), c, p))
	assert.Equal(t, []string{"x_postgres.1.abc"}, p.Services[0].Containers)
	assert.Equal(t, []string{"x_far"}, p.Services[1].Containers, "it runs elsewhere")
}
