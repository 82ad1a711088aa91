package provider

import (
	"context"
	"encoding/base64"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi/sdk/v3/go/property"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	serviceToken = "docker:index/service:Service"
	configToken  = "docker:index/serviceConfig:ServiceConfig"
	secretToken  = "docker:index/secret:Secret"
)

// fakeSwarm is the manager of a fake Swarm.
type fakeSwarm struct {
	fakeEngine

	// service is the one that exists; nil for none.
	service *swarm.Service
	// tasks and statuses answer the looks, one after another, the last one forever.
	tasks    [][]swarm.Task
	statuses []swarm.UpdateState
	nodes    []swarm.Node
	taskErr  error
	looked   int
	updates  []client.ServiceUpdateOptions
	named    map[string]string // configs and secrets, IDs by name
	data     []byte
}

func (f *fakeSwarm) ServiceCreate(_ context.Context, o client.ServiceCreateOptions) (client.ServiceCreateResult, error) {
	if f.service != nil {
		return client.ServiceCreateResult{}, cerrdefs.ErrConflict
	}
	f.did("create %s", o.Spec.Name)
	f.service = &swarm.Service{ID: "s1", Spec: o.Spec}
	return client.ServiceCreateResult{ID: "s1"}, nil
}

func (f *fakeSwarm) ServiceInspect(context.Context, string, client.ServiceInspectOptions) (client.ServiceInspectResult, error) {
	if f.service == nil {
		return client.ServiceInspectResult{}, cerrdefs.ErrNotFound
	}
	found := *f.service
	if len(f.statuses) > 0 {
		if state := f.statuses[min(f.looked, len(f.statuses)-1)]; state != "" {
			found.UpdateStatus = &swarm.UpdateStatus{State: state}
		}
	}
	return client.ServiceInspectResult{Service: found}, nil
}

func (f *fakeSwarm) ServiceUpdate(_ context.Context, id string, o client.ServiceUpdateOptions) (client.ServiceUpdateResult, error) {
	f.did("update %s", id)
	f.updates = append(f.updates, o)
	f.service.Spec = o.Spec
	return client.ServiceUpdateResult{}, nil
}

func (f *fakeSwarm) ServiceRemove(_ context.Context, id string, _ client.ServiceRemoveOptions) (client.ServiceRemoveResult, error) {
	if f.service == nil {
		return client.ServiceRemoveResult{}, cerrdefs.ErrNotFound
	}
	f.did("remove %s", id)
	return client.ServiceRemoveResult{}, nil
}

func (f *fakeSwarm) TaskList(_ context.Context, o client.TaskListOptions) (client.TaskListResult, error) {
	if o.Filters != nil && o.Filters["_up-to-date"] == nil && len(f.updates) == 0 || len(f.tasks) == 0 { // before an update
		return client.TaskListResult{}, f.taskErr
	}
	tasks := f.tasks[min(f.looked, len(f.tasks)-1)]
	f.looked++
	return client.TaskListResult{Items: tasks}, f.taskErr
}

func (f *fakeSwarm) TaskLogs(ctx context.Context, id string, _ client.TaskLogsOptions) (client.TaskLogsResult, error) {
	return f.ContainerLogs(ctx, id, client.ContainerLogsOptions{})
}

func (f *fakeSwarm) NodeList(context.Context, client.NodeListOptions) (client.NodeListResult, error) {
	return client.NodeListResult{Items: f.nodes}, nil
}

func (f *fakeSwarm) named1(name string, data []byte) (string, error) {
	if f.named[name] != "" {
		return "", cerrdefs.ErrConflict
	}
	f.data = data
	return "new", nil
}

func (f *fakeSwarm) ConfigCreate(_ context.Context, o client.ConfigCreateOptions) (client.ConfigCreateResult, error) {
	id, err := f.named1(o.Spec.Name, o.Spec.Data)
	return client.ConfigCreateResult{ID: id}, err
}

func (f *fakeSwarm) SecretCreate(_ context.Context, o client.SecretCreateOptions) (client.SecretCreateResult, error) {
	id, err := f.named1(o.Spec.Name, o.Spec.Data)
	return client.SecretCreateResult{ID: id}, err
}

