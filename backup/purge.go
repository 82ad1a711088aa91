package backup

import (
	"context"
	"strings"

	"github.com/moby/moby/client"
)

// Volume is a volume that can be deleted.
type Volume struct {
	Name   string
	Size   string // as a user reads it
	UsedBy string // a container that uses it, so that it is kept
	key    string // its name in the catalog, where it is one of the plan's
}

// Purgeable gives the volumes that hold data of the stack: those that a restore or an
// upgrade left behind, and unless old is set those that the stack uses, in which case
// its containers must be gone.
func (s *Stack) Purgeable(ctx context.Context, old bool) ([]Volume, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	containers, err := s.Engine.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, err
	}
	users := map[string]string{}
	for _, c := range containers.Items {
		name := strings.TrimPrefix(c.Names[0], "/")
		if !old && s.Plan.Owns(c.Labels) {
			return nil, refuse("stack "+s.Plan.Stack, "platform down -s "+s.Plan.Stack, "its containers are still there, such as %s", name)
		}
		for _, m := range c.Mounts {
			users[m.Name] = name
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
	var volumes []Volume
	var names []string
	add := func(name, key string) {
		volumes = append(volumes, Volume{Name: name, Size: "size unknown", UsedBy: users[name], key: key})
		names = append(names, name)
	}
	for _, used := range s.Plan.Volumes {
		if _, ok := labels[used.Name]; ok && !old {
			add(used.Name, used.Key)
		}
		// What it replaced may have replaced an older one. A volume that the stack only took over is not its to delete any more.
		for name := labels[used.Name][replacesLabel]; s.Plan.Owns(labels[name]); name = labels[name][replacesLabel] {
			add(name, "")
		}
	}
	if sizes, err := s.sizes(ctx, names); err == nil { // without an image on the engine the sizes stay unknown
		for i, v := range volumes {
			volumes[i].Size = sizes[v.Name]
		}
	}
	return volumes, nil
}

// Purge deletes volumes that Purgeable gave, apart from those that are in use, and says
// which. The settings no longer name the ones that are gone.
func (s *Stack) Purge(ctx context.Context, volumes []Volume) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	taken := s.taken()
	for _, v := range volumes {
		if v.UsedBy != "" {
			s.Say("kept " + v.Name + ", which container " + v.UsedBy + " uses")
			continue
		}
		if _, ok := taken[v.key]; ok {
			// First, so that no interruption leaves settings that ask for a volume that is gone.
			delete(taken, v.key)
			if err := s.SetVolumes(taken); err != nil {
				return err
			}
		}
		if _, err := s.Engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{}); err != nil {
			return err
		}
		s.Say("deleted " + v.Name + " (" + v.Size + ")")
	}
	return nil
}
