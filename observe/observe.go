package observe

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"trading-platform/plan"
)

// ComparedVariable is the environment variable by which `platform up` tells the Pulumi
// program that it has compared the engine with the state. The program itself cannot know
// whether its run began with a refresh.
const ComparedVariable = "TRADING_PLATFORM_OBSERVED"

// Findings are the differences between an engine and a stack's state.
type Findings struct {
	// Missing names containers and networks that are in the state but not on the engine. A
	// refresh removes them from the state.
	Missing []string
	// MissingVolumes names volumes that are in the state but not on the engine. Their data is lost.
	MissingVolumes []string
	// MovedImages names images that are another image on the engine now, because somebody built, tagged or pulled
	// one. A refresh makes the next up replace their containers.
	MovedImages []string
	// Stopped and Paused are containers of the state that are not running.
	Stopped, Paused []container.Summary
	// Containers and Networks have the stack's labels but are not in the state: a run that
	// was killed left them behind, or the state was lost.
	Containers []container.Summary
	Networks   []network.Summary
	Services   []swarm.Service // of a Swarm
}

// Name returns a container's name without Docker's leading slash.
func Name(c container.Summary) string {
	if len(c.Names) == 0 {
		return c.ID
	}
	return strings.TrimPrefix(c.Names[0], "/")
}

// Compare finds the differences between an engine and a stack's state. It changes nothing.
func Compare(ctx context.Context, engine client.APIClient, p *plan.Plan, state *State) (*Findings, error) {
	ours := client.Filters{}.Add("label", plan.StackLabel+"="+p.Stack)
	containers, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: ours})
	if err != nil {
		return nil, fmt.Errorf("asking the engine for the stack's containers: %w", err)
	}
	networks, err := engine.NetworkList(ctx, client.NetworkListOptions{Filters: ours})
	if err != nil {
		return nil, fmt.Errorf("asking the engine for the stack's networks: %w", err)
	}
	volumes, err := engine.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return nil, fmt.Errorf("asking the engine for its volumes: %w", err)
	}
	f := &Findings{}
	if f.MovedImages, err = moved(ctx, engine, state.Images); err != nil {
		return nil, err
	}
	here := map[string]container.Summary{} // by ID
	for _, c := range containers.Items {
		here[c.ID] = c
		if p.Owns(c.Labels) && c.Labels[serviceLabel] == "" && !known(state.Containers, c.ID) {
			f.Containers = append(f.Containers, c)
		}
	}
	for _, r := range state.Containers {
		c, exists := here[r.ID]
		switch {
		case !exists:
			f.Missing = append(f.Missing, r.Name)
		case Ended(p, c), r.Faulty: // the next up replaces or starts it
		case c.State == container.StatePaused:
			f.Paused = append(f.Paused, c)
		case c.State != container.StateRunning && c.State != container.StateRestarting:
			f.Stopped = append(f.Stopped, c)
		}
	}
	if p.OnSwarm() || len(state.Services) > 0 {
		services, err := engine.ServiceList(ctx, client.ServiceListOptions{Filters: ours})
		if err != nil {
			return nil, fmt.Errorf("asking the Swarm for the stack's services: %w", err)
		}
		for _, s := range services.Items {
			if p.Owns(s.Spec.Labels) && !known(state.Services, s.ID) {
				f.Services = append(f.Services, s)
			}
		}
		for _, r := range state.Services {
			if !slices.ContainsFunc(services.Items, func(s swarm.Service) bool { return s.ID == r.ID }) {
				f.Missing = append(f.Missing, r.Name)
			}
		}
	}
	for _, n := range networks.Items {
		if p.Owns(n.Labels) && !known(state.Networks, n.ID) {
			f.Networks = append(f.Networks, n)
		}
	}
	for _, r := range state.Networks {
		if !slices.ContainsFunc(networks.Items, func(n network.Summary) bool { return n.ID == r.ID }) {
			f.Missing = append(f.Missing, r.Name)
		}
	}
	for _, r := range state.Volumes {
		if !slices.ContainsFunc(volumes.Items, func(v volume.Volume) bool { return v.Name == r.ID }) {
			f.MissingVolumes = append(f.MissingVolumes, r.Name)
		}
	}
	return f, nil
}

// Ended reports whether a container of the plan has run to its end, as its service does.
func Ended(p *plan.Plan, c container.Summary) bool {
	s, _ := p.Lookup(c.Labels["com.docker.compose.service"])
	return s.Once && c.State == container.StateExited && strings.HasPrefix(c.Status, "Exited (0)")
}

// moved returns the names of images that stand for another image than in the state.
func moved(ctx context.Context, engine client.APIClient, images []Resource) (names []string, err error) {
	known := map[string]Resource{} // by the name that the engine uses
	filters := client.Filters{}
	for _, r := range images {
		if name, err := reference.ParseNormalizedNamed(r.Name); err == nil && !reference.IsNameOnly(name) && r.Image != "" {
			known[reference.FamiliarString(name)] = r
			filters.Add("reference", reference.FamiliarString(name))
		}
	}
	if len(known) == 0 {
		return nil, nil // without a filter, the engine would list all that it has
	}
	found, err := engine.ImageList(ctx, client.ImageListOptions{Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("asking the engine for the stack's images: %w", err)
	}
	for _, image := range found.Items {
		for _, tag := range image.RepoTags {
			if r, ok := known[tag]; ok && r.Image != image.ID {
				names = append(names, r.Name)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// None reports whether the engine has exactly what the state says.
func (f *Findings) None() bool {
	return len(f.Down())+len(f.MovedImages)+len(f.Containers)+len(f.Networks)+len(f.Services) == 0
}

// All reports whether all named containers of a stack match an engine's filters, with one request.
func All(ctx context.Context, engine client.APIClient, stack string, names []string, filters client.Filters) (bool, error) {
	found, err := engine.ContainerList(ctx, client.ContainerListOptions{Filters: filters.Add("label", plan.StackLabel+"="+stack)})
	if err != nil {
		return false, fmt.Errorf("asking the engine for the stack's containers: %w", err)
	}
	have := map[string]bool{}
	for _, c := range found.Items {
		have[Name(c)] = true
	}
	return !slices.ContainsFunc(names, func(name string) bool { return !have[name] }), nil
}

func known(resources []Resource, id string) bool {
	return slices.ContainsFunc(resources, func(r Resource) bool { return r.ID == id })
}

// Down returns the names of the objects that are missing or not running, which a plain
// `pulumi up` would not notice.
func (f *Findings) Down() []string {
	names := slices.Concat(f.Missing, f.MissingVolumes)
	for _, c := range slices.Concat(f.Stopped, f.Paused) {
		names = append(names, Name(c))
	}
	return names
}
