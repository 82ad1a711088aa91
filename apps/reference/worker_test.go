package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const soon, tick = 5 * time.Second, 5 * time.Millisecond

func workFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixture(t, "backtest_worker_dev", nil)
}

// worker makes one more worker of the fixture's service.
func (f *fixture) worker(names ...string) *worker {
	w := newWorker(f.service)
	w.queues, w.poll = names, 2*time.Millisecond
	return w
}

func (f *fixture) push(t *testing.T, queue string, payloads ...string) {
	t.Helper()
	for _, payload := range payloads {
		_, err := f.redis.XAdd(queue, "*", []string{"job", payload})
		require.NoError(t, err)
	}
}

func (f *fixture) length(queue string) int {
	entries, _ := f.redis.Stream(queue) // fails for a queue that has never had a job
	return len(entries)
}

func (f *fixture) ended(id string) func() bool {
	return func() bool { return f.db.row(id).Status == "completed" && f.length("high") == 0 }
}

// start runs a worker until the test, or the returned function, ends it.
func start(t *testing.T, w *worker) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { w.run(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func TestQueuesByPriorityAndInOrder(t *testing.T) {
	f := workFixture(t)
	f.push(t, "low", `{"job_id":"1","text":"a"}`)
	f.push(t, "normal", `{"job_id":"2","text":"a"}`, `{"job_id":"3","text":"a"}`)
	f.push(t, "high", `{"job_id":"4","text":"a"}`, `{"job_id":"5","text":"a"}`)
	start(t, f.worker("high", "normal", "low"))
	require.Eventually(t, func() bool { return len(f.db.started()) == 5 && f.length("low") == 0 }, soon, tick)
	assert.Equal(t, []string{"4", "5", "2", "3", "1"}, f.db.started())
	assert.Zero(t, f.length("high")+f.length("normal"), "nothing is left behind")
}

func TestJob(t *testing.T) {
	f := workFixture(t)
	f.push(t, "high", `{"job_id":"one","text":"margin call","trace_id":"the-trace"}`, `{"job_id":"one","text":"margin call"}`, `{"job_id":"twice","text":"x","steps":2}`)
	start(t, f.worker("high"))
	require.Eventually(t, f.ended("twice"), soon, tick)
	sum := sha256.Sum256([]byte("margin call"))
	row := f.db.row("one")
	assert.Equal(t, hex.EncodeToString(sum[:]), row.Result)
	assert.Equal(t, 1, row.Attempts, "the same job again is not done again")
	assert.Equal(t, "the-trace", row.TraceID)
	assert.Equal(t, 2, f.db.finished)
	once := sha256.Sum256([]byte("x"))
	twice := sha256.Sum256(once[:])
	assert.Equal(t, hex.EncodeToString(twice[:]), f.db.row("twice").Result)

	text, err := os.ReadFile(filepath.Join(f.Folders[0], "one.json"))
	require.NoError(t, err)
	var file struct{ Result, Queue string }
	require.NoError(t, json.Unmarshal(text, &file))
	assert.Equal(t, row.Result, file.Result)
	assert.Equal(t, "high", file.Queue)
	assert.Contains(t, f.log.String(), `"message":"job completed","service":"backtest_worker_dev","job_id":"one","queue":"high","attempt":1,"trace_id":"the-trace"`)
	assert.NotContains(t, f.log.String(), "margin call", "the text may be anything")
	_, metrics, _ := f.ask(t, "GET", "/metrics", "")
	assert.Contains(t, metrics, `jobs_total{queue="high",result="completed"} 2`)
	assert.Contains(t, metrics, `jobs_total{queue="high",result="duplicate"} 1`)
}

func TestAQueueShowsWhatWaitsInIt(t *testing.T) {
	f := workFixture(t)
	metric := func(format string) func() bool {
		return func() bool {
			_, text, _ := f.ask(t, "GET", "/metrics", "")
			return regexp.MustCompile(`(?m)^queue_` + format + `$`).MatchString(text)
		}
	}
	assert.True(t, metric(`jobs\{queue="backtest_low"\} 0`)() && metric(`waiting_seconds\{queue="backtest_low"\} 0`)(), "it has never had a job")
	_, text, _ := f.ask(t, "GET", "/metrics", "")
	assert.Contains(t, text, `jobs_total{queue="backtest_low",result="failed"} 0`)

	_, err := f.redis.XAdd("backtest_low", "1000-0", []string{"job", `{"job_id":"slow","text":"x","step_ms":60000}`}) // of 1970
	require.NoError(t, err)
	assert.True(t, metric(`jobs\{queue="backtest_low"\} 1`)() && metric(`waiting_seconds\{queue="backtest_low"\} \d{10}`)())
	w := f.worker("backtest_low")
	w.grace = 0
	start(t, w)
	require.Eventually(t, metric(`waiting_seconds\{queue="backtest_low"\} 0`), soon, tick)
	assert.True(t, metric(`jobs\{queue="backtest_low"\} 1`)(), "a worker has it, and it is not done")
	f.redis.Close()
	assert.True(t, metric(`jobs\{queue="backtest_low"\} NaN`)(), "nobody knows")
}

func TestPausesOfAnIdleWorkerGrow(t *testing.T) {
	f := workFixture(t)
	w := f.worker("high")
	w.poll = 20 * time.Millisecond
	before := f.redis.CommandCount()
	stop := start(t, w)
	time.Sleep(400 * time.Millisecond)
	stop()
	assert.Less(t, f.redis.CommandCount()-before, 30, "20 polls of 3 commands, if they did not")
}

func TestJobOfADeadWorker(t *testing.T) {
	f := workFixture(t)
	f.push(t, "high", `{"job_id":"one","text":"a"}`)
	dead := f.worker("high")
	e, err := dead.take(t.Context())
	require.NoError(t, err)
	require.NotNil(t, e)
	// A killed worker has recorded the job and is heard of no more.
	_, err = f.db.start(t.Context(), jobRow{job: job{ID: "one"}, Worker: "dead"})
	require.NoError(t, err)
	other := f.worker("high")
	found, err := other.take(t.Context())
	require.NoError(t, err)
	assert.Nil(t, found, "while there are signs of life, the job is the first worker's")
	other.lease = 30 * time.Millisecond
	start(t, other)
	require.Eventually(t, f.ended("one"), soon, tick)
	assert.Equal(t, 2, f.db.row("one").Attempts)
	assert.Equal(t, other.name, f.db.row("one").Worker)
}

func TestSignsOfLifeKeepAJob(t *testing.T) {
	f := workFixture(t)
	f.push(t, "high", `{"job_id":"one","text":"a","steps":10,"step_ms":90}`)
	first, second := f.worker("high"), f.worker("high")
	first.lease, second.lease = 600*time.Millisecond, 600*time.Millisecond
	start(t, first)
	require.Eventually(t, func() bool { return len(f.db.started()) == 1 }, soon, tick)
	start(t, second)
	require.Eventually(t, f.ended("one"), soon, tick)
	assert.Equal(t, 1, f.db.row("one").Attempts)
}

func TestTwoWorkersWithOneJob(t *testing.T) {
	f := workFixture(t)
	results := make(chan string, 4)
	for range 4 {
		go func() {
			result, err := f.worker("high").attempt(context.Background(), context.Background(), &entry{queue: "high"}, job{ID: "one", Text: "a", Steps: 1})
			assert.NoError(t, err)
			results <- result
		}()
	}
	completed := 0
	for range 4 {
		if <-results == "completed" {
			completed++
		}
	}
	assert.Equal(t, 1, completed)
	assert.Equal(t, 1, f.db.finished)
}

func TestStopHandsTheJobBack(t *testing.T) {
	f := workFixture(t)
	f.push(t, "high", `{"job_id":"one","text":"a","step_ms":60000}`)
	w := f.worker("high")
	w.grace = 10 * time.Millisecond
	stop := start(t, w)
	require.Eventually(t, func() bool { return len(f.db.started()) == 1 }, soon, tick)
	stop()
	e, err := f.worker("high").take(t.Context())
	require.NoError(t, err)
	require.NotNil(t, e, "the next worker has it at once")
	assert.Contains(t, e.payload, `"one"`)
	assert.NoFileExists(t, filepath.Join(f.Folders[0], "one.json"))
}

func TestStopLetsAShortJobEnd(t *testing.T) {
	f := workFixture(t)
	f.push(t, "high", `{"job_id":"one","text":"a","step_ms":50}`)
	stop := start(t, f.worker("high"))
	require.Eventually(t, func() bool { return len(f.db.started()) == 1 }, soon, tick)
	stop()
	assert.True(t, f.ended("one")())
}

func TestJobsThatCannotBeDone(t *testing.T) {
	for name, payload := range map[string]string{
		"no JSON": `hello`, "a name that leaves the folder": `{"job_id":"../x","text":"a"}`, "a field that nobody knows": `{"job_id":"x","symbol":"AAPL"}`,
		"steps": `{"job_id":"x","steps":0}`, "a pause": `{"job_id":"x","step_ms":-1}`, "a long text": `{"job_id":"x","text":"` + strings.Repeat("a", 4001) + `"}`,
	} {
		_, err := parseJob(payload)
		assert.Error(t, err, name)
	}
	f := workFixture(t)
	f.push(t, "high", `hush`, `{"job_id":"deadly","text":"a"}`)
	for range maxAttempts {
		_, err := f.db.start(t.Context(), jobRow{job: job{ID: "deadly"}})
		require.NoError(t, err)
	}
	start(t, f.worker("high"))
	require.Eventually(t, func() bool { return f.length("high") == 0 }, soon, tick)
	assert.Equal(t, "failed", f.db.row("deadly").Status, "a job that kills its workers does not run for ever")
	assert.Equal(t, "given up after 5 attempts", f.db.row("deadly").Result)
	assert.NotContains(t, f.log.String(), "hush")
	_, metrics, _ := f.ask(t, "GET", "/metrics", "")
	assert.Contains(t, metrics, `jobs_total{queue="high",result="failed"} 2`)
}

func TestJobIsTriedAgainAfterAnError(t *testing.T) {
	f := workFixture(t)
	w := f.worker("high")
	w.results = filepath.Join(w.results, "missing")
	f.push(t, "high", `{"job_id":"one","text":"a"}`)
	e, err := w.take(t.Context())
	require.NoError(t, err)
	require.NoError(t, w.do(t.Context(), e))
	assert.Equal(t, "running", f.db.row("one").Status)
	w.results = f.Folders[0]
	start(t, w)
	require.Eventually(t, f.ended("one"), soon, tick)
	assert.Equal(t, 2, f.db.row("one").Attempts)
}

func TestNothingIsTakenWhileADependencyIsAway(t *testing.T) {
	f := newFixture(t, "backtest_worker_dev", nil, needs("postgres", "redis"))
	f.db.fail(errors.New("away"))
	f.health.ask(t.Context(), true)
	f.push(t, "high", `{"job_id":"one","text":"a"}`)
	start(t, f.worker("high"))
	assert.Contains(t, f.log.String(), "dependency does not answer")
	assert.Never(t, func() bool { return len(f.db.started()) > 0 }, 50*time.Millisecond, tick)
	assert.Equal(t, 1, f.length("high"))
}
