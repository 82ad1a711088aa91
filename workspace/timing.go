package workspace

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"trading-platform/timing"
)

// timed runs a command of the CLI and writes the timing report, also if the command fails.
func (r *run) timed(ctx context.Context, args []string) (err error) {
	if r.Timing, err = filepath.Abs(r.Timing); err != nil {
		return err
	}
	if err := os.MkdirAll(r.Timing, 0o750); err != nil {
		return err
	}
	r.recorder.Watch(ctx, r.engine, r.stack)
	traces := ""
	if r.runCLI(ctx, nil, "version", "--otel-traces=") == nil { // CLIs from before 2026 cannot trace their processes
		traces = filepath.Join(r.Timing, "pulumi.json")
		args = append(args, "--otel-traces=file://"+traces)
	}
	return errors.Join(r.runPulumi(ctx, args[0], args), r.writeTiming(traces))
}

// writeTiming writes the report of the run that has just ended.
func (r *run) writeTiming(traces string) error {
	p, _, _ := r.Resolve(r.stack)
	if p == nil {
		return nil
	}
	report := r.recorder.Report(p)
	if traces != "" {
		var err error
		if report.Processes, err = timing.ReadTraces(traces); err != nil {
			return err
		}
	}
	for name, write := range map[string]func(io.Writer) error{"report.txt": report.Text, "trace.json": report.Chrome, "timing.svg": report.Picture} {
		var text bytes.Buffer
		if err := errors.Join(write(&text), os.WriteFile(filepath.Join(r.Timing, name), text.Bytes(), 0o600)); err != nil {
			return err
		}
	}
	r.say("where the time went: report.txt, timing.svg and trace.json, which https://ui.perfetto.dev shows, in " + r.Timing)
	return report.Text(os.Stdout)
}