func (f *fakeSwarm) ConfigInspect(_ context.Context, name string, _ client.ConfigInspectOptions) (client.ConfigInspectResult, error) {
	if f.named[name] == "" {
		return client.ConfigInspectResult{}, cerrdefs.ErrNotFound
	}
	return client.ConfigInspectResult{Config: swarm.Config{ID: f.named[name]}}, nil
}

func (f *fakeSwarm) SecretInspect(_ context.Context, name string, _ client.SecretInspectOptions) (client.SecretInspectResult, error) {
	if f.named[name] == "" {
		return client.SecretInspectResult{}, cerrdefs.ErrNotFound
	}
	return client.SecretInspectResult{Secret: swarm.Secret{ID: f.named[name]}}, nil
}

func (f *fakeSwarm) ConfigRemove(_ context.Context, id string, _ client.ConfigRemoveOptions) (client.ConfigRemoveResult, error) {
	f.did("remove config %s", id)
	return client.ConfigRemoveResult{}, nil
}

func (f *fakeSwarm) SecretRemove(_ context.Context, id string, _ client.SecretRemoveOptions) (client.SecretRemoveResult, error) {
	f.did("remove secret %s", id)
	return client.SecretRemoveResult{}, nil
}

// task is a task in a place of its own, as a Swarm shows it.
func task(id string, slot int, state swarm.TaskState, err string) swarm.Task {
	t := swarm.Task{ID: id, ServiceID: "s1", Slot: slot, NodeID: "n1", DesiredState: swarm.TaskStateRunning}
	t.Status.State, t.Status.Err = state, err
	if state == swarm.TaskStateFailed {
		t.DesiredState = swarm.TaskStateShutdown
	}
	return t
}

// aService has two replicas.
var aService = map[string]any{
	"name": "stack_api", "convergeConfig": map[string]any{"timeout": "30s"}, "mode": map[string]any{"replicated": map[string]any{"replicas": 2}},
	"labels": []any{map[string]any{"label": stackLabel, "value": "test"}},
	"taskSpec": map[string]any{
		"containerSpec": map[string]any{
			"image": "sha256:one", "env": map[string]any{"B": "2", "A": secret("hunter2secret")}, "stopGracePeriod": "15s",
			"healthcheck": map[string]any{"tests": []any{"CMD", "probe"}, "interval": "1s"},
			"configs":     []any{map[string]any{"configId": "c", "configName": "c_1", "fileName": "/etc/x", "fileMode": 292}},
			"mounts":      []any{map[string]any{"type": "tmpfs", "target": "/tmp"}},
		},
	},
}

// converge makes or changes the service at a fake Swarm.
func (f *fakeSwarm) converge(t *testing.T, update bool) (state property.Map, partial *p.InitializationFailed, err error) {
	t.Helper()
	server := withEngine(t, f)
	if update {
		f.service = &swarm.Service{ID: "s1", Spec: swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "stack_api", Labels: map[string]string{stackLabel: "test"}}}}
		resp, err := server.Update(p.UpdateRequest{
			Urn: urnOf(serviceToken), ID: "s1", OldInputs: properties(aService), Inputs: properties(aService), State: properties(merged(aService, ourState)),
		})
		return resp.Properties, resp.PartialState, err
	}
	resp, err := server.Create(p.CreateRequest{Urn: urnOf(serviceToken), Properties: properties(aService)})
	return resp.Properties, resp.PartialState, err
}

