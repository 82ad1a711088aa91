package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// store is what the services keep in PostgreSQL.
type store interface {
	// check reports whether the database answers and has the table, which it makes where it is missing.
	check(context.Context) error
	// start records that a worker has taken a job, and returns the number of attempts so far; 0 means that the job has already ended.
	start(context.Context, jobRow) (attempts int, err error)
	// finish records how a job ended; false means that another worker was first.
	finish(context.Context, jobRow) (bool, error)
	// jobs returns the newest jobs.
	jobs(ctx context.Context, limit int) ([]jobRow, error)
}

// jobRow is a row of the table of jobs.
type jobRow struct {
	job
	Queue      string     `json:"queue"`
	Status     string     `json:"status"` // running, completed or failed
	Worker     string     `json:"worker"`
	Attempts   int        `json:"attempts"`
	Result     string     `json:"result"` // or why it failed
	StartedAt  time.Time  `json:"started_at"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
}

// The schema separates this program's table from those of the platform, which may use the same database. It is created under a lock,
// because several services start at once. PostgreSQL runs the statements of one query in one transaction.
const schema = `
SELECT pg_advisory_xact_lock(7240301);
CREATE SCHEMA IF NOT EXISTS reference_app;
CREATE TABLE IF NOT EXISTS jobs (
	job_id text PRIMARY KEY, queue text NOT NULL, status text NOT NULL, worker text NOT NULL, attempts int NOT NULL, text text NOT NULL,
	result text NOT NULL DEFAULT '', trace_id text NOT NULL, started_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz);
CREATE INDEX IF NOT EXISTS jobs_by_start ON jobs (started_at DESC);`

type postgresStore struct{ *pgxpool.Pool }

// openPostgres connects on first use, so that a service can start and report that the database is unavailable.
func openPostgres(cfg *pgxpool.Config) (store, error) {
	cfg.MaxConns = 4 // the default of Connections in the catalog
	// Longer than a check: the attempt goes on when a check gives up, and a later one uses its connection. If each check
	// began anew, hundreds of replicas would keep a busy server from ever completing one.
	cfg.ConnConfig.ConnectTimeout = 15 * checkTimeout
	cfg.ConnConfig.RuntimeParams["search_path"] = "reference_app"
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	return postgresStore{pool}, err
}

func (s postgresStore) check(ctx context.Context) error {
	var made bool // the table is missing at first, and again if the running stack gets a new volume
	err := s.QueryRow(ctx, "SELECT to_regclass('jobs') IS NOT NULL").Scan(&made)
	if err == nil && !made {
		_, err = s.Exec(ctx, schema)
	}
	if refused, ok := errors.AsType[*pgconn.ConnectError](err); ok { // it lists every way that was tried; the last line says why none was left
		text := strings.TrimSpace(refused.Error())
		err = errors.New(strings.TrimSpace(text[strings.LastIndex(text, "\n")+1:]))
	}
	return err
}

func (s postgresStore) start(ctx context.Context, j jobRow) (attempts int, err error) {
	err = s.QueryRow(ctx, `INSERT INTO jobs (job_id, queue, status, worker, attempts, text, trace_id) VALUES ($1, $2, 'running', $3, 1, $4, $5)
		ON CONFLICT (job_id) DO UPDATE SET worker = EXCLUDED.worker, queue = EXCLUDED.queue, attempts = jobs.attempts + 1 WHERE jobs.status = 'running'
		RETURNING attempts`, j.ID, j.Queue, j.Worker, j.Text, j.TraceID).Scan(&attempts)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return attempts, err
}

func (s postgresStore) finish(ctx context.Context, j jobRow) (bool, error) {
	tag, err := s.Exec(ctx, "UPDATE jobs SET status = $2, worker = $3, result = $4, finished_at = now() WHERE job_id = $1 AND status = 'running'",
		j.ID, j.Status, j.Worker, j.Result)
	return tag.RowsAffected() > 0, err
}

func (s postgresStore) jobs(ctx context.Context, limit int) ([]jobRow, error) {
	rows, _ := s.Query(ctx, "SELECT job_id, text, trace_id, queue, status, worker, attempts, result, started_at, finished_at FROM jobs ORDER BY started_at DESC LIMIT $1", limit)
	return pgx.CollectRows(rows, pgx.RowToStructByPos[jobRow]) // with the error of the query, if it failed
}
