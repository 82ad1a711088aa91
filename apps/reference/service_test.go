package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHealth(t *testing.T) {
	f := newFixture(t, "execution_gateway", map[string]string{"STACK_DEPENDENCIES": "postgres,redis"})
	code, text, _ := f.ask(t, "GET", "/health", "")
	require.Equal(t, http.StatusOK, code)
	answer := decodeText[healthAnswer](t, text)
	assert.Equal(t, "ok", answer.Status)
	assert.True(t, answer.ReferenceApp)
	assert.Equal(t, "up", answer.Dependencies["postgres"].State)
	assert.Equal(t, "up", answer.Dependencies["redis"].State)

	f.db.fail(errors.New("connection refused"))
	f.health.checked = time.Time{}
	code, text, _ = f.ask(t, "GET", "/health", "")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	answer = decodeText[healthAnswer](t, text)
	assert.Equal(t, "down", answer.Dependencies["postgres"].State)
	assert.Equal(t, "connection refused", answer.Dependencies["postgres"].Error)
	assert.Equal(t, "up", answer.Dependencies["redis"].State)
	assert.Contains(t, f.log.String(), `"message":"dependency does not answer","service":"execution_gateway","dependency":"postgres","error":"connection refused"`)
	_, text, _ = f.ask(t, "GET", "/metrics", "")
	assert.Contains(t, text, `dependency_up{dependency="postgres"} 0`)
	assert.Contains(t, text, `dependency_up{dependency="redis"} 1`)
	assert.Contains(t, text, `http_requests_total{method="GET",route="/health",status="503"} 1`)
	assert.Contains(t, text, "go_goroutines")
}

func TestHealthAsksOnlyTheEdges(t *testing.T) {
	f := newFixture(t, "execution_gateway", map[string]string{"STACK_DEPENDENCIES": ""})
	f.db.fail(errors.New("away"))
	code, text, _ := f.ask(t, "GET", "/health", "")
	assert.Equal(t, http.StatusOK, code)
	assert.Empty(t, decodeText[healthAnswer](t, text).Dependencies)
}

func TestARedisWithAPassword(t *testing.T) {
	const password = `p@ss "word"%`
	for _, name := range []string{"execution_gateway", "market_data_service", "orchestrator"} {
		f := newFixture(t, name, map[string]string{"STACK_DEPENDENCIES": "redis", "REDIS_PASSWORD": password})
		code, text, _ := f.ask(t, "GET", "/health", "")
		assert.Equal(t, http.StatusOK, code, "%s: %s", name, text)
	}
}

func TestStop(t *testing.T) {
	svc, err := findService("execution_gateway")
	require.NoError(t, err)
	f := newFixture(t, svc.name, nil)
	begun, finish := make(chan struct{}), make(chan struct{})
	f.mux.HandleFunc("GET /slow", func(w http.ResponseWriter, _ *http.Request) { close(begun); <-finish; _, _ = w.Write([]byte("done")) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.run(ctx, listener) }()
	answered := make(chan int, 1)
	go func() {
		res, err := http.Get("http://" + listener.Addr().String() + "/slow")
		if assert.NoError(t, err) {
			_ = res.Body.Close()
			answered <- res.StatusCode
		}
	}()
	<-begun
	stop()
	require.Eventually(t, func() bool { return f.health.stopping.Load() }, time.Second, 5*time.Millisecond)
	code, text, _ := f.ask(t, "GET", "/health", "")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Contains(t, text, "stopping")
	close(finish)
	assert.Equal(t, http.StatusOK, <-answered, "what had begun is answered")
	assert.NoError(t, <-ended)
}

func TestTraceAndLog(t *testing.T) {
	f := newFixture(t, "execution_gateway", nil)
	tests := map[string]struct{ header, value, want string }{
		"X-Request-Id":        {"X-Request-Id", "abc-123", "abc-123"},
		"traceparent":         {"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0af7651916cd43dd8448eb211c80319c"},
		"neither":             {"X-Other", "x", ""},
		"not fit for the log": {"X-Request-Id", "a b\"c", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, header := f.ask(t, "GET", "/api/v1/orders?code=hush", "", test.header, test.value)
			got := header.Get("X-Request-Id")
			if test.want == "" {
				assert.Regexp(t, "^[0-9a-f]{32}$", got)
			} else {
				assert.Equal(t, test.want, got)
			}
			assert.Contains(t, f.log.String(), `"trace_id":"`+got+`"`)
		})
	}
	assert.NotContains(t, f.log.String(), "hush", "queries may hold codes")
	for _, field := range []string{`"timestamp":"`, `"level":"INFO"`, `"service":"execution_gateway"`, `"message":"request"`} {
		assert.Contains(t, f.log.String(), field)
	}
}

