package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"trading-platform/catalog"
	"trading-platform/settings"
)

// serverShares is the CPU weight of a service that every other one connects to. With the weight of the others, PostgreSQL got too little
// of 2 CPUs to answer 200 workers in time, and they called it unavailable; with this one, 300 are healthy (docs/growth.md).
const serverShares = 16 * 1024

// bridgePorts is the number of containers that a Linux bridge can connect.
const bridgePorts = 1023

// addresses returns how many containers a subnet has addresses for: all but its own, the gateway's and the broadcast address.
func addresses(subnet netip.Prefix) int { return 1<<min(30, subnet.Addr().BitLen()-subnet.Bits()) - 3 }

// capacity lets every server accept as many connections as the services can hold, and reports numbers of replicas
// that a network or a server cannot serve. The services have the same order as those of the plan.
func (r *resolver) capacity(services []catalog.Service) {
	for _, n := range r.plan.Networks {
		limit, why := bridgePorts, "a Linux bridge connects at most"
		if subnet, err := netip.ParsePrefix(n.Subnet); err == nil && addresses(subnet) < limit {
			limit, why = addresses(subnet), "its subnet has addresses for"
		}
		r.atMost(limit, 0, n.uses, "containers on network "+n.Name, why)
	}
	for i, server := range services {
		clients, out := server.Clients, &r.plan.Services[i]
		connections := map[string]int{} // by service, for each of its replicas
		for _, s := range services {
			connections[s.Name] = s.ConnectionsTo(server)
		}
		uses := func(s Service) int { return connections[s.Name] }
		need := clients.Reserved + r.plan.total(uses)
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
		r.atMost(limit, clients.Reserved, uses, "connections to "+server.Name, why)
	}
}

// uses returns how many interfaces of the network a replica of a service has: one or none.
func (n Network) uses(s Service) int {
	if slices.ContainsFunc(s.Networks, func(a Attachment) bool { return a.Network == n.Key }) {
		return 1
	}
	return 0
}

// atMost reports that the stack needs more of something than the limit.
func (r *resolver) atMost(limit, reserved int, uses func(Service) int, what, why string) {
	if need := reserved + r.plan.total(uses); need > limit {
		where, fix := r.plan.reduce(need-limit, uses)
		r.faults.Add(where, fix, "the stack needs %d %s, and %s %d", need, what, why, limit)
	}
}

// total returns how much of something all replicas of the stack use.
func (p *Plan) total(uses func(Service) int) int {
	sum := 0
	for _, s := range p.Services {
		sum += uses(s) * len(s.Containers)
	}
	return sum
}

// reduce returns the setting, and the commands, that lower the largest numbers of replicas until the stack uses less of
// something by excess.
func (p *Plan) reduce(excess int, uses func(Service) int) (where, fix string) {
	var fixes []string
	for _, s := range slices.SortedStableFunc(slices.Values(p.Services), func(a, b Service) int {
		return cmp.Compare(len(b.Containers), len(a.Containers))
	}) {
		if excess <= 0 || uses(s) == 0 || len(s.Containers) == 1 {
			continue
		}
		fewer := min(len(s.Containers)-1, (excess+uses(s)-1)/uses(s))
		excess -= fewer * uses(s)
		where = cmp.Or(where, settings.Project+":replicas."+s.Name)
		fixes = append(fixes, settings.SetCommand(p.Stack, "--path replicas."+s.Name, strconv.Itoa(len(s.Containers)-fewer)))
	}
	if excess > 0 {
		fixes = append(fixes, "leave services out with `disabled`")
	}
	return cmp.Or(where, settings.Project+":profiles"), strings.Join(fixes, " && ")
}
