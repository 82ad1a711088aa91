package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// workFixture is a runtime with a queue's Redis, for workers made by the test.
func workFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixture(t, "alert_worker", nil)
}

func (f *fixture) worker(handle jobHandler, queues ...string) *worker {
	w := newWorker(f.runtime, f.client, queues, handle)
	w.poll = 2 * time.Millisecond
	return w
}

func (f *fixture) push(t *testing.T, queue string, payloads ...string) {
	t.Helper()
	for _, payload := range payloads {
		require.NoError(t, f.client.LPush(context.Background(), queue, payload).Err())
	}
}

func (f *fixture) length(queue string) int64 { return f.client.LLen(context.Background(), queue).Val() }

// start runs a worker until the test, or the returned function, ends it.
func start(t *testing.T, w *worker) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { w.run(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

type notes struct {
	mu   sync.Mutex
	list []string
}

func (n *notes) add(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, text)
}

func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string{}, n.list...)
}

const soon, beat = 5 * time.Second, 5 * time.Millisecond

func TestQueuesByPriorityAndInOrder(t *testing.T) {
	f := workFixture(t)
	var seen notes
	f.push(t, "low", `{"n":1}`)
	f.push(t, "normal", `{"n":2}`, `{"n":3}`)
	f.push(t, "high", `{"n":4}`, `{"n":5}`)
	start(t, f.worker(func(_ context.Context, j job) (string, error) { seen.add(string(j.payload)); return "completed", nil }, "high", "normal", "low"))
	require.Eventually(t, func() bool { return len(seen.all()) == 5 }, soon, beat)
	assert.Equal(t, []string{`{"n":4}`, `{"n":5}`, `{"n":2}`, `{"n":3}`, `{"n":1}`}, seen.all())
	require.Eventually(t, func() bool { return len(f.redis.Keys()) == 0 }, soon, beat, "nothing is left behind")
}

func TestJobOfADeadWorker(t *testing.T) {
	f := workFixture(t)
	f.push(t, "high", `{"n":1}`)
	dead := f.worker(nil, "high")
	// A killed worker takes the job and is heard of no more.
	require.NoError(t, takeJob.Run(context.Background(), f.client, []string{"high", processing("high")}, dead.id, dead.lease.Milliseconds()).Err())
	var seen notes
	other := f.worker(func(_ context.Context, j job) (string, error) {
		seen.add(fmt.Sprint(j.attempts))
		return "completed", nil
	}, "high")
	other.recover(context.Background())
	assert.EqualValues(t, 0, f.length("high"), "while the lease lives, the job is the first worker's")
	f.redis.FastForward(dead.lease + time.Second)
	start(t, other)
	require.Eventually(t, func() bool { return len(f.redis.Keys()) == 0 }, soon, beat)
	assert.Equal(t, []string{"2"}, seen.all(), "done once, at the second attempt")
}

func TestLeaseIsRenewedAndLost(t *testing.T) {
	f := workFixture(t)
	f.push(t, "high", `{"n":1}`)
	begun := make(chan struct{})
	w := f.worker(func(ctx context.Context, _ job) (string, error) {
		close(begun)
		<-ctx.Done()
		return "", context.Cause(ctx)
	}, "high")
	w.lease = 60 * time.Millisecond
	start(t, w)
	<-begun
	key := f.leaseKeys()[0]
	f.redis.FastForward(50 * time.Millisecond)
	require.Eventually(t, func() bool { return f.redis.TTL(key) > 40*time.Millisecond }, soon, beat, "renewed")
	require.NoError(t, f.redis.Set(key, "another"))
	require.Eventually(t, func() bool { return strings.Contains(f.log.String(), "left to the worker that has it now") }, soon, beat)
	assert.EqualValues(t, 1, f.length(processing("high")), "the job is the other worker's to end")
}

