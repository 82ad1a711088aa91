package catalog

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// LocalFile is the file beside the stack files in which a user adds services to this catalog, or changes some of it. Git ignores it.
const LocalFile = "platform.local.yaml"

// local has the services of LocalFile.
var local atomic.Pointer[[]Service]

// SetLocal puts services in place of those of the same names, and adds the others. The variables of one that is replaced stay,
// except those that it has itself.
func SetLocal(services []Service) { local.Store(&services) }

// Tracked returns the services of this catalog alone, as they are written.
func Tracked() []Service {
	return slices.Concat(base(), apis(), workers(), web(), proxies(), observability())
}

// withLocal returns all services with those of LocalFile.
func withLocal(all []Service) []Service {
	if services := local.Load(); services != nil {
		for _, s := range *services {
			i := slices.IndexFunc(all, func(o Service) bool { return o.Name == s.Name })
			if i < 0 {
				i, all = len(all), append(all, Service{})
			}
			s.Env = join(all[i].Env, s.Env)
			all[i] = s
		}
	}
	return all
}

// where returns the place of the service's entry.
func (s Service) where() string {
	if s.Line > 0 {
		return fmt.Sprintf("%s:%d", LocalFile, s.Line)
	}
	return "catalog/" + Tiers[s.Tier]
}
