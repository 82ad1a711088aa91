package catalog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// scrapeTimeout is the scrape_timeout of infra's prometheus.yml. Prometheus refuses an interval below it.
const scrapeTimeout = 10 * time.Second

// Check finds mistakes in the catalog: duplicate names; references to services, volumes,
// networks, profiles or facts that do not exist; dependencies on a service of another
// profile; and dependency cycles, with their path. The error has one line for each
// mistake, which begins with the file that defines the service, or with the line of LocalFile.
func Check(services []Service) error {
	var faults []error
	fault := func(s Service, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: service %s %s", s.where(), s.Name, fmt.Sprintf(format, args...)))
	}
	byName := map[string]Service{}
	for _, s := range services {
		if _, twice := byName[s.Name]; twice {
			fault(s, "is defined twice in the catalog")
		}
		byName[s.Name] = s
	}
	for _, s := range services {
		if s.Profile != "" && !slices.Contains(ProfileNames(), s.Profile) {
			fault(s, "has profile %q, which is not in the catalog", s.Profile)
		}
		if (s.App == "") == (s.Image == "") {
			fault(s, "needs either an app or a stock image")
		}
		switch probed := len(s.Probe.Command) > 0; {
		case s.Once && (probed || s.Port != 0 || len(s.Ports) > 0 || s.Scalable):
			fault(s, "runs once, and can have neither a port, a probe nor replicas")
		case !s.Once && !probed:
			fault(s, "has no probe, so no service can wait for it")
		}
		for _, rule := range slices.Sorted(maps.Keys(s.Exceptions)) {
			if !slices.Contains(Rules, rule) || s.Exceptions[rule] == "" {
				fault(s, "has an exception from %q that names no rule, or has no reason", rule)
			}
		}
		if s.Scalable && len(s.Ports) > 0 {
			fault(s, "is scalable and publishes ports, which only one container can")
		}
		if s.Init && len(s.Command) == 0 && len(s.Clients.Raise) == 0 {
			fault(s, "needs an init, and has no command that names its server, which a Swarm starts under a shell")
		}
		for _, name := range s.After {
			need, ok := byName[name]
			switch {
			case !ok:
				fault(s, "starts after %s, which is not in the catalog", name)
			case need.Profile != "" && need.Profile != s.Profile:
				fault(s, "starts after %s, which is enabled by profile %s only", name, need.Profile)
			}
		}
		for _, name := range s.Needs {
			if !slices.Contains(s.After, name) {
				fault(s, "needs %s, but does not start after it", name)
			}
		}
		for _, m := range s.Mounts {
			if m.Volume != "" && !slices.Contains(Volumes, m.Volume) {
				fault(s, "mounts volume %s, which is not in the catalog", m.Volume)
			}
		}
		for _, n := range s.Networks {
			if !slices.ContainsFunc(Networks, func(o Network) bool { return o.Name == n }) {
				fault(s, "joins network %s, which is not in the catalog", n)
			}
		}
		texts := slices.Clone(s.Probe.Command)
		for _, m := range s.Mounts {
			texts = append(texts, m.Host)
		}
		for _, v := range s.Env {
			texts = append(texts, v.Value)
		}
		for _, text := range texts { // all that may contain facts
			Expand(text, func(fact, service string) string {
				switch other, ok := byName[service]; {
				case service == "" && (slices.Contains(Facts, fact) || s.Port != 0 && slices.Contains(ownFacts, fact)):
				case !slices.Contains(serviceFacts, fact) || service == "":
					fault(s, "uses ${%s}, which is not a known fact", strings.TrimSuffix(fact+":"+service, ":"))
				case !ok || other.Port == 0:
					fault(s, "uses the %s of %s, which is not a service with a port", fact, service)
				}
				return ""
			})
		}
		if s.Metrics.Component != "" && s.MetricsPort() == 0 {
			fault(s, "has metrics, but no port to scrape them from")
		}
		if s.Metrics.Interval != 0 && s.Metrics.Interval < scrapeTimeout {
			fault(s, "has a scrape interval of %s, which is shorter than Prometheus' scrape timeout of %s", s.Metrics.Interval, scrapeTimeout)
		}
	}
	_, cycle := StartOrder(services)
	return errors.Join(append(faults, cycle)...)
}
