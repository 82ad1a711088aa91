package main

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/redis/go-redis/v9"
)

// identifier is what a client may call its orders, runs, jobs and alerts: they become rows, file names and log fields.
var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

type gateway struct {
	rt       *runtime
	db       store
	rdb      *redis.Client
	strategy string
}

func setupGateway(rt *runtime) error {
	cfg, err := load[gatewayConfig](rt.environ)
	if err != nil {
		return err
	}
	rt.level.Set(cfg.LogLevel.level())
	db, err := rt.postgres(cfg.DatabaseURL)
	if err != nil {
		return err
	}
	g := &gateway{rt: rt, db: db, rdb: rt.redisAt(cfg.RedisAddress, cfg.DB), strategy: cfg.StrategyID}
	rt.wrap = cfg.guard(rt)
	rt.api("POST /api/v1/orders", g.place)
	rt.api("GET /api/v1/orders", g.list)
	rt.api("GET /api/v1/orders/{id}", g.get)
	return rt.depend(cfg.StackConfig)
}

// guard asks callers of /api for the internal token, where that is set; in log_only mode a call without it is let through and noted.
func (c InternalTokenConfig) guard(rt *runtime) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			good := c.TokenSecret != "" && subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Internal-Token")), []byte(c.TokenSecret)) == 1
			if strings.HasPrefix(r.URL.Path, "/api/") && !good {
				if c.enforced() {
					writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "X-Internal-Token: missing or wrong"})
					return
				}
				rt.log.DebugContext(r.Context(), "request without the internal token let through (API_AUTH_MODE=log_only)")
			}
			next.ServeHTTP(w, r)
		})
	}
}

type orderRequest struct {
	ClientOrderID string `json:"client_order_id"`
	Symbol        string `json:"symbol"`
	Side          string `json:"side"`
	Quantity      int64  `json:"qty"`
}

type orderAnswer struct {
	order
	Created   bool `json:"created"`
	Published bool `json:"published"`
}

// place stores an order once. Asking again with the same content gives the stored order; with other content it is a conflict.
func (g *gateway) place(r *http.Request) (int, any, error) {
	var req orderRequest
	if err := decode(r, &req); err != nil {
		return 0, nil, err
	}
	switch {
	case !identifier.MatchString(req.ClientOrderID):
		return 0, nil, badRequest("client_order_id: 1 to 64 letters, digits, dots, dashes or underscores")
	case !symbolName.MatchString(req.Symbol):
		return 0, nil, badRequest("symbol: %q is not a symbol such as AAPL", req.Symbol)
	case req.Side != "buy" && req.Side != "sell":
		return 0, nil, badRequest("side: must be buy or sell")
	case req.Quantity < 1 || req.Quantity > 1_000_000:
		return 0, nil, badRequest("qty: must be from 1 to 1000000")
	}
	ctx := r.Context()
	stored, fresh, err := g.db.addOrder(ctx, order{ClientOrderID: req.ClientOrderID, Symbol: req.Symbol, Side: req.Side, Quantity: req.Quantity,
		Status: "dry_run", StrategyID: g.strategy, TraceID: traceOf(ctx)})
	if err != nil {
		return 0, nil, err
	}
	if stored.Symbol != req.Symbol || stored.Side != req.Side || stored.Quantity != req.Quantity {
		return 0, nil, problem{http.StatusConflict, "client_order_id: is taken by an order with other content"}
	}
	answer := orderAnswer{order: stored, Created: fresh}
	if !fresh {
		return http.StatusOK, answer, nil
	}
	event, err := json.Marshal(stored)
	if err != nil {
		return 0, nil, err
	}
	// The order is kept already: that nobody hears of it now is worth a warning, not a failure.
	if err := g.rdb.Publish(ctx, "orders", event).Err(); err != nil {
		g.rt.log.WarnContext(ctx, "order stored but not published", "client_order_id", stored.ClientOrderID, "error", brief(err))
	} else {
		answer.Published = true
	}
	g.rt.log.InfoContext(ctx, "dry-run order stored; it is sent to no broker", "client_order_id", stored.ClientOrderID, "symbol", stored.Symbol, "side", stored.Side, "qty", stored.Quantity)
	return http.StatusCreated, answer, nil
}

func (g *gateway) list(r *http.Request) (int, any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return 0, nil, err
	}
	orders, err := g.db.orders(r.Context(), limit)
	return http.StatusOK, map[string]any{"orders": orders}, err
}

func (g *gateway) get(r *http.Request) (int, any, error) {
	found, err := g.db.order(r.Context(), r.PathValue("id"))
	return http.StatusOK, found, orNotFound(err, "order")
}

func orNotFound(err error, what string) error {
	if errors.Is(err, errNotFound) {
		return problem{http.StatusNotFound, "no such " + what}
	}
	return err
}
