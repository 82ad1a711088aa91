// Package operate is what people do with the services of a running stack, by their names: read their logs, restart, stop and
// start them, and run a command in one. `platform status` shows what this leaves changed, and `platform up` repairs it.
package operate

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"trading-platform/fault"
	"trading-platform/plan"
)

// Container is a container of a plan.
type Container struct {
	Name    string // on the engine
	Replica string // its service, with a suffix for the second and further replicas
	service plan.Service
}

// Names returns the names that Containers knows: those of the services, and of their replicas.
func Names(p *plan.Plan) (names []string) {
	for _, s := range p.Services {
		for _, c := range s.Containers {
			names = append(names, strings.TrimPrefix(c, p.NamePrefix+"_"))
		}
	}
	return names
}

// Containers returns the containers of the named services and replicas, or all of the plan if none is named.
func Containers(p *plan.Plan, names []string) (found []Container, err error) {
	var faults fault.List
	known := Names(p)
	for _, name := range names {
		if !slices.Contains(known, name) {
			faults.Add("service "+name, "make plan STACK="+p.Stack+" lists the services", "is not in stack %s%s", p.Stack, fault.DidYouMean(name, known))
		}
	}
	for _, s := range p.Services {
		for _, c := range s.Containers {
			replica := strings.TrimPrefix(c, p.NamePrefix+"_")
			if len(names) == 0 || slices.Contains(names, s.Name) || slices.Contains(names, replica) {
				found = append(found, Container{Name: c, Replica: replica, service: s})
			}
		}
	}
	return found, faults.Err()
}

// Restart restarts containers, and returns when they are healthy again.
func Restart(ctx context.Context, engine client.APIClient, containers []Container) error {
	return each(ctx, engine, containers, func(ctx context.Context, c Container) error {
		grace := int(c.service.Grace.Seconds())
		_, err := engine.ContainerRestart(ctx, c.Name, client.ContainerRestartOptions{Timeout: &grace})
		return err
	}, healthy)
}

// Start starts containers that are stopped, and returns when they are healthy.
func Start(ctx context.Context, engine client.APIClient, containers []Container) error {
	return each(ctx, engine, containers, func(ctx context.Context, c Container) error {
		_, err := engine.ContainerStart(ctx, c.Name, client.ContainerStartOptions{})
		return err
	}, healthy)
}

// Stop stops containers, each within the grace period of its service.
func Stop(ctx context.Context, engine client.APIClient, containers []Container) error {
	return each(ctx, engine, containers, func(ctx context.Context, c Container) error {
		grace := int(c.service.Grace.Seconds())
		_, err := engine.ContainerStop(ctx, c.Name, client.ContainerStopOptions{Timeout: &grace})
		return err
	})
}

// each calls the steps for every container, all containers at the same time.
func each(ctx context.Context, engine client.APIClient, containers []Container, do func(context.Context, Container) error,
	then ...func(context.Context, client.APIClient, Container) error,
) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range containers {
		group.Go(func() error {
			if err := do(ctx, c); cerrdefs.IsNotFound(err) {
				return fmt.Errorf("container %s does not exist. Fix: bring the stack up: make up", c.Name)
			} else if err != nil {
				return fmt.Errorf("container %s: %w", c.Name, err)
			}
			for _, step := range then {
				if err := step(ctx, engine, c); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// healthy waits until a container is healthy.
func healthy(ctx context.Context, engine client.APIClient, c Container) error {
	ctx, cancel := context.WithTimeout(ctx, c.service.Probe.WaitTimeout())
	defer cancel()
	for {
		found, err := engine.ContainerInspect(ctx, c.Name, client.ContainerInspectOptions{})
		if err != nil {
			return fmt.Errorf("container %s: %w", c.Name, err)
		}
		state := found.Container.State
		if state.Health == nil && state.Running || state.Health != nil && state.Health.Status == container.Healthy {
			return nil
		}
		if !state.Running && !state.Restarting || state.Health != nil && state.Health.Status == container.Unhealthy {
			return fmt.Errorf("container %s is not healthy. Fix: platform logs --tail 50 %s", c.Name, c.Replica)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("container %s is not healthy yet. Fix: platform logs --tail 50 %s", c.Name, c.Replica)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Exec runs a command in a container with the docker command, at a terminal with one of its own. Its exit code is in an *exec.ExitError.
func Exec(host string, c Container, command []string) error {
	docker, err := exec.LookPath("docker")
	if err != nil {
		return fmt.Errorf("this needs the docker command: %w. Fix: https://docs.docker.com/engine/install", err)
	}
	line := []string{"-H", host, "exec", "-i"}
	if term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())) {
		line = append(line, "-t")
	}
	cmd := exec.Command(docker, append(append(line, c.Name), command...)...) //nolint:gosec // what the user asks for
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