func TestServiceConverges(t *testing.T) {
	t.Parallel()
	both := []swarm.Task{task("a", 1, swarm.TaskStateRunning, ""), task("b", 2, swarm.TaskStateRunning, "")}
	one := []swarm.Task{task("a", 1, swarm.TaskStateRunning, ""), task("b", 2, swarm.TaskStateStarting, "")}
	fails := func(ids ...string) (tasks []swarm.Task) {
		for _, id := range ids {
			tasks = append(tasks, task(id, 1, swarm.TaskStateFailed, "task: non-zero exit"))
		}
		return tasks
	}
	cases := map[string]struct {
		swarm  fakeSwarm
		update bool
		want   []string // of the failure; none is success
		within time.Duration
		kept   bool // a failed service that exists is recorded
	}{
		"until every task runs": {swarm: fakeSwarm{tasks: [][]swarm.Task{{}, one, both}}, within: 2 * time.Second},
		"one failure is none too many": {
			swarm: fakeSwarm{tasks: [][]swarm.Task{fails("x"), append(fails("x"), both...)}}, within: time.Second,
		},
		"not past the third failure in one place": {
			swarm: fakeSwarm{
				fakeEngine: fakeEngine{log: "one\nfatal: password hunter2secret\n"},
				tasks:      [][]swarm.Task{{}, fails("x"), fails("x", "y"), fails("x", "y", "z")},
			},
			want: []string{
				"service stack_api fails over and over: 3 times in 3s", "the task on node n1: task: non-zero exit",
				"fatal: password [secret]", "docker service ps --no-trunc stack_api",
			},
			within: 3 * time.Second, kept: true,
		},
		"a missing image names what to do": {
			swarm: fakeSwarm{tasks: [][]swarm.Task{{
				task("x", 1, swarm.TaskStateRejected, "No such image: sha256:one"), task("y", 1, swarm.TaskStateRejected, "No such image: sha256:one"),
				task("z", 1, swarm.TaskStateRejected, "No such image: sha256:one"),
			}}},
			want: []string{"No such image", "Fix: set `registry`, from which every node can pull"}, kept: true,
		},
		"no longer than its limit without progress": {
			swarm: fakeSwarm{tasks: [][]swarm.Task{{task("a", 1, swarm.TaskStatePending, "no suitable node (2 nodes not available)")}}},
			want:  []string{"has 0 of 2 tasks running after 30s", "no suitable node (2 nodes not available)", "Fix: `docker node ls`"}, within: 30 * time.Second, kept: true,
		},
		"an update until Swarm has completed it": {
			swarm:  fakeSwarm{tasks: [][]swarm.Task{both}, statuses: []swarm.UpdateState{swarm.UpdateStateUpdating, swarm.UpdateStateUpdating, swarm.UpdateStateUpdating, swarm.UpdateStateCompleted}},
			update: true, within: 3 * time.Second,
		},
		"an update that Swarm rolls back": {
			swarm: fakeSwarm{
				tasks:    [][]swarm.Task{fails("x")},
				statuses: []swarm.UpdateState{swarm.UpdateStateUpdating, swarm.UpdateStateRollbackStarted, swarm.UpdateStateRollbackCompleted},
			},
			update: true, within: 2 * time.Second,
			want: []string{"the update failed, and Swarm has gone back to the previous version, which runs", "the task on node n1: task: non-zero exit"},
		},
		"an update that stops in the middle": {
			swarm:  fakeSwarm{tasks: [][]swarm.Task{{}}, statuses: []swarm.UpdateState{swarm.UpdateStateRollbackPaused}},
			update: true, want: []string{"stopped in the middle of an update"}, kept: true,
		},
		"managers without a quorum": {
			swarm: fakeSwarm{taskErr: errors.New("rpc error: the swarm does not have a leader")},
			want:  []string{"does not have a leader"}, within: 30 * time.Second, kept: true,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, started := c.swarm, time.Now()
				state, partial, err := f.converge(t, c.update)
				assert.Equal(t, c.within, time.Since(started))
				if len(c.want) == 0 {
					require.NoError(t, err)
					require.Nil(t, partial)
					assert.NotEmpty(t, state.Get("specHash").AsString())
					assert.True(t, state.Get(driftKey).IsNull())
					return
				}
				text := ""
				if err != nil {
					text = err.Error()
				}
				if partial != nil {
					text = reason(t, partial)
				}
				for _, want := range c.want {
					assert.Contains(t, text, want)
				}
				assert.Equal(t, c.kept, partial != nil && drifted(state, "health"), "the next up goes on with it")
			})
		})
	}
}

