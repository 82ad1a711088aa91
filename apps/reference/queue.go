package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A queue is a Redis list that producers LPUSH JSON to. Taking a job moves it to the list <queue>:processing and makes a lease, a key
// that lives only while its worker renews it. A job in processing without a lease has lost its worker: any other puts it back.
// The keys belong to a job's payload by its SHA-1, which Redis can make inside the script that moves it.
var (
	takeJob = redis.NewScript(`
		local payload = redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT')
		if not payload then return false end
		local id = redis.sha1hex(payload)
		if not redis.call('SET', KEYS[1] .. ':lease:' .. id, ARGV[1], 'NX', 'PX', ARGV[2]) then
			redis.call('LREM', KEYS[2], 1, payload)
			return {id, payload, 0}
		end
		return {id, payload, redis.call('HINCRBY', KEYS[1] .. ':attempts', id, 1)}`)
	renewLease = redis.NewScript(`
		if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
		return redis.call('PEXPIRE', KEYS[1], ARGV[2])`)
	// endJob takes a job out of processing; with ARGV[4] = 'back' it is put back as the next to be taken, as if it had not been tried.
	endJob = redis.NewScript(`
		local lease = KEYS[1] .. ':lease:' .. ARGV[2]
		if redis.call('GET', lease) ~= ARGV[1] then return 0 end
		redis.call('DEL', lease)
		redis.call('LREM', KEYS[2], 1, ARGV[3])
		if ARGV[4] == 'back' then
			redis.call('HINCRBY', KEYS[1] .. ':attempts', ARGV[2], -1)
			redis.call('RPUSH', KEYS[1], ARGV[3])
		elseif ARGV[4] == 'again' then
			redis.call('RPUSH', KEYS[1], ARGV[3])
		else
			redis.call('HDEL', KEYS[1] .. ':attempts', ARGV[2])
		end
		return 1`)
	recoverJobs = redis.NewScript(`
		local n = 0
		for _, payload in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
			if redis.call('EXISTS', KEYS[1] .. ':lease:' .. redis.sha1hex(payload)) == 0 and redis.call('LREM', KEYS[2], 1, payload) == 1 then
				redis.call('RPUSH', KEYS[1], payload)
				n = n + 1
			end
		end
		return n`)
)

const (
	maxAttempts  = 5
	failedKept   = 1000
	endedCleanly = "done"
	putBack      = "back"
	tryAgain     = "again"
)

var errLeaseLost = errors.New("the lease was lost to another worker")

// permanent is a fault of the job itself: trying again cannot help.
type permanent struct{ error }

type job struct {
	queue, id string
	payload   []byte
	attempts  int
	worker    string
}

// jobHandler does a job and says how it ended (completed, duplicate). An error that is not permanent means: try again.
type jobHandler func(context.Context, job) (result string, err error)

// worker takes jobs from its queues, the first queue's before the second's, one at a time.
type worker struct {
	rt     *runtime
	rdb    *redis.Client
	queues []string
	id     string
	handle jobHandler
	// lease is how long a job may go without a sign of life from its worker.
	lease time.Duration
	// poll is how often empty queues are looked at.
	poll time.Duration
	// grace is how long a job may go on after SIGTERM before it is put back.
	grace time.Duration
}

func newWorker(rt *runtime, rdb *redis.Client, queues []string, handle jobHandler) *worker {
	host, err := os.Hostname()
	if err != nil {
		host = rt.service.name
	}
	return &worker{rt: rt, rdb: rdb, queues: queues, id: host + "-" + hex.EncodeToString(randomBytes(4)), handle: handle,
		lease: 10 * time.Second, poll: 250 * time.Millisecond, grace: 4 * time.Second}
}

func processing(queue string) string { return queue + ":processing" }

// run works until the context ends. While a dependency is away it takes nothing: a job's attempts are for the job's own faults.
func (w *worker) run(ctx context.Context) {
	w.rt.log.Info("waiting for jobs", "worker", w.id, "queues", w.queues)
	lastLook := time.Time{}
	for ctx.Err() == nil {
		if len(w.rt.health.failing(ctx)) > 0 {
			sleep(ctx, time.Second)
			continue
		}
		if time.Since(lastLook) > w.lease/5 {
			w.recover(ctx)
			lastLook = time.Now()
		}
		took, err := w.next(ctx)
		if err != nil && ctx.Err() == nil {
			w.rt.log.Warn("queue not read", "error", brief(err))
		}
		if !took {
			sleep(ctx, w.poll)
		}
	}
}

