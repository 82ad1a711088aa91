package plan

import (
	"fmt"
	"slices"
	"strings"

	"trading-platform/catalog"
	"trading-platform/settings"
)

// The nodes of a Swarm that may run a service.
const (
	AnyNode   = "any node"   // Swarm spreads the replicas
	DataNode  = "data node"  // the one that holds the volumes and that published ports are reached at
	EveryNode = "every node" // one task on each, for what each node has, such as its logs
)

// reaper runs a server as the child of a shell that waits for it, and for the processes that their parents leave: a service
// of a Swarm cannot ask for Docker's init. It passes the signals to stop on.
const reaper = `docker-entrypoint.sh "$@" & server=$!
trap 'kill -INT $server' INT
trap 'kill -TERM $server' TERM
while kill -0 $server 2>/dev/null; do wait $server; code=$?; done
exit $code`

// swarm makes of the services, which were resolved for one engine, those of a Swarm. The services have the same order as
// those of the plan.
func (r *resolver) swarm(services []catalog.Service) {
	p := r.plan
	p.Orchestrator = settings.Swarm
	if address := r.set.BindAddress; address.IsLoopback() {
		p.Notes = append(p.Notes, "no port is published: a Swarm publishes on every address of a node, and bindAddress is "+address.String()+
			" (0.0.0.0 publishes the ports with a login)")
	} else if !address.IsUnspecified() {
		r.faults.Add(settings.Project+":bindAddress", settings.SetCommand(p.Stack, "bindAddress", "0.0.0.0"),
			"a Swarm publishes ports on every address of a node, and not on %s alone", address)
	}
	where := map[string][]string{}
	for i, s := range services {
		out := &p.Services[i]
		if s.Once {
			r.faults.Add(settings.Project+":orchestrator", "add "+s.Name+" to `disabled`", "a Swarm starts a service again when it has ended, and %s runs once", s.Name)
		}
		if out.Host != nil {
			r.faults.Add(settings.Project+":handOver", "bin/platform take-back -s "+p.Stack+" "+s.Name, "%s runs on this host, which a Swarm's nodes do not reach", s.Name)
		}
		if s.Init && !r.reference[s.Name] {
			server := out.Command
			if len(server) == 0 {
				server = s.Clients.Raise[:1] // the image's own
			}
			out.Init, out.Command = false, slices.Concat([]string{"sh", "-c", reaper, "sh"}, server)
		}
		out.CPUShares = 0
		out.Placement = r.placement(s, out)
		where[out.Placement] = append(where[out.Placement], s.Name)
	}
	for _, place := range []string{DataNode, EveryNode, AnyNode} {
		if len(where[place]) > 0 {
			p.Notes = append(p.Notes, "on "+place+": "+strings.Join(where[place], ", "))
		}
	}
}

func (r *resolver) placement(s catalog.Service, out *Service) string {
	place := AnyNode
	for _, m := range s.Mounts {
		switch {
		case m.Host != "": // of the engine
			return EveryNode
		case m.Volume != "" && !slices.Contains(r.set.SharedVolumes, m.Volume), m.Checkout != "" && r.set.SourceDir != "":
			place = DataNode
		}
	}
	if len(out.Ports) > 0 {
		place = DataNode
	}
	return place
}

// OnSwarm reports whether the plan is for a Swarm.
func (p *Plan) OnSwarm() bool { return p.Orchestrator == settings.Swarm }

// RollsOver reports whether a new task of a service can run before the one that it replaces has ended: they share no volume
// and no port.
func (s Service) RollsOver() bool { return s.Placement == AnyNode }

// ObjectName returns the name of the config or secret that has the content of a file. It is that of no other file and of no
// other stack.
func (p *Plan) ObjectName(s Service, f File) string {
	hash := hexSHA256(strings.Join([]string{p.Identity, p.NamePrefix, s.Name, f.Path, f.Content}, "\x00"))
	return fmt.Sprintf("%.31s_%.32s", p.NamePrefix, hash) // a Swarm allows 64 characters
}
