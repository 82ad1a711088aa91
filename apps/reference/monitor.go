package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	neturl "net/url"
	"slices"
	"sync"
	"time"
)

const (
	checkEvery   = 2 * time.Second
	checkTimeout = 2 * time.Second
	// checkFresh is how old a result may be and still answer a request: it keeps a chain of services from asking each other in bursts.
	checkFresh = time.Second
	// historyLength is how many results the console's page draws.
	historyLength = 40
)

const (
	healthy   = "healthy"
	unhealthy = "unhealthy" // it answers, and says that it is not well
	down      = "down"      // it does not answer
	unknown   = "unknown"   // nothing was asked yet
	unwatched = "unwatched" // it has no address to ask, so it counts neither way
)

// checker asks a service whether it answers; nil means that it does.
type checker func(context.Context) error

type state struct {
	State     string
	Since     time.Time
	LatencyMS float64
	Error     string
	history   []float64 // latencies, -1 where there was no good answer
}

// monitor knows how a set of services is.
type monitor struct {
	checkers map[string]checker
	started  time.Time
	// observe, where set, is told of each result.
	observe func(ctx context.Context, name string, before, now state)

	asking sync.Mutex // held while the services are asked
	mu     sync.Mutex // guards what follows
	asked  time.Time
	states map[string]state
}

func newMonitor(checkers map[string]checker) *monitor {
	m := &monitor{checkers: checkers, started: time.Now(), states: map[string]state{}}
	for name := range checkers {
		m.states[name] = state{State: unknown, Since: m.started}
	}
	return m
}

// watch asks all the time, whether or not somebody looks.
func (m *monitor) watch(ctx context.Context) {
	for ok := true; ok; ok = sleep(ctx, checkEvery) {
		m.look(ctx)
	}
}

// look asks all services at once, unless that was done a moment ago, and gives their states. The results of one round are taken over
// together: half a round would name the wrong cause.
func (m *monitor) look(ctx context.Context) map[string]state {
	m.asking.Lock()
	defer m.asking.Unlock()
	if states, at := m.known(); time.Since(at) < checkFresh {
		return states
	}
	// A caller who goes away must not turn a healthy service into a failed one for everybody else.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	results := map[string]state{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, ask := range m.checkers {
		wg.Go(func() {
			begin := time.Now()
			result := stateOf(ask(ctx), begin)
			mu.Lock()
			defer mu.Unlock()
			results[name] = result
		})
	}
	wg.Wait()
	before, _ := m.known()
	next := map[string]state{}
	for name, now := range results {
		next[name] = now.after(before[name])
		if m.observe != nil {
			m.observe(ctx, name, before[name], next[name])
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states, m.asked = next, time.Now()
	return maps.Clone(next)
}

// known gives the states without asking, and when they were asked for.
func (m *monitor) known() (map[string]state, time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.states), m.asked
}

// failing names the services that do not answer well.
func (m *monitor) failing(ctx context.Context) (names []string) {
	for name, s := range m.look(ctx) {
		if s.State != healthy {
			names = append(names, name)
		}
	}
	return names
}

func stateOf(err error, begin time.Time) state {
	s := state{State: healthy, Since: begin, LatencyMS: milliseconds(time.Since(begin)), Error: brief(err)}
	var answered badAnswer
	switch {
	case errors.As(err, &answered):
		s.State = unhealthy
	case err != nil:
		s.State = down
	}
	return s
}

// after joins a new result to the state before.
func (s state) after(before state) state {
	sample := s.LatencyMS
	if before.State == s.State {
		s.Since = before.Since
	}
	if s.State != healthy {
		sample = -1
	}
	s.history = append(slices.Clone(before.history), sample)
	s.history = s.history[max(0, len(s.history)-historyLength):]
	return s
}

// badAnswer is an HTTP status other than 200: the service is there, and not well.
type badAnswer int

// Error says the status.
func (b badAnswer) Error() string { return fmt.Sprintf("answers %d", int(b)) }

// checkAddress asks a health page, or for tcp://host:port only whether the port takes connections.
func checkAddress(client *http.Client, address string) checker {
	return func(ctx context.Context) error {
		url, err := neturl.Parse(address)
		if err != nil {
			return err
		}
		if url.Scheme == "tcp" {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", url.Host)
			if err != nil {
				return err
			}
			return conn.Close()
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		passTrace(ctx, req.Header)
		res, err := client.Do(req)
		var failed *neturl.Error // it repeats the URL, which whoever asks knows
		if errors.As(err, &failed) {
			return failed.Err
		} else if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode != http.StatusOK {
			return badAnswer(res.StatusCode)
		}
		return nil
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// sleep waits, and tells whether there is still reason to go on.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
