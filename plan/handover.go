package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"trading-platform/catalog"
	"trading-platform/settings"
)

// address matches an address of a service, such as redis:6379, in a value.
var address = regexp.MustCompile(`\b([a-z][a-z0-9_]*):(\d+)\b`)

// handOver puts a container that forwards a port to this host in the place of each app that runs there. It has the app's name on
// the networks, so that the services that use the app stay as they are. The services have the same order as those of the plan.
func (r *resolver) handOver(services []catalog.Service) {
	published := map[string]netip.AddrPort{} // by address on the stack's networks
	for i, s := range r.plan.Services {
		for _, p := range s.Ports {
			on := netip.MustParseAddr(p.Address)
			published[s.Name+":"+strconv.Itoa(p.Container)] = netip.AddrPortFrom(cmp.Or(loopback[on], on), uint16(p.Host)) //nolint:gosec // a port
		}
		if services[i].Port == 0 {
			continue
		}
		if own := services[i].Address(); !published[own].IsValid() && slices.Contains(r.set.HandOver, s.Name) {
			published[own] = netip.AddrPortFrom(loopback[netip.IPv4Unspecified()], uint16(services[i].Port)) //nolint:gosec // a port
		}
	}
	for i, c := range services {
		s := &r.plan.Services[i]
		switch {
		case !slices.Contains(r.set.HandOver, s.Name):
		case c.App == "" || c.Once || len(s.Containers) > 1:
			r.faults.Add(settings.Project+":handOver", "platform take-back -s "+r.set.Stack+" "+s.Name,
				"%s cannot run on this host: only an app with one container can", s.Name)
		default:
			host := &Host{Port: int(published[c.Address()].Port())}
			for _, e := range s.Env {
				e.Value = r.onHost(c, e, s.Mounts, published)
				host.Env = append(host.Env, e)
			}
			command := []string{"forward"}
			if c.Port != 0 {
				command = append(command, strconv.Itoa(c.Port), strconv.Itoa(host.Port))
			}
			delete(r.reference, s.Name)
			*s = Service{
				Name: s.Name, Tier: s.Tier, Profile: s.Profile, Local: s.Local, Host: host, Containers: s.Containers,
				Image: r.referenceImage(), Command: command, Networks: s.Networks, After: s.After, Health: s.Health, Metrics: s.Metrics,
				Probe: newProbe([]string{"CMD", "true"}, catalog.Probe{}, r.set.EngineAPI), Grace: s.Grace, Memory: 128,
			}
			r.plan.Notes = append(r.plan.Notes, fmt.Sprintf("%s runs on this host, at port %d, until: platform take-back -s %s %[1]s", s.Name, host.Port, r.set.Stack))
		}
	}
}

// onHost returns the value of a variable for an app that runs on this host. An address that is not published stays as it is.
func (r *resolver) onHost(c catalog.Service, e Env, mounts []Mount, published map[string]netip.AddrPort) string {
	i := slices.IndexFunc(c.Env, func(v catalog.Variable) bool { return v.Name == e.Name })
	for at, on := range published {
		name, port, _ := strings.Cut(at, ":")
		switch {
		case i >= 0 && port == e.Value && (c.Env[i].Value == "${port:"+name+"}" || c.Env[i].Value == "${port}" && name == c.Name):
			return strconv.Itoa(int(on.Port()))
		case name == e.Value: // as the name of a host
			return on.Addr().String()
		}
	}
	for _, m := range mounts {
		if rest, inside := strings.CutPrefix(e.Value, m.Path); inside && m.Host != "" && (rest == "" || rest[0] == '/') {
			return m.Host + rest
		}
	}
	return address.ReplaceAllStringFunc(e.Value, func(at string) string {
		if on := published[at]; on.IsValid() {
			return on.String()
		}
		return at
	})
}
