package infra

import (
	"errors"
	"fmt"
	"maps"
	"time"
)

// job is a scrape job: one service and all its targets.
type job struct {
	Target
	Addresses []string
}

func prometheus(v Values) (map[string]string, error) {
	jobs, err := jobsOf(v.Targets)
	if err != nil {
		return nil, err
	}
	config, err := tree("files/prometheus", "/etc/prometheus", map[string]any{"Jobs": jobs})
	if err != nil {
		return nil, err
	}
	if !v.LokiEnabled {
		maps.DeleteFunc(config, func(name, _ string) bool { return name == "/etc/prometheus/rules/logs.yml" })
	}
	return config, nil
}

// scrapeTimeout is the global scrape_timeout of prometheus.yml. Prometheus refuses an interval below it.
const scrapeTimeout = 10 * time.Second

// jobsOf groups targets by service, in the order in which the services come first.
func jobsOf(targets []Target) ([]*job, error) {
	var jobs []*job
	var faults []error
	byService := map[string]*job{}
	for _, t := range targets {
		if t.Path == "" {
			t.Path = "/metrics"
		}
		address := t.Address
		t.Address = ""
		known, ok := byService[t.Service]
		switch {
		case t.Service == "" || address == "":
			faults = append(faults, fmt.Errorf("scrape target %q at %q: it needs both a service and an address", t.Service, address))
		case t.Interval != 0 && t.Interval < scrapeTimeout:
			faults = append(faults, fmt.Errorf("scrape target %s: its interval %s is shorter than the scrape timeout, %s", t.Service, t.Interval, scrapeTimeout))
		case !ok:
			byService[t.Service] = &job{Target: t, Addresses: []string{address}}
			jobs = append(jobs, byService[t.Service])
		case known.Target != t:
			faults = append(faults, fmt.Errorf("scrape target %s at %s: it differs from the service's first target in more than the address", t.Service, address))
		default:
			known.Addresses = append(known.Addresses, address)
		}
	}
	return jobs, errors.Join(faults...)
}
