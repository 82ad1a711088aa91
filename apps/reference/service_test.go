package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHealth(t *testing.T) {
	f := newFixture(t, "execution_gateway", nil, needs("postgres", "redis"))
	code, text, _ := f.ask(t, "GET", "/health", "")
	require.Equal(t, http.StatusOK, code)
	answer := decodeText[healthAnswer](t, text)
	assert.Equal(t, "ok", answer.Status)
	assert.True(t, answer.ReferenceApp)
	assert.Equal(t, healthy, answer.Dependencies["postgres"].State)
	assert.Equal(t, healthy, answer.Dependencies["redis"].State)

	f.db.fail(errors.New("connection refused"))
	f.health.ask(t.Context(), true)
	code, text, _ = f.ask(t, "GET", "/health", "")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	answer = decodeText[healthAnswer](t, text)
	assert.Equal(t, down, answer.Dependencies["postgres"].State)
	assert.Equal(t, "connection refused", answer.Dependencies["postgres"].Error)
	assert.Equal(t, healthy, answer.Dependencies["redis"].State)
	assert.Contains(t, f.log.String(), `"message":"dependency does not answer","service":"execution_gateway","dependency":"postgres","error":"connection refused"`)
	_, text, _ = f.ask(t, "GET", "/metrics", "")
	assert.Contains(t, text, `dependency_up{dependency="postgres"} 0`)
	assert.Contains(t, text, `dependency_up{dependency="redis"} 1`)
	assert.Contains(t, text, `http_requests_total{method="GET",route="/health",status="503"} 1`)
	assert.Contains(t, text, "go_goroutines")
}

func TestHealthyDependenciesAreCheckedLessOften(t *testing.T) {
	f := newFixture(t, "execution_gateway", nil, needs("postgres"))
	f.db.fail(errors.New("away"))
	f.health.ask(t.Context(), false)
	assert.True(t, f.health.allHealthy(), "not asked in this round")
	f.health.ask(t.Context(), true)
	assert.False(t, f.health.allHealthy())
	f.db.fail(nil)
	f.health.ask(t.Context(), false)
	assert.True(t, f.health.allHealthy(), "one that is away is asked in every round")
}

func TestHealthAsksOnlyTheEdges(t *testing.T) {
	f := newFixture(t, "execution_gateway", nil)
	f.db.fail(errors.New("away"))
	code, text, _ := f.ask(t, "GET", "/health", "")
	assert.Equal(t, http.StatusOK, code)
	assert.Empty(t, decodeText[healthAnswer](t, text).Dependencies)
}

func TestARedisWithAPassword(t *testing.T) {
	const password = `p@ss "word"%`
	for _, name := range []string{"execution_gateway", "market_data_service", "orchestrator"} {
		f := newFixture(t, name, map[string]string{"REDIS_PASSWORD": password}, needs("redis"))
		code, text, _ := f.ask(t, "GET", "/health", "")
		assert.Equal(t, http.StatusOK, code, "%s: %s", name, text)
	}
}

func TestStop(t *testing.T) {
	f := newFixture(t, "execution_gateway", nil)
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
	require.Eventually(t, func() bool { return f.stopping.Load() }, time.Second, 5*time.Millisecond)
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
		"neither":             {"X-Other", "x", ""},
		"not fit for the log": {"X-Request-Id", "a b\"c", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, header := f.ask(t, "GET", "/none?code=hush", "", test.header, test.value)
			got := header.Get("X-Request-Id")
			if test.want == "" {
				assert.Regexp(t, "^[A-Z2-7]{26}$", got)
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
	f.ask(t, "GET", "/none", "")
	assert.Empty(t, f.log.String())
}

func TestPeerThatDoesNotAnswer(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	err := checkAddress(context.Background(), http.DefaultClient, gone.URL+"/health")
	assert.ErrorContains(t, err, "connection refused")
	assert.NotContains(t, err.Error(), "http://")
	assert.Error(t, checkAddress(context.Background(), nil, "tcp"+strings.TrimPrefix(gone.URL, "http")))
}

// The variable that names a peer says where it is, as in the platform's own code.
func TestPeerIsReachedByItsVariable(t *testing.T) {
	gateway := newFixture(t, "execution_gateway", map[string]string{"LOG_LEVEL": "DEBUG"})
	f := newFixture(t, "market_data_service", map[string]string{"EXECUTION_GATEWAY_URL": gateway.url}, needs("redis", "execution_gateway"))
	code, text, _ := f.ask(t, "GET", "/health", "")
	assert.Equal(t, http.StatusOK, code, text)
	assert.Equal(t, healthy, decodeText[healthAnswer](t, text).Dependencies["execution_gateway"].State)
	assert.Contains(t, gateway.log.String(), `"route":"/health","status":200`)
}

func TestARedisURLWithAPassword(t *testing.T) {
	for given, want := range map[string]int{"p%40ss": http.StatusOK, "wrong": http.StatusServiceUnavailable} {
		mini := miniredis.RunT(t)
		mini.RequireAuth("p@ss")
		f := newFixture(t, "signal_service", map[string]string{"REDIS_URL": "redis://:" + given + "@" + mini.Addr() + "/0"}, needs("redis"))
		code, _, _ := f.ask(t, "GET", "/health", "")
		assert.Equal(t, want, code, given)
	}
}

func TestMetrics(t *testing.T) {
	f := newFixture(t, "execution_gateway", nil, needs("redis"))
	f.ask(t, "GET", "/health", "")
	f.ask(t, "GET", "/none", "")
	_, text, _ := f.ask(t, "GET", "/metrics", "")
	for _, line := range []string{`http_requests_total{method="GET",route="/health",status="200"} 1`, `http_requests_total{method="other",route="unmatched",status="404"} 1`,
		`dependency_up{dependency="redis"} 1`, `http_request_duration_seconds_count{method="GET",route="/health"} 1`} {
		assert.Contains(t, text, line)
	}
}

func TestACheckThatGivesUpLeavesTheConnectionAttempt(t *testing.T) {
	cfg, err := pgxpool.ParseConfig("postgresql://trader:x@postgres:5432/trader")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openPostgres(cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.ConnConfig.ConnectTimeout <= checkTimeout || cfg.MaxConns != 4 {
		t.Fatalf("a connection may take %s, and a check %s", cfg.ConnConfig.ConnectTimeout, checkTimeout)
	}
}
