package observe

import (
	"context"
	"fmt"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"trading-platform/plan"
)

// serviceLabel is the label by which the engine says which service of a Swarm a container belongs to.
const serviceLabel = "com.docker.swarm.service.name"

// serviceStatuses returns the status of each service of a plan for a Swarm. A task runs when its container is healthy.
func serviceStatuses(ctx context.Context, engine client.APIClient, p *plan.Plan) ([]Status, error) {
	ours := client.Filters{}.Add("label", plan.StackLabel+"="+p.Stack)
	all, err := engine.ServiceList(ctx, client.ServiceListOptions{Status: true, Filters: ours})
	if err != nil {
		return nil, fmt.Errorf("asking the Swarm for the stack's services: %w. Fix: docker node ls must work on the stack's engine", err)
	}
	var statuses []Status
	for _, s := range p.Services {
		status := Status{Service: s.Name, Container: s.Containers[0], Health: "missing"}
		for _, found := range all.Items {
			count := found.ServiceStatus
			if found.Spec.Name != status.Container || !p.Owns(found.Spec.Labels) || count == nil {
				continue
			}
			wanted := count.DesiredTasks
			if s.Placement != plan.EveryNode {
				wanted = max(wanted, uint64(len(s.Containers)))
			}
			status.Health, status.State = "starting", fmt.Sprintf("%d of %d tasks run, on %s", count.RunningTasks, wanted, s.Placement)
			if count.RunningTasks >= wanted && wanted > 0 {
				status.Health = "healthy"
			} else if count.DesiredTasks == 0 {
				status.Health = "stopped"
			}
		}
		statuses = append(statuses, status)
	}
	return statuses, nil
}

// OnThisNode replaces, in a plan for a Swarm, the names of containers by those that the engine's own node runs. A service without
// one there keeps its name.
func OnThisNode(ctx context.Context, engine client.APIClient, p *plan.Plan) error {
	if !p.OnSwarm() {
		return nil
	}
	running, err := engine.ContainerList(ctx, client.ContainerListOptions{Filters: client.Filters{}.Add("label", plan.StackLabel+"="+p.Stack)})
	if err != nil {
		return err
	}
	for i, s := range p.Services {
		var names []string
		for _, c := range running.Items {
			if c.Labels[serviceLabel] == s.Containers[0] && p.Owns(c.Labels) && c.State == container.StateRunning {
				names = append(names, Name(c))
			}
		}
		if slices.Sort(names); len(names) > 0 {
			p.Services[i].Containers = names
		}
	}
	return nil
}