func (f *fixture) leaseKeys() (keys []string) {
	for _, key := range f.redis.Keys() {
		if strings.Contains(key, ":lease:") {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestStopPutsTheJobBack(t *testing.T) {
	f := workFixture(t)
	f.push(t, "high", `{"n":2}`)
	begun := make(chan struct{})
	w := f.worker(func(ctx context.Context, _ job) (string, error) { close(begun); <-ctx.Done(); return "", ctx.Err() }, "high")
	w.grace = 10 * time.Millisecond
	stop := start(t, w)
	<-begun
	f.push(t, "high", `{"n":3}`)
	stop()
	assert.EqualValues(t, 0, f.length(processing("high")))
	assert.Empty(t, f.leaseKeys())
	next, err := f.client.RPop(context.Background(), "high").Result()
	require.NoError(t, err)
	assert.Equal(t, `{"n":2}`, next, "it is the next to be taken")
	assert.Equal(t, "0", f.client.HGet(context.Background(), "high:attempts", "").Val()+"0", "and was not an attempt")
}

func TestStopLetsAShortJobEnd(t *testing.T) {
	f := workFixture(t)
	f.push(t, "high", `{"n":2}`)
	begun := make(chan struct{})
	w := f.worker(func(ctx context.Context, _ job) (string, error) {
		close(begun)
		sleep(ctx, 50*time.Millisecond)
		return "completed", ctx.Err()
	}, "high")
	stop := start(t, w)
	<-begun
	stop()
	assert.Empty(t, f.redis.Keys())
}

func TestJobsThatFail(t *testing.T) {
	f := workFixture(t)
	f.push(t, "high", `{"n":"bad"}`, `{"n":"panics"}`)
	var attempts notes
	w := f.worker(func(_ context.Context, j job) (string, error) {
		attempts.add(string(j.payload))
		if strings.Contains(string(j.payload), "bad") {
			return "", permanent{errors.New("not a job")}
		}
		if j.attempts == 1 {
			panic("oh")
		}
		return "completed", nil
	}, "high")
	start(t, w)
	require.Eventually(t, func() bool { return len(attempts.all()) == 3 && f.length(processing("high")) == 0 }, soon, beat)
	kept := f.client.LRange(context.Background(), "high:failed", 0, -1).Val()
	require.Len(t, kept, 1)
	assert.Contains(t, kept[0], "not a job")
	assert.EqualValues(t, 0, f.length("high"))
}

func TestSameJobTwiceAtOnce(t *testing.T) {
	f := workFixture(t)
	f.push(t, "high", `{"n":1}`, `{"n":1}`)
	var seen notes
	finish := make(chan struct{})
	handle := func(context.Context, job) (string, error) { seen.add("x"); <-finish; return "completed", nil }
	start(t, f.worker(handle, "high"))
	require.Eventually(t, func() bool { return len(seen.all()) == 1 }, soon, beat)
	start(t, f.worker(handle, "high"))
	require.Eventually(t, func() bool { return f.length("high") == 0 }, soon, beat)
	close(finish)
	require.Eventually(t, func() bool { return len(f.redis.Keys()) == 0 }, soon, beat)
	assert.Len(t, seen.all(), 1)
}

func TestNothingIsTakenWhileADependencyIsAway(t *testing.T) {
	f := newFixture(t, "alert_worker", map[string]string{"STACK_DEPENDENCIES": "postgres,redis"})
	f.db.fail(errors.New("away"))
	f.push(t, "high", `{"n":1}`)
	start(t, f.worker(func(context.Context, job) (string, error) { return "completed", nil }, "high"))
	time.Sleep(50 * time.Millisecond)
	assert.EqualValues(t, 1, f.length("high"))
}

func backtestFixture(t *testing.T) (*fixture, *backtester, string) {
	t.Helper()
	dir := t.TempDir()
	f := newFixture(t, "backtest_worker_dev", map[string]string{"YFINANCE_DATA_DIR": filepath.Join(dir, "results", "yfinance"), "DATA_LOCK_DIR": filepath.Join(dir, "locks"), "DATA_ROOT": dir})
	b := &backtester{rt: f.runtime, db: f.db, dataRoot: dir, cacheDir: filepath.Join(dir, "results", "yfinance"), resultsDir: filepath.Join(dir, "results"), lockDir: filepath.Join(dir, "locks"), memoryLimit: 1 << 20}
	return f, b, filepath.Join(dir, "results")
}

func TestBacktest(t *testing.T) {
	f, b, dir := backtestFixture(t)
	j := job{queue: "backtest_high", payload: []byte(`{"job_id":"j1","symbol":"AAPL","bars":300}`), attempts: 1, worker: "w1"}
	result, err := b.handle(context.Background(), j)
	require.NoError(t, err)
	assert.Equal(t, "completed", result)
	text, err := os.ReadFile(filepath.Join(dir, "j1.json"))
	require.NoError(t, err)
	var got backtestResult
	require.NoError(t, json.Unmarshal(text, &got))
	assert.Equal(t, 300, got.Bars)
	assert.Equal(t, "w1", got.Worker)
	assert.Positive(t, got.Trades)
	curve, err := os.ReadFile(filepath.Join(dir, "j1.csv"))
	require.NoError(t, err)
	assert.Len(t, strings.Split(strings.TrimSpace(string(curve)), "\n"), 301)
	assert.Equal(t, "completed", f.db.jobRows["j1"].Status)

	j.worker, j.attempts = "w2", 2
	result, err = b.handle(context.Background(), j)
	require.NoError(t, err)
	assert.Equal(t, "duplicate", result)
	again, err := os.ReadFile(filepath.Join(dir, "j1.json"))
	require.NoError(t, err)
	assert.Equal(t, text, again, "the result is written once")
	assert.Equal(t, "w1", f.db.jobRows["j1"].Worker)
}

func TestTwoWorkersWithOneBacktest(t *testing.T) {
	_, b, _ := backtestFixture(t)
	var results notes
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			result, err := b.handle(context.Background(), job{queue: "q", payload: []byte(`{"job_id":"j1","symbol":"MSFT"}`), attempts: 1, worker: fmt.Sprint(i)})
			assert.NoError(t, err)
			results.add(result)
		})
	}
	wg.Wait()
	completed := 0
	for _, result := range results.all() {
		if result == "completed" {
			completed++
		}
	}
	assert.Equal(t, 1, completed, results.all())
}

