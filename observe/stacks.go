package observe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"trading-platform/plan"
)

// Held is what an engine has of all stacks with the same name prefix, which share their volumes.
type Held struct {
	NamePrefix string
	Stacks     []string // their names
	Identities []string // of all objects; an object of an earlier version has none, which is in the list as ""
	Containers []container.Summary
	Networks   []string // names
	Volumes    []string // names
	Since      time.Time
}

// Stacks returns what an engine has of all stacks, of all users and checkouts, sorted by their name prefixes.
func Stacks(ctx context.Context, engine client.APIClient) ([]*Held, error) {
	ours := client.Filters{}.Add("label", plan.StackLabel)
	containers, err1 := engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: ours})
	networks, err2 := engine.NetworkList(ctx, client.NetworkListOptions{Filters: ours})
	volumes, err3 := engine.VolumeList(ctx, client.VolumeListOptions{Filters: ours})
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("asking the engine for its stacks: %w", err)
	}
	var all []*Held
	of := func(name string, labels map[string]string, made time.Time) *Held {
		// Earlier versions did not label volumes and networks with the prefix, which their names begin with.
		prefix, _, _ := strings.Cut(name, "_"+cmp.Or(labels[plan.VolumeLabel], "default"))
		prefix = cmp.Or(labels["com.docker.compose.project"], prefix)
		i := slices.IndexFunc(all, func(h *Held) bool { return h.NamePrefix == prefix })
		if i < 0 {
			i, all = len(all), append(all, &Held{NamePrefix: prefix, Since: made})
		}
		h := all[i]
		if stack := labels[plan.StackLabel]; !slices.Contains(h.Stacks, stack) {
			h.Stacks = append(h.Stacks, stack)
		}
		if id := labels[plan.IdentityLabel]; !slices.Contains(h.Identities, id) {
			h.Identities = append(h.Identities, id)
		}
		if made.Before(h.Since) {
			h.Since = made
		}
		return h
	}
	for _, c := range containers.Items {
		h := of(Name(c), c.Labels, time.Unix(c.Created, 0))
		h.Containers = append(h.Containers, c)
	}
	for _, n := range networks.Items {
		h := of(n.Name, n.Labels, n.Created)
		h.Networks = append(h.Networks, n.Name)
	}
	for _, v := range volumes.Items {
		made, _ := time.Parse(time.RFC3339, v.CreatedAt)
		h := of(v.Name, v.Labels, made)
		h.Volumes = append(h.Volumes, v.Name)
	}
	slices.SortFunc(all, func(a, b *Held) int { return cmp.Compare(a.NamePrefix, b.NamePrefix) })
	return all, nil
}

// State says how many of the containers are healthy, or that there are none.
func (h *Held) State() string {
	healthy := 0
	for _, c := range h.Containers {
		if strings.HasSuffix(c.Status, "(healthy)") {
			healthy++
		}
	}
	if len(h.Containers) == 0 {
		return "down"
	}
	return fmt.Sprintf("%d/%d healthy", healthy, len(h.Containers))
}

// Ports lists the host ports that the containers publish.
func (h *Held) Ports() string {
	var ports []plan.Port
	for _, c := range h.Containers {
		for _, p := range c.Ports {
			if p.PublicPort != 0 && p.IP != netip.IPv6Unspecified() { // which an engine adds to the same port of IPv4
				ports = append(ports, plan.Port{Host: int(p.PublicPort)})
			}
		}
	}
	slices.SortFunc(ports, func(a, b plan.Port) int { return cmp.Compare(a.Host, b.Host) })
	return plan.PortList(slices.Compact(ports))
}