// recover puts back the jobs whose worker died.
func (w *worker) recover(ctx context.Context) {
	for _, queue := range w.queues {
		n, err := recoverJobs.Run(ctx, w.rdb, []string{queue, processing(queue)}).Int()
		if err == nil && n > 0 {
			w.rt.log.Warn("jobs put back whose worker died", "queue", queue, "jobs", n)
			w.rt.metrics.jobs.WithLabelValues(queue, "recovered").Add(float64(n))
		}
	}
}

// next does one job of the first queue that has one.
func (w *worker) next(ctx context.Context) (bool, error) {
	for _, queue := range w.queues {
		found, err := takeJob.Run(ctx, w.rdb, []string{queue, processing(queue)}, w.id, w.lease.Milliseconds()).Slice()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return false, err
		}
		id, _ := found[0].(string)
		payload, _ := found[1].(string)
		attempts, _ := found[2].(int64)
		if attempts == 0 {
			w.rt.log.Info("job dropped: the same one is being worked on", "queue", queue)
			w.rt.metrics.jobs.WithLabelValues(queue, "duplicate").Inc()
			return true, nil
		}
		return true, w.do(ctx, job{queue: queue, id: id, payload: []byte(payload), attempts: int(attempts), worker: w.id})
	}
	return false, nil
}

func (w *worker) do(stop context.Context, j job) error {
	var envelope struct {
		TraceID string `json:"trace_id"`
	}
	if json.Unmarshal(j.payload, &envelope) != nil || !requestID.MatchString(envelope.TraceID) {
		envelope.TraceID = newTrace()
	}
	ctx, cancel := context.WithCancelCause(withTrace(context.WithoutCancel(stop), envelope.TraceID))
	defer cancel(nil)
	var lost atomic.Bool
	go w.keep(ctx, j, func() { lost.Store(true); cancel(errLeaseLost) })
	defer context.AfterFunc(stop, func() { // SIGTERM: give it a little time, then put it back
		time.AfterFunc(w.grace, func() { cancel(context.Canceled) })
	})()

	result, err := w.attempt(ctx, j)
	end := endedCleanly
	var fault permanent
	switch {
	case lost.Load():
		w.rt.log.WarnContext(ctx, "job left to the worker that has it now", "queue", j.queue)
		w.rt.metrics.jobs.WithLabelValues(j.queue, "lost").Inc()
		return nil
	case err == nil:
	case errors.As(err, &fault):
		result = "failed"
		w.keepFailed(ctx, j, fault)
	case ctx.Err() != nil:
		result, end = "returned", putBack
	default:
		result, end = "retried", tryAgain
		w.rt.log.WarnContext(ctx, "job failed, it will be tried again", "queue", j.queue, "attempt", j.attempts, "error", brief(err))
		sleep(stop, time.Duration(j.attempts)*time.Second)
	}
	w.rt.metrics.jobs.WithLabelValues(j.queue, result).Inc()
	return endJob.Run(context.WithoutCancel(ctx), w.rdb, []string{j.queue, processing(j.queue)}, w.id, j.id, j.payload, end).Err()
}

func (w *worker) attempt(ctx context.Context, j job) (result string, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("job handler failed: %v", fault)
		}
	}()
	return w.handle(ctx, j)
}

// keep renews the lease while the job is worked on, and ends the work when another may have it.
func (w *worker) keep(ctx context.Context, j job, lose func()) {
	renewed := time.Now()
	for sleep(ctx, w.lease/3) {
		alive, err := renewLease.Run(ctx, w.rdb, []string{j.queue + ":lease:" + j.id}, w.id, w.lease.Milliseconds()).Int()
		switch {
		case err == nil && alive == 1:
			renewed = time.Now()
		case err == nil || time.Since(renewed) > w.lease:
			lose()
			return
		}
	}
}

// keepFailed keeps what was given up for a person to look at, in the list <queue>:failed.
func (w *worker) keepFailed(ctx context.Context, j job, cause error) {
	w.rt.log.ErrorContext(ctx, "job given up", "queue", j.queue, "attempts", j.attempts, "error", brief(cause))
	entry, err := json.Marshal(map[string]any{"payload": string(j.payload), "error": brief(cause), "attempts": j.attempts, "at": time.Now().UTC()})
	if err == nil {
		pipe := w.rdb.TxPipeline()
		pipe.LPush(ctx, j.queue+":failed", entry)
		pipe.LTrim(ctx, j.queue+":failed", 0, failedKept-1)
		_, err = pipe.Exec(ctx)
	}
	if err != nil {
		w.rt.log.WarnContext(ctx, "the given-up job was not kept", "error", brief(err))
	}
}
