package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

const maxAttempts = 5

// job is the payload of a queue. The work is to hash the text, which is easy to verify.
type job struct {
	ID      string `json:"job_id"`
	Text    string `json:"text"`
	Steps   int    `json:"steps,omitempty"`   // how often the text, then the hash, is hashed; default 1
	StepMS  int    `json:"step_ms,omitempty"` // pause before each step, for jobs that take a while
	TraceID string `json:"trace_id,omitempty"`
}

// parseJob reads a payload. An error never repeats the text.
func parseJob(payload string) (job, error) {
	j := job{Steps: 1}
	decoder := json.NewDecoder(strings.NewReader(payload))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&j); err != nil {
		return j, errors.New("the payload is not a job: {\"job_id\", \"text\", \"steps\", \"step_ms\", \"trace_id\"}")
	}
	switch {
	case !identifier.MatchString(j.ID):
		return j, errors.New("job_id: must be 1 to 64 letters, digits, dots, dashes or underscores")
	case len(j.Text) > 4000:
		return j, errors.New("text: must not be longer than 4000 bytes")
	case j.Steps < 1 || j.Steps > 100_000 || j.StepMS < 0 || j.StepMS > 60_000:
		return j, errors.New("steps, step_ms: must be from 1 to 100000 and from 0 to 60000")
	}
	if !identifier.MatchString(j.TraceID) {
		j.TraceID = randomHex(16)
	}
	return j, nil
}

// worker runs one job at a time.
type worker struct {
	s       *service
	queues  queues
	results string        // folder of the result files; empty for a service without a volume
	poll    time.Duration // how often empty queues are checked
	grace   time.Duration // how long a job may go on after SIGTERM before it is handed back
}

func setupWorker(s *service) error {
	host, err := os.Hostname()
	if err != nil {
		host = s.Name
	}
	w := &worker{s: s, poll: 250 * time.Millisecond, grace: 4 * time.Second, queues: queues{
		rdb: s.rdb, names: strings.Split(s.env["RQ_QUEUES"], ","), consumer: host + "-" + randomHex(4), lease: 10 * time.Second}}
	if s.db == nil || s.rdb == nil {
		return errors.New("a worker needs DATABASE_URL and REDIS_URL")
	}
	for _, folder := range s.Folders {
		if err := writable(folder); err != nil {
			return fmt.Errorf("%w; give the folder, or the volume that it lies in, to user %d", err, os.Getuid())
		}
	}
	if len(s.Folders) > 0 {
		w.results = s.Folders[0]
	}
	s.background = append(s.background, w.run)
	return nil
}

func writable(dir string) error {
	file, err := os.CreateTemp(dir, ".writable")
	if err != nil {
		return err
	}
	return errors.Join(file.Close(), os.Remove(file.Name()))
}

// run processes jobs until the context ends. While a dependency is unavailable it takes none, so that its failures do not count as attempts of a job.
func (w *worker) run(ctx context.Context) {
	w.s.log.Info("waiting for jobs", "worker", w.queues.consumer, "queues", w.queues.names)
	for ctx.Err() == nil {
		if !w.s.health.allHealthy() {
			sleep(ctx, w.poll)
			continue
		}
		e, err := w.queues.take(ctx)
		if err == nil && e != nil {
			err = w.do(ctx, e)
		}
		if err != nil && ctx.Err() == nil {
			w.s.log.Warn("queue not read or written", "error", brief(err))
		}
		if err != nil || e == nil {
			sleep(ctx, w.poll)
		}
	}
}

// do runs one job. The job ends, or is handed back if the worker is stopping or a dependency failed.
func (w *worker) do(stop context.Context, e *entry) error {
	j, err := parseJob(e.payload)
	ctx, cancel := context.WithCancel(withTrace(context.WithoutCancel(stop), j.TraceID))
	defer cancel()
	if err != nil {
		w.s.log.ErrorContext(ctx, "job given up", "queue", e.queue, "error", brief(err))
		w.count(e, "failed")
		return w.queues.done(ctx, e)
	}
	go w.queues.keep(ctx, e)
	defer context.AfterFunc(stop, func() { time.AfterFunc(w.grace, cancel) })()
	result, err := w.attempt(ctx, e, j)
	if err != nil {
		w.s.log.WarnContext(ctx, "job handed back", "job_id", j.ID, "queue", e.queue, "error", brief(err))
		w.count(e, "returned")
		sleep(stop, time.Second)
		return w.queues.handBack(context.WithoutCancel(ctx), e)
	}
	w.count(e, result)
	return w.queues.done(context.WithoutCancel(ctx), e)
}

func (w *worker) count(e *entry, result string) {
	w.s.metrics.jobs.WithLabelValues(e.queue, result).Inc()
}

// attempt runs a job and returns how it ended: completed, failed or duplicate. An error means that it has not ended. The row goes from
// running to ended once: a second worker that runs the same job, because the first seemed to be dead, changes nothing.
func (w *worker) attempt(ctx context.Context, e *entry, j job) (string, error) {
	row := jobRow{JobID: j.ID, Queue: e.queue, Worker: w.queues.consumer, Text: j.Text, TraceID: j.TraceID, Status: "completed"}
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

// work hashes the text.
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

// write writes the result file atomically.
func (w *worker) write(row jobRow) error {
	if w.results == "" {
		return nil
	}
	text, err := json.Marshal(row)
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(w.results, row.JobID+".json"), text, 0o644)
}
