package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
)

// serviceState is what the state records of a service besides its inputs.
type serviceState struct {
	// Drift is as in containerState.
	Drift map[string]string `pulumi:"drift,optional"`
	// SpecHash is a hash of what the engine had of the service, by which a read finds changes by others.
	SpecHash string `pulumi:"specHash,optional"`
}

// services are docker.Service. The ID is the Swarm's.
var services = &kind[serviceArgs, serviceState]{
	module: "index/service", name: "Service",
	check: func(_ context.Context, args *serviceArgs) []string { _, faults := serviceSpec(*args); return faults },
	create: func(ctx context.Context, c call, args serviceArgs) (string, serviceState, error) {
		id, err := createService(ctx, c, args)
		state, err := c.serviceOutcome(ctx, id, err)
		return id, state, err
	},
	read: readService,
	update: func(ctx context.Context, c call, id string, args serviceArgs, _ serviceState) (serviceState, error) {
		return c.serviceOutcome(ctx, id, updateService(ctx, c, id, args))
	},
	remove: removeService,
}

// serviceOutcome is the state after a create or an update.
func (c call) serviceOutcome(ctx context.Context, id string, err error) (serviceState, error) {
	state := serviceState{Drift: outcome(err).Drift}
	if found, inspectErr := c.engine.ServiceInspect(context.WithoutCancel(ctx), id, client.ServiceInspectOptions{}); inspectErr == nil {
		state.SpecHash = hashOfService(found.Service)
	}
	return state, err
}

// hashOfService ignores how often somebody has restarted the service with `docker service update --force`.
func hashOfService(s swarm.Service) string {
	s.Spec.TaskTemplate.ForceUpdate = 0
	return specHash(s.Spec)
}

// createService creates the service, or takes over the one that this stack created before, and waits until it runs.
func createService(ctx context.Context, c call, args serviceArgs) (string, error) {
	spec, _ := serviceSpec(args)
	login, err := registryAuth(spec.TaskTemplate.ContainerSpec.Image)
	if err != nil {
		return "", err
	}
	made, err := c.engine.ServiceCreate(ctx, client.ServiceCreateOptions{Spec: spec, EncodedRegistryAuth: login})
	if err == nil {
		return made.ID, newServiceWatch(c, args, made.ID, nil).wait(ctx)
	} else if !exists(err) {
		return "", err
	}
	found, err := c.engine.ServiceInspect(ctx, args.Name, client.ServiceInspectOptions{})
	if err != nil {
		return "", err
	}
	if !isOurs(found.Service.Spec.Labels, spec.Labels) {
		return "", fmt.Errorf("service %s: the name is used by a service that does not belong to this stack\n"+
			"Fix: `docker service rm %[1]s` removes it (volumes stay), or give this stack another namePrefix", args.Name)
	}
	c.takenOver.Store(found.Service.ID, c.urn)
	return found.Service.ID, updateService(ctx, c, found.Service.ID, args)
}

// updateService changes the service, and waits until Swarm has replaced its tasks. Swarm itself goes back to the previous
// specification if one of the new tasks fails: then the error makes Pulumi keep the previous inputs as well.
func updateService(ctx context.Context, c call, id string, args serviceArgs) error {
	spec, _ := serviceSpec(args)
	login, err := registryAuth(spec.TaskTemplate.ContainerSpec.Image)
	if err != nil {
		return err
	}
	found, err := c.engine.ServiceInspect(ctx, id, client.ServiceInspectOptions{})
	if err != nil {
		return err
	}
	before, err := c.engine.TaskList(ctx, client.TaskListOptions{Filters: client.Filters{}.Add("service", id)})
	if err != nil {
		return err
	}
	spec.TaskTemplate.ForceUpdate = found.Service.Spec.TaskTemplate.ForceUpdate // or the tasks would be replaced
	_, err = c.engine.ServiceUpdate(ctx, id, client.ServiceUpdateOptions{Version: found.Service.Version, Spec: spec, EncodedRegistryAuth: login})
	if err != nil {
		return err
	}
	return newServiceWatch(c, args, id, before.Items).wait(ctx)
}

// readService finds out whether somebody else has changed the service.
func readService(ctx context.Context, c call, id string, _ serviceArgs, state serviceState) (serviceState, error) {
	found, err := c.engine.ServiceInspect(ctx, id, client.ServiceInspectOptions{})
	if err != nil {
		return state, err
	}
	if state.SpecHash != "" && state.SpecHash != hashOfService(found.Service) {
		state.Drift = map[string]string{"spec": "changed by another client"}
	}
	return state, nil
}

// stopSlack is how long the end of a service's tasks may take beyond their grace time.
const stopSlack = 30 * time.Second