func TestLogLevel(t *testing.T) {
	f := newFixture(t, "execution_gateway", map[string]string{"LOG_LEVEL": "WARNING"})
	f.ask(t, "GET", "/api/v1/orders", "")
	assert.Empty(t, f.log.String())
}

func TestOrders(t *testing.T) {
	f := newFixture(t, "execution_gateway", nil)
	heard := f.redis.NewSubscriber()
	heard.Subscribe("orders")
	published := make(chan string, 1)
	go func() { published <- (<-heard.Messages()).Message }()
	const body = `{"client_order_id":"o-1","symbol":"AAPL","side":"buy","qty":5}`
	code, text, _ := f.ask(t, "POST", "/api/v1/orders", body)
	require.Equal(t, http.StatusCreated, code)
	first := decodeText[orderAnswer](t, text)
	assert.True(t, first.Created)
	assert.True(t, first.Published)
	assert.Equal(t, "dry_run", first.Status)
	heard.Unsubscribe("orders")
	assert.Contains(t, <-published, `"client_order_id":"o-1"`)

	code, text, _ = f.ask(t, "POST", "/api/v1/orders", body)
	assert.Equal(t, http.StatusOK, code)
	again := decodeText[orderAnswer](t, text)
	assert.False(t, again.Created)
	assert.Equal(t, first.order, again.order)
	assert.Len(t, f.db.orderRows, 1)

	code, _, _ = f.ask(t, "GET", "/api/v1/orders/o-1", "")
	assert.Equal(t, http.StatusOK, code)
	code, _, _ = f.ask(t, "GET", "/api/v1/orders/o-2", "")
	assert.Equal(t, http.StatusNotFound, code)

	for name, test := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"the same id with other content": {strings.Replace(body, "5", "6", 1), http.StatusConflict, "is taken"},
		"no id":                          {`{"symbol":"AAPL","side":"buy","qty":5}`, http.StatusBadRequest, "client_order_id"},
		"a symbol in small letters":      {`{"client_order_id":"o-3","symbol":"aapl","side":"buy","qty":5}`, http.StatusBadRequest, "symbol"},
		"a side":                         {`{"client_order_id":"o-3","symbol":"AAPL","side":"hold","qty":5}`, http.StatusBadRequest, "side"},
		"no quantity":                    {`{"client_order_id":"o-3","symbol":"AAPL","side":"buy"}`, http.StatusBadRequest, "qty"},
		"a misspelt field":               {`{"client_order_id":"o-3","symbol":"AAPL","side":"buy","quantity":5}`, http.StatusBadRequest, "unknown field"},
		"no JSON":                        {`hello`, http.StatusBadRequest, "body"},
	} {
		t.Run(name, func(t *testing.T) {
			code, text, _ := f.ask(t, "POST", "/api/v1/orders", test.body)
			assert.Equal(t, test.status, code)
			assert.Contains(t, text, test.says)
		})
	}
	t.Run("Redis away: the order is stored all the same", func(t *testing.T) {
		f.redis.SetError("away")
		defer f.redis.SetError("")
		code, text, _ := f.ask(t, "POST", "/api/v1/orders", strings.Replace(body, "o-1", "o-9", 1))
		assert.Equal(t, http.StatusCreated, code)
		assert.False(t, decodeText[orderAnswer](t, text).Published)
	})
	t.Run("PostgreSQL away", func(t *testing.T) {
		f.db.fail(errors.New("host=postgres is away"))
		code, text, _ := f.ask(t, "POST", "/api/v1/orders", strings.Replace(body, "o-1", "o-8", 1))
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.NotContains(t, text, "host=postgres")
	})
}

func TestInternalToken(t *testing.T) {
	f := newFixture(t, "execution_gateway", map[string]string{"INTERNAL_TOKEN_REQUIRED": "true", "INTERNAL_TOKEN_SECRET": "s3"})
	for token, status := range map[string]int{"": http.StatusUnauthorized, "wrong": http.StatusUnauthorized, "s3": http.StatusOK} {
		code, _, _ := f.ask(t, "GET", "/api/v1/orders", "", "X-Internal-Token", token)
		assert.Equal(t, status, code, token)
	}
	code, _, _ := f.ask(t, "GET", "/health", "")
	assert.Equal(t, http.StatusOK, code)
}

