package main

import (
	"encoding/json"
	"math"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	fastAverage = 5
	slowAverage = 20
	maxSymbols  = 50
)

type signalService struct {
	rt       *runtime
	db       store
	rdb      *redis.Client
	strategy string
}

func setupSignals(rt *runtime) error {
	cfg, err := load[signalConfig](rt.environ)
	if err != nil {
		return err
	}
	rt.level.Set(cfg.LogLevel.level())
	db, err := rt.postgres(cfg.DatabaseURL)
	if err != nil {
		return err
	}
	rdb, err := rt.redisURL(cfg.RedisURL)
	if err != nil {
		return err
	}
	s := &signalService{rt: rt, db: db, rdb: rdb, strategy: cfg.StrategyID}
	rt.api("POST /api/v1/signals", s.compute)
	rt.api("GET /api/v1/signals", s.list)
	return rt.depend(cfg.StackConfig)
}

type signalRequest struct {
	Symbols []string `json:"symbols"`
	AsOf    string   `json:"as_of,omitempty"` // YYYY-MM-DD; default: today, UTC
}

type signalAnswer struct {
	Signals []tradeSignal `json:"signals"`
}

func checkSymbols(symbols []string) error {
	if len(symbols) < 1 || len(symbols) > maxSymbols {
		return badRequest("symbols: must be 1 to %d", maxSymbols)
	}
	for _, symbol := range symbols {
		if !symbolName.MatchString(symbol) {
			return badRequest("symbols: %q is not a symbol such as AAPL", symbol)
		}
	}
	return nil
}

// signalFor says buy while the fast average stands above the slow one by more than a hair, sell while below.
func signalFor(symbol, strategy string, asOf time.Time) tradeSignal {
	bars := series(symbol, asOf, slowAverage)
	last := len(bars) - 1
	strength := average(bars, last, fastAverage)/average(bars, last, slowAverage) - 1
	side := "hold"
	switch {
	case strength > 0.001:
		side = "buy"
	case strength < -0.001:
		side = "sell"
	}
	return tradeSignal{Symbol: symbol, Side: side, Strength: math.Round(strength*1e6) / 1e6, Price: bars[last].Close, AsOf: bars[last].Date, StrategyID: strategy, CreatedAt: time.Now().UTC()}
}

func (s *signalService) compute(r *http.Request) (int, any, error) {
	var req signalRequest
	if err := decode(r, &req); err != nil {
		return 0, nil, err
	}
	if err := checkSymbols(req.Symbols); err != nil {
		return 0, nil, err
	}
	asOf := time.Now()
	if req.AsOf != "" {
		parsed, err := time.Parse(time.DateOnly, req.AsOf)
		if err != nil || parsed.Before(firstDay.Add(slowAverage*day)) || parsed.After(asOf) {
			return 0, nil, badRequest("as_of: must be a day such as 2026-01-31, from 2020-01-21 to today")
		}
		asOf = parsed
	}
	ctx := r.Context()
	var answer signalAnswer
	for _, symbol := range req.Symbols {
		answer.Signals = append(answer.Signals, signalFor(symbol, s.strategy, asOf))
	}
	if err := s.db.addSignals(ctx, answer.Signals); err != nil {
		return 0, nil, err
	}
	event, err := json.Marshal(answer)
	if err != nil {
		return 0, nil, err
	}
	if err := s.rdb.Publish(ctx, "signals", event).Err(); err != nil {
		s.rt.log.WarnContext(ctx, "signals stored but not published", "error", brief(err))
	}
	return http.StatusOK, answer, nil
}

func (s *signalService) list(r *http.Request) (int, any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return 0, nil, err
	}
	found, err := s.db.signals(r.Context(), r.URL.Query().Get("symbol"), limit)
	return http.StatusOK, signalAnswer{found}, err
}
