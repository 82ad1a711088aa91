package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"trading-platform/catalog"
	"trading-platform/settings"
)

// bridgePorts is the number of containers that a Linux bridge can connect.
const bridgePorts = 1023

// capacity lets every server accept as many connections as the services can hold, and reports numbers of replicas
// that a network or a server cannot serve. The services have the same order as those of the plan.
func (r *resolver) capacity(services []catalog.Service) {
	replicas := map[string]int{}
	for _, s := range r.plan.Services {
		replicas[s.Name] = len(s.Containers)
	}
	for _, n := range r.plan.Networks {
		limit, why := bridgePorts, "a Linux bridge connects at most"
		if subnet, err := netip.ParsePrefix(n.Subnet); err == nil {
			if addresses := 1<<(32-subnet.Bits()) - 3; addresses < limit { // less those of the network, the gateway and the broadcast
				limit, why = addresses, "the addresses of its subnet are enough for"
			}
		}
		uses := func(s catalog.Service) int {
			if slices.Contains(s.Networks, n.Key) {
				return 1
			}
			return 0
		}
		r.reduce(services, replicas, uses, total(services, replicas, uses), limit, "containers on network "+n.Name, why)
	}
	for i, server := range services {
		clients, out := server.Clients, &r.plan.Services[i]
		uses := func(s catalog.Service) int { return s.ConnectionsTo(server) }
		need := clients.Reserved + total(services, replicas, uses)
		if clients.Max == 0 || need <= clients.Max {
			continue // its default is enough, and its container stays as it is
		}
		limit, why := clients.Max, "it accepts"
		if len(clients.Raise) > 0 {
			accepts := clients.Max
			for accepts < need { // doubled, so that a few more replicas do not restart the server
				accepts *= 2
			}
			out.Command = slices.Clone(clients.Raise)
			out.Command[len(out.Command)-1] += strconv.Itoa(accepts)
			if _, own := r.set.Memory[server.Name]; !own {
				out.Memory = max(out.Memory, need*clients.Memory)
			}
			limit, why = out.Memory/clients.Memory, fmt.Sprintf("its memory of %d MB is enough for", out.Memory)
		}
		r.reduce(services, replicas, uses, need, limit, "connections to "+server.Name, why)
	}
}

// total returns how much of something all replicas use.
func total(services []catalog.Service, replicas map[string]int, uses func(catalog.Service) int) int {
	sum := 0
	for _, s := range services {
		sum += uses(s) * replicas[s.Name]
	}
	return sum
}

// reduce reports that the stack needs more of something than the limit, and lowers the largest numbers of replicas to what would work.
func (r *resolver) reduce(services []catalog.Service, replicas map[string]int, uses func(catalog.Service) int, need, limit int, what, why string) {
	where, fixes := settings.Project+":profiles", []string(nil)
	bySize := slices.SortedStableFunc(slices.Values(services), func(a, b catalog.Service) int { return replicas[b.Name] - replicas[a.Name] })
	excess := need - limit
	for _, s := range bySize {
		if excess <= 0 || uses(s) == 0 || replicas[s.Name] == 1 {
			continue
		}
		fewer := min(replicas[s.Name]-1, (excess+uses(s)-1)/uses(s))
		replicas[s.Name] -= fewer
		excess -= fewer * uses(s)
		if len(fixes) == 0 {
			where = settings.Project + ":replicas." + s.Name
		}
		fixes = append(fixes, settings.SetCommand(r.set.Stack, "--path replicas."+s.Name, strconv.Itoa(replicas[s.Name])))
	}
	if excess > 0 {
		fixes = append(fixes, "leave services out with `disabled`")
	}
	if need > limit {
		r.faults.Add(where, strings.Join(fixes, " && "), "the stack needs %d %s, and %s %d", need, what, why, limit)
	}
}
