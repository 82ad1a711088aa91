package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/VictoriaMetrics/metrics"
	"github.com/felixge/httpsnoop"
)

// identifier matches valid names of jobs, queues and trace ids, which become rows, file names and log fields.
var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// traceKey is the key of a context's trace id.
type traceKey struct{}

// traceHandler adds the context's trace id, or that of the process's start, to each line.
type traceHandler struct {
	slog.Handler
	start string
}

// Handle writes one line.
func (h traceHandler) Handle(ctx context.Context, r slog.Record) error {
	id, _ := ctx.Value(traceKey{}).(string)
	r.AddAttrs(slog.String("trace_id", cmp.Or(id, h.start)))
	return h.Handler.Handle(ctx, r)
}

// newLogger writes JSON lines with the fields that the stack's log collector reads: timestamp, level, service, trace_id, message.
func newLogger(w io.Writer, service string, level slog.Leveler) *slog.Logger {
	names := map[string]string{slog.TimeKey: "timestamp", slog.MessageKey: "message"}
	rename := func(_ []string, a slog.Attr) slog.Attr {
		a.Key = cmp.Or(names[a.Key], a.Key)
		return a
	}
	lines := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: rename})
	return slog.New(traceHandler{lines.WithAttrs([]slog.Attr{slog.String("service", service)}), rand.Text()})
}

// handler returns the service's routes with their protection, and with logging and metrics of all requests. A request is logged and counted
// by its route, because its method and path are arbitrary, and its query may contain codes.
func (s *service) handler() http.Handler {
	inner := s.protect(s.mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !identifier.MatchString(id) {
			id = rand.Text()
		}
		r = r.WithContext(context.WithValue(r.Context(), traceKey{}, id))
		w.Header().Set("X-Request-Id", id)
		answer := httpsnoop.CaptureMetrics(inner, w, r)
		_, pattern := s.mux.Handler(r)
		method, route, matched := strings.Cut(pattern, " ")
		if !matched {
			method, route = "other", "unmatched"
		}
		s.metrics.GetOrCreateCounter(fmt.Sprintf(`http_requests_total{method=%q,route=%q,status="%d"}`, method, route, answer.Code)).Inc()
		s.metrics.GetOrCreatePrometheusHistogram(fmt.Sprintf(`http_request_duration_seconds{method=%q,route=%q}`, method, route)).Update(answer.Duration.Seconds())
		level := slog.LevelInfo
		if route == "/healthz" || route == "/live" || s.inside(route) {
			level = slog.LevelDebug // requested every few seconds; a change of health is logged separately
		} else if answer.Code >= 500 {
			level = slog.LevelWarn
		}
		s.log.Log(r.Context(), level, "request", "method", method, "route", route, "status", answer.Code, "duration_ms", milliseconds(answer.Duration))
	})
}

func (s *service) showMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	s.metrics.WritePrometheus(w)
	metrics.WriteProcessMetrics(w)
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
		if s.inside(r.URL.Path) && s.proxied(r) {
			http.NotFound(w, r)
			return
		}
		own.ServeHTTP(w, r)
	})
}

// inside reports whether a path is only for the stack's own services.
func (s *service) inside(path string) bool {
	return slices.Contains([]string{"/metrics", "/health", "/readyz", s.url().Path}, path)
}

func (s *service) proxied(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && slices.ContainsFunc(s.proxies, func(p netip.Prefix) bool { return p.Contains(peer.Addr().Unmap()) })
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value) // the client may have disconnected; there is nothing to do about it
}
