package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// stackService is one of the services that the plan tells the console of.
type stackService struct {
	Name string `json:"name"`
	Tier string `json:"tier"`
	// Health is where to ask: tcp://host:port, http://host:port/path, or empty where nothing answers.
	Health       string   `json:"health"`
	Dependencies []string `json:"dependencies"`
}

type (
	stackServices []*stackService
	stackLinks    map[string]string
)

// UnmarshalText reads STACK_SERVICES, a JSON list.
func (s *stackServices) UnmarshalText(text []byte) error {
	if err := json.Unmarshal(text, (*[]*stackService)(s)); err != nil {
		return fmt.Errorf("is not a JSON list of services: %w", err)
	}
	for _, one := range *s {
		if one == nil || one.Name == "" {
			return errors.New("has a service without a name")
		}
		if _, err := parseURL([]byte(one.Health), "tcp", "http", "https"); one.Health != "" && err != nil {
			return fmt.Errorf("health of %s: %w", one.Name, err)
		}
	}
	return nil
}

// UnmarshalText reads STACK_LINKS, a JSON object of name and URL.
func (l *stackLinks) UnmarshalText(text []byte) error {
	if err := json.Unmarshal(text, (*map[string]string)(l)); err != nil {
		return fmt.Errorf("is not a JSON object of name and URL: %w", err)
	}
	for name, link := range *l {
		if _, err := parseURL([]byte(link), "http", "https"); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

const (
	healthy   = "healthy"
	unhealthy = "unhealthy" // it answers, and says that it is not well
	down      = "down"      // it does not answer
	unknown   = "unknown"   // nothing was asked yet
	unwatched = "unwatched" // the plan gives no address to ask, so it counts neither way
	// historyLength is how many checks the page draws.
	historyLength = 40
)

type serviceState struct {
	State     string
	Since     time.Time
	LatencyMS float64
	Error     string
	history   []float64 // latencies; -1: no good answer
}

// monitor asks every service of the stack how it is, all the time, whether or not somebody looks.
type monitor struct {
	services []*stackService
	checkers map[string]checker
	started  time.Time

	mu     sync.Mutex
	states map[string]serviceState
}

func newMonitor(rt *runtime, services []*stackService) *monitor {
	m := &monitor{services: services, checkers: map[string]checker{}, started: time.Now(), states: map[string]serviceState{}}
	for _, s := range services {
		address, _ := url.Parse(s.Health)
		switch known, ok := rt.known[s.Name]; {
		case ok && !strings.HasPrefix(s.Health, "http"): // a real query says more than an open port
			m.checkers[s.Name] = known
		case s.Health == "":
			m.states[s.Name] = serviceState{State: unwatched, Since: m.started}
			continue
		case address.Scheme == "tcp":
			m.checkers[s.Name] = checkTCP(address.Host)
		default:
			m.checkers[s.Name] = checkURL(rt.peers, s.Health)
		}
		m.states[s.Name] = serviceState{State: unknown, Since: m.started}
	}
	return m
}

func (m *monitor) watch(ctx context.Context) {
	for {
		m.look(ctx)
		if !sleep(ctx, checkEvery) {
			return
		}
	}
}

// look asks all at once, and believes the answers at once: half a round would name the wrong cause.
func (m *monitor) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var mu sync.Mutex
	round := map[string]serviceState{}
	var wg sync.WaitGroup
	for name, ask := range m.checkers {
		wg.Go(func() {
			begin := time.Now()
			state := stateOf(ask(ctx), begin)
			mu.Lock()
			defer mu.Unlock()
			round[name] = state
		})
	}
	wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, now := range round {
		before, sample := m.states[name], now.LatencyMS
		if before.State == now.State {
			now.Since = before.Since
		}
		if now.State != healthy {
			sample = -1
		}
		now.history = append(slices.Clone(before.history), sample)
		now.history = now.history[max(0, len(now.history)-historyLength):]
		m.states[name] = now
	}
}

func stateOf(err error, begin time.Time) serviceState {
	state := serviceState{State: healthy, Since: begin, LatencyMS: milliseconds(time.Since(begin)), Error: brief(err)}
	var answered badAnswer
	switch {
	case errors.As(err, &answered):
		state.State = unhealthy
	case err != nil:
		state.State = down
	}
	return state
}

type serviceView struct {
	Name         string    `json:"name"`
	State        string    `json:"state"`
	Since        time.Time `json:"since"`
	LatencyMS    float64   `json:"latency_ms"`
	Error        string    `json:"error,omitempty"`
	Dependencies []string  `json:"dependencies"`
	// AffectedBy are the services it needs, directly or not, that are not healthy.
	AffectedBy []string `json:"affected_by"`
	// NeededBy are the services that need it, directly or not.
	NeededBy []string `json:"needed_by"`
	Spark    string   `json:"-"`
}

type tierView struct {
	Name     string        `json:"name"`
	Services []serviceView `json:"services"`
}

// cause is a service that is not healthy though all that it needs is.
type cause struct {
	Name     string    `json:"name"`
	State    string    `json:"state"`
	Since    time.Time `json:"since"`
	Affected []string  `json:"affected"`
}

type stackView struct {
	Total   int `json:"total"`
	Healthy int `json:"healthy"`
	Unknown int `json:"unknown"`
	// Unwatched services are not in the other counts.
	Unwatched int        `json:"unwatched"`
	Causes    []cause    `json:"causes"`
	Tiers     []tierView `json:"tiers"`
	// Watched is since when this console has looked: it knows nothing of the time before.
	Watched time.Time `json:"watched_since"`
}

func (m *monitor) view() stackView {
	m.mu.Lock()
	states := maps.Clone(m.states)
	m.mu.Unlock()
	needs, neededBy := map[string][]string{}, map[string][]string{}
	for _, s := range m.services {
		needs[s.Name] = s.Dependencies
		for _, dependency := range s.Dependencies {
			neededBy[dependency] = append(neededBy[dependency], s.Name)
		}
	}
	ill := func(name string) bool { state := states[name].State; return state == unhealthy || state == down }
	view := stackView{Total: len(m.checkers), Watched: m.started, Causes: []cause{}}
	for _, s := range m.services {
		state := states[s.Name]
		one := serviceView{Name: s.Name, State: state.State, Since: state.Since, LatencyMS: state.LatencyMS, Error: state.Error, Dependencies: s.Dependencies,
			NeededBy: reach(neededBy, s.Name), AffectedBy: slices.DeleteFunc(reach(needs, s.Name), func(n string) bool { return !ill(n) }), Spark: spark(state.history)}
		switch state.State {
		case healthy:
			view.Healthy++
		case unknown:
			view.Unknown++
		case unwatched:
			view.Unwatched++
		}
		if ill(s.Name) && len(one.AffectedBy) == 0 {
			view.Causes = append(view.Causes, cause{Name: s.Name, State: state.State, Since: state.Since, Affected: one.NeededBy})
		}
		at := slices.IndexFunc(view.Tiers, func(t tierView) bool { return t.Name == s.Tier })
		if at < 0 {
			view.Tiers, at = append(view.Tiers, tierView{Name: s.Tier}), len(view.Tiers)
		}
		view.Tiers[at].Services = append(view.Tiers[at].Services, one)
	}
	return view
}

// reach lists all that can be reached over the edges, sorted.
func reach(edges map[string][]string, from string) []string {
	seen := map[string]bool{}
	next := slices.Clone(edges[from])
	for len(next) > 0 {
		name := next[0]
		next = next[1:]
		if name != from && !seen[name] {
			seen[name] = true
			next = append(next, edges[name]...)
		}
	}
	return append([]string{}, slices.Sorted(maps.Keys(seen))...)
}

// spark draws latencies as the points of an SVG polyline, 80 wide and 18 high; a gap in health is the bottom line.
func spark(history []float64) string {
	highest := 5.0 // below this all is flat: noise of a quick answer is no news
	for _, ms := range history {
		highest = max(highest, ms)
	}
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
