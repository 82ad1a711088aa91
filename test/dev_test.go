//go:build live

package test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
)

// What the base and the profiles bring, without Grafana, which has no air-gap image.
var (
	baseServices   = profile("")
	devServices    = profile("dev")
	workerServices = profile("workers")
)

// profile gives the services that a profile brings.
func profile(name string) (services []string) {
	for _, s := range catalog.Services() {
		if s.Profile == name && s.Name != "grafana" {
			services = append(services, s.Name)
		}
	}
	return services
}

func TestDevStack(t *testing.T) {
	t.Parallel()
	s := newStack(t, "dev", nil)
	s.up()
	assertAllHealthy(t, s, slices.Concat(baseServices, devServices)...)

	t.Run("health answers name each dependency", func(t *testing.T) {
		for port, dependencies := range map[int][]string{
			8001: {"postgres", "redis"},
			8002: {"postgres", "redis"},
			8003: {"postgres", "redis", "signal_service", "execution_gateway"},
			8004: {"redis", "execution_gateway"},
			8005: nil,
		} {
			var health struct {
				Status       string
				Dependencies map[string]struct{ State string }
			}
			require.True(t, getJSON(t, s.url(port, "/health"), &health))
			assert.Equal(t, "ok", health.Status, port)
			assert.ElementsMatch(t, dependencies, slices.Collect(maps.Keys(health.Dependencies)), port)
			for name, dependency := range health.Dependencies {
				assert.Equal(t, "up", dependency.State, "%s at port %d", name, port)
			}
		}
	})

	trace := "trace-" + s.prefix
	t.Run("from a quote to an order", func(t *testing.T) { testQuoteToOrder(t, s.in(t), trace) })
	t.Run("one worker for all queues does the high one first", func(t *testing.T) { testQueueOrder(t, s.in(t)) })
	t.Run("every Prometheus target is up", func(t *testing.T) { assertTargetsUp(t, s, s.targets()...) })
	t.Run("every log line can be found", func(t *testing.T) {
		assertLoggedWithLevel(t, s, s.names()...)
		for _, service := range []string{"orchestrator", "signal_service", "execution_gateway"} {
			assertFound(t, s, `{service="`+service+`"} | json | trace_id="`+trace+`"`)
		}
	})

	t.Run("switching to an image replaces that service alone", func(t *testing.T) {
		s := s.in(t)
		own := testImage(t, "signals", references["reference"], standIn("signal_service"))
		before := s.ids()
		s.configure(map[string]any{"images": merged(images(), "signal_service", own)})
		s.up()
		assert.Equal(t, []string{"signal_service"}, s.replaced(before))
		assert.Equal(t, "healthy", string(s.inspect("signal_service").State.Health.Status))
		assert.Equal(t, "curl", s.exec("signal_service", "cat", "/tmp/probed-with"), "its probe is the platform's own")
		s.unchanged("with an image of its own")

		before = s.ids()
		s.configure(map[string]any{"images": images()})
		s.up()
		assert.Equal(t, []string{"signal_service"}, s.replaced(before), "and back")
	})
	t.Run("notebook ports only with a command for them", func(t *testing.T) {
		s := s.in(t)
		assert.Equal(t, []int{8080}, s.hostPorts("web_console_dev"))
		before := s.ids()
		s.configure(map[string]any{"NOTEBOOK_LAUNCH_COMMAND": "jupyter lab"})
		s.up()
		assert.Equal(t, []string{"web_console_dev"}, s.replaced(before))
		var want []int
		for port := 8900; port < 8950; port++ {
			want = append(want, port)
		}
		assert.Equal(t, append([]int{8080}, want...), s.hostPorts("web_console_dev"))
	})
	t.Run("profiles come and go, the base stays", func(t *testing.T) {
		s := s.in(t)
		before := s.ids()
		s.configure(map[string]any{"profiles": []string{"dev", "workers"}, "ALERT_RECIPIENT_HASH_SECRET": "a-secret-of-the-test"})
		s.up()
		assertAllHealthy(t, s, slices.Concat(baseServices, devServices, workerServices)...)
		// The console shows the services of the stack, so it is told of more.
		assert.ElementsMatch(t, append([]string{"web_console_dev"}, workerServices...), s.replaced(before), "workers added")

		before = s.ids()
		s.configure(map[string]any{"profiles": []string{"workers"}})
		s.up()
		assert.ElementsMatch(t, slices.Concat(baseServices, workerServices), s.names(), "dev taken away")
		// Prometheus is told of its targets by a file, which is another now.
		assert.Equal(t, []string{"prometheus"}, s.replaced(before))
		assertTargetsUp(t, s, s.targets()...)

		before = s.ids()
		s.configure(map[string]any{"profiles": []string{}})
		s.up()
		assert.ElementsMatch(t, baseServices, s.names(), "workers taken away")
		assert.Empty(t, s.replaced(before))
		s.unchanged("the base alone")
	})
}

