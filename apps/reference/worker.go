package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

const (
	maxAttempts = 5
	maxText     = 4000 // bytes of a job's text
)

// job is the payload of a queue. The work is to hash the text, which is easy to verify.
type job struct {
	ID      string `json:"job_id"`
	Text    string `json:"text"`
	TraceID string `json:"trace_id,omitempty"`
	Steps   int    `json:"steps,omitempty" db:"-"`   // how often the text, then the hash, is hashed; default 1
	StepMS  int    `json:"step_ms,omitempty" db:"-"` // pause before each step, for jobs that take a while
}

// parseJob reads a payload. An error never repeats the text.
func parseJob(payload string) (job, error) {
	j := job{Steps: 1}
	decoder := json.NewDecoder(strings.NewReader(payload))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&j)
	if err != nil || !identifier.MatchString(j.ID) || len(j.Text) > maxText || j.Steps < 1 || j.Steps > 100_000 || j.StepMS < 0 || j.StepMS > 60_000 {
		err = errors.New(`the payload is not a job: {"job_id": up to 64 letters, digits, dots, dashes and underscores, "text": up to 4000 bytes, ` +
			`"steps": 1 to 100000, "step_ms": 0 to 60000, "trace_id": like job_id}`)
	}
	if !identifier.MatchString(j.TraceID) {
		j.TraceID = rand.Text()
	}
	return j, err
}

func (j job) work(ctx context.Context) (string, error) {
	sum := []byte(j.Text)
	for range j.Steps {
		if !sleep(ctx, time.Duration(j.StepMS)*time.Millisecond) {
			return "", errors.New("the worker is stopping")
		}
		next := sha256.Sum256(sum)
		sum = next[:]
	}
	return hex.EncodeToString(sum), nil
}

// worker runs one job at a time.
type worker struct {
	s       *service
	name    string
	queues  []string      // the Redis streams that it takes jobs from, in order of priority
	results string        // folder of the result files; empty for a service without a volume
	poll    time.Duration // how soon empty queues are checked again; the pauses grow to four times as long
	lease   time.Duration // how long a job stays with its worker without a renewal
	grace   time.Duration // how long a job may go on after SIGTERM before it is handed back
}

func newWorker(s *service) *worker {
	host, _ := os.Hostname()
	w := &worker{s: s, name: host + "-" + rand.Text()[:8], queues: s.takes, poll: 250 * time.Millisecond, lease: 10 * time.Second, grace: 4 * time.Second}
	if len(s.Folders) > 0 {
		w.results = s.Folders[0]
	}
	return w
}

func setupWorker(s *service) error {
	for _, folder := range s.Folders {
		if err := unix.Access(folder, unix.W_OK); err != nil {
			return fmt.Errorf("%s: %w; give the folder, or the volume that it lies in, to user %d", folder, err, os.Getuid())
		}
	}
	w := newWorker(s)
	s.background = append(s.background, w.run)
	for _, queue := range w.queues {
		for _, result := range []string{"completed", "failed", "duplicate", "returned"} { // else the first of each would be no increase
			s.metrics.NewCounter(jobsTotal(queue, result))
		}
		s.metrics.NewGauge(fmt.Sprintf(`queue_jobs{queue=%q}`, queue), func() float64 { return w.measure("XLEN", queue) })
		s.metrics.NewGauge(fmt.Sprintf(`queue_waiting_seconds{queue=%q}`, queue), func() float64 { return w.measure("EVAL", waiting, 1, queue) })
	}
	return nil
}

func jobsTotal(queue, result string) string {
	return fmt.Sprintf(`jobs_total{queue=%q,result=%q}`, queue, result)
}

// waiting is how long, in seconds, the oldest of the jobs that no worker has taken yet has been in its queue.
const waiting = `
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
local taken = not groups.err and groups[1] and '(' .. groups[1][8] or '-' -- the field last-delivered-id
local oldest = redis.call('XRANGE', KEYS[1], taken, '+', 'COUNT', 1)[1]
return oldest and redis.call('TIME')[1] - string.match(oldest[1], '%d+') / 1000 or 0`

// measure returns the whole number that Redis answers, or no number if it does not.
func (w *worker) measure(command string, arguments ...any) float64 {
	n, err := redis.Int(w.s.rdb.do(context.Background(), command, arguments...))
	if err != nil {
		return math.NaN()
	}
	return float64(n)
}

func (w *worker) run(ctx context.Context) {
	w.s.log.Info("waiting for jobs", "worker", w.name, "queues", w.queues)
	for pause := w.poll; ctx.Err() == nil; {
		e, err := w.take(ctx)
		if e != nil {
			pause, err = w.poll, w.do(ctx, e)
		}
		if err != nil && ctx.Err() == nil {
			w.s.log.Warn("queue not read or written", "error", err)
		}
		if err != nil || e == nil {
			sleep(ctx, pause)
			pause = min(2*pause, 4*w.poll)
		}
	}
}

// entry is a job that a worker has taken, identified by the queue and its id there.
type entry struct{ queue, id, payload string }

