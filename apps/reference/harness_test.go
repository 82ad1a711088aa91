package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"
)

var (
	database  = map[string]string{"DATABASE_URL": "${database_url}"}
	redisURL  = map[string]string{"REDIS_URL": "${redis_url}"}
	redisHost = map[string]string{"REDIS_HOST": "redis", "REDIS_PORT": "6379", "REDIS_PASSWORD": "", "REDIS_DB": "0"}
	logLevel  = map[string]string{"LOG_LEVEL": "INFO"}
	consoles  = join(database, redisURL, redisHost, map[string]string{"WEB_CONSOLE_USER": "", "WEB_CONSOLE_PASSWORD": "", "WEB_CONSOLE_DEV_ROLE": "admin",
		"SESSION_TIMEOUT_MINUTES": "15", "SESSION_ABSOLUTE_TIMEOUT_HOURS": "4"})
	proxied = map[string]string{"TRUSTED_PROXY_IPS": "${nginx_address}"}
)

// contracts are those of the services under test, as the stack program writes them, shortened.
var contracts = map[string]contract{
	"execution_gateway":   {Health: "http://execution_gateway:8002/health", Variables: join(database, redisHost, logLevel, map[string]string{"DEBUG": "true", "STRATEGY_ID": "alpha_baseline"})},
	"market_data_service": {Health: "http://market_data_service:8004/health", Variables: join(redisHost, map[string]string{"EXECUTION_GATEWAY_URL": "http://execution_gateway:8002"})},
	"orchestrator":        {Health: "http://orchestrator:8003/health", Variables: join(database, redisHost, map[string]string{"SIGNAL_SERVICE_URL": "http://signal_service:8001"})},
	"signal_service":      {Health: "http://signal_service:8001/health", Variables: join(database, redisURL, logLevel)},
	"alert_worker":        {Role: workerRole, Health: "http://alert_worker:9100/health", Variables: join(database, redisURL, map[string]string{"RQ_QUEUES": "alerts"})},
	"backtest_worker_dev": {Role: workerRole, Health: "http://backtest_worker_dev:9100/health", Folders: []string{"/nowhere/results", "/nowhere/locks"},
		Variables: join(database, redisURL, map[string]string{"RQ_QUEUES": "backtest_high,backtest_normal,backtest_low", "BACKTEST_JOB_MEMORY_LIMIT": "4294967296"})},
	"web_console_dev":  consoleContract("dev", nil),
	"web_console_mtls": consoleContract("mtls", proxied),
	"web_console_oauth2": consoleContract("oauth2", join(proxied, map[string]string{"OAUTH2_LOGIN_URL": "/login", "OAUTH2_LOGOUT_URL": "/logout",
		"SESSION_ENCRYPTION_KEY": ""}), "SESSION_ENCRYPTION_KEY"),
	"auth_service": {Role: loginRole, Health: "http://auth_service:8001/health", Required: []string{"AUTH0_DOMAIN", "AUTH0_CLIENT_ID", "AUTH0_CLIENT_SECRET", "SESSION_ENCRYPTION_KEY"},
		Variables: join(database, redisHost, proxied, map[string]string{"AUTH0_DOMAIN": "", "AUTH0_CLIENT_ID": "", "AUTH0_CLIENT_SECRET": "", "SESSION_ENCRYPTION_KEY": "",
			"AUTH0_AUDIENCE": "https://api.trading-platform.local", "OAUTH2_REDIRECT_URI": "${public_url}/callback", "OAUTH2_LOGOUT_REDIRECT_URI": "${public_url}",
			"OAUTH2_ALLOWED_SUBS": "", "COOKIE_DOMAIN": ".trading-platform.local", "CSP_REPORT_ONLY": "false"})},
}

func consoleContract(authType string, variables map[string]string, required ...string) contract {
	return contract{Role: consoleRole, Health: "http://web_console_" + authType + ":8080/readyz", Required: append(required, "WEB_CONSOLE_USER", "WEB_CONSOLE_PASSWORD"),
		Queues: []string{"backtest_high", "backtest_normal"}, Variables: join(consoles, map[string]string{"WEB_CONSOLE_AUTH_TYPE": authType}, variables)}
}

