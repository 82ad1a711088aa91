package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// schemaLock is this program's own number for the advisory lock under which tables are made: several services start at once.
const schemaLock = 7240301

// schemaName keeps this program's tables apart from the platform's own, whose database may be the same volume.
const schemaName = "reference_app"

const schema = `
CREATE SCHEMA IF NOT EXISTS ` + schemaName + `;
CREATE TABLE IF NOT EXISTS orders (
	client_order_id text PRIMARY KEY, symbol text NOT NULL, side text NOT NULL, qty bigint NOT NULL, status text NOT NULL,
	strategy_id text NOT NULL, trace_id text NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS signals (
	id bigserial PRIMARY KEY, symbol text NOT NULL, side text NOT NULL, strength double precision NOT NULL, price double precision NOT NULL,
	as_of date NOT NULL, strategy_id text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), UNIQUE (strategy_id, symbol, as_of));
CREATE TABLE IF NOT EXISTS orchestration_runs (
	run_id text PRIMARY KEY, status text NOT NULL, symbols text[] NOT NULL, orders text[] NOT NULL, error text NOT NULL, signals jsonb,
	trace_id text NOT NULL, started_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz);
CREATE TABLE IF NOT EXISTS backtest_jobs (
	job_id text PRIMARY KEY, queue text NOT NULL, status text NOT NULL, worker text NOT NULL, attempts int NOT NULL, detail text NOT NULL,
	started_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz);
CREATE TABLE IF NOT EXISTS alert_deliveries (
	alert_id text PRIMARY KEY, queue text NOT NULL, channel text NOT NULL, recipient_hmac text NOT NULL, message text NOT NULL, worker text NOT NULL,
	delivered_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX IF NOT EXISTS orders_created ON orders (created_at DESC);
CREATE INDEX IF NOT EXISTS runs_started ON orchestration_runs (started_at DESC);
CREATE INDEX IF NOT EXISTS jobs_started ON backtest_jobs (started_at DESC);
CREATE INDEX IF NOT EXISTS alerts_delivered ON alert_deliveries (delivered_at DESC);
`

type postgresStore struct {
	pool *pgxpool.Pool
	mu   sync.Mutex
	made bool
}

var _ store = (*postgresStore)(nil)

// openPostgres connects when it is first used, so a service can start and say that the database is away.
func openPostgres(url databaseURL) (store, func(), error) {
	cfg, err := pgxpool.ParseConfig(string(url))
	if err != nil {
		return nil, nil, errors.New("DATABASE_URL: is not a URL that PostgreSQL's client understands (is the password percent-encoded?)")
	}
	cfg.MaxConns = 4 // a dozen services share one server
	cfg.ConnConfig.ConnectTimeout = checkTimeout
	cfg.ConnConfig.RuntimeParams["search_path"] = schemaName
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, nil, err
	}
	return &postgresStore{pool: pool}, pool.Close, nil
}

func (s *postgresStore) check(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The tables go when somebody gives the running stack a new volume.
	err := s.pool.QueryRow(ctx, "SELECT $1 AND to_regclass('orders') IS NOT NULL", s.made).Scan(&s.made)
	if err == nil && !s.made {
		err = s.makeSchema(ctx)
	}
	return lastCause(err)
}

// lastCause shortens an error of connecting, which lists every way that was tried: the last line says why none was left.
func lastCause(err error) error {
	var refused *pgconn.ConnectError
	if !errors.As(err, &refused) {
		return err
	}
	lines := strings.Split(strings.TrimSpace(refused.Error()), "\n")
	return errors.New(strings.TrimSpace(lines[len(lines)-1]))
}

func (s *postgresStore) makeSchema(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", schemaLock); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, schema)
		return err
	})
	s.made = err == nil
	return err
}

func list[T any](ctx context.Context, s *postgresStore, sql string, args ...any) ([]T, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[T])
}

func one[T any](ctx context.Context, s *postgresStore, sql string, args ...any) (T, error) {
	found, err := list[T](ctx, s, sql, args...)
	if err == nil && len(found) == 0 {
		err = errNotFound
	}
	if err != nil {
		var none T
		return none, err
	}
	return found[0], nil
}

func (s *postgresStore) changed(ctx context.Context, sql string, args ...any) (bool, error) {
	tag, err := s.pool.Exec(ctx, sql, args...)
	return tag.RowsAffected() > 0, err
}

const orderColumns = "SELECT client_order_id, symbol, side, qty, status, strategy_id, trace_id, created_at FROM orders "

func (s *postgresStore) addOrder(ctx context.Context, o order) (order, bool, error) {
	fresh, err := s.changed(ctx, `INSERT INTO orders (client_order_id, symbol, side, qty, status, strategy_id, trace_id) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT DO NOTHING`, o.ClientOrderID, o.Symbol, o.Side, o.Quantity, o.Status, o.StrategyID, o.TraceID)
	if err != nil {
		return order{}, false, err
	}
	stored, err := s.order(ctx, o.ClientOrderID)
	return stored, fresh, err
}

