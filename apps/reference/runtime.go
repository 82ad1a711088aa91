package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// drainTime is how long work that has begun may take to end after SIGTERM; the rest of the container's ten seconds is for leaving.
	drainTime   = 7 * time.Second
	peerTimeout = 10 * time.Second
)

// errLogged ends the program without a word: the log has said why.
var errLogged = errors.New("see the log")

// runtime is what every service is made of: its log, metrics, routes, dependencies and background work.
type runtime struct {
	service service
	environ []string
	log     *slog.Logger
	level   *slog.LevelVar
	metrics *metrics
	mux     *http.ServeMux
	// wrap is put round the service's routes, nearer to them than logging is.
	wrap   func(http.Handler) http.Handler
	peers  *http.Client
	health *health
	// port overrides the service's own.
	port string
	// known holds how to ask each dependency that the environment gives an address of.
	known      map[string]checker
	background []func(context.Context)
	closers    []func()
	// open makes the store of a database; tests put one in memory in its place.
	open func(databaseURL) (store, func(), error)
}

func newRuntime(svc service, environ []string, out io.Writer) *runtime {
	level := new(slog.LevelVar)
	return &runtime{
		service: svc, environ: environ, port: svc.port, level: level, log: newLogger(out, svc.name, level),
		metrics: newMetrics(), mux: http.NewServeMux(), wrap: func(h http.Handler) http.Handler { return h },
		peers: &http.Client{Timeout: peerTimeout}, known: map[string]checker{},
		open: openPostgres,
	}
}

// serve runs a service until the context ends, then lets what has begun finish.
func serve(ctx context.Context, svc service, environ []string, out io.Writer) error {
	rt := newRuntime(svc, environ, out)
	defer rt.close()
	redis.SetLogger(redisLog{rt.log})
	if err := svc.setup(rt); err != nil {
		// One line, in the log alone: whoever looks for the reason, by hand or in the log store, finds it there.
		rt.log.Error("cannot start, the environment has faults: " + strings.ReplaceAll(err.Error(), "\n", "; "))
		return errLogged
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+rt.port)
	if err != nil {
		return err
	}
	return rt.run(ctx, listener)
}

func (rt *runtime) run(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: rt.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(rt.log.Handler(), slog.LevelWarn)}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	var work sync.WaitGroup
	for _, task := range append(rt.background, rt.health.watch) {
		work.Go(func() { task(ctx) })
	}
	rt.log.Info("started: this is the reference app, which plays this service and trades nothing", "address", listener.Addr().String(), "dependencies", slices.Sorted(maps.Keys(rt.health.checkers)))

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	rt.health.stopping.Store(true)
	rt.log.Info("stopping: finishing what has begun")
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	err := server.Shutdown(drain)
	done := make(chan struct{})
	go func() { work.Wait(); close(done) }()
	select {
	case <-done:
	case <-drain.Done():
		err = errors.Join(err, errors.New("background work did not end in time"))
	}
	rt.log.Info("stopped", "error", brief(err))
	return err
}

func (rt *runtime) close() {
	for _, f := range slices.Backward(rt.closers) {
		f()
	}
}

// depend settles which of the known dependencies /health asks, by the plan's list of edges.
func (rt *runtime) depend(cfg StackConfig) error {
	checkers := map[string]checker{}
	var faults []error
	for _, name := range cfg.Dependencies {
		check, ok := rt.known[name]
		if !ok {
			faults = append(faults, fmt.Errorf("STACK_DEPENDENCIES: names %q, of which %s's environment gives no address (it knows %s)", name, rt.service.name, strings.Join(slices.Sorted(maps.Keys(rt.known)), ", ")))
			continue
		}
		checkers[name] = check
	}
	rt.health = newHealth(rt, checkers)
	rt.mux.HandleFunc("GET "+rt.service.readiness, rt.health.ready)
	if rt.service.liveness != "" {
		rt.mux.HandleFunc("GET "+rt.service.liveness, rt.health.live)
	}
	rt.mux.Handle("GET /metrics", rt.metrics.handler())
	return errors.Join(faults...)
}