// removeService removes the service, and waits until its tasks have ended: they use its networks and volumes. It does not wait
// for a node that is down.
func removeService(ctx context.Context, c call, id string, args serviceArgs) error {
	if _, err := c.engine.ServiceRemove(ctx, id, client.ServiceRemoveOptions{}); err != nil {
		return err
	}
	grace := args.TaskSpec.ContainerSpec.StopGracePeriod.value()
	c.log.InfoStatusf("stopping %s, up to %s", args.Name, seconds(grace))
	ctx, cancel := context.WithTimeout(ctx, grace+stopSlack)
	defer cancel()
	nodes, err := c.engine.NodeList(ctx, client.NodeListOptions{})
	if err != nil {
		return err
	}
	runs := []swarm.TaskState{swarm.TaskStatePreparing, swarm.TaskStateReady, swarm.TaskStateStarting, swarm.TaskStateRunning}
	alive := func(t swarm.Task) bool {
		return t.ServiceID == id && slices.Contains(runs, t.Status.State) && slices.ContainsFunc(nodes.Items, func(n swarm.Node) bool {
			return n.ID == t.NodeID && n.Status.State == swarm.NodeStateReady
		})
	}
	for {
		tasks, err := c.engine.TaskList(ctx, client.TaskListOptions{}) // no filter finds those of a service that is gone
		if err != nil || !slices.ContainsFunc(tasks.Items, alive) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("its tasks have not ended within %s\nFix: `docker node ls` shows whether all nodes answer; then run this again", seconds(grace+stopSlack))
		case <-time.After(pollEvery / 5):
		}
	}
}

// serviceWatch follows a service until all its tasks run, or it has failed. A task runs when its container is healthy.
type serviceWatch struct {
	c       call
	args    serviceArgs
	id      string
	started time.Time
	limit   time.Duration // without another task that runs
	running int
	// progress is when the number of running tasks last changed.
	progress time.Time
	// answered is when the engine last answered.
	answered time.Time
	// known are the tasks that had failed before, and those whose failure has been reported.
	known map[string]bool
	// failures counts how often the task in each place has failed.
	failures map[string]int
	// last is the task that failed last.
	last *swarm.Task
	// waiting says why a task does not start; empty if there is no such task.
	waiting string
}

func newServiceWatch(c call, args serviceArgs, id string, before []swarm.Task) *serviceWatch {
	w := &serviceWatch{
		c: c, args: args, id: id, started: time.Now(), progress: time.Now(), answered: time.Now(), limit: args.ConvergeConfig.Timeout.value(),
		known: map[string]bool{}, failures: map[string]int{},
	}
	for _, t := range before {
		w.known[t.ID] = true
	}
	return w
}

// wait returns nil once all tasks run. Events say when to look: those of the service, and, as a Swarm has none of its tasks,
// those of the containers on this node. A look at each interval finds what happens on other nodes.
func (w *serviceWatch) wait(ctx context.Context) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	happens := w.c.engine.Events(watching, client.EventsListOptions{Filters: client.Filters{}.
		Add("type", string(events.ServiceEventType), string(events.ContainerEventType)).
		Add("event", string(events.ActionUpdate), string(events.ActionDie), string(events.ActionHealthStatus))})
	messages, streamEnd := happens.Messages, happens.Err
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for look := true; ; {
		if look {
			if done, err := w.look(ctx); done || err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return w.unfinished("was still starting when the run was cancelled")
		case message := <-messages:
			look = message.Actor.ID == w.id || message.Actor.Attributes["com.docker.swarm.service.id"] == w.id
		case <-streamEnd: //nolint:errcheck // without events, the looks go on at each interval
			messages, streamEnd, look = nil, nil, false
		case <-tick.C:
			look = true
		}
	}
}