func TestSignals(t *testing.T) {
	f := newFixture(t, "signal_service", nil)
	const body = `{"symbols":["AAPL","MSFT"],"as_of":"2026-01-30"}`
	code, first, _ := f.ask(t, "POST", "/api/v1/signals", body)
	require.Equal(t, http.StatusOK, code)
	_, second, _ := f.ask(t, "POST", "/api/v1/signals", body)
	one, two := decodeText[signalAnswer](t, first).Signals, decodeText[signalAnswer](t, second).Signals
	require.Len(t, one, 2)
	for i := range one {
		two[i].CreatedAt = one[i].CreatedAt
		assert.Equal(t, one[i], two[i], "the same day gives the same signal")
		assert.Equal(t, "2026-01-30", one[i].AsOf)
	}
	_, text, _ := f.ask(t, "GET", "/api/v1/signals?symbol=MSFT&limit=1", "")
	assert.Len(t, decodeText[signalAnswer](t, text).Signals, 1)
	for _, bad := range []string{`{"symbols":[]}`, `{"symbols":["x y"]}`, `{"symbols":["AAPL"],"as_of":"1999-01-01"}`, `{"symbols":["AAPL"],"as_of":"tomorrow"}`} {
		code, _, _ := f.ask(t, "POST", "/api/v1/signals", bad)
		assert.Equal(t, http.StatusBadRequest, code, bad)
	}
	code, _, _ = f.ask(t, "GET", "/api/v1/signals?limit=0", "")
	assert.Equal(t, http.StatusBadRequest, code)
}

func TestSeriesIsTheSameEverywhere(t *testing.T) {
	at := time.Date(2026, 1, 30, 12, 0, 0, 0, time.UTC)
	bars := series("AAPL", at, 3)
	assert.Equal(t, []bar{{"2026-01-28", 220.04}, {"2026-01-29", 221.54}, {"2026-01-30", 219.24}}, bars)
	assert.NotEqual(t, bars, series("MSFT", at, 3))
	assert.Equal(t, bars, series("AAPL", at, 30)[27:], "how much is asked for changes nothing")
}

func TestOrchestration(t *testing.T) {
	signals := newFixture(t, "signal_service", nil)
	orders := newFixture(t, "execution_gateway", nil)
	f := newFixture(t, "orchestrator", map[string]string{"SIGNAL_SERVICE_URL": signals.url, "EXECUTION_GATEWAY_URL": orders.url, "STACK_DEPENDENCIES": "postgres,redis,signal_service,execution_gateway"})
	const body = `{"run_id":"r1","symbols":["AAPL","MSFT","TSLA","NVDA"],"qty":3}`
	code, text, _ := f.ask(t, "POST", "/api/v1/orchestration/run", body, "X-Request-Id", "trace-of-run")
	require.Equal(t, http.StatusCreated, code, text)
	run := decodeText[orchestrationRun](t, text)
	assert.Equal(t, "completed", run.Status)
	assert.NotEmpty(t, run.Orders)
	assert.Len(t, orders.db.orderRows, len(run.Orders))
	for _, o := range orders.db.orderRows {
		assert.Equal(t, "trace-of-run", o.TraceID, "one trace id goes all the way")
		assert.EqualValues(t, 3, o.Quantity)
	}
	assert.Contains(t, signals.log.String(), "trace-of-run")

	code, text, _ = f.ask(t, "POST", "/api/v1/orchestration/run", body)
	assert.Equal(t, http.StatusOK, code, "asking again gives the recorded run")
	assert.Equal(t, run.Orders, decodeText[orchestrationRun](t, text).Orders)
	assert.Len(t, orders.db.orderRows, len(run.Orders))
	code, _, _ = f.ask(t, "GET", "/api/v1/orchestration/runs/r1", "")
	assert.Equal(t, http.StatusOK, code)
	_, text, _ = f.ask(t, "GET", "/health", "")
	assert.Equal(t, "up", decodeText[healthAnswer](t, text).Dependencies["signal_service"].State)

	orders.db.fail(errors.New("away"))
	code, text, _ = f.ask(t, "POST", "/api/v1/orchestration/run", strings.Replace(body, "r1", "r2", 1))
	assert.Equal(t, http.StatusBadGateway, code)
	failed := decodeText[orchestrationRun](t, text)
	assert.Equal(t, "failed", failed.Status)
	assert.Contains(t, failed.Error, "execution_gateway: answers 503")
	assert.Equal(t, "failed", f.db.runRows["r2"].Status, "a failed run is recorded too")
}

