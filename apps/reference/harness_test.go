package main

import (
	"bytes"
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
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

const (
	testDB      = "DATABASE_URL=postgresql://trader:pg-secret@127.0.0.1:1/trader "
	testRedis   = "REDIS_HOST=127.0.0.1 REDIS_PORT=6379 REDIS_PASSWORD= "
	testAlpaca  = "ALPACA_BASE_URL=https://paper-api.alpaca.markets ALPACA_DATA_FEED=iex "
	testToken   = "INTERNAL_TOKEN_REQUIRED=false INTERNAL_TOKEN_SECRET= API_AUTH_MODE=log_only "
	testKey     = "SESSION_ENCRYPTION_KEY=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE= "
	testAuth0   = "AUTH0_DOMAIN=tenant.example.com AUTH0_CLIENT_ID=the-client AUTH0_CLIENT_SECRET=client-secret AUTH0_AUDIENCE=https://api.trading-platform.local "
	testGateway = "EXECUTION_GATEWAY_URL=http://execution_gateway:8002 "
	testWorker  = "REDIS_URL=redis://127.0.0.1:6379/0 BACKTEST_JOB_MEMORY_LIMIT=4294967296 DATA_ROOT=/nowhere DATA_LOCK_DIR=/nowhere ENVIRONMENT=dev YFINANCE_DATA_DIR=/nowhere " + testDB
	testConsole = testGateway + testDB + testRedis + testAuth0 + "PROJECT_ROOT=/app WEB_CONSOLE_USER=admin WEB_CONSOLE_PASSWORD=console-secret WEB_CONSOLE_DEV_ROLE=admin " +
		"WEB_CONSOLE_DEV_USER_ID=admin WEB_CONSOLE_DEV_SESSION_VERSION=1 WEB_CONSOLE_DEV_STRATEGIES= STRATEGY_ID= SESSION_TIMEOUT_MINUTES=15 SESSION_ABSOLUTE_TIMEOUT_HOURS=4 " +
		"FEATURE_HEALTH_MONITOR=true FEATURE_RISK_DASHBOARD=false FEATURE_STRATEGY_COMPARISON=false FEATURE_MANUAL_CONTROLS=false FEATURE_BACKTEST_MANAGER=false " +
		"FEATURE_CIRCUIT_BREAKER=false FEATURE_ALERTS=false REDIS_URL=redis://127.0.0.1:6379/0 PROMETHEUS_URL=http://prometheus:9090 " +
		"OAUTH2_REDIRECT_URI=https://web-console.trading-platform.local/callback OAUTH2_LOGOUT_REDIRECT_URI=https://web-console.trading-platform.local/logout " +
		"REDIS_SESSION_DB=1 HOME=/tmp JUPYTER_RUNTIME_DIR=/tmp/jupyter/runtime JUPYTER_CONFIG_DIR=/tmp/jupyter/config JUPYTER_DATA_DIR=/tmp/jupyter/data HEALTH_CHECK_SECRET= "
)

// contract is each service's environment as the stack gives it: every name, no other, with its default.
var contract = map[string]string{
	"execution_gateway": testDB + testRedis + testAlpaca + testToken + "REDIS_DB=0 ALPACA_API_KEY_ID= ALPACA_API_SECRET_KEY= DRY_RUN=true STRATEGY_ID=alpha_baseline LOG_LEVEL=INFO " +
		"RECONCILIATION_INTERVAL_SECONDS=10 FEATURE_PERFORMANCE_DASHBOARD=false ALPACA_FILLS_BACKFILL_ENABLED=false ALPACA_FILLS_BACKFILL_INITIAL_LOOKBACK_HOURS=24 " +
		"ALPACA_FILLS_BACKFILL_PAGE_SIZE=100 ALPACA_FILLS_BACKFILL_MAX_PAGES=5 DEBUG=true TRUSTED_PROXY_HOSTS=127.0.0.1",
	"signal_service": testDB + "REDIS_URL=redis://127.0.0.1:6379/0 STRATEGY_ID=alpha_baseline ALLOW_MODELLESS=true LOG_LEVEL=INFO MLFLOW_TRACKING_URI=file:./artifacts/mlruns",
	"market_data_service": testRedis + testAlpaca + testToken + testGateway + "ALPACA_API_KEY= ALPACA_SECRET_KEY= REDIS_DB=0 LOG_LEVEL=INFO " +
		"ALLOWED_SERVICE_IDS=orchestrator,signal_service,execution_gateway,web_console_ng",
	"model_registry": "MODEL_REGISTRY_DIR=/nowhere MODEL_REGISTRY_PORT=8005 ENVIRONMENT=dev ALLOWED_ORIGINS=http://localhost:8080,http://127.0.0.1:8080 " +
		"MODEL_REGISTRY_READ_TOKEN= MODEL_REGISTRY_ADMIN_TOKEN= MODEL_REGISTRY_TOKEN=",
	"orchestrator":           testDB + testRedis + testGateway + "REDIS_DB=0 SIGNAL_SERVICE_URL=http://signal_service:8001 STRATEGY_ID=alpha_baseline LOG_LEVEL=INFO",
	"backtest_worker_dev":    testWorker + "RQ_QUEUES=backtest_high,backtest_normal,backtest_low",
	"backtest_worker_high":   testWorker + "RQ_QUEUES=backtest_high",
	"backtest_worker_normal": testWorker + "RQ_QUEUES=backtest_normal",
	"backtest_worker_low":    testWorker + "RQ_QUEUES=backtest_low",
	"alert_worker":           testDB + "REDIS_URL=redis://127.0.0.1:6379/0 RQ_QUEUES=alerts ALERT_RECIPIENT_HASH_SECRET=hash-secret",
	"web_console":            testConsole + "WEB_CONSOLE_AUTH_TYPE=dev",
	"web_console_dev": testConsole + "WEB_CONSOLE_AUTH_TYPE=dev ORCHESTRATOR_URL=http://orchestrator:8003 SIGNAL_SERVICE_URL=http://signal_service:8001 " +
		"MARKET_DATA_SERVICE_URL=http://market_data_service:8004 MODEL_REGISTRY_URL=http://model_registry:8005 WEB_CONSOLE_NG_DEBUG=true FEATURE_ALPHA_EXPLORER=false " +
		"FEATURE_TRADE_JOURNAL=false FEATURE_PERFORMANCE_DASHBOARD=false MODEL_REGISTRY_DIR=/app/data/models NOTEBOOK_BASE_URL=http://localhost NOTEBOOK_LAUNCH_COMMAND= " +
		"HMAC_SIGNING_KEYS=01:0000000000000000000000000000000000000000000000000000000000000000 HMAC_CURRENT_KEY_ID=01 SESSION_ENCRYPTION_KEY=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
	"web_console_mtls": testConsole + "WEB_CONSOLE_AUTH_TYPE=mtls TRUSTED_PROXY_IPS=172.28.0.10",
	"web_console_oauth2": testConsole + testKey + "WEB_CONSOLE_AUTH_TYPE=oauth2 TRUSTED_PROXY_IPS=172.28.0.10 OAUTH2_LOGIN_URL=/login OAUTH2_LOGOUT_URL=/logout " +
		"INTERNAL_REFRESH_SECRET= INTERNAL_CA_BUNDLE=/etc/nginx/certs/ca.crt",
	"auth_service": testAuth0 + testDB + testRedis + testKey + "OAUTH2_REDIRECT_URI=https://web-console.trading-platform.local/callback " +
		"OAUTH2_LOGOUT_REDIRECT_URI=https://web-console.trading-platform.local OAUTH2_ALLOWED_SUBS= COOKIE_DOMAIN=.trading-platform.local TRUSTED_PROXY_IPS=172.28.0.10 " +
		"INTERNAL_REFRESH_SECRET= CSP_REPORT_ONLY=false ENABLE_TEST_ENDPOINTS=false",
}

// environment is a service's environment with some of it changed.
func environment(service string, changes map[string]string) []string {
	values := map[string]string{}
	for _, entry := range strings.Fields(contract[service]) {
		name, value, _ := strings.Cut(entry, "=")
		values[name] = value
	}
	maps.Copy(values, changes)
	var environ []string
	for name, value := range values {
		environ = append(environ, name+"="+value)
	}
	return environ
}

// fixture is one service under test, with Redis and a store in memory.
type fixture struct {
	*runtime
	redis  *miniredis.Miniredis
	client *redis.Client
	db     *memoryStore
	url    string
	log    *syncBuffer
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

func newFixture(t *testing.T, name string, changes map[string]string, tweak ...func(*runtime)) *fixture {
	t.Helper()
	mini := miniredis.RunT(t)
	all := map[string]string{}
	if strings.Contains(contract[name], "REDIS_PORT=") {
		all["REDIS_PORT"] = mini.Port()
	}
	if strings.Contains(contract[name], "REDIS_URL=") {
		all["REDIS_URL"] = "redis://" + mini.Addr() + "/0"
	}
	maps.Copy(all, changes)
	if password := all["REDIS_PASSWORD"]; password != "" {
		mini.RequireAuth(password)
	}
	svc, err := findService(name)
	require.NoError(t, err)
	f := &fixture{redis: mini, db: newMemoryStore(), log: &syncBuffer{}, client: redis.NewClient(&redis.Options{Addr: mini.Addr()})}
	f.runtime = newRuntime(svc, environment(name, all), f.log)
	f.open = func(databaseURL) (store, func(), error) { return f.db, func() {}, nil }
	for _, change := range tweak {
		change(f.runtime)
	}
	require.NoError(t, svc.setup(f.runtime))
	server := httptest.NewServer(f.handler())
	f.url = server.URL
	t.Cleanup(func() { server.Close(); f.close(); _ = f.client.Close() })
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
	mu        sync.Mutex
	err       error // what every call answers, where set
	orderRows map[string]order
	signalLog []tradeSignal
	runRows   map[string]orchestrationRun
	jobRows   map[string]jobRecord
	alertRows map[string]alertRecord
}

var _ store = (*memoryStore)(nil)

func newMemoryStore() *memoryStore {
	return &memoryStore{orderRows: map[string]order{}, runRows: map[string]orchestrationRun{}, jobRows: map[string]jobRecord{}, alertRows: map[string]alertRecord{}}
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

func put[T any](m *memoryStore, rows map[string]T, key string, value T) (T, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return value, false, m.err
	}
	if before, ok := rows[key]; ok {
		return before, false, nil
	}
	rows[key] = value
	return value, true, nil
}

func all[T any](m *memoryStore, rows map[string]T, limit int) ([]T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []T
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		list = append(list, rows[key])
	}
	return list[:min(limit, len(list))], m.err
}

func get[T any](m *memoryStore, rows map[string]T, key string) (T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	value, ok := rows[key]
	if !ok {
		return value, errNotFound
	}
	return value, m.err
}

func (m *memoryStore) addOrder(_ context.Context, o order) (order, bool, error) {
	return put(m, m.orderRows, o.ClientOrderID, o)
}
func (m *memoryStore) orders(_ context.Context, n int) ([]order, error) {
	return all(m, m.orderRows, n)
}
func (m *memoryStore) order(_ context.Context, id string) (order, error) {
	return get(m, m.orderRows, id)
}
func (m *memoryStore) addSignals(_ context.Context, s []tradeSignal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.signalLog = append(m.signalLog, s...)
	return m.err
}
func (m *memoryStore) signals(_ context.Context, symbol string, n int) ([]tradeSignal, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := slices.DeleteFunc(slices.Clone(m.signalLog), func(s tradeSignal) bool { return symbol != "" && s.Symbol != symbol })
	return found[:min(n, len(found))], m.err
}
func (m *memoryStore) startRun(_ context.Context, r orchestrationRun) (bool, error) {
	r.Status, r.StartedAt = "running", time.Now()
	_, fresh, err := put(m, m.runRows, r.RunID, r)
	return fresh, err
}
func (m *memoryStore) finishRun(_ context.Context, r orchestrationRun) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runRows[r.RunID] = r
	return m.err
}
func (m *memoryStore) runs(_ context.Context, n int) ([]orchestrationRun, error) {
	return all(m, m.runRows, n)
}
func (m *memoryStore) run(_ context.Context, id string) (orchestrationRun, error) {
	return get(m, m.runRows, id)
}
func (m *memoryStore) startJob(_ context.Context, j jobRecord) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if before, ok := m.jobRows[j.JobID]; ok && before.Status != "running" {
		return false, m.err
	}
	j.Status = "running"
	m.jobRows[j.JobID] = j
	return m.err == nil, m.err
}
func (m *memoryStore) finishJob(_ context.Context, j jobRecord) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil || m.jobRows[j.JobID].Status != "running" {
		return false, m.err
	}
	m.jobRows[j.JobID] = j
	return true, nil
}
func (m *memoryStore) jobs(_ context.Context, n int) ([]jobRecord, error) {
	return all(m, m.jobRows, n)
}
func (m *memoryStore) addAlert(_ context.Context, a alertRecord) (bool, error) {
	_, fresh, err := put(m, m.alertRows, a.AlertID, a)
	return fresh, err
}