// nextJob takes a job of the first queue that has one. All workers of a queue are one consumer group of its stream. Redis keeps an entry
// pending until the worker that took it acknowledges it; an entry that was pending for longer than the lease without being renewed has
// lost its worker, and is taken first.
const nextJob = `
for _, queue in ipairs(KEYS) do
	local lost = redis.pcall('XAUTOCLAIM', queue, 'workers', ARGV[1], ARGV[2], '0', 'COUNT', 1)
	if lost.err then -- the queue is new, and has no group
		redis.call('XGROUP', 'CREATE', queue, 'workers', '0', 'MKSTREAM')
		lost = {'0-0', {}}
	end
	local new = #lost[2] == 0 and redis.call('XREADGROUP', 'GROUP', 'workers', ARGV[1], 'COUNT', 1, 'STREAMS', queue, '>')
	local found = new and new[1][2][1] or lost[2][1]
	if found then
		return {queue, found[1], found[2][2]}
	end
end`

// endJob takes a job out of its queue.
const endJob = `
redis.call('XACK', KEYS[1], 'workers', ARGV[1])
redis.call('XDEL', KEYS[1], ARGV[1])`

// take returns the next job, and nil if all queues are empty. While a dependency is unavailable it takes none, so that its failures do
// not count as attempts of a job.
func (w *worker) take(ctx context.Context) (*entry, error) {
	if !w.s.health.allHealthy() {
		return nil, nil
	}
	arguments := redis.Args{nextJob, len(w.queues)}.AddFlat(w.queues).Add(w.name, w.lease.Milliseconds())
	found, err := redis.Strings(w.s.rdb.do(ctx, "EVAL", arguments...))
	if errors.Is(err, redis.ErrNil) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return &entry{found[0], found[1], found[2]}, nil
}

// idle sets how long ago the lease of a job was renewed; once that is the whole lease, another worker takes the job.
func (w *worker) idle(ctx context.Context, e *entry, d time.Duration) error {
	_, err := w.s.rdb.do(ctx, "XCLAIM", e.queue, "workers", w.name, 0, e.id, "IDLE", d.Milliseconds(), "JUSTID")
	return err
}

// keep renews the lease of a job until the context ends.
func (w *worker) keep(ctx context.Context, e *entry) {
	for sleep(ctx, w.lease/3) {
		_ = w.idle(ctx, e, 0) // after a failure the next renewal tries again
	}
}

// do runs one job. The job ends and leaves its queue, or is handed back if the worker is stopping or a dependency failed.
func (w *worker) do(stop context.Context, e *entry) error {
	j, err := parseJob(e.payload)
	after := context.WithValue(context.WithoutCancel(stop), traceKey{}, j.TraceID) // for what is left to do when the job was cancelled
	result := "failed"
	if err != nil {
		w.s.log.ErrorContext(after, "job given up", "queue", e.queue, "error", err)
	} else if result, err = w.attempt(after, stop, e, j); err != nil {
		w.s.log.WarnContext(after, "job handed back", "job_id", j.ID, "queue", e.queue, "error", err)
		w.count(e, "returned")
		sleep(stop, time.Second)
		return w.idle(after, e, w.lease)
	}
	w.count(e, result)
	_, err = w.s.rdb.do(after, "EVAL", endJob, 1, e.queue, e.id)
	return err
}

func (w *worker) count(e *entry, result string) {
	w.s.metrics.GetOrCreateCounter(jobsTotal(e.queue, result)).Inc()
}

// attempt runs a job and returns how it ended: completed, failed or duplicate. An error means that it has not ended. The row goes from
// running to ended once: a second worker that runs the same job, because the first seemed to be dead, changes nothing.
func (w *worker) attempt(ctx, stop context.Context, e *entry, j job) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(stop, func() { time.AfterFunc(w.grace, cancel) })()
	go w.keep(ctx, e)
	row := jobRow{job: j, Queue: e.queue, Worker: w.name, Status: "completed"}
	var err error
	if row.Attempts, err = w.s.db.start(ctx, row); err != nil {
		return "", err
	}
	attrs := []any{"job_id", j.ID, "queue", e.queue, "attempt", row.Attempts}
	if row.Attempts == 0 {
		w.s.log.InfoContext(ctx, "job has ended before, nothing to do", attrs...)
		return "duplicate", nil
	}
	w.s.log.InfoContext(ctx, "job started", attrs...)
	if row.Attempts > maxAttempts {
		row.Status, row.Result = "failed", fmt.Sprintf("given up after %d attempts", maxAttempts)
	} else if row.Result, err = j.work(ctx); err != nil {
		return "", err
	} else if err := w.write(row); err != nil {
		return "", err
	}
	first, err := w.s.db.finish(ctx, row)
	if err != nil || !first {
		return "duplicate", err
	}
	w.s.log.InfoContext(ctx, "job "+row.Status, attrs...)
	return row.Status, nil
}

// write writes the result file atomically.
func (w *worker) write(row jobRow) error {
	if w.results == "" {
		return nil
	}
	text, err := json.Marshal(row)
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(w.results, row.ID+".json"), text, 0o644)
}
