//go:build live

package test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
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

// profile returns the services that a profile brings.
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
				assert.Equal(t, "healthy", dependency.State, "%s at port %d", name, port)
			}
		}
	})

	trace := "trace-" + s.prefix
	t.Run("a job posted in the console comes back with its result", func(t *testing.T) { testJobFromTheConsole(t, s.in(t), trace) })
	t.Run("one worker for all queues does the high one first", func(t *testing.T) { testQueueOrder(t, s.in(t)) })
	t.Run("every Prometheus target is up", func(t *testing.T) { assertTargetsUp(t, s, s.targets()...) })
	t.Run("every log line can be found", func(t *testing.T) {
		assertLoggedWithLevel(t, s, s.names()...)
		for _, service := range []string{"web_console_dev", "backtest_worker_dev"} {
			assertFound(t, s, `{service="`+service+`"} | json | trace_id="`+trace+`"`)
		}
	})

	t.Run("switching to an image replaces that service alone", func(t *testing.T) {
		s := s.in(t)
		own := testImage(t, "signals", references["reference"], standIn(s.exec("signal_service", "cat", "/app/contract.json")))
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
		assert.Empty(t, s.replaced(before), "Prometheus, too, finds out by itself")
		assertTargetsUp(t, s, s.targets()...)

		before = s.ids()
		s.configure(map[string]any{"profiles": []string{}})
		s.up()
		assert.ElementsMatch(t, baseServices, s.names(), "workers taken away")
		assert.Empty(t, s.replaced(before))
		s.unchanged("the base alone")
	})
}

// testJobFromTheConsole posts a job in the console, and looks for its result in the worker's files, in PostgreSQL and on the page.
func testJobFromTheConsole(t *testing.T, s *stack, trace string) {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	browser := &http.Client{Jar: jar}
	submit := func(path string, form url.Values) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url(8080, path), strings.NewReader(form.Encode()))
		require.NoError(t, err)
		request.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "X-Request-Id": {trace}}
		response, err := browser.Do(request)
		require.NoError(t, err)
		defer func() { _ = response.Body.Close() }()
		page, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, response.StatusCode, string(page))
	}
	submit("/login", url.Values{"username": {"admin"}, "password": {"admin"}})
	submit("/jobs", url.Values{"queue": {"backtest_normal"}, "text": {"margin call"}})

	result := fmt.Sprintf("%x", sha256.Sum256([]byte("margin call")))
	s.eventually("backtest_normal|completed|1|"+result+"|"+trace, "select queue, status, attempts, result, trace_id from reference_app.jobs where text = 'margin call'")
	file := s.result("backtest_worker_dev", s.sql("select job_id from reference_app.jobs where text = 'margin call'"))
	assert.Equal(t, result, file.Result)
	response, err := browser.Get(s.url(8080, "/"))
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Contains(t, string(page), result)
}

// testQueueOrder keeps the worker of all queues busy, gives it work for each, the low first, and looks at what it does in which order.
func testQueueOrder(t *testing.T, s *stack) {
	s.enqueue("backtest_low", `{"job_id": "busy", "text": "in order", "steps": 100, "step_ms": 50}`)
	s.eventually("1", "select count(*) from reference_app.jobs where job_id = 'busy' and status = 'running'")
	s.exec("redis", "redis-cli", "eval", `for _, queue in ipairs({"low", "normal", "high"}) do for n = 1, 2 do
		redis.call("xadd", "backtest_" .. queue, "*", "job", '{"job_id": "' .. queue .. '-' .. n .. '", "text": "in order"}') end end`, "0")
	s.eventually("7", "select count(*) from reference_app.jobs where status = 'completed' and text = 'in order'")
	assert.Equal(t, "busy,high-1,high-2,normal-1,normal-2,low-1,low-2",
		s.sql("select string_agg(job_id, ',' order by started_at) from reference_app.jobs where text = 'in order'"))
}

// standIn turns the reference app's image into one of the platform's own for the service of a contract, as far as the stack can
// tell: it takes no arguments and no file of ours, and is probed by curl and python.
func standIn(contract string) string {
	return `
USER root
RUN printf '#!/bin/sh\necho "${0##*/}" >/tmp/probed-with\nexec /app/reference probe\n' >/usr/local/bin/curl \
 && chmod 755 /usr/local/bin/curl && ln -s curl /usr/local/bin/python
RUN echo ` + base64.StdEncoding.EncodeToString([]byte(contract)) + ` | base64 -d >/app/contract.json
USER 1000
ENTRYPOINT ["/app/reference", "serve"]`
}

// hostPorts returns the ports that a service publishes, as they are without the stack's offset.
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