func TestBacktestStopsInTheMiddle(t *testing.T) {
	f, b, dir := backtestFixture(t)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := b.handle(ctx, job{queue: "q", payload: []byte(`{"job_id":"j1","symbol":"AAPL","step_delay_ms":1000}`), attempts: 1})
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.NoFileExists(t, filepath.Join(dir, "j1.json"))
	assert.Equal(t, "running", f.db.jobRows["j1"].Status)
}

func TestBacktestRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		payload  string
		attempts int
		says     string
	}{
		"no JSON":                    {`hello`, 1, "payload is not a backtest job"},
		"a name that leaves the dir": {`{"job_id":"../x","symbol":"AAPL"}`, 1, "job_id"},
		"a symbol":                   {`{"job_id":"j","symbol":"../AAPL"}`, 1, "symbol"},
		"averages the wrong way":     {`{"job_id":"j","symbol":"AAPL","fast":30,"slow":10}`, 1, "fast, slow, bars"},
		"a delay":                    {`{"job_id":"j","symbol":"AAPL","step_delay_ms":-1}`, 1, "step_delay_ms"},
		"more memory than allowed":   {`{"job_id":"j","symbol":"AAPL","bars":900000}`, 1, "BACKTEST_JOB_MEMORY_LIMIT"},
		"more days than there are":   {`{"job_id":"j","symbol":"AAPL","bars":4000}`, 1, "bars: 4000 asked for"},
		"too many deaths":            {`{"job_id":"j","symbol":"AAPL"}`, maxAttempts + 1, "gave up after 5 attempts"},
		"prices that are not":        {`{"job_id":"j","symbol":"BAD"}`, 1, "is not date,close"},
	} {
		t.Run(name, func(t *testing.T) {
			f, b, _ := backtestFixture(t)
			require.NoError(t, os.WriteFile(filepath.Join(b.dataRoot, "BAD.csv"), []byte("date,close\n2026-01-01,much\n"), 0o600))
			_, err := b.handle(context.Background(), job{queue: "q", payload: []byte(test.payload), attempts: test.attempts})
			var fault permanent
			require.ErrorAs(t, err, &fault)
			assert.ErrorContains(t, err, test.says)
			if row, ok := f.db.jobRows["j"]; ok {
				assert.Equal(t, "failed", row.Status, "a job that cannot be done does not run for ever")
			}
		})
	}
}

