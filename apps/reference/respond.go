package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

const bodyLimit = 1 << 20

// problem is an error with the HTTP status that tells a client whose fault it is.
type problem struct {
	status int
	text   string
}

// Error is what the client reads.
func (p problem) Error() string { return p.text }

func badRequest(format string, args ...any) error {
	return problem{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value) // the client may have gone; nothing is left to tell it
}

// endpoint is a handler that answers with a value or an error; it makes JSON of either.
type endpoint func(*http.Request) (int, any, error)

func (rt *runtime) api(pattern string, handle endpoint) {
	rt.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
		code, value, err := handle(r)
		if err == nil {
			writeJSON(w, code, value)
			return
		}
		fault := problem{http.StatusServiceUnavailable, "a dependency did not answer; see this service's /health"}
		if !errors.As(err, &fault) {
			rt.log.ErrorContext(r.Context(), "request failed", "route", r.Pattern, "error", brief(err))
		}
		writeJSON(w, fault.status, map[string]string{"error": fault.text, "trace_id": traceOf(r.Context())})
	})
}

// decode reads a JSON body; an unknown field is an error, so that a typing slip is not silently dropped.
func decode(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return badRequest("body: %v", err)
	}
	return nil
}

// limitOf reads ?limit=, 1 to 500, default 50.
func limitOf(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return 50, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 500 {
		return 0, badRequest("limit: must be a number from 1 to 500")
	}
	return n, nil
}
