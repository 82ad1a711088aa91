package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/felixge/httpsnoop"
)

// handler is the whole service: its routes, then what wraps them, then logging and metrics, which see everything.
func (s *service) handler() http.Handler {
	inner := s.wrap(s.mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(withTrace(r.Context(), traceFrom(r.Header)))
		w.Header().Set("X-Request-Id", traceOf(r.Context()))
		w.Header().Set("X-Content-Type-Options", "nosniff")
		answer := httpsnoop.CaptureMetrics(inner, w, r)
		s.observeRequest(r, answer.Code, answer.Duration)
	})
}

// observeRequest logs and counts a request by its route: the path as it came may hold anything, and the query may hold codes.
func (s *service) observeRequest(r *http.Request, status int, took time.Duration) {
	_, pattern := s.mux.Handler(r)
	_, route, _ := strings.Cut(pattern, " ")
	if route == "" {
		route = "unmatched"
	}
	method := r.Method
	if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}, method) {
		method = "other"
	}
	s.metrics.requests.WithLabelValues(method, route, fmt.Sprint(status)).Inc()
	s.metrics.durations.WithLabelValues(method, route).Observe(took.Seconds())
	level := slog.LevelInfo
	switch {
	case route == "/healthz" || route == "/live" || s.inside(route):
		level = slog.LevelDebug // asked every few seconds; a change of health has a line of its own
	case status >= 500:
		level = slog.LevelWarn
	}
	s.log.Log(r.Context(), level, "request", "method", method, "route", route, "status", status, "duration_ms", milliseconds(took))
}

// inside tells whether a path is for the stack's own services, and not for those who come through a proxy.
func (s *service) inside(path string) bool {
	return path == "/metrics" || path == "/health" || path == "/readyz" || path == s.readiness()
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value) // the client may have gone; nothing is left to tell it
}

// pagePolicy lets a page load its own files and nothing else from anywhere.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

func pageHeaders(w http.ResponseWriter, policy string) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}