// look asks the Swarm once. It reports whether all tasks run; an error means that they will not.
func (w *serviceWatch) look(ctx context.Context) (done bool, err error) {
	asking, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	found, err := w.c.engine.ServiceInspect(asking, w.id, client.ServiceInspectOptions{})
	var tasks client.TaskListResult
	var status swarm.UpdateStatus
	if err == nil {
		if found.Service.UpdateStatus != nil {
			status = *found.Service.UpdateStatus
		}
		filters := client.Filters{}.Add("service", w.id)
		if !strings.HasPrefix(string(status.State), "rollback") { // then those of the update tell why
			filters.Add("_up-to-date", "true") // those of an earlier specification do not count
		}
		tasks, err = w.c.engine.TaskList(asking, client.TaskListOptions{Filters: filters})
	}
	age := time.Since(w.started)
	switch {
	case err == nil:
		w.answered = time.Now()
	case ctx.Err() != nil:
		return false, nil // wait ends
	case cerrdefs.IsNotFound(err):
		return false, errors.New("the service was removed while it started; the next `pulumi up` creates it again")
	case age < w.limit && time.Since(w.answered) < silenceLimit:
		w.c.log.InfoStatusf("%s: asking the engine again: %v", w.args.Name, err)
		return false, nil
	default:
		return false, w.unfinished(fmt.Sprintf("could not be inspected for %s: %v", seconds(time.Since(w.answered)), err))
	}
	running, wanted := w.count(ctx, found.Service, tasks.Items)
	if running != w.running {
		w.running, w.progress = running, time.Now()
	}
	switch {
	case status.State == swarm.UpdateStateRollbackCompleted:
		return false, errors.New("the update failed, and Swarm has gone back to the previous version, which runs\n" + w.reason(ctx))
	case status.State == swarm.UpdateStatePaused, status.State == swarm.UpdateStateRollbackPaused:
		return false, w.failed(ctx, "stopped in the middle of an update: "+status.Message)
	case status.State == swarm.UpdateStateUpdating, status.State == swarm.UpdateStateRollbackStarted: // Swarm ends it itself
	case running >= wanted && wanted > 0:
		return true, nil
	default:
		for _, times := range w.failures {
			if times >= maxRestarts {
				return false, w.failed(ctx, fmt.Sprintf("fails over and over: %d times in %s", times, seconds(age)))
			}
		}
	}
	if time.Since(w.progress) >= w.limit {
		return false, w.failed(ctx, fmt.Sprintf("has %d of %d tasks running after %s", running, wanted, seconds(age)))
	}
	text := fmt.Sprintf("%s: %d of %d tasks run after %s", w.args.Name, running, wanted, seconds(age))
	if status.State != "" {
		text += ", " + strings.ReplaceAll(string(status.State), "_", " ")
	}
	if w.waiting != "" {
		text += ": " + w.waiting
	}
	w.c.log.InfoStatusf("%s", text)
	return false, nil
}

// count returns how many tasks run, and how many should. It reports each failure when it first sees it.
func (w *serviceWatch) count(ctx context.Context, s swarm.Service, tasks []swarm.Task) (running, wanted int) {
	w.waiting = ""
	for _, t := range tasks {
		if s.Spec.Mode.Global != nil && t.DesiredState == swarm.TaskStateRunning {
			wanted++
		}
		switch {
		case t.DesiredState == swarm.TaskStateRunning && t.Status.State == swarm.TaskStateRunning:
			running++
		case t.Status.State == swarm.TaskStatePending:
			w.waiting = t.Status.Err
		case (t.Status.State == swarm.TaskStateFailed || t.Status.State == swarm.TaskStateRejected) && !w.known[t.ID]:
			w.known[t.ID], w.last = true, &t
			place := t.NodeID
			if t.Slot > 0 {
				place = strconv.Itoa(t.Slot)
			}
			if w.failures[place]++; len(w.failures) == 1 && w.failures[place] == 1 {
				w.c.log.Warningf("%s: a task has failed after %s, Swarm starts another one\n%s", w.args.Name, seconds(time.Since(w.started)), w.reason(ctx))
			}
		}
	}
	if replicated := s.Spec.Mode.Replicated; replicated != nil && replicated.Replicas != nil {
		wanted = int(*replicated.Replicas) //nolint:gosec // far below
	}
	return running, wanted
}

// reason says why the last task failed, with the last lines of its log.
func (w *serviceWatch) reason(ctx context.Context) string {
	if w.last == nil {
		return strings.TrimSpace(w.waiting + swarmFix(w.waiting))
	}
	text := w.last.Status.Err
	if status := w.last.Status.ContainerStatus; status != nil && status.ExitCode != 0 {
		text += fmt.Sprintf(", exit code %d", status.ExitCode)
	}
	text = fmt.Sprintf("the task on node %s: %s%s", w.last.NodeID, text, swarmFix(text))
	ctx, cancel := context.WithTimeout(ctx, askLimit) // its node may not answer
	defer cancel()
	stream, err := w.c.engine.TaskLogs(ctx, w.last.ID, client.TaskLogsOptions{ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(logLines)})
	if err != nil {
		return text
	}
	defer func() { _ = stream.Close() }()
	var log bytes.Buffer
	if _, err := stdcopy.StdCopy(&log, &log, stream); err != nil && log.Len() == 0 || strings.TrimSpace(log.String()) == "" {
		return text
	}
	return text + "\nlast lines of its log:" + lastLines(w.c.redact(log.String()))
}

// failed says what happened. The service stays, and the next up goes on with it.
func (w *serviceWatch) failed(ctx context.Context, what string) error {
	return &initError{
		reason: fmt.Sprintf("service %s %s\n%s\nFix: the service stays for inspection (`docker service ps --no-trunc %[1]s`); "+
			"remove the cause, and run `pulumi up` again", w.args.Name, what, w.reason(ctx)),
		summary: what, resumable: true,
	}
}

// unfinished returns the error of a wait without a result: the service may be all right.
func (w *serviceWatch) unfinished(what string) error {
	return &initError{reason: fmt.Sprintf("service %s %s; the next `pulumi up` goes on with it", w.args.Name, what), summary: what, resumable: true}
}