func (s *postgresStore) orders(ctx context.Context, limit int) ([]order, error) {
	return list[order](ctx, s, orderColumns+"ORDER BY created_at DESC LIMIT $1", limit)
}

func (s *postgresStore) order(ctx context.Context, id string) (order, error) {
	return one[order](ctx, s, orderColumns+"WHERE client_order_id = $1", id)
}

func (s *postgresStore) addSignals(ctx context.Context, signals []tradeSignal) error {
	batch := &pgx.Batch{}
	for _, g := range signals {
		batch.Queue(`INSERT INTO signals (symbol, side, strength, price, as_of, strategy_id) VALUES ($1, $2, $3, $4, $5::text::date, $6)
			ON CONFLICT (strategy_id, symbol, as_of) DO UPDATE SET side = EXCLUDED.side, strength = EXCLUDED.strength, price = EXCLUDED.price, created_at = now()`,
			g.Symbol, g.Side, g.Strength, g.Price, g.AsOf, g.StrategyID)
	}
	return s.pool.SendBatch(ctx, batch).Close()
}

func (s *postgresStore) signals(ctx context.Context, symbol string, limit int) ([]tradeSignal, error) {
	return list[tradeSignal](ctx, s, `SELECT symbol, side, strength, price, as_of::text, strategy_id, created_at FROM signals
		WHERE $1 = '' OR symbol = $1 ORDER BY created_at DESC, id DESC LIMIT $2`, symbol, limit)
}

const runColumns = "SELECT run_id, status, symbols, orders, error, signals, trace_id, started_at, finished_at FROM orchestration_runs "

func (s *postgresStore) startRun(ctx context.Context, r orchestrationRun) (bool, error) {
	return s.changed(ctx, `INSERT INTO orchestration_runs (run_id, status, symbols, orders, error, trace_id) VALUES ($1, 'running', $2, '{}', '', $3)
		ON CONFLICT DO NOTHING`, r.RunID, r.Symbols, r.TraceID)
}

func (s *postgresStore) finishRun(ctx context.Context, r orchestrationRun) error {
	_, err := s.changed(ctx, "UPDATE orchestration_runs SET status = $2, orders = $3, error = $4, signals = $5, finished_at = now() WHERE run_id = $1",
		r.RunID, r.Status, r.Orders, r.Error, r.Signals)
	return err
}

func (s *postgresStore) runs(ctx context.Context, limit int) ([]orchestrationRun, error) {
	return list[orchestrationRun](ctx, s, runColumns+"ORDER BY started_at DESC LIMIT $1", limit)
}

func (s *postgresStore) run(ctx context.Context, id string) (orchestrationRun, error) {
	return one[orchestrationRun](ctx, s, runColumns+"WHERE run_id = $1", id)
}

func (s *postgresStore) startJob(ctx context.Context, j jobRecord) (bool, error) {
	return s.changed(ctx, `INSERT INTO backtest_jobs (job_id, queue, status, worker, attempts, detail) VALUES ($1, $2, 'running', $3, $4, $5)
		ON CONFLICT (job_id) DO UPDATE SET worker = EXCLUDED.worker, attempts = EXCLUDED.attempts, queue = EXCLUDED.queue WHERE backtest_jobs.status = 'running'`,
		j.JobID, j.Queue, j.Worker, j.Attempts, j.Detail)
}

func (s *postgresStore) finishJob(ctx context.Context, j jobRecord) (bool, error) {
	return s.changed(ctx, "UPDATE backtest_jobs SET status = $2, worker = $3, attempts = $4, detail = $5, finished_at = now() WHERE job_id = $1 AND status = 'running'",
		j.JobID, j.Status, j.Worker, j.Attempts, j.Detail)
}

func (s *postgresStore) jobs(ctx context.Context, limit int) ([]jobRecord, error) {
	return list[jobRecord](ctx, s, `
		SELECT * FROM (SELECT job_id, 'backtest' AS kind, queue, status, worker, attempts, detail, started_at, finished_at FROM backtest_jobs ORDER BY started_at DESC LIMIT $1) b
		UNION ALL
		SELECT * FROM (SELECT alert_id, 'alert', queue, 'completed', worker, 1, 'recorded for channel ' || channel, delivered_at, delivered_at FROM alert_deliveries ORDER BY delivered_at DESC LIMIT $1) a
		ORDER BY started_at DESC LIMIT $1`, limit)
}

func (s *postgresStore) addAlert(ctx context.Context, a alertRecord) (bool, error) {
	return s.changed(ctx, `INSERT INTO alert_deliveries (alert_id, queue, channel, recipient_hmac, message, worker) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT DO NOTHING`, a.AlertID, a.Queue, a.Channel, a.RecipientHash, a.Message, a.Worker)
}

// queryTimeout bounds what one page or job may wait for the database.
const queryTimeout = 5 * time.Second
