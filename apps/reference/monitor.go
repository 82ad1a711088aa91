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
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	LatencyMS float64   `json:"latency_ms"`
	Error     string    `json:"error,omitempty"`
	history   []float64 // latencies, -1 where there was no good answer
}

// monitor asks a set of services all the time, and knows how they are.
type monitor struct {
	checkers map[string]checker
	started  time.Time
	// observe, where set, is told of each result.
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

// watch asks until the context ends.
func (m *monitor) watch(ctx context.Context) {
	for ok := true; ok; ok = sleep(ctx, checkEvery) {
		m.ask(ctx)
	}
}

// ask asks all services at once. The results of one round are taken over together: half a round would name the wrong cause.
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
		return // the service is stopping, which says nothing about the others
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

// known returns the states.
func (m *monitor) known() map[string]state {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.states)
}

// allHealthy reports whether every service answers well.
func (m *monitor) allHealthy() bool {
	for _, s := range m.known() {
		if s.State != healthy {
			return false
		}
	}
	return true
}

// next is the state after one more result.
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

// badAnswer is an HTTP status other than 200: the service is there, and not well.
type badAnswer int

// Error says the status.
func (b badAnswer) Error() string { return fmt.Sprintf("answers %d", int(b)) }

// checkAddress asks a health page, or for tcp://host:port only whether the port takes connections.
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
		var failed *url.Error // it repeats the URL, which whoever asks knows
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
