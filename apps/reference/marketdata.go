package main

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"
)

// quoteLife is how long a quote stands in the cache.
const quoteLife = 10 * time.Second

type marketData struct {
	rdb  *redis.Client
	feed string
}

func setupMarketData(rt *runtime) error {
	cfg, err := load[marketDataConfig](rt.environ)
	if err != nil {
		return err
	}
	rt.level.Set(cfg.LogLevel.level())
	rt.peer("execution_gateway", cfg.GatewayURL)
	m := &marketData{rdb: rt.redisAt(cfg.RedisAddress, cfg.DB), feed: cfg.DataFeed}
	rt.wrap = cfg.guard(rt)
	rt.api("GET /api/v1/quotes/{symbol}", m.quote)
	return rt.depend(cfg.StackConfig)
}

type quote struct {
	Symbol string    `json:"symbol"`
	Bid    float64   `json:"bid"`
	Ask    float64   `json:"ask"`
	Last   float64   `json:"last"`
	Feed   string    `json:"feed"`
	Source string    `json:"source"`
	At     time.Time `json:"at"`
	Cached bool      `json:"cached"`
}

// quote answers from Redis while the cached quote lives, so that all who ask within that time see the same price.
func (m *marketData) quote(r *http.Request) (int, any, error) {
	symbol := r.PathValue("symbol")
	if !symbolName.MatchString(symbol) {
		return 0, nil, badRequest("symbol: %q is not a symbol such as AAPL", symbol)
	}
	key := "quote:" + symbol
	var q quote
	text, err := m.rdb.Get(r.Context(), key).Bytes()
	if err == nil && json.Unmarshal(text, &q) == nil {
		q.Cached = true
		return http.StatusOK, q, nil
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, nil, err
	}
	now := time.Now().UTC()
	last := series(symbol, now, 1)[0].Close * (1 + 0.001*noise(symbol, int(now.Unix()/int64(quoteLife.Seconds()))))
	cents := func(x float64) float64 { return math.Round(x*100) / 100 }
	q = quote{Symbol: symbol, Bid: cents(last - 0.01), Ask: cents(last + 0.01), Last: cents(last), Feed: m.feed, Source: "made up by the reference app", At: now}
	if text, err = json.Marshal(q); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, q, m.rdb.Set(r.Context(), key, text, quoteLife).Err()
}
