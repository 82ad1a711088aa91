package backup

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/moby/moby/client"

	"trading-platform/observe"
)

// Purge deletes the volumes that hold data of the stack, once confirm has agreed to the
// list of them: those that a restore or an upgrade left behind, and unless old is set
// those that the stack uses, in which case its containers must be gone. A volume that a
// container uses is kept. The settings no longer name the ones that are gone.
func (s *Stack) Purge(ctx context.Context, old bool, confirm func(volumes []string) error) error {
	names, err := s.purgeable(ctx, old)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		s.Say("there is no volume to delete")
		return nil
	}
	list := make([]string, len(names))
	var sizes sync.WaitGroup
	for i, name := range names {
		sizes.Go(func() { list[i] = s.sized(ctx, name) })
	}
	sizes.Wait()
	if err := confirm(list); err != nil {
		return err
	}
	taken := s.taken()
	for i, name := range names {
		users, err := s.users(ctx, name)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			s.Say("kept " + name + ", which container " + observe.Name(users[0]) + " uses")
			continue
		}
		named := len(taken)
		maps.DeleteFunc(taken, func(_, taken string) bool { return taken == name })
		if len(taken) < named {
			// Before the volume, so that no interruption leaves settings that ask for a volume that is gone.
			if err := s.SetVolumes(taken); err != nil {
				return err
			}
		}
		if _, err := s.Engine.VolumeRemove(ctx, name, client.VolumeRemoveOptions{}); err != nil {
			return err
		}
		s.Say("deleted " + list[i])
	}
	return nil
}

func (s *Stack) purgeable(ctx context.Context, old bool) (names []string, err error) {
	containers, err := s.Engine.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, err
	}
	for _, c := range containers.Items {
		if !old && s.Plan.Owns(c.Labels) {
			return nil, refuse("stack "+s.Plan.Stack, "platform down -s "+s.Plan.Stack, "its containers still exist, such as %s", observe.Name(c))
		}
	}
	all, err := s.Engine.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return nil, err
	}
	labels := map[string]map[string]string{}
	for _, v := range all.Items {
		labels[v.Name] = v.Labels
	}
	for _, v := range s.Plan.Volumes {
		if _, exists := labels[v.Name]; exists && !old {
			names = append(names, v.Name)
		}
		// What it replaced may have replaced an older one. A volume that the stack did not create is not deleted after its replacement.
		for name := labels[v.Name][replacesLabel]; s.Plan.Owns(labels[name]); name = labels[name][replacesLabel] {
			names = append(names, name)
		}
	}
	return names, nil
}

// Prune deletes what an engine has of stacks that nobody uses any more, the data last.
func Prune(ctx context.Context, engine client.APIClient, held *observe.Held) error {
	for _, c := range held.Containers {
		if _, err := engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			return fmt.Errorf("container %s: %w", observe.Name(c), err)
		}
	}
	for _, name := range held.Networks {
		if _, err := engine.NetworkRemove(ctx, name, client.NetworkRemoveOptions{}); err != nil {
			return fmt.Errorf("network %s: %w", name, err)
		}
	}
	for _, name := range held.Volumes {
		if _, err := engine.VolumeRemove(ctx, name, client.VolumeRemoveOptions{}); err != nil {
			return fmt.Errorf("volume %s: %w", name, err)
		}
	}
	return nil
}