func TestBacktestOfOwnPrices(t *testing.T) {
	_, b, dir := backtestFixture(t)
	rows := "date,close\n"
	for i := range 40 {
		rows += fmt.Sprintf("2026-01-%02d,%d\n", i+1, 100+i)
	}
	require.NoError(t, os.WriteFile(filepath.Join(b.dataRoot, "OWN.csv"), []byte(rows), 0o600))
	_, err := b.handle(context.Background(), job{queue: "q", payload: []byte(`{"job_id":"own","symbol":"OWN","fast":2,"slow":5,"bars":40}`), attempts: 1})
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(dir, "own.json"))
	require.NoError(t, err)
	var got backtestResult
	require.NoError(t, json.Unmarshal(text, &got))
	assert.Equal(t, 1, got.Trades, "a series that only rises is bought once")
	assert.InDelta(t, 139.0/104-1, got.TotalReturn, 1e-6, "from the fifth bar on")
	assert.Zero(t, got.MaxDrawdown)
	assert.InDelta(t, 0.39, got.BuyAndHold, 1e-9)
	assert.False(t, math.IsNaN(got.TotalReturn))
}

func TestLockIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	unlock, err := lockFile(context.Background(), path)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Millisecond)
	defer cancel()
	_, err = lockFile(ctx, path)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	unlock()
	again, err := lockFile(context.Background(), path)
	require.NoError(t, err)
	again()
}

func TestAlerts(t *testing.T) {
	f := newFixture(t, "alert_worker", nil)
	f.push(t, "alerts", `{"alert_id":"a1","recipient":"alice@example.com","channel":"email","message":"first"}`,
		`{"alert_id":"a1","recipient":"alice@example.com","channel":"email","message":"second"}`,
		`{"alert_id":"a2","recipient":"alice@example.com","channel":"sms","message":"other"}`,
		`{"alert_id":"a3","recipient":"bob@example.com","channel":"pigeon","message":"never"}`)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go f.background[0](ctx)
	require.Eventually(t, func() bool { return f.length("alerts:failed") == 1 && f.length(processing("alerts")) == 0 }, soon, beat)
	require.Len(t, f.db.alertRows, 2)
	assert.Equal(t, "first", f.db.alertRows["a1"].Message, "delivered once, the first time")
	assert.Equal(t, f.db.alertRows["a1"].RecipientHash, f.db.alertRows["a2"].RecipientHash)
	assert.Len(t, f.db.alertRows["a1"].RecipientHash, 64)
	assert.NotContains(t, f.log.String(), "alice@example.com")
	assert.Contains(t, f.log.String(), "sends nothing anywhere")
	_, text, _ := f.ask(t, "GET", "/metrics", "")
	for _, line := range []string{`jobs_total{queue="alerts",result="completed"} 2`, `jobs_total{queue="alerts",result="duplicate"} 1`, `jobs_total{queue="alerts",result="failed"} 1`} {
		assert.Contains(t, text, line)
	}
}
