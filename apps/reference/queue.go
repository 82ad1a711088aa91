package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A queue is a Redis stream of that name, and all its workers are one consumer group. Redis keeps an entry pending until the worker
// that took it acknowledges it; an entry that was pending for longer than the lease without being renewed has lost its worker, and
// another worker claims it.
const workersGroup = "workers"

// entry is a job that a worker has taken, identified by the queue and its id there.
type entry struct {
	queue, id string
	payload   string
}

// queues are the streams that a worker takes jobs from, in order of priority.
type queues struct {
	rdb      *redis.Client
	names    []string
	consumer string
	lease    time.Duration // how long a job stays with its worker without a renewal
}

// enqueue adds a job to a queue.
func enqueue(ctx context.Context, rdb *redis.Client, queue string, j job) error {
	payload, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return rdb.XAdd(ctx, &redis.XAddArgs{Stream: queue, Values: []string{"job", string(payload)}}).Err()
}

// take returns the next job of the first queue that has one, and nil if all are empty.
func (q *queues) take(ctx context.Context) (*entry, error) {
	for _, name := range q.names {
		found, err := q.takeFrom(ctx, name)
		if err != nil && strings.HasPrefix(err.Error(), "NOGROUP") {
			if err = q.rdb.XGroupCreateMkStream(ctx, name, workersGroup, "0").Err(); err == nil {
				found, err = q.takeFrom(ctx, name)
			}
		}
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			payload, _ := found[0].Values["job"].(string)
			return &entry{queue: name, id: found[0].ID, payload: payload}, nil
		}
	}
	return nil, nil
}

// takeFrom takes a job whose worker died, or else a new one.
func (q *queues) takeFrom(ctx context.Context, name string) ([]redis.XMessage, error) {
	lost, _, err := q.rdb.XAutoClaim(ctx, &redis.XAutoClaimArgs{Stream: name, Group: workersGroup, Consumer: q.consumer, MinIdle: q.lease, Start: "0", Count: 1}).Result()
	if err != nil || len(lost) > 0 {
		return lost, err
	}
	streams, err := q.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{Group: workersGroup, Consumer: q.consumer, Streams: []string{name, ">"}, Count: 1, Block: -1}).Result()
	if errors.Is(err, redis.Nil) || err == nil && len(streams) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return streams[0].Messages, nil
}

// keep renews the lease of a job until the context ends.
func (q *queues) keep(ctx context.Context, e *entry) {
	for sleep(ctx, q.lease/3) {
		_ = q.idle(ctx, e, 0) // after a failure the next renewal tries again
	}
}

// handBack lets another worker claim the job immediately.
func (q *queues) handBack(ctx context.Context, e *entry) error { return q.idle(ctx, e, q.lease) }

// idle sets how long ago a job's lease was renewed.
func (q *queues) idle(ctx context.Context, e *entry, d time.Duration) error {
	return q.rdb.Do(ctx, "XCLAIM", e.queue, workersGroup, q.consumer, 0, e.id, "IDLE", d.Milliseconds(), "JUSTID").Err()
}

// done removes a job from its queue.
func (q *queues) done(ctx context.Context, e *entry) error {
	_, err := q.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.XAck(ctx, e.queue, workersGroup, e.id)
		p.XDel(ctx, e.queue, e.id)
		return nil
	})
	return err
}
