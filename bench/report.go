package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"html"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/template"
	"time"
)

// report collects the samples of a run, and writes them for benchstat, as Markdown and as a chart.
type report struct {
	Sides   []string
	Steps   []string
	samples map[string]map[string][]cost // by side and step
	watched map[string]running
	started time.Time
	load    string // of the machine before the first round: other work makes every figure worse
}

// running is what a running stack costs, in shares of one core, and after how many seconds it notices failures.
type running struct{ Inside, Around, Failed, Hung float64 }

func newReport(sides []*side) *report {
	r := &report{Steps: steps, samples: map[string]map[string][]cost{}, watched: map[string]running{}, started: time.Now()}
	load, _ := os.ReadFile("/proc/loadavg")
	r.load, _, _ = strings.Cut(string(load), " ")
	for _, s := range sides {
		r.Sides = append(r.Sides, s.name)
		r.samples[s.name] = map[string][]cost{}
	}
	return r
}

func (r *report) add(side, step string, c cost) {
	r.samples[side][step] = append(r.samples[side][step], c)
}

//go:embed performance.md.tmpl
var pageText string

//go:embed performance.svg.tmpl
var chartText string

func (r *report) write(path string) error {
	functions := template.FuncMap{
		"cell": r.cell, "costs": r.costs, "ratio": r.ratio, "median": func(side, step string) float64 { return r.median(side, step, seconds) },
		"label": label, "percent": func(share float64) float64 { return 100 * share }, "escape": html.EscapeString, "width": r.width, "watched": func() map[string]running { return r.watched },
		"machine": machine, "load": func() string { return r.load }, "rounds": r.rounds, "date": func() string { return r.started.Format(time.DateOnly) },
		"y":   func(step, side int) int { return 30 + step*(len(r.Sides)*16+26) + side*16 },
		"add": func(a, b int) int { return a + b }, "colour": func(i int) string { return colours[i%len(colours)] },
	}
	for suffix, text := range map[string]string{".md": pageText, ".svg": chartText} {
		t, err := template.New(suffix).Funcs(functions).Parse(text)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if err := t.Execute(&out, r); err != nil {
			return err
		}
		if err := os.WriteFile(path+suffix, out.Bytes(), 0o644); err != nil { //nolint:gosec // a page for everyone
			return err
		}
	}
	return os.WriteFile(path+".txt", []byte(r.benchstat()), 0o644) //nolint:gosec // the same
}

// benchstat writes every sample in the format of Go's benchmarks: benchstat -col /side docs/performance.txt
func (r *report) benchstat() string {
	var b strings.Builder
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\ncpu: %s\n", runtime.GOOS, runtime.GOARCH, machine())
	for _, side := range r.Sides {
		for _, step := range r.Steps {
			for _, c := range r.samples[side][step] {
				fmt.Fprintf(&b, "BenchmarkStack/step=%s/side=%s 1 %.3f sec/op %.3f cpu-sec/op %.3f engine-cpu-sec/op %.0f peak-B/op\n",
					strings.NewReplacer(", ", "_", " ", "_").Replace(step), side, c.seconds, c.cpu, c.engine, c.memory)
			}
		}
	}
	return b.String()
}

func seconds(c cost) float64 { return c.seconds }

// values returns what all rounds of a step took, in ascending order.
func (r *report) values(side, step string, of func(cost) float64) (all []float64) {
	for _, c := range r.samples[side][step] {
		all = append(all, of(c))
	}
	slices.Sort(all)
	return all
}

func (r *report) median(side, step string, of func(cost) float64) float64 {
	all := r.values(side, step, of)
	if len(all) == 0 {
		return 0
	}
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// cell is the median time with its spread.
func (r *report) cell(side, step string) string {
	all := r.values(side, step, seconds)
	if len(all) == 0 {
		return "—"
	}
	return fmt.Sprintf("%.1f s (%.1f–%.1f)", r.median(side, step, seconds), all[0], all[len(all)-1])
}

func (r *report) costs(side, step string) string {
	return fmt.Sprintf("%.1f + %.1f s, %.0f MiB", r.median(side, step, func(c cost) float64 { return c.cpu }),
		r.median(side, step, func(c cost) float64 { return c.engine }), r.median(side, step, func(c cost) float64 { return c.memory })/(1<<20))
}

// ratio is the median of the first side over that of another.
func (r *report) ratio(side, step string) string {
	if other := r.median(side, step, seconds); other > 0 {
		return fmt.Sprintf("%.2f", r.median(r.Sides[0], step, seconds)/other)
	}
	return "—"
}

// width is the length of a bar, relative to the longest of its step.
func (r *report) width(side, step string) float64 {
	longest := 0.001
	for _, s := range r.Sides {
		longest = max(longest, r.median(s, step, seconds))
	}
	return 430 * r.median(side, step, seconds) / longest
}

func (r *report) rounds() int { return len(r.samples[r.Sides[0]][r.Steps[0]]) }

var colours = []string{"#2f6fdb", "#8a94a6", "#b9c1cf", "#6d7789", "#3c9d6b"}

// label is a side's name for readers.
func label(side string) string {
	version, old := strings.CutSuffix(side, "-old")
	switch {
	case side == "ours":
		return "this program"
	case side == "floor":
		return "floor"
	case old:
		return "Compose " + version + ", old probe timings"
	}
	return "Compose " + version
}

// machine names the processor and how many of it there are.
func machine() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	_, model, _ := strings.Cut(string(text), "model name")
	model, _, _ = strings.Cut(strings.TrimLeft(model, "\t :"), "\n")
	return fmt.Sprintf("%d × %s", runtime.NumCPU(), model)
}
