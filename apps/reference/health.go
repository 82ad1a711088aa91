package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	neturl "net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	checkEvery   = 2 * time.Second
	checkTimeout = 2 * time.Second
	// checkFresh is how old a result may be and still answer a /health request: it keeps a chain of services from asking each other in bursts.
	checkFresh = time.Second
)

// checker asks one dependency whether it answers; nil means that it does.
type checker func(context.Context) error

type dependencyState struct {
	State     string    `json:"state"` // up or down
	LatencyMS float64   `json:"latency_ms"`
	Since     time.Time `json:"since"`
	Error     string    `json:"error,omitempty"`
}

// health knows which of a service's dependencies answer.
type health struct {
	service  string
	started  time.Time
	log      *slog.Logger
	metrics  *metrics
	checkers map[string]checker
	stopping atomic.Bool

	mu      sync.Mutex
	checked time.Time
	states  map[string]dependencyState
}

type healthAnswer struct {
	Service      string                     `json:"service"`
	Status       string                     `json:"status"` // ok, unavailable or stopping
	ReferenceApp bool                       `json:"reference_app"`
	StartedAt    time.Time                  `json:"started_at"`
	Dependencies map[string]dependencyState `json:"dependencies"`
}

func newHealth(rt *runtime, checkers map[string]checker) *health {
	return &health{service: rt.service.name, started: time.Now(), log: rt.log, metrics: rt.metrics, checkers: checkers, states: map[string]dependencyState{}}
}

// check asks all dependencies at once, unless that was done a moment ago, and tells their states.
func (h *health) check(ctx context.Context) map[string]dependencyState {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.checked) < checkFresh {
		return h.states
	}
	// A caller who goes away must not turn a healthy dependency into a failed one for everybody else.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	next := make(map[string]dependencyState, len(h.checkers))
	var results sync.Mutex
	var wg sync.WaitGroup
	for name, ask := range h.checkers {
		wg.Go(func() {
			begin := time.Now()
			err := ask(ctx)
			state := dependencyState{State: "up", LatencyMS: milliseconds(time.Since(begin)), Since: begin, Error: brief(err)}
			up := 1.0
			if err != nil {
				state.State, up = "down", 0
			}
			results.Lock()
			defer results.Unlock()
			before, ok := h.states[name]
			switch {
			case ok && before.State == state.State:
				state.Since = before.Since
			case err != nil:
				h.log.WarnContext(ctx, "dependency does not answer", "dependency", name, "error", state.Error)
			case ok:
				h.log.InfoContext(ctx, "dependency answers again", "dependency", name, "away_seconds", int(begin.Sub(before.Since).Seconds()))
			}
			next[name] = state
			h.metrics.dependencyUp.WithLabelValues(name).Set(up)
		})
	}
	wg.Wait()
	h.states, h.checked = next, time.Now()
	return next
}

// failing names the dependencies that do not answer.
func (h *health) failing(ctx context.Context) []string {
	var names []string
	for name, state := range h.check(ctx) {
		if state.State != "up" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// watch keeps dependency_up true to life while nobody asks.
func (h *health) watch(ctx context.Context) {
	for sleep(ctx, checkEvery) {
		h.check(ctx)
	}
}

func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	states := h.check(r.Context())
	answer := healthAnswer{Service: h.service, Status: "ok", ReferenceApp: true, StartedAt: h.started, Dependencies: maps.Clone(states)}
	code := http.StatusOK
	for _, state := range states {
		if state.State != "up" {
			answer.Status, code = "unavailable", http.StatusServiceUnavailable
		}
	}
	if h.stopping.Load() {
		answer.Status, code = "stopping", http.StatusServiceUnavailable
	}
	writeJSON(w, code, answer)
}

// live answers while the process can: it says nothing of its dependencies.
func (h *health) live(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"service": h.service, "status": "ok", "reference_app": true})
}

// checkURL asks a peer's health page; anything but 200 is a failure.
func checkURL(client *http.Client, url string) checker {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		passTrace(ctx, req.Header)
		res, err := client.Do(req)
		if err != nil {
			var failed *neturl.Error // it repeats the URL, which who asks knows
			if errors.As(err, &failed) {
				return failed.Err
			}
			return err
		}
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode != http.StatusOK {
			return badAnswer(res.StatusCode)
		}
		return nil
	}
}

// badAnswer is an HTTP status other than 200: the service is there, and not well.
type badAnswer int

// Error says the status.
func (b badAnswer) Error() string { return fmt.Sprintf("answers %d", int(b)) }

// checkTCP asks only whether the port takes connections.
func checkTCP(address string) checker {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
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