func TestQuotes(t *testing.T) {
	f := newFixture(t, "market_data_service", nil)
	code, text, _ := f.ask(t, "GET", "/api/v1/quotes/AAPL", "")
	require.Equal(t, http.StatusOK, code)
	first := decodeText[quote](t, text)
	assert.False(t, first.Cached)
	assert.Less(t, first.Bid, first.Ask)
	_, text, _ = f.ask(t, "GET", "/api/v1/quotes/AAPL", "")
	second := decodeText[quote](t, text)
	assert.True(t, second.Cached)
	assert.Equal(t, first.At, second.At)
	f.redis.FastForward(quoteLife)
	_, text, _ = f.ask(t, "GET", "/api/v1/quotes/AAPL", "")
	assert.False(t, decodeText[quote](t, text).Cached)
	code, _, _ = f.ask(t, "GET", "/api/v1/quotes/aapl", "")
	assert.Equal(t, http.StatusBadRequest, code)
}

func TestModels(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "..", "outside"), []byte("x"), 0o600))
	require.NoError(t, os.Symlink("/etc/hostname", filepath.Join(dir, "link")))
	f := newFixture(t, "model_registry", map[string]string{"MODEL_REGISTRY_DIR": dir})
	code, text, _ := f.ask(t, "PUT", "/api/v1/models/alpha-1.bin", "weights")
	require.Equal(t, http.StatusCreated, code)
	assert.Len(t, decodeText[model](t, text).SHA256, 64)
	code, text, _ = f.ask(t, "GET", "/api/v1/models/alpha-1.bin", "")
	assert.Equal(t, http.StatusOK, code)
	assert.Equal(t, "weights", text)
	_, text, _ = f.ask(t, "GET", "/api/v1/models", "")
	assert.Contains(t, text, `"name":"alpha-1.bin","size":7`)
	assert.NotContains(t, text, "link")
	for _, path := range []string{"/api/v1/models/none", "/api/v1/models/..%2foutside", "/api/v1/models/link", "/api/v1/models/.alpha"} {
		code, _, _ := f.ask(t, "GET", path, "")
		assert.GreaterOrEqual(t, code, 400, path)
	}
	code, _, _ = f.ask(t, "PUT", "/api/v1/models/..%2fescape", "x")
	assert.Equal(t, http.StatusBadRequest, code)
	_, _, header := f.ask(t, "GET", "/api/v1/models", "", "Origin", "http://127.0.0.1:8080")
	assert.Equal(t, "http://127.0.0.1:8080", header.Get("Access-Control-Allow-Origin"))
	_, _, header = f.ask(t, "GET", "/api/v1/models", "", "Origin", "http://evil.example")
	assert.Empty(t, header.Get("Access-Control-Allow-Origin"))
}

func TestModelTokens(t *testing.T) {
	f := newFixture(t, "model_registry", map[string]string{"MODEL_REGISTRY_DIR": t.TempDir(), "MODEL_REGISTRY_READ_TOKEN": "r", "MODEL_REGISTRY_ADMIN_TOKEN": "a"})
	for name, test := range map[string]struct {
		method, token string
		status        int
	}{
		"nobody reads":          {"GET", "", http.StatusUnauthorized},
		"a wrong token":         {"GET", "Bearer x", http.StatusForbidden},
		"a reader reads":        {"GET", "Bearer r", http.StatusNotFound},
		"an admin reads":        {"GET", "Bearer a", http.StatusNotFound},
		"a reader cannot write": {"PUT", "Bearer r", http.StatusForbidden},
		"an admin writes":       {"PUT", "Bearer a", http.StatusCreated},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, _ := f.ask(t, test.method, "/api/v1/models/m"+strings.ToLower(test.method), "x", "Authorization", test.token)
			assert.Equal(t, test.status, code)
		})
	}
}

func TestPeerThatDoesNotAnswer(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	err := checkURL(&http.Client{}, gone.URL+"/health")(context.Background())
	assert.ErrorContains(t, err, "connection refused")
	assert.NotContains(t, err.Error(), "http://")
	assert.Error(t, checkTCP(strings.TrimPrefix(gone.URL, "http://"))(context.Background()))
}