func TestServiceSpec(t *testing.T) {
	t.Parallel()
	f := &fakeSwarm{tasks: [][]swarm.Task{{task("a", 1, swarm.TaskStateRunning, ""), task("b", 2, swarm.TaskStateRunning, "")}}}
	_, partial, err := f.converge(t, false)
	require.NoError(t, err)
	require.Nil(t, partial)
	c := f.service.Spec.TaskTemplate.ContainerSpec
	assert.Equal(t, []string{"A=hunter2secret", "B=2"}, c.Env)
	assert.Equal(t, time.Second, c.Healthcheck.Interval)
	assert.Equal(t, 15*time.Second, *c.StopGracePeriod)
	assert.Equal(t, "/etc/x", c.Configs[0].File.Name)
	assert.EqualValues(t, 0o444, c.Configs[0].File.Mode)
	assert.EqualValues(t, 2, *f.service.Spec.Mode.Replicated.Replicas)
}

func TestServiceCheck(t *testing.T) {
	t.Parallel()
	server := withEngine(t, &fakeSwarm{})
	assert.Empty(t, reasons(t, server, serviceToken, aService))
	assert.Contains(t, reasons(t, server, serviceToken, merged(aService, map[string]any{"mode": map[string]any{}})), "mode must be either global, or replicated")
	assert.Contains(t, reasons(t, server, serviceToken, merged(aService, map[string]any{"convergeConfig": nil})), "convergeConfig is required")
	assert.Contains(t, reasons(t, server, serviceToken, merged(aService, map[string]any{"auth": "x"})), "auth is not served")
	ports := map[string]any{"endpointSpec": map[string]any{"ports": []any{map[string]any{"targetPort": 0}}}}
	assert.Contains(t, reasons(t, server, serviceToken, merged(aService, ports)), "0 → 0/tcp is not a valid port")
	assert.Contains(t, reasons(t, server, configToken, map[string]any{"name": "a", "data": "?"}), "data must be base64")
	assert.Contains(t, reasons(t, server, secretToken, map[string]any{"name": "a", "data": ""}), "data must be base64")
}

// Another client's change shows as drift, and the next update undoes it; `docker service update --force` is none.
func TestServiceDrift(t *testing.T) {
	t.Parallel()
	f := &fakeSwarm{tasks: [][]swarm.Task{{task("a", 1, swarm.TaskStateRunning, ""), task("b", 2, swarm.TaskStateRunning, "")}}}
	state, _, err := f.converge(t, false)
	require.NoError(t, err)
	read := func() bool {
		resp, err := withEngine(t, f).Read(p.ReadRequest{Urn: urnOf(serviceToken), ID: "s1", Inputs: properties(aService), Properties: state})
		require.NoError(t, err)
		return drifted(resp.Properties, "spec")
	}
	assert.False(t, read())
	f.service.Spec.TaskTemplate.ForceUpdate = 3
	assert.False(t, read())
	f.service.Spec.Mode.Replicated.Replicas = new(uint64)
	assert.True(t, read())
	resp, err := withEngine(t, f).Update(p.UpdateRequest{
		Urn: urnOf(serviceToken), ID: "s1", OldInputs: properties(aService), Inputs: properties(aService), State: state,
	})
	require.NoError(t, err)
	assert.True(t, resp.Properties.Get(driftKey).IsNull())
	assert.EqualValues(t, 2, *f.service.Spec.Mode.Replicated.Replicas)
	assert.EqualValues(t, 3, f.updates[0].Spec.TaskTemplate.ForceUpdate, "its tasks are not replaced")
	assert.False(t, read())
}

func TestServiceOfThatNameExists(t *testing.T) {
	t.Parallel()
	running := [][]swarm.Task{{task("a", 1, swarm.TaskStateRunning, ""), task("b", 2, swarm.TaskStateRunning, "")}}
	with := func(labels map[string]string) *fakeSwarm {
		return &fakeSwarm{tasks: running, service: &swarm.Service{ID: "s0", Spec: swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "stack_api", Labels: labels}}}}
	}
	f := with(map[string]string{stackLabel: "test"})
	_, partial, err := f.converge(t, false)
	require.NoError(t, err)
	require.Nil(t, partial)
	assert.Equal(t, []string{"update s0"}, f.calls, "its own is taken over")
	f = with(map[string]string{stackLabel: "other"})
	_, _, err = f.converge(t, false)
	require.ErrorContains(t, err, "the name is used by a service that does not belong to this stack")
	require.ErrorContains(t, err, "docker service rm stack_api")
	assert.Empty(t, f.calls)
}

