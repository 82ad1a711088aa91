package main

import (
	"hash/fnv"
	"math"
	"regexp"
	"time"
)

// firstDay is where every made-up price series begins.
var firstDay = time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

var symbolName = regexp.MustCompile(`^[A-Z][A-Z0-9.]{0,9}$`)

type bar struct {
	Date  string  `json:"date"` // YYYY-MM-DD
	Close float64 `json:"close"`
}

// noise is a number in [-1, 1) that depends on the symbol and the day alone.
func noise(symbol string, n int) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	_, _ = h.Write([]byte(symbol))
	x := h.Sum64()
	x ^= x >> 33 // FNV's high bits move little for short input
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(int64(x)) / math.MaxInt64
}

// series is a symbol's last n daily closes up to and including a day: made up, but the same on every machine and at every call.
func series(symbol string, last time.Time, n int) []bar {
	end := int(last.UTC().Truncate(day).Sub(firstDay) / day)
	price := 60 + 50*(noise(symbol, -1)+1)
	bars := make([]bar, 0, n)
	for i := 0; i <= end; i++ {
		// The conversions keep compilers of some machines from fusing the steps, which would round differently.
		price *= 1.0002 + float64(0.012*noise(symbol, i)) + float64(0.004*math.Sin(float64(i)/17))
		if i > end-n {
			bars = append(bars, bar{firstDay.Add(time.Duration(i) * day).Format(time.DateOnly), math.Round(price*100) / 100})
		}
	}
	return bars
}

// average is the mean close of the n bars that end at index i.
func average(bars []bar, i, n int) float64 {
	sum := 0.0
	for _, b := range bars[i-n+1 : i+1] {
		sum += b.Close
	}
	return sum / float64(n)
}
