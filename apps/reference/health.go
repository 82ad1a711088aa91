package main

import (
	"net/http"
	"time"
)

type healthAnswer struct {
	Service      string           `json:"service"`
	Status       string           `json:"status"` // ok, unavailable or stopping
	ReferenceApp bool             `json:"reference_app"`
	StartedAt    time.Time        `json:"started_at"`
	Dependencies map[string]state `json:"dependencies"`
}

// ready answers 200 while every dependency answers.
func (s *service) ready(w http.ResponseWriter, _ *http.Request) {
	answer := healthAnswer{Service: s.Name, Status: "ok", ReferenceApp: true, StartedAt: s.health.started, Dependencies: s.health.known()}
	code := http.StatusServiceUnavailable
	switch {
	case s.stopping.Load():
		answer.Status = "stopping"
	case !s.health.allHealthy():
		answer.Status = "unavailable"
	default:
		code = http.StatusOK
	}
	writeJSON(w, code, answer)
}

// live answers while the process runs, whatever the state of the dependencies.
func (s *service) live(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"service": s.Name, "status": "ok", "reference_app": true})
}

// observeDependency sets the metric dependency_up, and logs when a dependency becomes unavailable or available.
func (s *service) observeDependency(name string, before, now state) {
	up := 0.0
	if now.State == healthy {
		up = 1
	}
	s.metrics.dependencyUp.WithLabelValues(name).Set(up)
	switch {
	case before.State == now.State:
	case now.State != healthy:
		s.log.Warn("dependency does not answer", "dependency", name, "error", now.Error)
	case before.State != unknown:
		s.log.Info("dependency answers again", "dependency", name, "away_seconds", int(now.Since.Sub(before.Since).Seconds()))
	}
}
