package observe

import (
	"context"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"trading-platform/plan"
)

// Status is the condition of one container of a plan.
type Status struct {
	Service, Container string
	Health             string // healthy, unhealthy or starting; stopped, missing, or none for one without a healthcheck
	State              string // as Docker shows it, such as "Up 2 minutes (healthy)"; empty if it is missing
}

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
				status.Health, status.State = health(ctx, engine, all.Items[i]), all.Items[i].Status
			}
			statuses = append(statuses, status)
		}
	}
	return statuses, nil
}

func health(ctx context.Context, engine client.APIClient, c container.Summary) string {
	if c.State != container.StateRunning {
		return "stopped"
	}
	found, err := engine.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
	if err != nil || found.Container.State == nil || found.Container.State.Health == nil {
		return "none"
	}
	return string(found.Container.State.Health.Status)
}
