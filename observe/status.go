package observe

import (
	"context"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"trading-platform/plan"
)

// Status is the condition of one container of a plan.
type Status struct {
	Service, Container string
	Health             string // healthy, unhealthy or starting; Completed, stopped, missing, or none for one without a healthcheck
	State              string // as Docker shows it, such as "Up 2 minutes (healthy)"; empty if it is missing
	Restarts           int    // by the engine, because the process has ended
	Drift              string // how the container differs from the plan; empty if the next up would leave it as it is
}

// Completed is the health of a container that has run to its end, as its service does.
const Completed = "completed"

// Statuses returns the status of each container of a plan, in the order in which they start.
func Statuses(ctx context.Context, engine client.APIClient, p *plan.Plan) ([]Status, error) {
	if p.OnSwarm() {
		return serviceStatuses(ctx, engine, p)
	}
	all, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, err
	}
	var statuses []Status
	for _, s := range p.Services {
		for _, name := range s.Containers {
			status := Status{Service: s.Name, Container: name, Health: "missing"}
			if i := slices.IndexFunc(all.Items, func(c container.Summary) bool { return slices.Contains(c.Names, "/"+name) }); i >= 0 {
				status.inspect(ctx, engine, p, s, all.Items[i])
			}
			statuses = append(statuses, status)
		}
	}
	return statuses, nil
}

// inspect fills in what the engine knows of the container of a service.
func (status *Status) inspect(ctx context.Context, engine client.APIClient, p *plan.Plan, s plan.Service, c container.Summary) {
	status.Health, status.State = "none", c.Status
	found, err := engine.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
	if state := found.Container.State; Ended(p, c) {
		status.Health = Completed
	} else if c.State != container.StateRunning {
		status.Health = "stopped"
	} else if err == nil && state != nil && state.Health != nil {
		status.Health = string(state.Health.Status)
	}
	status.Restarts, status.Drift = found.Container.RestartCount, drift(p, s, c, found.Container.Config)
}

// drift says how a container differs from the plan, as far as its labels, its state, its image and its public variables show it.
func drift(p *plan.Plan, s plan.Service, c container.Summary, config *container.Config) string {
	const hash = "com.docker.compose.config-hash"
	switch {
	case !p.Owns(c.Labels):
		return "of another stack"
	case c.State != container.StateRunning && !Ended(p, c):
		return string(c.State)
	case strings.HasPrefix(c.Image, "sha256:"): // so the engine shows an image whose name stands for another one now
		return "image " + s.Image.Key() + " is another one"
	case c.Labels[hash] != s.Labels(p, 0)[hash]:
		return "image or command"
	}
	for _, e := range s.Env {
		if config != nil && !e.Secret && !slices.Contains(config.Env, e.Name+"="+e.Value) {
			return "variable " + e.Name
		}
	}
	return ""
}
