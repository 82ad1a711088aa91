package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

var errNotFound = errors.New("not found")

// store is what the services keep in PostgreSQL; postgres.go holds all of its SQL.
type store interface {
	// check tells whether the database answers and has the tables, making them where they are missing.
	check(context.Context) error

	// addOrder stores an order once per client order id; it returns the stored one and whether it is new.
	addOrder(context.Context, order) (order, bool, error)
	orders(ctx context.Context, limit int) ([]order, error)
	order(ctx context.Context, clientOrderID string) (order, error)

	addSignals(context.Context, []tradeSignal) error
	signals(ctx context.Context, symbol string, limit int) ([]tradeSignal, error)

	// startRun records a run as running; false means that a run of this id is there already.
	startRun(context.Context, orchestrationRun) (bool, error)
	finishRun(context.Context, orchestrationRun) error
	runs(ctx context.Context, limit int) ([]orchestrationRun, error)
	run(ctx context.Context, id string) (orchestrationRun, error)

	// startJob records that a worker has taken a job; false means that the job has ended before.
	startJob(context.Context, jobRecord) (bool, error)
	// finishJob records how a job ended; false means that another worker was first.
	finishJob(context.Context, jobRecord) (bool, error)
	jobs(ctx context.Context, limit int) ([]jobRecord, error)

	// addAlert records an alert's delivery; false means that it was delivered before.
	addAlert(context.Context, alertRecord) (bool, error)
}

type order struct {
	ClientOrderID string    `json:"client_order_id"`
	Symbol        string    `json:"symbol"`
	Side          string    `json:"side"`
	Quantity      int64     `json:"qty"`
	Status        string    `json:"status"` // always dry_run
	StrategyID    string    `json:"strategy_id"`
	TraceID       string    `json:"trace_id"`
	CreatedAt     time.Time `json:"created_at"`
}

type tradeSignal struct {
	Symbol     string    `json:"symbol"`
	Side       string    `json:"side"` // buy, sell or hold
	Strength   float64   `json:"strength"`
	Price      float64   `json:"price"`
	AsOf       string    `json:"as_of"` // YYYY-MM-DD
	StrategyID string    `json:"strategy_id"`
	CreatedAt  time.Time `json:"created_at"`
}

type orchestrationRun struct {
	RunID      string          `json:"run_id"`
	Status     string          `json:"status"` // running, completed or failed
	Symbols    []string        `json:"symbols"`
	Orders     []string        `json:"orders"` // client order ids
	Error      string          `json:"error,omitempty"`
	Signals    json.RawMessage `json:"signals,omitempty"`
	TraceID    string          `json:"trace_id"`
	StartedAt  time.Time       `json:"started_at"`
	FinishedAt *time.Time      `json:"finished_at,omitempty"`
}

type jobRecord struct {
	JobID      string     `json:"job_id"`
	Kind       string     `json:"kind"` // backtest or alert
	Queue      string     `json:"queue"`
	Status     string     `json:"status"` // running, completed or failed
	Worker     string     `json:"worker"`
	Attempts   int        `json:"attempts"`
	Detail     string     `json:"detail"`
	StartedAt  time.Time  `json:"started_at"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
}

type alertRecord struct {
	AlertID       string
	Queue         string
	Channel       string
	RecipientHash string
	Message       string
	Worker        string
}