func join(sets ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

// contractFor returns a service's contract.
func contractFor(name string) contract {
	c := contracts[name]
	c.Name = name
	return c
}

// given are values of variables that the contract has no usable default for.
var given = map[string]string{
	"DATABASE_URL": "postgresql://trader:pg-secret@127.0.0.1:1/trader", "SESSION_ENCRYPTION_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
	"WEB_CONSOLE_USER": "admin", "WEB_CONSOLE_PASSWORD": "console-secret",
	"AUTH0_DOMAIN": "tenant.example.com", "AUTH0_CLIENT_ID": "the-client", "AUTH0_CLIENT_SECRET": "client-secret",
}

// environment is a service's environment as the stack gives it, with some of it changed.
func environment(service string, changes map[string]string) []string {
	facts := strings.NewReplacer("${nginx_address}", "172.28.0.10", "${public_url}", "https://web-console.trading-platform.local", "${redis_url}", "redis://redis:6379/0")
	values := map[string]string{}
	for name, value := range contracts[service].Variables {
		values[name] = cmp.Or(given[name], facts.Replace(value))
	}
	maps.Copy(values, changes)
	var environ []string
	for name, value := range values {
		environ = append(environ, name+"="+value)
	}
	return environ
}

// needs makes a service need others.
func needs(names ...string) func(*service) {
	return func(s *service) {
		s.Needs = map[string]string{}
		for _, name := range names {
			s.Needs[name] = cmp.Or(contracts[name].Health, "tcp://"+name+":1")
		}
	}
}

// fixture is one service under test, with Redis and a store in memory.
type fixture struct {
	*service
	redis *miniredis.Miniredis
	db    *memoryStore
	url   string
	log   *syncBuffer
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newFixture(t *testing.T, name string, changes map[string]string, tweak ...func(*service)) *fixture {
	t.Helper()
	c := contractFor(name)
	mini := miniredis.RunT(t)
	all := map[string]string{"REDIS_HOST": mini.Host(), "REDIS_PORT": mini.Port(), "REDIS_URL": "redis://" + mini.Addr() + "/0"}
	maps.DeleteFunc(all, func(name, _ string) bool { _, has := c.Variables[name]; return !has })
	maps.Copy(all, changes)
	if password := all["REDIS_PASSWORD"]; password != "" {
		mini.RequireAuth(password)
	}
	f := &fixture{redis: mini, db: &memoryStore{rows: map[string]jobRow{}}, log: &syncBuffer{}}
	f.service = newService(c, f.log)
	f.Folders = nil
	if c.Folders != nil {
		f.Folders = []string{t.TempDir(), t.TempDir()}
	}
	f.service.db = f.db
	for _, change := range tweak {
		change(f.service)
	}
	require.NoError(t, f.setup(environment(name, all)))
	f.health.ask(t.Context(), true)
	server := httptest.NewServer(f.handler())
	f.url = server.URL
	t.Cleanup(server.Close)
	return f
}

// ask sends a request to the service and reads the answer.
func (f *fixture) ask(t *testing.T, method, path, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, f.url+path, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(text), res.Header
}

func decodeText[T any](t *testing.T, text string) (value T) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &value), text)
	return value
}

// memoryStore is the store without a database.
type memoryStore struct {
	mu       sync.Mutex
	err      error // what every call answers, where set
	rows     map[string]jobRow
	order    []string // the ids of the jobs in the order in which they were started
	finished int
}

func (m *memoryStore) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *memoryStore) check(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

func (m *memoryStore) start(_ context.Context, j jobRow) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, known := m.rows[j.ID]
	if m.err != nil || known && before.Status != "running" {
		return 0, m.err
	}
	j.Status, j.Attempts, j.StartedAt = "running", before.Attempts+1, time.Now()
	m.rows[j.ID] = j
	m.order = append(m.order, j.ID)
	return j.Attempts, nil
}

func (m *memoryStore) finish(_ context.Context, j jobRow) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil || m.rows[j.ID].Status != "running" {
		return false, m.err
	}
	j.Attempts = m.rows[j.ID].Attempts
	m.rows[j.ID] = j
	m.finished++
	return true, nil
}

func (m *memoryStore) jobs(_ context.Context, n int) ([]jobRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []jobRow
	for _, key := range slices.Sorted(maps.Keys(m.rows)) {
		list = append(list, m.rows[key])
	}
	return list[:min(n, len(list))], m.err
}

func (m *memoryStore) row(id string) jobRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rows[id]
}

func (m *memoryStore) started() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.order)
}
