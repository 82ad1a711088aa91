package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
)

type traceKey struct{}

// withTrace gives a context the trace id that its log lines carry and that its calls to peers pass on.
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

var (
	// identifier is what a job, a queue and a trace id may be called: they become rows, file names and log fields.
	identifier  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	traceParent = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}`)
	hexTrace    = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// traceFrom takes a request's trace id from X-Request-Id or the W3C traceparent, or makes one.
func traceFrom(h http.Header) string {
	if id := h.Get("X-Request-Id"); identifier.MatchString(id) {
		return id
	}
	if m := traceParent.FindStringSubmatch(h.Get("Traceparent")); m != nil {
		return m[1]
	}
	return randomHex(16)
}

// passTrace puts the context's trace id on a request to a peer.
func passTrace(ctx context.Context, h http.Header) {
	if id := traceOf(ctx); id != "" {
		h.Set("X-Request-Id", id)
		if hexTrace.MatchString(id) {
			h.Set("Traceparent", "00-"+id+"-"+randomHex(8)+"-01")
		}
	}
}

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
	json := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: rename})
	return slog.New(traceHandler{json.WithAttrs([]slog.Attr{slog.String("service", service)}), randomHex(16)})
}

// brief keeps an error short enough for a log line or an answer.
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
