package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

type serviceView struct {
	state
	Name         string   `json:"name"`
	Dependencies []string `json:"dependencies"`
	AffectedBy   []string `json:"affected_by"` // the services it needs, directly or not, that are not healthy
	NeededBy     []string `json:"needed_by"`   // the services that need it, directly or not
	Spark        string   `json:"-"`
}

type tierView struct {
	Name     string        `json:"name"`
	Services []serviceView `json:"services"`
}

// cause is a service that is not healthy although everything that it needs is.
type cause struct {
	Name     string   `json:"name"`
	State    string   `json:"state"`
	Affected []string `json:"affected"`
}

type overview struct {
	Total     int        `json:"total"` // of the services that can be checked
	Healthy   int        `json:"healthy"`
	Unknown   int        `json:"unknown"`
	Unwatched int        `json:"unwatched"`
	Causes    []cause    `json:"causes"`
	Tiers     []tierView `json:"tiers"`
	Watched   time.Time  `json:"watched_since"` // the console has no data from before
}

// overviewOf joins the services of the stack with the states of those that can be checked.
func overviewOf(services []stackService, m *monitor) overview {
	states := m.known()
	needs, neededBy := map[string][]string{}, map[string][]string{}
	for _, s := range services {
		needs[s.Name] = s.Dependencies
		for _, dependency := range s.Dependencies {
			neededBy[dependency] = append(neededBy[dependency], s.Name)
		}
	}
	isWell := func(name string) bool { return states[name].State != unhealthy && states[name].State != down }
	view := overview{Total: len(m.checkers), Watched: m.started, Causes: []cause{}}
	for _, s := range services {
		now, watched := states[s.Name]
		if !watched {
			now = state{State: unwatched, Since: m.started}
		}
		one := serviceView{state: now, Name: s.Name, Dependencies: s.Dependencies,
			NeededBy: reach(neededBy, s.Name), AffectedBy: slices.DeleteFunc(reach(needs, s.Name), isWell), Spark: spark(now.history)}
		switch now.State {
		case healthy:
			view.Healthy++
		case unknown:
			view.Unknown++
		case unwatched:
			view.Unwatched++
		}
		if !isWell(s.Name) && len(one.AffectedBy) == 0 {
			view.Causes = append(view.Causes, cause{Name: s.Name, State: now.State, Affected: one.NeededBy})
		}
		at := slices.IndexFunc(view.Tiers, func(t tierView) bool { return t.Name == s.Tier })
		if at < 0 {
			view.Tiers, at = append(view.Tiers, tierView{Name: s.Tier}), len(view.Tiers)
		}
		view.Tiers[at].Services = append(view.Tiers[at].Services, one)
	}
	return view
}

// reach lists everything that can be reached over the edges, sorted.
func reach(edges map[string][]string, from string) []string {
	seen := map[string]bool{}
	for next := slices.Clone(edges[from]); len(next) > 0; next = next[1:] {
		if name := next[0]; name != from && !seen[name] {
			seen[name] = true
			next = append(next, edges[name]...)
		}
	}
	return append([]string{}, slices.Sorted(maps.Keys(seen))...)
}

// spark draws latencies as the points of an SVG polyline, 80 wide and 18 high; failed checks are on the bottom line.
func spark(history []float64) string {
	highest := slices.Max(append([]float64{5}, history...)) // latencies below 5 ms look flat, because their noise does not matter
	points := make([]string, len(history))
	for i, ms := range history {
		y := 17.0
		if ms >= 0 {
			y = 15 - 13*ms/highest
		}
		points[i] = fmt.Sprintf("%d,%.1f", 2*(i+historyLength-len(history)), y)
	}
	return strings.Join(points, " ")
}
