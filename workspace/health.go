package workspace

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"trading-platform/fault"
	"trading-platform/observe"
	"trading-platform/plan"
)

const (
	// pollInterval is the time between two checks of containers that are not healthy yet.
	pollInterval = 500 * time.Millisecond
	// recoveryTime is how long an unhealthy container has to recover by itself, for example
	// because a service that it needs was just started: three intervals of its probe.
	recoveryTime = 45 * time.Second
)

// awaitHealthy returns when every container of the plan is healthy. It restarts one that
// stays unhealthy once. The error has the last output of those that do not recover.
func (r *run) awaitHealthy(ctx context.Context, p *plan.Plan) error {
	if r.allHealthy(ctx, p) {
		return nil // as usual: the provider has waited
	}
	if p.OnSwarm() {
		return r.awaitServices(ctx, p)
	}
	started, answered, restarted := time.Now(), time.Now(), map[string]time.Time{}
	for {
		var faults fault.List
		waiting := ""
		for _, s := range p.Services {
			for _, name := range s.Containers {
				found, err := r.engine.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
				if err != nil && !cerrdefs.IsNotFound(err) && ctx.Err() == nil && time.Since(answered) < recoveryTime {
					waiting = name + " cannot be inspected: " + err.Error() // for example while the engine restarts
					continue
				}
				if err != nil {
					return fmt.Errorf("container %s: %w. Fix: make sure that `docker info` works, then run `make up STACK=%s` to continue", name, err, r.stack)
				}
				answered = time.Now()
				state, again := found.Container.State, restarted[name]
				switch {
				case s.Once && state.Status == container.StateExited && state.ExitCode == 0:
					continue
				case s.Once && state.Status == container.StateExited:
					faults.Add("container "+name, "remove the cause, then: make up STACK="+r.stack, "exit code %d%s", state.ExitCode, r.lastOutput(ctx, name, state))
					continue
				case state.Running && !s.Once && !state.Paused && (state.Health == nil || state.Health.Status == container.Healthy):
					continue
				case again.IsZero() && state.Health != nil && state.Health.Status == container.Unhealthy && time.Since(started) > recoveryTime:
					r.say(name + " stays unhealthy: restarting it")
					grace := int(s.Grace.Seconds())
					if _, err := r.engine.ContainerRestart(ctx, name, client.ContainerRestartOptions{Timeout: &grace}); err != nil {
						return fmt.Errorf("container %s: %w", name, err)
					}
					restarted[name] = time.Now()
				case time.Since(cmp.Or(again, started)) > s.Probe.WaitTimeout(), !again.IsZero() && state.Health.Status == container.Unhealthy:
					faults.Add("container "+name, "docker logs "+name+", and when the cause is gone: make up STACK="+r.stack,
						"%s%s", condition(state), r.lastOutput(ctx, name, state))
					continue
				}
				waiting = name + " is " + condition(state)
			}
		}
		if waiting == "" {
			if len(faults) > 0 {
				return errors.New("the stack is not healthy:" + faults.Lines())
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("interrupted: %s", waiting)
		case <-time.After(pollInterval):
		}
	}
}

// allHealthy asks the engine whether every container of the plan is healthy, or has ended as its service does.
func (r *run) allHealthy(ctx context.Context, p *plan.Plan) bool {
	if p.OnSwarm() {
		statuses, err := observe.Statuses(ctx, r.engine, p)
		return err == nil && !slices.ContainsFunc(statuses, notHealthy)
	}
	var running, ended []string
	for _, s := range p.Services {
		if s.Once {
			ended = append(ended, s.Containers...)
		} else {
			running = append(running, s.Containers...)
		}
	}
	all, err := observe.All(ctx, r.engine, p.Stack, running, client.Filters{}.Add("status", "running").Add("health", "healthy"))
	if all && err == nil && len(ended) > 0 {
		all, err = observe.All(ctx, r.engine, p.Stack, ended, client.Filters{}.Add("status", "exited").Add("exited", "0"))
	}
	return all && err == nil
}

func notHealthy(s observe.Status) bool { return s.Health != "healthy" }

// awaitServices returns when all tasks of a Swarm's services run. The Swarm itself restarts what fails, and starts elsewhere what
// a lost node ran.
func (r *run) awaitServices(ctx context.Context, p *plan.Plan) error {
	longest := time.Duration(0)
	for _, s := range p.Services {
		longest = max(longest, s.Probe.WaitTimeout())
	}
	for deadline := time.Now().Add(longest); ; {
		statuses, err := observe.Statuses(ctx, r.engine, p)
		if err != nil {
			return err
		}
		late := slices.DeleteFunc(statuses, func(s observe.Status) bool { return !notHealthy(s) })
		if len(late) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			var faults fault.List
			for _, s := range late {
				faults.Add("service "+s.Container, "docker service ps --no-trunc "+s.Container+", and when the cause is gone: make up STACK="+r.stack,
					"%s", cmp.Or(s.State, s.Health))
			}
			return errors.New("the stack is not healthy:" + faults.Lines())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("interrupted: %s has %s", late[0].Container, late[0].State)
		case <-time.After(pollInterval):
		}
	}
}

// condition is a container's health, or its state if it has none or does not run.
func condition(state *container.State) string {
	if state.Running && !state.Paused && state.Health != nil {
		return string(state.Health.Status)
	}
	return string(state.Status)
}

// lastOutput returns the output of the last probe and the end of the container's log.
func (r *run) lastOutput(ctx context.Context, name string, state *container.State) string {
	text := ""
	if state.Health != nil && len(state.Health.Log) > 0 {
		text += "; its last probe: " + strings.TrimSpace(state.Health.Log[len(state.Health.Log)-1].Output)
	}
	stream, err := r.engine.ContainerLogs(ctx, name, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "10"})
	if err != nil {
		return text
	}
	defer func() { _ = stream.Close() }()
	var log bytes.Buffer
	if _, err := stdcopy.StdCopy(&log, &log, stream); err != nil {
		return text
	}
	return text + "\n     last lines of its log:\n       " + strings.ReplaceAll(strings.TrimSpace(log.String()), "\n", "\n       ")
}