// testQuoteToOrder drives one thin slice through every API, and looks for the outcome in PostgreSQL.
func testQuoteToOrder(t *testing.T, s *stack, trace string) {
	var quote struct {
		Symbol   string
		Bid, Ask float64
		Cached   bool
	}
	require.True(t, getJSON(t, s.url(8004, "/api/v1/quotes/AAPL"), &quote))
	assert.Equal(t, "AAPL", quote.Symbol)
	assert.Greater(t, quote.Ask, quote.Bid)
	assert.Contains(t, s.exec("redis", "redis-cli", "get", "quote:AAPL"), `"symbol":"AAPL"`, "in the cache")

	// What the made-up prices say differs from day to day: the run is for symbols that are to be traded today.
	var signals struct {
		Signals []struct{ Symbol, Side string }
	}
	post(t, s.url(8001, "/api/v1/signals"), nil, `{"symbols": ["AAPL", "MSFT", "NVDA", "AMZN", "META", "TSLA", "ORCL", "INTC"]}`, &signals)
	require.Len(t, signals.Signals, 8)
	sides := map[string]string{}
	for _, signal := range signals.Signals {
		if signal.Side != "hold" {
			sides[signal.Symbol] = signal.Side
		}
	}
	require.NotEmpty(t, sides)
	symbols := slices.Sorted(maps.Keys(sides))
	request, err := json.Marshal(map[string]any{"run_id": "slice", "symbols": symbols, "qty": 7})
	require.NoError(t, err)

	var run struct {
		Status string
		Orders []string
	}
	header := http.Header{"X-Request-Id": {trace}}
	assert.Equal(t, 201, post(t, s.url(8003, "/api/v1/orchestration/run"), header, string(request), &run))
	assert.Equal(t, "completed", run.Status)
	require.Len(t, run.Orders, len(symbols))
	assert.Equal(t, "completed", s.sql("select status from reference_app.orchestration_runs where run_id = 'slice'"))
	for symbol, side := range sides {
		assert.Equal(t, side+"|7|dry_run|"+trace,
			s.sql("select side, qty, status, trace_id from reference_app.orders where client_order_id = 'slice-"+symbol+"' and symbol = '"+symbol+"'"))
	}

	assert.Equal(t, 200, post(t, s.url(8003, "/api/v1/orchestration/run"), header, string(request), &run), "the same run again is answered")
	assert.Equal(t, strconv.Itoa(len(symbols)), s.sql("select count(*) from reference_app.orders"), "and not carried out again")
}

// testQueueOrder keeps the worker of all queues busy, gives it work for each, the low first, and looks at what it does in which order.
func testQueueOrder(t *testing.T, s *stack) {
	const short = `{"job_id": "%s-%d", "symbol": "AAPL", "fast": 2, "slow": 4, "bars": 5}`
	s.enqueue("backtest_low", `{"job_id": "busy", "symbol": "AAPL", "bars": 40, "step_delay_ms": 50}`)
	s.eventually("1", "select count(*) from reference_app.backtest_jobs where job_id = 'busy' and status = 'running'")
	for _, queue := range []string{"low", "normal", "high"} {
		s.enqueue("backtest_"+queue, short, queue, 1)
		s.enqueue("backtest_"+queue, short, queue, 2)
	}
	s.eventually("7", "select count(*) from reference_app.backtest_jobs where status = 'completed'")
	assert.Equal(t, "busy,high-1,high-2,normal-1,normal-2,low-1,low-2",
		s.sql("select string_agg(job_id, ',' order by started_at) from reference_app.backtest_jobs"))
}

// standIn turns the reference app's image into one of the platform's own for a service, as far as the stack can tell: it takes no
// arguments of ours, and is probed by curl and python.
func standIn(service string) string {
	return `
USER root
RUN printf '#!/bin/sh\necho "${0##*/}" >/tmp/probed-with\nexec /app/reference probe ` + service + `\n' >/usr/local/bin/curl \
 && chmod 755 /usr/local/bin/curl && ln -s curl /usr/local/bin/python
USER 1000
ENTRYPOINT ["/app/reference", "serve", "` + service + `"]`
}

// assertAllHealthy asserts that the stack consists of these services, all healthy.
func assertAllHealthy(t *testing.T, s *stack, services ...string) {
	t.Helper()
	require.NotEmpty(t, services)
	assert.ElementsMatch(t, services, s.names())
	for _, name := range services {
		assert.Equal(t, "healthy", s.health(name), name)
	}
}

// hostPorts gives the ports that a service publishes, as they are without the stack's offset.
func (s *stack) hostPorts(service string) []int {
	s.t.Helper()
	var ports []int
	for _, bindings := range s.inspect(service).HostConfig.PortBindings {
		for _, b := range bindings {
			assert.Equal(s.t, netip.MustParseAddr("127.0.0.1"), b.HostIP, service)
			port, err := strconv.Atoi(b.HostPort)
			require.NoError(s.t, err)
			ports = append(ports, port-s.offset)
		}
	}
	slices.Sort(ports)
	return ports
}

// post sends JSON and decodes the answer, which must be a success. It gives the status.
func post(t *testing.T, address string, header http.Header, body string, into any) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, bytes.NewReader([]byte(body)))
	require.NoError(t, err)
	if header != nil {
		request.Header = header.Clone()
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Less(t, response.StatusCode, 300, string(text))
	require.NoError(t, json.Unmarshal(text, into), string(text))
	return response.StatusCode
}

// assertFound asserts that Loki finds something for each query.
func assertFound(t *testing.T, s *stack, queries ...string) {
	t.Helper()
	for _, query := range queries {
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			var answer struct {
				Data struct{ Result []any }
			}
			values := url.Values{"query": {query}, "limit": {"1"}}
			if getJSON(t, s.url(3100, "/loki/api/v1/query_range?"+values.Encode()), &answer) {
				assert.NotEmpty(t, answer.Data.Result, "nothing for %s", query)
			}
		}, time.Minute, time.Second)
	}
}

// assertLoggedWithLevel asserts that Loki has lines of each service, and that it knows their level.
func assertLoggedWithLevel(t *testing.T, s *stack, services ...string) {
	t.Helper()
	for _, service := range services {
		assertFound(t, s, `{service="`+service+`", level=~"info|warning|debug|error"}`)
	}
}
