package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/jackc/pgx/v5/pgxpool"
)

// service is a running service: its contract, its variables, and the connections and state that it needs.
type service struct {
	contract
	env        map[string]string
	database   *pgxpool.Config // of DATABASE_URL
	level      slog.LevelVar
	proxies    []netip.Prefix // the proxies through which requests from outside arrive
	sessionKey []byte
	issuer     string   // of the OpenID Connect provider
	takes      []string // the queues that a worker takes jobs from, in order of priority

	log        *slog.Logger
	metrics    *metrics.Set
	mux        *http.ServeMux
	policy     string // content security policy of the answers
	reportOnly bool   // violations of the policy are reported but not blocked
	peers      *http.Client
	db         store        // nil without DATABASE_URL
	rdb        *redisClient // nil without REDIS_URL or REDIS_HOST
	health     *monitor     // watches what the service needs
	stack      *monitor     // watches every service of the stack, for a console
	stopping   atomic.Bool
	background []func(context.Context)
}

func newService(c contract, out io.Writer) *service {
	s := &service{contract: c, env: map[string]string{}, metrics: metrics.NewSet(), mux: http.NewServeMux(), policy: pagePolicy,
		peers: &http.Client{Timeout: 10 * time.Second}}
	s.log = newLogger(out, c.Name, &s.level)
	return s
}

// setup reads the environment, opens what it names and registers what the service's role serves.
func (s *service) setup(environ []string) (err error) {
	if err := s.readEnvironment(environ); err != nil {
		return err
	}
	if s.database != nil && s.db == nil { // tests have a store of their own
		if s.db, err = openPostgres(s.database); err != nil {
			return err
		}
	}
	if address := s.env["REDIS_URL"]; address != "" {
		s.rdb = openRedis(address)
	} else if s.env["REDIS_HOST"] != "" {
		s.rdb = s.redisAtHost(s.env["REDIS_DB"])
	}
	if (s.Role == workerRole || s.Role == consoleRole) && (s.db == nil || s.rdb == nil) {
		return errors.New("a " + s.Role + " needs DATABASE_URL and REDIS_URL")
	}
	s.health = s.newMonitor(s.needs(), s.observeDependency)
	for path := range map[string]bool{"/health": true, "/readyz": true, s.url().Path: true} {
		s.mux.HandleFunc("GET "+path, s.ready)
	}
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { // whatever the state of the dependencies
		writeJSON(w, http.StatusOK, healthAnswer{Service: s.Name, Status: "ok", ReferenceApp: true, StartedAt: s.health.started})
	})
	s.mux.HandleFunc("GET /metrics", s.showMetrics)
	switch s.Role {
	case workerRole:
		return setupWorker(s)
	case consoleRole:
		return setupConsole(s)
	case loginRole:
		setupLogin(s)
	}
	return nil
}

// needs returns the health URLs of the services that this one needs. If a variable names such a peer, as in the platform's own
// code, its value counts.
func (s *service) needs() map[string]string {
	addresses := maps.Clone(s.Needs)
	for name, address := range s.Needs {
		for variable, standard := range s.Variables {
			if path, ok := strings.CutPrefix(address, standard+"/"); ok && standard != "" {
				addresses[name] = strings.TrimRight(s.env[variable], "/") + "/" + path
			}
		}
	}
	return addresses
}

// serve runs a service until the context ends, and then waits for running work to finish.
func serve(ctx context.Context, c contract, environ []string, out io.Writer) error {
	s := newService(c, out)
	if err := s.setup(environ); err != nil {
		// The error is one line in the log, where both users and Loki find it.
		s.log.Error("cannot start, the environment has faults: " + strings.ReplaceAll(err.Error(), "\n", "; "))
		return errLogged
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+s.url().Port())
	if err != nil {
		return err
	}
	return s.run(ctx, listener)
}

func (s *service) run(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: time.Minute, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	var work sync.WaitGroup
	for _, task := range s.background {
		work.Go(func() { task(ctx) })
	}
	s.log.Info("started: this is the reference app, which runs in the place of this service and does not trade",
		"address", listener.Addr().String(), "dependencies", slices.Sorted(maps.Keys(s.Needs)))
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	s.log.Info("stopping: finishing what has begun")
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 7*time.Second) // the rest of the container's ten seconds is for the exit
	defer cancel()
	err := server.Shutdown(drain)
	work.Wait() // the longest is a worker's job, which is cancelled after its time of grace
	s.log.Info("stopped", "error", err)
	return err
}
