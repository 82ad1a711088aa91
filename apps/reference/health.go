package main

import (
	"context"
	"net/http"
	"time"
)

type healthAnswer struct {
	Service      string                     `json:"service"`
	Status       string                     `json:"status"` // ok, unavailable or stopping
	ReferenceApp bool                       `json:"reference_app"`
	StartedAt    time.Time                  `json:"started_at"`
	Dependencies map[string]dependencyState `json:"dependencies"`
}

type dependencyState struct {
	State     string    `json:"state"` // up or down
	LatencyMS float64   `json:"latency_ms"`
	Since     time.Time `json:"since"`
	Error     string    `json:"error,omitempty"`
}

// ready answers 200 while every dependency answers.
func (s *service) ready(w http.ResponseWriter, r *http.Request) {
	answer := healthAnswer{Service: s.Name, Status: "ok", ReferenceApp: true, StartedAt: s.health.started, Dependencies: map[string]dependencyState{}}
	code := http.StatusOK
	for name, now := range s.health.look(r.Context()) {
		one := dependencyState{State: "up", LatencyMS: now.LatencyMS, Since: now.Since, Error: now.Error}
		if now.State != healthy {
			one.State, answer.Status, code = "down", "unavailable", http.StatusServiceUnavailable
		}
		answer.Dependencies[name] = one
	}
	if s.stopping.Load() {
		answer.Status, code = "stopping", http.StatusServiceUnavailable
	}
	writeJSON(w, code, answer)
}

// live answers while the process can; it says nothing of the dependencies.
func (s *service) live(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"service": s.Name, "status": "ok", "reference_app": true})
}

// observeDependency keeps the metric dependency_up, and logs when a dependency goes away or comes back.
func (s *service) observeDependency(ctx context.Context, name string, before, now state) {
	up := 1.0
	if now.State != healthy {
		up = 0
	}
	s.metrics.dependencyUp.WithLabelValues(name).Set(up)
	switch {
	case before.State == now.State:
	case now.State != healthy:
		s.log.WarnContext(ctx, "dependency does not answer", "dependency", name, "error", now.Error)
	case before.State != unknown:
		s.log.InfoContext(ctx, "dependency answers again", "dependency", name, "away_seconds", int(now.Since.Sub(before.Since).Seconds()))
	}
}
