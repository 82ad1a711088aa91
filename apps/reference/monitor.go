package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

const (
	checkEvery   = time.Second
	checkTimeout = 2 * time.Second
	// historyLength is the number of results that the console's page shows.
	historyLength = 40
)

const (
	healthy   = "healthy"
	unhealthy = "unhealthy" // it answers that it is not healthy
	down      = "down"      // it does not answer
	unknown   = "unknown"   // it has not been checked yet
	unwatched = "unwatched" // it has no address to check, and is not counted
)

// checker checks a service; nil means that it is healthy.
type checker func(context.Context) error

type state struct {
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	LatencyMS float64   `json:"latency_ms"`
	Error     string    `json:"error,omitempty"`
	history   []float64 // latencies, -1 for failed checks
}

// monitor checks a set of services regularly, and keeps their states.
type monitor struct {
	checkers map[string]checker
	started  time.Time
	// observe, if set, is called with each result.
	observe func(name string, before, now state)

	mu     sync.Mutex
	states map[string]state
}

func newMonitor(checkers map[string]checker) *monitor {
	m := &monitor{checkers: checkers, started: time.Now(), states: map[string]state{}}
	for name := range checkers {
		m.states[name] = state{State: unknown, Since: m.started}
	}
	return m
}

// watch checks the services until the context ends.
func (m *monitor) watch(ctx context.Context) {
	for ok := true; ok; ok = sleep(ctx, checkEvery) {
		m.ask(ctx)
	}
}

// ask checks all services at once. The results of a round are recorded together, because half of them could name the wrong cause.
func (m *monitor) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	before := m.known()
	next := maps.Clone(before)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, check := range m.checkers {
		wg.Go(func() {
			begin := time.Now()
			now := before[name].next(check(ctx), begin)
			mu.Lock()
			defer mu.Unlock()
			next[name] = now
		})
	}
	wg.Wait()
	if errors.Is(ctx.Err(), context.Canceled) {
		return // the service is stopping, so the results are meaningless
	}
	m.mu.Lock()
	m.states = next
	m.mu.Unlock()
	if m.observe != nil {
		for name, now := range next {
			m.observe(name, before[name], now)
		}
	}
}

// known returns the current states.
func (m *monitor) known() map[string]state {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.states)
}

// allHealthy reports whether every service is healthy.
func (m *monitor) allHealthy() bool {
	for _, s := range m.known() {
		if s.State != healthy {
			return false
		}
	}
	return true
}

// next returns the state after another result.
func (s state) next(err error, begin time.Time) state {
	now := state{State: healthy, Since: begin, LatencyMS: milliseconds(time.Since(begin)), Error: brief(err)}
	sample := now.LatencyMS
	if err != nil {
		now.State, sample = down, -1
		if errors.As(err, new(badAnswer)) {
			now.State = unhealthy
		}
	}
	if s.State == now.State {
		now.Since = s.Since
	}
	now.history = append(slices.Clone(s.history), sample)
	now.history = now.history[max(0, len(now.history)-historyLength):]
	return now
}

// badAnswer is an HTTP status other than 200: the service answers, but is not healthy.
type badAnswer int

// Error returns the status.
func (b badAnswer) Error() string { return fmt.Sprintf("answers %d", int(b)) }

// checkAddress requests a health page, or for tcp://host:port checks only that the port accepts connections.
func checkAddress(client *http.Client, address string) checker {
	return func(ctx context.Context) error {
		at, err := url.Parse(address)
		if err != nil {
			return err
		}
		if at.Scheme == "tcp" {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", at.Host)
			if err != nil {
				return err
			}
			return conn.Close()
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		var failed *url.Error // it repeats the URL, which the caller knows
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

// sleep waits, and reports whether the context is still active.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
