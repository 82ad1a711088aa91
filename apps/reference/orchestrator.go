package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

type orchestrator struct {
	rt                  *runtime
	db                  store
	rdb                 *redis.Client
	signalURL, orderURL string
}

func setupOrchestrator(rt *runtime) error {
	cfg, err := load[orchestratorConfig](rt.environ)
	if err != nil {
		return err
	}
	rt.level.Set(cfg.LogLevel.level())
	db, err := rt.postgres(cfg.DatabaseURL)
	if err != nil {
		return err
	}
	rt.peer("signal_service", cfg.SignalURL)
	rt.peer("execution_gateway", cfg.GatewayURL)
	o := &orchestrator{rt: rt, db: db, rdb: rt.redisAt(cfg.RedisAddress, cfg.DB), signalURL: string(cfg.SignalURL) + "/api/v1/signals", orderURL: string(cfg.GatewayURL) + "/api/v1/orders"}
	rt.api("POST /api/v1/orchestration/run", o.start)
	rt.api("GET /api/v1/orchestration/runs", o.list)
	rt.api("GET /api/v1/orchestration/runs/{id}", o.get)
	return rt.depend(cfg.StackConfig)
}

type runRequest struct {
	RunID    string   `json:"run_id,omitempty"` // default: a new UUID; asking again with the same id gives the recorded run
	Symbols  []string `json:"symbols"`
	Quantity int64    `json:"qty,omitempty"` // default: 1
}

// start asks for signals and places an order for each that says buy or sell. What it did is recorded, failed runs too.
func (o *orchestrator) start(r *http.Request) (int, any, error) {
	var req runRequest
	if err := decode(r, &req); err != nil {
		return 0, nil, err
	}
	if req.RunID == "" {
		req.RunID = uuid.NewString()
	}
	if req.Quantity == 0 {
		req.Quantity = 1
	}
	// Room is left for "-<symbol>", which makes the run's id an order's.
	if !identifier.MatchString(req.RunID) || len(req.RunID) > 50 {
		return 0, nil, badRequest("run_id: 1 to 50 letters, digits, dots, dashes or underscores")
	}
	if err := checkSymbols(req.Symbols); err != nil {
		return 0, nil, err
	}
	// A client that hangs up does not leave half a run behind.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), peerTimeout)
	defer cancel()
	run := orchestrationRun{RunID: req.RunID, Symbols: req.Symbols, Orders: []string{}, Status: "completed", TraceID: traceOf(ctx)}
	fresh, err := o.db.startRun(ctx, run)
	if err != nil {
		return 0, nil, err
	}
	code := http.StatusOK
	if fresh {
		code = http.StatusCreated
		if err := o.carryOut(ctx, &run, req.Quantity); err != nil {
			run.Status, run.Error, code = "failed", brief(err), http.StatusBadGateway
		}
		if err := o.db.finishRun(context.WithoutCancel(ctx), run); err != nil {
			return 0, nil, err
		}
		o.rt.log.InfoContext(ctx, "run recorded", "run_id", run.RunID, "status", run.Status, "orders", len(run.Orders), "error", run.Error)
		if err := o.rdb.Publish(ctx, "runs", run.RunID).Err(); err != nil {
			o.rt.log.WarnContext(ctx, "run recorded but not published", "run_id", run.RunID, "error", brief(err))
		}
	}
	recorded, err := o.db.run(context.WithoutCancel(ctx), req.RunID)
	return code, recorded, err
}

func (o *orchestrator) carryOut(ctx context.Context, run *orchestrationRun, quantity int64) error {
	var signals signalAnswer
	if err := o.post(ctx, o.signalURL, signalRequest{Symbols: run.Symbols}, &signals); err != nil {
		return fmt.Errorf("signal_service: %w", err)
	}
	var err error
	if run.Signals, err = json.Marshal(signals.Signals); err != nil {
		return err
	}
	for _, signal := range signals.Signals {
		if signal.Side == "hold" {
			continue
		}
		var placed orderAnswer
		req := orderRequest{ClientOrderID: run.RunID + "-" + signal.Symbol, Symbol: signal.Symbol, Side: signal.Side, Quantity: quantity}
		if err := o.post(ctx, o.orderURL, req, &placed); err != nil {
			return fmt.Errorf("execution_gateway: %w", err)
		}
		run.Orders = append(run.Orders, placed.ClientOrderID)
	}
	return nil
}

func (o *orchestrator) post(ctx context.Context, url string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	passTrace(ctx, req.Header)
	res, err := o.rt.peers.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, bodyLimit))
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("answers %d: %s", res.StatusCode, strings.TrimSpace(string(answer)))
	}
	return json.Unmarshal(answer, into)
}

func (o *orchestrator) list(r *http.Request) (int, any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return 0, nil, err
	}
	runs, err := o.db.runs(r.Context(), limit)
	return http.StatusOK, map[string]any{"runs": runs}, err
}

func (o *orchestrator) get(r *http.Request) (int, any, error) {
	found, err := o.db.run(r.Context(), r.PathValue("id"))
	return http.StatusOK, found, orNotFound(err, "run")
}
