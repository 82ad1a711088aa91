// Package operate is what people do with the services of a running stack, by their names: read their logs, restart, stop and
// start them, and run a command in one. `platform status` shows what this leaves changed, and `platform up` repairs it.
package operate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/term"

	engines "trading-platform/engine"
	"trading-platform/fault"
	"trading-platform/plan"
)

// Services are services of a running stack.
type Services struct {
	Engine     client.APIClient
	Here       engines.Ref // the engine's address, for the docker command
	Plan       *plan.Plan
	Containers []Container
}

// Container is a container of a plan.
type Container struct {
	Name    string // on the engine
	Replica string // its service, with a suffix for the second and further replicas
	service plan.Service
}

// Names returns the names that Select knows: those of the services, and of their replicas.
func Names(p *plan.Plan) (names []string) {
	for _, s := range p.Services {
		names = append(names, s.Name)
		for _, c := range s.Containers[1:] {
			names = append(names, strings.TrimPrefix(c, p.NamePrefix+"_"))
		}
	}
	return names
}

// Select returns the named services and replicas, or all of the plan if none is named.
func Select(engine client.APIClient, here engines.Ref, p *plan.Plan, names []string) (*Services, error) {
	var faults fault.List
	known := Names(p)
	for _, name := range names {
		if !slices.Contains(known, name) {
			faults.Add("service "+name, "make plan STACK="+p.Stack+" lists the services", "is not in stack %s%s", p.Stack, fault.DidYouMean(name, known))
		}
	}
	s := &Services{Engine: engine, Here: here, Plan: p}
	for _, service := range p.Services {
		for _, c := range service.Containers {
			replica := strings.TrimPrefix(c, p.NamePrefix+"_")
			if len(names) == 0 || slices.Contains(names, service.Name) || slices.Contains(names, replica) {
				s.Containers = append(s.Containers, Container{Name: c, Replica: replica, service: service})
			}
		}
	}
	return s, faults.Err()
}

// Restart restarts the services, and returns when they are healthy again.
func (s *Services) Restart(ctx context.Context) error {
	return s.each(ctx, true, func(id string, grace *int) error {
		_, err := s.Engine.ContainerRestart(ctx, id, client.ContainerRestartOptions{Timeout: grace})
		return err
	})
}

// Start starts services that are stopped, and returns when they are healthy.
func (s *Services) Start(ctx context.Context) error {
	return s.each(ctx, true, func(id string, _ *int) error {
		_, err := s.Engine.ContainerStart(ctx, id, client.ContainerStartOptions{})
		return err
	})
}

// Stop stops the services, each within its grace period.
func (s *Services) Stop(ctx context.Context) error {
	return s.each(ctx, false, func(id string, grace *int) error {
		_, err := s.Engine.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: grace})
		return err
	})
}

// each changes all containers at the same time, and can wait until they are healthy. It touches no container of another stack
// that has such a name, and returns all errors.
func (s *Services) each(ctx context.Context, wait bool, change func(id string, grace *int) error) error {
	errs := make([]error, len(s.Containers))
	var all sync.WaitGroup
	for i, c := range s.Containers {
		all.Go(func() {
			id, err := s.id(ctx, c)
			grace := int(c.service.Grace.Seconds())
			if err != nil {
				errs[i] = err
			} else if err := change(id, &grace); err != nil {
				errs[i] = fmt.Errorf("container %s: %w. Fix: make up STACK=%s repairs what it can", c.Name, err, s.Plan.Stack)
			} else if wait {
				errs[i] = s.healthy(ctx, c, id)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// Exist returns an error if one of the containers does not exist.
func (s *Services) Exist(ctx context.Context) error {
	return s.each(ctx, false, func(string, *int) error { return nil })
}

// id returns the ID of a container on the engine. It is an error if it does not exist, or if it is not of this stack.
func (s *Services) id(ctx context.Context, c Container) (string, error) {
	found, err := s.Engine.ContainerInspect(ctx, c.Name, client.ContainerInspectOptions{})
	if cerrdefs.IsNotFound(err) || err == nil && !s.Plan.Owns(found.Container.Config.Labels) {
		return "", fmt.Errorf("container %s of stack %s does not exist. Fix: make up STACK=%s", c.Name, s.Plan.Stack, s.Plan.Stack)
	} else if err != nil {
		return "", fmt.Errorf("container %s: %w", c.Name, err)
	}
	return found.Container.ID, nil
}

// healthy waits until a container is healthy.
func (s *Services) healthy(ctx context.Context, c Container, id string) error {
	for deadline := time.Now().Add(c.service.Probe.WaitTimeout()); ; time.Sleep(200 * time.Millisecond) {
		found, err := s.Engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err != nil {
			return fmt.Errorf("container %s: %w", c.Name, err)
		}
		state := found.Container.State
		health := container.Healthy // of a container without a healthcheck
		if state.Health != nil {
			health = state.Health.Status
		}
		switch {
		case !c.service.Once && state.Running && health == container.Healthy, c.service.Once && !state.Running && state.ExitCode == 0:
			return nil
		case !state.Running && !state.Restarting, health == container.Unhealthy, time.Now().After(deadline):
			return fmt.Errorf("container %s is not healthy. Fix: platform logs -s %s --tail 50 %s", c.Name, s.Plan.Stack, c.Replica)
		}
	}
}

// Exec runs a command in the first container of the services with the docker command, at a terminal with one of its own. Its
// exit code is in an *exec.ExitError.
func (s *Services) Exec(ctx context.Context, command []string) error {
	id, err := s.id(ctx, s.Containers[0])
	if err != nil {
		return err
	}
	docker, err := exec.LookPath("docker")
	if err != nil {
		return fmt.Errorf("this needs the docker command: %w. Fix: https://docs.docker.com/engine/install", err)
	}
	line := append(s.Here.DockerFlags(), "exec", "-i")
	if term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())) {
		line = append(line, "-t")
	}
	cmd := exec.Command(docker, append(append(line, id), command...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
