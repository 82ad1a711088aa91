package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Services that are not healthy are checked in each round, and healthy ones in every third: hundreds of replicas would otherwise ask
// PostgreSQL and Redis a thousand times a second.
const (
	checkEvery   = time.Second
	healthyEvery = 3 // rounds
	checkTimeout = 2 * time.Second
)

const (
	healthy   = "healthy"
	unhealthy = "unhealthy" // it answers that it is not healthy
	down      = "down"      // it does not answer
	unknown   = "unknown"   // it has not been checked yet
	unwatched = "unwatched" // it has no address to check, and is not counted
)

// state is what is known of a service.
type state struct {
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	LatencyMS float64   `json:"latency_ms"`
	Error     string    `json:"error,omitempty"`
	recent    []float64 // the latest results as heights of a line that is 18 high: latencies on a logarithmic scale, failures at the bottom
}

func (s state) isIll() bool { return s.State == unhealthy || s.State == down }

// next returns the state after another result.
func (s state) next(err error, latency time.Duration) state {
	ms := milliseconds(latency)
	now := state{State: healthy, Since: time.Now(), LatencyMS: ms}
	height := 15 - min(13, 2*math.Log2(1+ms))
	if err != nil {
		now.State, now.Error, height = down, err.Error(), 17
		if _, answers := errors.AsType[badAnswer](err); answers {
			now.State = unhealthy
		}
	}
	if s.State == now.State {
		now.Since = s.Since
	}
	now.recent = append(slices.Clone(s.recent[max(0, len(s.recent)-39):]), height)
	return now
}

// monitor checks services regularly, and keeps their states.
type monitor struct {
	checkers map[string]func(context.Context) error
	started  time.Time
	observe  func(name string, before, now state) // is called with each result
	states   atomic.Pointer[map[string]state]     // the map is never changed, only replaced
}

// newMonitor watches the services with these health URLs.
func (s *service) newMonitor(addresses map[string]string, observe func(name string, before, now state)) *monitor {
	m := &monitor{checkers: map[string]func(context.Context) error{}, started: time.Now(), observe: observe}
	states := map[string]state{}
	for name, address := range addresses {
		states[name] = state{State: unwatched, Since: m.started}
		if address != "" {
			states[name] = state{State: unknown, Since: m.started}
			m.checkers[name] = s.checker(name, address)
		}
	}
	m.states.Store(&states)
	s.background = append(s.background, func(ctx context.Context) {
		for round := 0; round == 0 || sleep(ctx, checkEvery); round++ {
			m.ask(ctx, round%healthyEvery == 0)
		}
	})
	return m
}

func (m *monitor) known() map[string]state { return *m.states.Load() }

// allHealthy reports whether every service that can be checked is healthy.
func (m *monitor) allHealthy() bool {
	for _, s := range m.known() {
		if s.State != healthy && s.State != unwatched {
			return false
		}
	}
	return true
}

// ask checks services at once: all, or only those that are not healthy. The results of a round are recorded together, because half
// of them could name the wrong cause.
func (m *monitor) ask(ctx context.Context, all bool) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	before := m.known()
	after := maps.Clone(before)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, check := range m.checkers {
		if !all && before[name].State == healthy {
			continue
		}
		wg.Go(func() {
			begin := time.Now()
			now := before[name].next(check(ctx), time.Since(begin))
			mu.Lock()
			defer mu.Unlock()
			after[name] = now
		})
	}
	wg.Wait()
	if errors.Is(ctx.Err(), context.Canceled) {
		return // the service is stopping, so the results are meaningless
	}
	m.states.Store(&after)
	for name, now := range after {
		m.observe(name, before[name], now)
	}
}

// checker checks PostgreSQL and Redis with a query if the service has a connection, because that proves more than an open port.
func (s *service) checker(name, address string) func(context.Context) error {
	switch {
	case name == "postgres" && s.db != nil:
		return s.db.check
	case name == "redis" && s.rdb != nil:
		return func(ctx context.Context) error {
			_, err := s.rdb.do(ctx, "PING")
			return err
		}
	}
	return func(ctx context.Context) error { return checkAddress(ctx, s.peers, address) }
}

// badAnswer is an HTTP status other than 200: the service answers, but is not healthy.
type badAnswer struct {
	code int
	text string
}

// Error returns the status.
func (b badAnswer) Error() string { return fmt.Sprintf("answers %d", b.code) }

// checkAddress requests a health page, or for tcp://host:port checks only that the port accepts connections.
func checkAddress(ctx context.Context, client *http.Client, address string) error {
	if port, ok := strings.CutPrefix(address, "tcp://"); ok {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", port)
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
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err // without the URL, which the caller knows
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return badAnswer{res.StatusCode, string(text)}
	}
	return nil
}

// observeDependency sets the metric dependency_up, and logs when a dependency becomes unavailable or available.
func (s *service) observeDependency(name string, before, now state) {
	s.metrics.GetOrCreateGauge(fmt.Sprintf(`dependency_up{dependency=%q}`, name), nil).Set(map[bool]float64{true: 1}[now.State == healthy])
	if now.isIll() && !before.isIll() {
		s.log.Warn("dependency does not answer", "dependency", name, "error", now.Error)
	} else if before.isIll() && !now.isIll() {
		s.log.Info("dependency answers again", "dependency", name, "away_seconds", int(now.Since.Sub(before.Since).Seconds()))
	}
}

type healthAnswer struct {
	Service      string           `json:"service"`
	Status       string           `json:"status"` // ok, unavailable or stopping
	ReferenceApp bool             `json:"reference_app"`
	StartedAt    time.Time        `json:"started_at"`
	Dependencies map[string]state `json:"dependencies,omitempty"`
}

// ready answers 200 while every dependency answers.
func (s *service) ready(w http.ResponseWriter, _ *http.Request) {
	status, code := "ok", http.StatusOK
	if s.stopping.Load() {
		status, code = "stopping", http.StatusServiceUnavailable
	} else if !s.health.allHealthy() {
		status, code = "unavailable", http.StatusServiceUnavailable
	}
	writeJSON(w, code, healthAnswer{s.Name, status, true, s.health.started, s.health.known()})
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
