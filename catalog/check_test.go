package catalog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
)

func TestCheckFindsNothingWrongWithTheCatalog(t *testing.T) {
	require.NoError(t, catalog.Check(catalog.Services()))
}

// sound is a service without mistakes.
func sound(name string, after ...string) catalog.Service {
	return catalog.Service{
		Name: name, Tier: catalog.Base, Image: "example:1", After: after,
		Probe: catalog.Probe{Command: []string{"CMD", "true"}},
	}
}

func with(s catalog.Service, change func(*catalog.Service)) catalog.Service {
	change(&s)
	return s
}

func TestCheck(t *testing.T) {
	for name, test := range map[string]struct {
		services []catalog.Service
		want     []string // the error's lines; none for no error
	}{
		"a sound one": {
			[]catalog.Service{sound("a"), sound("b", "a")}, nil,
		},
		"one name twice": {
			[]catalog.Service{sound("a"), sound("a")},
			[]string{"service a is defined twice in the catalog"},
		},
		"an unknown profile": {
			[]catalog.Service{with(sound("a"), func(s *catalog.Service) { s.Profile = "prod" })},
			[]string{`service a has profile "prod", which is not in the catalog`},
		},
		"neither app nor image": {
			[]catalog.Service{with(sound("a"), func(s *catalog.Service) { s.Image = "" })},
			[]string{"service a needs either an app or a stock image"},
		},
		"both app and image": {
			[]catalog.Service{with(sound("a"), func(s *catalog.Service) { s.App = "a" })},
			[]string{"service a needs either an app or a stock image"},
		},
		"no probe": {
			[]catalog.Service{with(sound("a"), func(s *catalog.Service) { s.Probe = catalog.Probe{} })},
			[]string{"service a has no probe, so no service can wait for it"},
		},
		"exceptions": {
			[]catalog.Service{with(sound("a"), func(s *catalog.Service) {
				s.Exceptions = map[catalog.Rule]string{catalog.RuleOwner: "it is everybody's", catalog.RuleMemory: "", "memory": "it is measured"}
			})},
			[]string{`service a has an exception from "memory" that names no rule, or has no reason`, `service a has an exception from "memory-limit" that names no rule, or has no reason`},
		},
		"replicas that publish a port": {
			[]catalog.Service{with(sound("a"), func(s *catalog.Service) { s.Scalable, s.Ports = true, []catalog.Port{{Host: 1}} })},
			[]string{"service a is scalable and publishes ports, which only one container can"},
		},
		"an edge to nowhere": {
			[]catalog.Service{sound("a", "b")},
			[]string{"service a starts after b, which is not in the catalog"},
		},
		"an edge from the base to a profile": {
			[]catalog.Service{sound("a", "b"), with(sound("b"), func(s *catalog.Service) { s.Profile = "dev" })},
			[]string{"service a starts after b, which is enabled by profile dev only"},
		},
		"an edge between profiles": {
			[]catalog.Service{
				with(sound("a", "b"), func(s *catalog.Service) { s.Profile = "workers" }),
				with(sound("b"), func(s *catalog.Service) { s.Profile = "dev" }),
			},
			[]string{"service a starts after b, which is enabled by profile dev only"},
		},
		"an edge within a profile": {
			[]catalog.Service{
				with(sound("a", "b"), func(s *catalog.Service) { s.Profile = "dev" }),
				with(sound("b"), func(s *catalog.Service) { s.Profile = "dev" }),
			}, nil,
		},
		"an unknown volume": {
			[]catalog.Service{with(sound("a"), func(s *catalog.Service) { s.Mounts = []catalog.Mount{{Volume: "scratch", Path: "/x"}} })},
			[]string{"service a mounts volume scratch, which is not in the catalog"},
		},
		"facts that there are not": {
			[]catalog.Service{
				with(sound("a"), func(s *catalog.Service) {
					s.Env = []catalog.Variable{{Name: "A", Value: "${stak} ${port} ${url:b} ${url:c} ${host:b}"}}
					s.Metrics = catalog.Metrics{Component: "x", Interval: time.Second}
				}),
				with(sound("b"), func(s *catalog.Service) {
					s.Port, s.Env = 80, []catalog.Variable{{Name: "B", Value: "${stack} ${port} ${port:b} ${database_url} ${SHELL}"}}
				}),
			},
			[]string{
				"service a uses ${stak}, which is not a known fact", "service a uses ${port}, which is not a known fact",
				"service a uses the url of c, which is not a service with a port", "service a uses ${host:b}, which is not a known fact",
				"service a has metrics, but no port to scrape them from", "service a has a scrape interval of 1s, which is shorter than Prometheus' scrape timeout of 10s",
			},
		},
		"a need that it does not wait for": {
			[]catalog.Service{sound("b"), with(sound("a"), func(s *catalog.Service) { s.Needs = []string{"b"} })},
			[]string{"service a needs b, but does not start after it"},
		},
		"the file of a tier": {
			[]catalog.Service{with(sound("a", "b"), func(s *catalog.Service) { s.Tier = catalog.API })},
			[]string{"catalog/apis.go: service a starts after b, which is not in the catalog"},
		},
		"an unknown network": {
			[]catalog.Service{with(sound("a"), func(s *catalog.Service) { s.Networks = []string{"host"} })},
			[]string{"service a joins network host, which is not in the catalog"},
		},
		"a cycle prints its path, without the way to it": {
			[]catalog.Service{sound("a", "b"), sound("b", "c"), sound("c", "d"), sound("d", "b")},
			[]string{"services wait for each other: b → c → d → b"},
		},
		"a service that waits for itself": {
			[]catalog.Service{sound("a", "a")},
			[]string{"services wait for each other: a → a"},
		},
		"two ways to one service are no cycle": {
			[]catalog.Service{sound("a", "b", "c"), sound("b", "d"), sound("c", "d"), sound("d")}, nil,
		},
		"all that is wrong at once": {
			[]catalog.Service{
				with(sound("a", "ghost"), func(s *catalog.Service) { s.Profile, s.Image = "prod", "" }),
				sound("b", "b"),
			},
			[]string{
				`service a has profile "prod", which is not in the catalog`,
				"service a needs either an app or a stock image",
				"service a starts after ghost, which is not in the catalog",
				"services wait for each other: b → b",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := catalog.Check(test.services)
			if test.want == nil {
				require.NoError(t, err)
				return
			}
			for i, line := range test.want {
				if strings.HasPrefix(line, "service ") {
					test.want[i] = "catalog/base.go: " + line
				}
			}
			assert.EqualError(t, err, strings.Join(test.want, "\n"))
		})
	}
}
