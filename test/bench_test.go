//go:build live

package test

import (
	"testing"
	"time"
)

// BenchmarkBaseStack measures what a person waits for in a life of the base stack:
// up from nothing (no volumes either), an up and a preview that find nothing to do,
// and destroy. Seconds depend on the machine and on what else it does; the ratios to
// the cold up are what to compare.
//
//	go test -tags live ./test -run '^$' -bench BaseStack -benchtime 3x -timeout 30m
func BenchmarkBaseStack(b *testing.B) {
	var cold, noop, preview, destroy time.Duration
	lives := 0
	for b.Loop() {
		s := newStack(b, "base", nil)
		s.pulumi("preview", "-s", s.name, "--non-interactive") // compiles the program, once
		cold += timed(func() { s.up() })
		noop += timed(func() { s.up() })
		preview += timed(func() { s.unchanged("a preview after up") })
		destroy += timed(func() { s.destroy() })
		lives++
	}
	b.ReportMetric(0, "ns/op") // holds the preparations too: left out
	b.ReportMetric(cold.Seconds()/float64(lives), "s/cold")
	b.ReportMetric(float64(noop)/float64(cold), "noop/cold")
	b.ReportMetric(float64(preview)/float64(cold), "preview/cold")
	b.ReportMetric(float64(destroy)/float64(cold), "destroy/cold")
}

func timed(work func()) time.Duration {
	started := time.Now()
	work()
	return time.Since(started)
}
