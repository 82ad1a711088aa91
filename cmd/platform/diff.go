package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"trading-platform/internal/workspace"
	"trading-platform/plan/diff"
)

// unplanned are the places that decide what Pulumi makes of a plan: an edit there
// shows in no plan.
var unplanned = []string{"components", "internal/program", "internal/dockerprovider", "main.go", "go.mod"}

// compare gives what changes from a git revision to the checkout as it is, edits
// that are not committed included. Each side's plans come from its own code and
// its own tracked stack files; this machine's settings of a stack count on neither.
// With no stack it compares every stack that either side has a file of.
func compare(ctx context.Context, w *workspace.Workspace, ref, stack string) (diff.Report, error) {
	temp, err := os.MkdirTemp("", "platform-diff-*")
	if err != nil {
		return diff.Report{}, err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	base, err := checkOut(ctx, w.Root, ref, filepath.Join(temp, "base"))
	if err != nil {
		return diff.Report{}, err
	}
	head := &revision{name: "this checkout" + describe(ctx, w.Root), root: w.Root, temp: filepath.Join(temp, "head")}
	stacks := []string{stack}
	if stack == "" {
		stacks = union(base.stacks(), head.stacks())
	} else if !slices.Contains(union(base.stacks(), head.stacks()), stack) {
		return diff.Report{}, fmt.Errorf("neither %s nor this checkout has a file Pulumi.%s.yaml; stacks here: %s",
			ref, stack, strings.Join(head.stacks(), ", "))
	}

	plans := map[*revision]map[string]*diff.Snapshot{base: {}, head: {}}
	group, groupCtx := errgroup.WithContext(ctx)
	for side, into := range plans {
		group.Go(func() error { return side.plans(groupCtx, stacks, into) })
	}
	if err := group.Wait(); err != nil {
		return diff.Report{}, err
	}
	report := diff.Report{Base: base.name, Head: head.name}
	for _, name := range stacks {
		report.Stacks = append(report.Stacks, diff.Compare(name, plans[base][name], plans[head][name]))
	}
	report.Unplanned, err = changedFiles(ctx, w.Root, base.commit, unplanned)
	return report, err
}

// diffFormats are the ways to write a report.
var diffFormats = map[string]func(diff.Report, io.Writer) error{
	"text":     diff.Report.Text,
	"markdown": diff.Report.Markdown,
	"json":     diff.Report.JSON,
}

// printDiff compares, writes the report, and turns what it says into the exit code.
func printDiff(ctx context.Context, out io.Writer, ref, stack, format string) error {
	write, ok := diffFormats[format]
	if !ok {
		return fmt.Errorf("with --diff, -o takes text, markdown or json, not %s", format)
	}
	w, err := here()
	if err != nil {
		return err
	}
	report, err := compare(ctx, w, ref, stack)
	if err != nil {
		return err
	}
	if err := write(report, out); err != nil {
		return err
	}
	if code := report.ExitCode(); code != 0 {
		return exitCode(code)
	}
	return nil
}

// union gives the names in either list, sorted.
func union(a, b []string) []string {
	all := map[string]bool{}
	for _, name := range slices.Concat(a, b) {
		all[name] = true
	}
	return slices.Sorted(maps.Keys(all))
}