func TestServiceRemoval(t *testing.T) {
	t.Parallel()
	up, down := swarm.Node{ID: "n1"}, swarm.Node{ID: "n1"}
	up.Status.State, down.Status.State = swarm.NodeStateReady, swarm.NodeStateDown
	cases := map[string]struct {
		node   swarm.Node
		tasks  [][]swarm.Task
		within time.Duration
		want   string
	}{
		"waits until its tasks have ended": {up, [][]swarm.Task{{task("a", 1, swarm.TaskStateRunning, "")}, {task("a", 1, swarm.TaskStateShutdown, "")}}, 200 * time.Millisecond, ""},
		"does not wait for a lost node":    {down, [][]swarm.Task{{task("a", 1, swarm.TaskStateRunning, "")}}, 0, ""},
		"does not wait forever":            {up, [][]swarm.Task{{task("a", 1, swarm.TaskStateRunning, "")}}, 45 * time.Second, "its tasks have not ended within 45s"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, started := &fakeSwarm{service: &swarm.Service{ID: "s1"}, tasks: c.tasks, nodes: []swarm.Node{c.node}}, time.Now()
				err := withEngine(t, f).Delete(p.DeleteRequest{
					Urn: urnOf(serviceToken), ID: "s1", OldInputs: properties(aService), Properties: properties(merged(aService, ourState)),
				})
				assert.Equal(t, c.within, time.Since(started))
				if c.want == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, c.want)
				}
			})
		})
	}
	gone := &fakeSwarm{}
	require.NoError(t, withEngine(t, gone).Delete(p.DeleteRequest{
		Urn: urnOf(serviceToken), ID: "s1", OldInputs: properties(aService), Properties: properties(merged(aService, ourState)),
	}))
}

func TestConfigsAndSecrets(t *testing.T) {
	t.Parallel()
	for _, token := range []string{configToken, secretToken} {
		inputs := map[string]any{"name": "stack_1", "data": base64.StdEncoding.EncodeToString([]byte("text"))}
		f := &fakeSwarm{named: map[string]string{}}
		made, err := withEngine(t, f).Create(p.CreateRequest{Urn: urnOf(token), Properties: properties(inputs)})
		require.NoError(t, err)
		assert.Equal(t, "new", made.ID)
		assert.Equal(t, "text", string(f.data))

		f.named["stack_1"] = "old"
		made, err = withEngine(t, f).Create(p.CreateRequest{Urn: urnOf(token), Properties: properties(inputs)})
		require.NoError(t, err)
		assert.Equal(t, "old", made.ID, "its name says that it has the same content")

		read, err := withEngine(t, f).Read(p.ReadRequest{Urn: urnOf(token), ID: "gone", Inputs: properties(inputs), Properties: properties(merged(inputs, ourState))})
		require.NoError(t, err)
		assert.Empty(t, read.ID)

		diff, err := withEngine(t, f).Diff(p.DiffRequest{
			Urn: urnOf(token), ID: "old", OldInputs: properties(inputs), Inputs: properties(merged(inputs, map[string]any{"name": "stack_2"})),
			State: properties(merged(inputs, ourState)),
		})
		require.NoError(t, err)
		assert.Equal(t, p.UpdateReplace, diff.DetailedDiff["name"].Kind)
		assert.False(t, diff.DeleteBeforeReplace, "the service uses it until it has the new one")
		require.NoError(t, withEngine(t, f).Delete(p.DeleteRequest{Urn: urnOf(token), ID: "old", OldInputs: properties(inputs), Properties: properties(merged(inputs, ourState))}))
		assert.Len(t, f.calls, 1)
	}
}
