//go:build live

package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWorkersStack(t *testing.T) {
	t.Parallel()
	s := newStack(t, "workers", nil)
	s.up()
	assertAllHealthy(t, s, slices.Concat(baseServices, workerServices)...)

	t.Run("jobs of every queue leave their results in the volume", func(t *testing.T) {
		s := s.in(t)
		for _, queue := range []string{"high", "normal", "low"} {
			s.enqueue("backtest_"+queue, `{"job_id": "first-%s", "text": "first", "trace_id": "%s"}`, queue, s.prefix)
		}
		s.eventually("3", "select count(*) from reference_app.jobs where status = 'completed'")
		for _, queue := range []string{"high", "normal", "low"} {
			// Every worker has the one volume, so any of them sees what the others wrote.
			result := s.result("backtest_worker_low", "first-"+queue)
			assert.Equal(t, "backtest_"+queue, result.Queue)
			assert.Equal(t, s.sql("select result from reference_app.jobs where job_id = 'first-"+queue+"'"), result.Result)
			assert.Equal(t, 1, result.Attempts)
		}
	})
	t.Run("an alert is delivered once", func(t *testing.T) {
		s := s.in(t)
		for range 3 {
			s.enqueue("alerts", `{"job_id": "margin", "text": "margin call"}`)
		}
		s.enqueue("alerts", `{"job_id": "last", "text": "the queue is empty"}`)
		s.eventually("completed", "select status from reference_app.jobs where job_id = 'last'")
		assert.Equal(t, "completed|1|margin call", s.sql("select status, attempts, text from reference_app.jobs where job_id = 'margin'"))
		assert.Equal(t, 1, s.logged("alert_worker", "job completed", `"job_id":"margin"`))
		assert.NotContains(t, s.logs(s.prefix+"_alert_worker", "all"), "margin call", "what is told is nobody's business")
	})
	t.Run("a worker that is killed in the middle of a job", func(t *testing.T) {
		s := s.in(t)
		s.enqueue("backtest_low", `{"job_id": "survivor", "text": "survivor", "steps": 60, "step_ms": 60}`)
		s.eventually("running|1", "select status, attempts from reference_app.jobs where job_id = 'survivor'")
		s.crash("backtest_worker_low")
		s.eventually("completed|2", "select status, attempts from reference_app.jobs where job_id = 'survivor'")
		assert.Equal(t, 2, s.result("backtest_worker_low", "survivor").Attempts)
		assert.Equal(t, 1, s.logged("backtest_worker_low", "job completed", `"job_id":"survivor"`))
		assert.Equal(t, 1, s.inspect("backtest_worker_low").RestartCount, "the engine brought it back")
		assert.Equal(t, "0", s.exec("redis", "redis-cli", "xlen", "backtest_low"))
		s.unchanged("after the crash")
	})
	t.Run("every Prometheus target is up", func(t *testing.T) { assertTargetsUp(t, s.in(t), s.targets()...) })
	t.Run("every log line can be found", func(t *testing.T) {
		s := s.in(t)
		assertLoggedWithLevel(t, s, s.names()...)
		assertFound(t, s, `{service="backtest_worker_high"} | json | trace_id="`+s.prefix+`"`)
	})
	t.Run("five workers, and one again", func(t *testing.T) {
		s := s.in(t)
		before := s.ids()
		s.configure(map[string]any{"replicas": map[string]any{"backtest_worker_high": 5}})
		s.up()
		five := []string{"backtest_worker_high_2", "backtest_worker_high_3", "backtest_worker_high_4", "backtest_worker_high_5"}
		assert.ElementsMatch(t, five, s.replaced(before), "the first keeps its name and its container")
		assertAllHealthy(t, s, slices.Concat(baseServices, workerServices, five)...)
		for i := range 5 {
			s.enqueue("backtest_high", `{"job_id": "crowd-%d", "text": "crowd", "steps": 60, "step_ms": 80}`, i)
		}
		s.eventually("5|5", "select count(*), count(distinct worker) from reference_app.jobs where job_id like 'crowd-%' and status = 'completed'")
		assertFound(t, s, `{service="backtest_worker_high", container="`+s.prefix+`_backtest_worker_high_5"}`)

		before = s.ids()
		s.configure(map[string]any{"replicas": nil})
		s.up()
		assert.ElementsMatch(t, slices.Concat(baseServices, workerServices), s.names(), "four are gone")
		assert.Empty(t, s.replaced(before), "and nothing else is touched")
	})
}

// enqueue puts a job into a queue as the platform's services do.
func (s *stack) enqueue(queue, format string, args ...any) {
	s.t.Helper()
	s.exec("redis", "redis-cli", "xadd", queue, "*", "job", fmt.Sprintf(format, args...))
}

// jobResult is what a test looks at of a result file.
type jobResult struct {
	Queue, Result string
	Attempts      int
}

// result reads a job's result file in a worker's container.
func (s *stack) result(service, job string) (r jobResult) {
	s.t.Helper()
	require.NoError(s.t, json.Unmarshal([]byte(s.exec(service, "cat", "/app/data/backtest_results/"+job+".json")), &r))
	return r
}

// logged counts a service's log lines that have all the parts.
func (s *stack) logged(service string, parts ...string) (n int) {
	for line := range strings.Lines(s.logs(s.prefix+"_"+service, "all")) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			n++
		}
	}
	return n
}

// crash kills a service's process from outside its container, and waits for the engine to start it again. `docker kill`
// would not do: the engine takes it for a person's wish, and leaves the container stopped.
func (s *stack) crash(service string) {
	s.t.Helper()
	pid := s.inspect(service).State.Pid
	require.NotZero(s.t, pid)
	out, err := exec.Command("docker", "run", "--rm", "--label", runLabel+"="+runID, "--pid", "host", "--user", "0", "--entrypoint", "sh",
		references["redis"], "-c", fmt.Sprintf("kill -KILL %d", pid)).CombinedOutput()
	require.NoError(s.t, err, string(out))
	require.EventuallyWithT(s.t, func(c *assert.CollectT) {
		found, err := engine.ContainerInspect(context.Background(), s.prefix+"_"+service, client.ContainerInspectOptions{})
		if assert.NoError(c, err) {
			state := found.Container.State
			assert.True(c, state.Running && state.Pid != pid && state.Pid != 0, service)
		}
	}, 30*time.Second, 100*time.Millisecond)
}
