package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

const (
	// drainTime is how long running work may take to finish after SIGTERM; the rest of the container's ten seconds is for the exit.
	drainTime   = 7 * time.Second
	peerTimeout = 10 * time.Second
)

// service is a running service: its contract, and the connections and state that it needs.
type service struct {
	contract
	env        map[string]string
	log        *slog.Logger
	level      *slog.LevelVar
	metrics    *metrics
	mux        *http.ServeMux
	policy     string    // content security policy of the answers
	reportOnly bool      // violations of the policy are reported but not blocked
	proxies    addresses // the proxies through which requests from outside arrive
	peers      *http.Client
	db         store         // nil without DATABASE_URL
	rdb        *redis.Client // nil without REDIS_URL or REDIS_HOST
	health     *monitor      // watches what the service needs
	stack      *monitor      // watches every service of the stack, for a console
	stopping   atomic.Bool
	background []func(context.Context)
	// open opens the store of a database; tests replace it with one in memory.
	open func(url string) (store, error)
}

func newService(c contract, out io.Writer) *service {
	level := new(slog.LevelVar)
	return &service{
		contract: c, level: level, log: newLogger(out, c.Name, level), metrics: newMetrics(), mux: http.NewServeMux(),
		policy: pagePolicy, peers: &http.Client{Timeout: peerTimeout}, open: openPostgres,
	}
}

// setup checks the environment, opens what it names and registers what the service's role serves.
func (s *service) setup(environ []string) (err error) {
	if s.env, err = s.variables(environ); err != nil {
		return err
	}
	if level, err := levelOf(s.env["LOG_LEVEL"]); err == nil {
		s.level.Set(level)
	}
	if err := s.openDatabases(); err != nil {
		return err
	}
	if s.proxies, err = addressesOf(s.env["TRUSTED_PROXY_IPS"]); err != nil {
		return err
	}
	s.watchNeeds()
	for path := range map[string]bool{"/health": true, "/readyz": true, s.readiness(): true} {
		s.mux.HandleFunc("GET "+path, s.ready)
	}
	s.mux.HandleFunc("GET /healthz", s.live)
	s.mux.Handle("GET /metrics", s.metrics.handler())
	switch s.Role {
	case workerRole:
		return setupWorker(s)
	case consoleRole:
		return setupConsole(s)
	case loginRole:
		return setupLogin(s)
	}
	return nil
}

func (s *service) openDatabases() (err error) {
	if url := s.env["DATABASE_URL"]; url != "" {
		if s.db, err = s.open(url); err != nil {
			return err
		}
	}
	if url := s.env["REDIS_URL"]; url != "" {
		options, err := redis.ParseURL(url)
		if err != nil {
			return errors.New("REDIS_URL: is malformed")
		}
		s.rdb = openRedis(options)
	} else if s.env["REDIS_HOST"] != "" {
		s.rdb = s.redisDB(s.env["REDIS_DB"])
	}
	return nil
}

// redisDB opens one of the databases of the Redis at REDIS_HOST.
func (s *service) redisDB(number string) *redis.Client {
	db, _ := strconv.Atoi(number)
	return openRedis(&redis.Options{Addr: net.JoinHostPort(s.env["REDIS_HOST"], s.env["REDIS_PORT"]), Password: s.env["REDIS_PASSWORD"], DB: db})
}

func openRedis(options *redis.Options) *redis.Client {
	options.DialTimeout, options.ReadTimeout, options.MaxRetries = checkTimeout, checkTimeout, 1
	return redis.NewClient(options)
}

// watchNeeds watches the services that this one needs.
func (s *service) watchNeeds() {
	checkers := map[string]checker{}
	for name, address := range s.Needs {
		// The variable that names the peer is what the platform's own code would use.
		for variable, standard := range s.Variables {
			if path, ok := strings.CutPrefix(address, standard+"/"); ok && standard != "" {
				address = strings.TrimRight(s.env[variable], "/") + "/" + path
				break
			}
		}
		checkers[name] = s.checker(name, address)
	}
	s.health = newMonitor(checkers)
	s.health.observe = s.observeDependency
	s.background = append(s.background, s.health.watch)
}

// checker checks PostgreSQL and Redis with a query if the service has a connection, because that proves more than an open port.
func (s *service) checker(name, address string) checker {
	switch {
	case name == "postgres" && s.db != nil:
		return s.db.check
	case name == "redis" && s.rdb != nil:
		return func(ctx context.Context) error { return s.rdb.Ping(ctx).Err() }
	}
	return checkAddress(s.peers, address)
}

// serve runs a service until the context ends, and then waits for running work to finish.
func serve(ctx context.Context, c contract, environ []string, out io.Writer) error {
	s := newService(c, out)
	logging.Disable() // the service logs failures of Redis itself
	if err := s.setup(environ); err != nil {
		// The error is one line in the log, where both users and Loki find it.
		s.log.Error("cannot start, the environment has faults: " + strings.ReplaceAll(err.Error(), "\n", "; "))
		return errLogged
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+s.port())
	if err != nil {
		return err
	}
	return s.run(ctx, listener)
}

func (s *service) run(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	var work sync.WaitGroup
	for _, task := range s.background {
		work.Go(func() { task(ctx) })
	}
	s.log.Info("started: this is the reference app, which runs in the place of this service and does not trade", "address", listener.Addr().String(), "dependencies", slices.Sorted(maps.Keys(s.Needs)))
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	s.log.Info("stopping: finishing what has begun")
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
	s.log.Info("stopped", "error", brief(err))
	return err
}