func (rt *runtime) redisAt(address RedisAddress, db uint8) *redis.Client {
	return rt.useRedis(&redis.Options{Addr: fmt.Sprintf("%s:%d", address.Host, address.Port), Password: address.Password, DB: int(db)})
}

func (rt *runtime) redisURL(text redisURL) (*redis.Client, error) {
	options, err := redis.ParseURL(string(text))
	if err != nil {
		return nil, errors.New("REDIS_URL: is not a URL of the form redis://host:port/db")
	}
	return rt.useRedis(options), nil
}

func (rt *runtime) useRedis(options *redis.Options) *redis.Client {
	options.DialTimeout, options.ReadTimeout, options.MaxRetries = checkTimeout, checkTimeout, 1
	client := redis.NewClient(options)
	rt.closers = append(rt.closers, func() { _ = client.Close() })
	rt.known["redis"] = func(ctx context.Context) error { return client.Ping(ctx).Err() }
	return client
}

// redisLog puts what the Redis client has to say into the service's own log.
type redisLog struct{ log *slog.Logger }

// Printf takes one line.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.WarnContext(ctx, "redis client: "+fmt.Sprintf(format, args...))
}

func (rt *runtime) postgres(url databaseURL) (store, error) {
	db, closer, err := rt.open(url)
	if err != nil {
		return nil, err
	}
	rt.closers = append(rt.closers, closer)
	rt.known["postgres"] = db.check
	return db, nil
}

func (rt *runtime) peer(name string, base webURL) {
	rt.known[name] = checkURL(rt.peers, string(base)+"/health")
}

// handler is the whole service: routes inside, then what wraps them, then logging and metrics, which see everything.
func (rt *runtime) handler() http.Handler {
	inner := rt.wrap(rt.mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		r = r.WithContext(withTrace(r.Context(), traceFrom(r.Header)))
		w.Header().Set("X-Request-Id", traceOf(r.Context()))
		w.Header().Set("X-Content-Type-Options", "nosniff")
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			if fault := recover(); fault != nil {
				rt.log.ErrorContext(r.Context(), "request handler failed", "fault", fmt.Sprint(fault))
				if !rec.wrote {
					writeJSON(rec, http.StatusInternalServerError, map[string]string{"error": "internal error"})
				}
			}
			rt.observe(r, rec.status, time.Since(begin))
		}()
		inner.ServeHTTP(rec, r)
	})
}

// observe logs and counts a request by its route: the path as it came may hold anything, and the query may hold codes.
func (rt *runtime) observe(r *http.Request, status int, took time.Duration) {
	_, pattern := rt.mux.Handler(r)
	if _, path, ok := strings.Cut(pattern, " "); ok {
		pattern = path
	}
	if pattern == "" {
		pattern = "unmatched"
	}
	method := r.Method
	if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}, method) {
		method = "other"
	}
	rt.metrics.requests.WithLabelValues(method, pattern, fmt.Sprint(status)).Inc()
	rt.metrics.durations.WithLabelValues(method, pattern).Observe(took.Seconds())
	level := slog.LevelInfo
	switch {
	case pattern == "/metrics" || pattern == rt.service.readiness || pattern == rt.service.liveness || pattern == "/live":
		level = slog.LevelDebug // asked every few seconds; a change of health has a line of its own
	case status >= 500:
		level = slog.LevelWarn
	}
	rt.log.Log(r.Context(), level, "request", "method", method, "route", pattern, "status", status, "duration_ms", milliseconds(took))
}

type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool
}

// WriteHeader remembers the status.
func (r *recorder) WriteHeader(code int) {
	if !r.wrote {
		r.status, r.wrote = code, true
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write counts as an answer too.
func (r *recorder) Write(b []byte) (int, error) {
	r.wrote = true
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
