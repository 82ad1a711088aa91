package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/felixge/httpsnoop"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type metrics struct {
	registry     *prometheus.Registry
	requests     *prometheus.CounterVec
	durations    *prometheus.HistogramVec
	dependencyUp *prometheus.GaugeVec
	jobs         *prometheus.CounterVec
}

func newMetrics() *metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	auto := promauto.With(registry)
	return &metrics{
		registry:     registry,
		requests:     auto.NewCounterVec(prometheus.CounterOpts{Name: "http_requests_total", Help: "Requests answered."}, []string{"method", "route", "status"}),
		durations:    auto.NewHistogramVec(prometheus.HistogramOpts{Name: "http_request_duration_seconds", Help: "Time to answer a request."}, []string{"method", "route"}),
		dependencyUp: auto.NewGaugeVec(prometheus.GaugeOpts{Name: "dependency_up", Help: "1 while the dependency answers, else 0."}, []string{"dependency"}),
		jobs:         auto.NewCounterVec(prometheus.CounterOpts{Name: "jobs_total", Help: "Queue jobs by how they ended."}, []string{"queue", "result"}),
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

type traceKey struct{}

// withTrace returns a context the trace id that its log lines and jobs carry.
func withTrace(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, traceKey{}, id)
}

func traceOf(ctx context.Context) string {
	id, _ := ctx.Value(traceKey{}).(string)
	return id
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}

// identifier matches valid names of jobs, queues and trace ids, which become rows, file names and log fields.
var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// traceHandler adds the context's trace id, or that of the process's start, to each line.
type traceHandler struct {
	slog.Handler
	start string
}

// Handle writes one line.
func (h traceHandler) Handle(ctx context.Context, r slog.Record) error {
	id := traceOf(ctx)
	if id == "" {
		id = h.start
	}
	r.AddAttrs(slog.String("trace_id", id))
	return h.Handler.Handle(ctx, r)
}

// newLogger writes JSON lines with the fields that the stack's log collector reads: timestamp, level, service, trace_id, message.
func newLogger(w io.Writer, service string, level slog.Leveler) *slog.Logger {
	rename := func(_ []string, a slog.Attr) slog.Attr {
		switch a.Key {
		case slog.TimeKey:
			a.Key = "timestamp"
		case slog.MessageKey:
			a.Key = "message"
		}
		return a
	}
	lines := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: rename})
	return slog.New(traceHandler{lines.WithAttrs([]slog.Attr{slog.String("service", service)}), randomHex(16)})
}

// brief shortens an error for a log line or a response.
func brief(err error) string {
	if err == nil {
		return ""
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	return text
}

// handler returns the service's routes with their protection, and with logging and metrics of all requests.
func (s *service) handler() http.Handler {
	inner := s.protect(s.mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !identifier.MatchString(id) {
			id = randomHex(16)
		}
		r = r.WithContext(withTrace(r.Context(), id))
		w.Header().Set("X-Request-Id", id)
		s.observeRequest(r, httpsnoop.CaptureMetrics(inner, w, r))
	})
}

// observeRequest logs and counts a request by its route, because method and path are arbitrary and the query may contain codes.
func (s *service) observeRequest(r *http.Request, answer httpsnoop.Metrics) {
	_, pattern := s.mux.Handler(r)
	method, route, matched := strings.Cut(pattern, " ")
	if !matched {
		method, route = "other", "unmatched"
	}
	s.metrics.requests.WithLabelValues(method, route, strconv.Itoa(answer.Code)).Inc()
	s.metrics.durations.WithLabelValues(method, route).Observe(answer.Duration.Seconds())
	level := slog.LevelInfo
	switch {
	case route == "/healthz" || route == "/live" || s.inside(route):
		level = slog.LevelDebug // requested every few seconds; a change of health is logged separately
	case answer.Code >= 500:
		level = slog.LevelWarn
	}
	s.log.Log(r.Context(), level, "request", "method", method, "route", route, "status", answer.Code, "duration_ms", milliseconds(answer.Duration))
}

// pagePolicy lets a page load only files of its own origin.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// protect refuses cross-site requests, hides internal paths from requests that come through a proxy, and sets the security headers
// on every response.
func (s *service) protect(next http.Handler) http.Handler {
	guard := http.NewCrossOriginProtection()
	guard.AddInsecureBypassPattern("POST /csp-report") // browsers send these without a user's action
	own := guard.Handler(next)
	policy := "Content-Security-Policy"
	if s.reportOnly {
		policy += "-Report-Only"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set(policy, s.policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if s.inside(r.URL.Path) && s.proxies.holds(r.RemoteAddr) {
			http.NotFound(w, r)
			return
		}
		own.ServeHTTP(w, r)
	})
}

// inside reports whether a path is only for the stack's own services.
func (s *service) inside(path string) bool {
	return path == "/metrics" || path == "/health" || path == "/readyz" || path == s.readiness()
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value) // the client may have disconnected; there is nothing to do about it
}
