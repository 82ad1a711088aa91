// Package backup saves a stack's data in one file and restores it, moves it to
// another major version of PostgreSQL, and deletes it.
package backup

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/docker/go-units"
	"github.com/gofrs/flock"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"trading-platform/fault"
	"trading-platform/observe"
	"trading-platform/plan"
)

// Stack is a stack, and what is needed to change its data. Lock must be held while another method runs.
type Stack struct {
	Engine *client.Client
	Plan   *plan.Plan
	Say    func(string) // shows progress to the user
	// SetVolumes writes the stack's setting `volumes`, by the volume's name in the
	// catalog, in one atomic step.
	SetVolumes func(map[string]string) error
	// Up brings the stack up with its current settings.
	Up func(context.Context) error
}

// refuse returns the error of an operation that has changed nothing.
func refuse(where, fix, what string, args ...any) error {
	var faults fault.List
	faults.Add(where, fix, what, args...)
	return faults.Err()
}

// Lock excludes other operations on the stack's data, which use the same file, until unlock is called. A killed
// process loses its lock, so Lock removes whatever such a process left on the engine.
func (s *Stack) Lock(ctx context.Context, file string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil { // a stack that was never up has no folder yet
		return nil, err
	}
	lock := flock.New(file)
	if locked, err := lock.TryLock(); err != nil {
		return nil, err
	} else if !locked {
		return nil, refuse("stack "+s.Plan.Stack, "wait until it has ended", "a backup, restore, upgrade or purge of this stack is running (it holds %s)", file)
	}
	unlock = func() { _ = lock.Unlock() }
	if err := s.sweep(ctx); err != nil {
		unlock()
		return nil, fmt.Errorf("removing what an interrupted run left: %w", err)
	}
	return unlock, nil
}

// Backup saves the data of the running stack in a new file. PostgreSQL and Redis
// produce snapshots; the containers that write to the other volumes are paused
// while these are copied.
func (s *Stack) Backup(ctx context.Context, path string) (err error) {
	servers, err := s.servers(ctx)
	if err != nil {
		return err
	}
	images := map[string]string{}
	for _, service := range s.Plan.Services {
		images[service.Name] = service.Image.Key()
	}
	w, err := create(path, Manifest{
		Format: format, Stack: s.Plan.Stack, NamePrefix: s.Plan.NamePrefix, Made: time.Now().UTC().Truncate(time.Second), Images: images,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.discard()) }()
	if c, ok := servers["postgres"]; ok {
		if w.manifest.Postgres, err = s.savePostgres(ctx, c, w); err != nil {
			return fmt.Errorf("saving PostgreSQL: %w", err)
		}
	}
	if c, ok := servers["redis"]; ok {
		if w.manifest.Redis, err = s.saveRedis(ctx, c, w); err != nil {
			return fmt.Errorf("saving Redis: %w", err)
		}
	}
	paused, err := s.saveVolumes(ctx, w)
	if err != nil {
		return err
	}
	if err := w.finish(); err != nil {
		return err
	}
	for _, e := range w.manifest.Entries {
		s.Say(fmt.Sprintf("saved %s (%s)", e.Name, units.HumanSize(float64(e.Size))))
	}
	return s.await(ctx, paused)
}

// servers returns the containers of the stack's databases, which must be healthy.
func (s *Stack) servers(ctx context.Context) (map[string]container.InspectResponse, error) {
	servers := map[string]container.InspectResponse{}
	var faults fault.List
	for _, name := range []string{"postgres", "redis"} {
		service, ok := s.Plan.Lookup(name)
		if !ok {
			continue
		}
		c, err := s.Engine.ContainerInspect(ctx, service.Containers[0], client.ContainerInspectOptions{})
		if err != nil || !s.Plan.Owns(c.Container.Config.Labels) || c.Container.State.Paused || !healthy(c.Container) {
			faults.Add("service "+name, "platform up -s "+s.Plan.Stack, "is not up and healthy, and only the running server can give a snapshot of its data")
		}
		servers[name] = c.Container
	}
	return servers, faults.Err()
}

func healthy(c container.InspectResponse) bool {
	return c.State.Running && c.State.Health != nil && c.State.Health.Status == container.Healthy
}

// dataOf returns the volume that a service keeps its data in, and where it mounts it.
func (s *Stack) dataOf(service string) (key, path string) {
	found, _ := s.Plan.Lookup(service)
	for _, m := range found.Mounts {
		if m.Volume != "" {
			return m.Volume, m.Path
		}
	}
	return "", ""
}

// saveVolumes archives the volumes that no server saves, through a container that is
// never started. It returns the containers that it paused for a while.
func (s *Stack) saveVolumes(ctx context.Context, w *writer) (paused []container.Summary, err error) {
	pgdata, _ := s.dataOf("postgres")
	redisdata, _ := s.dataOf("redis")
	var volumes []plan.Volume
	var host container.HostConfig
	for _, v := range s.Plan.Volumes {
		if _, err := s.Engine.VolumeInspect(ctx, v.Name, client.VolumeInspectOptions{}); err == nil && v.Key != pgdata && v.Key != redisdata {
			volumes = append(volumes, v)
			host.Binds = append(host.Binds, v.Name+":/"+v.Key+":ro")
		}
	}
	helper, err := s.create(ctx, container.Config{}, host)
	if err != nil {
		return nil, err
	}
	defer s.remove(helper)
	for _, v := range volumes {
		err := w.add(Entry{Name: v.Key + ".tar", Volume: v.Key}, zip.Deflate, func(to io.Writer) error {
			writers, err := s.pausing(ctx, func() error {
				from, err := s.Engine.CopyFromContainer(ctx, helper, client.CopyFromContainerOptions{SourcePath: "/" + v.Key})
				if err != nil {
					return err
				}
				_, err = io.Copy(to, from.Content)
				return errors.Join(err, from.Content.Close())
			}, v.Name)
			paused = append(paused, writers...)
			return err
		})
		if err != nil {
			return paused, fmt.Errorf("saving volume %s: %w", v.Name, err)
		}
	}
	return paused, nil
}

// pausing calls work while all containers that can write to one of these volumes are paused. It returns these containers.
func (s *Stack) pausing(ctx context.Context, work func() error, volumes ...string) (paused []container.Summary, err error) {
	users, err := s.users(ctx, volumes...)
	if err != nil {
		return nil, err
	}
	for _, c := range users {
		if c.State != container.StateRunning || !slices.ContainsFunc(c.Mounts, func(m container.MountPoint) bool { return m.RW && slices.Contains(volumes, m.Name) }) {
			continue
		}
		if _, err := s.Engine.ContainerPause(ctx, c.ID, client.ContainerPauseOptions{}); err != nil {
			return paused, err
		}
		paused = append(paused, c)
		defer func() {
			if _, err := s.Engine.ContainerUnpause(context.WithoutCancel(ctx), c.ID, client.ContainerUnpauseOptions{}); err != nil {
				s.Say(fmt.Sprintf("container %s stays paused: %v. Fix: platform up -s %s", c.ID[:12], err, s.Plan.Stack))
			}
		}()
	}
	return paused, work()
}

// await waits until containers are healthy again: the engine reports a container that was
// paused as unhealthy until its next probe.
func (s *Stack) await(ctx context.Context, containers []container.Summary) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, c := range containers {
		for {
			now, err := s.Engine.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
			if err != nil {
				return fmt.Errorf("the data is saved, but container %s is not healthy again: %w", observe.Name(c), err)
			}
			if now.Container.State.Health == nil || healthy(now.Container) {
				break
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
	return nil
}
