// Package review reports what a change of the project does to its stacks before it
// reaches one. It compares the plans of two git revisions, which needs no engine. The
// command in its folder preview runs a preview of every stack.
package review

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Version is the version of the JSON of a Report, which docs/report.schema.json describes. It goes up when a field is removed, or
// means something else.
const Version = 1

// Report is what changes between two revisions, in all the stacks that were compared.
type Report struct {
	Version int     `json:"version"`
	Base    string  `json:"base"`
	Head    string  `json:"head"`
	Stacks  []Stack `json:"stacks"`
	// Unplanned lists changed files whose effect no plan shows, such as how a
	// container is registered with Pulumi. A preview shows it.
	Unplanned []string `json:"unplanned,omitempty"`
	// Rehearsal is what was measured when the change was applied to a stack, which is then the only one of Stacks.
	Rehearsal *Rehearsal `json:"rehearsal,omitempty"`
}

// Stack is what changes in one stack.
type Stack struct {
	Name string `json:"name"`
	// Kind is Added or Removed for a stack whose file is new or gone, else Changed or Same.
	Kind     Kind     `json:"kind"`
	Severity Severity `json:"severity"`
	Items    []Item   `json:"items,omitempty"`
}

// Severity is the worst that a change does to a stack.
type Severity string

// severities and callouts have all of them, from the worst, and GitHub's sort of callout for each.
var (
	severities = []Severity{DataAtRisk, Outage, Restart, None}
	callouts   = []string{"CAUTION", "WARNING", "IMPORTANT", "NOTE"}
)

// rank is smaller for what is worse.
func (s Severity) rank() int { return slices.Index(severities, s) }

// The severities.
const (
	DataAtRisk Severity = "data at risk"
	Outage     Severity = "outage"  // of a service that others wait for or users can reach
	Restart    Severity = "restart" // of a container that nobody waits for
	None       Severity = "none"
)

// severity returns the worst of the stack's items.
func (s Stack) severity(head *Snapshot) Severity {
	worst := None
	for _, i := range s.Items {
		o, _ := head.Lookup(i.Name)
		switch {
		case i.What == "data":
			return DataAtRisk
		case i.What == "fault", i.What == "service" && (i.Kind == Removed || len(i.Replaced) > 0 && len(i.Waiting)+len(o.Ports) > 0):
			worst = Outage
		case worst == None && len(i.Replaced)+len(i.Deleted) > 0:
			worst = Restart
		}
	}
	return worst
}

// worst returns the severity of the stack that suffers most.
func (r Report) worst() Severity {
	worst := None
	for _, s := range r.Stacks {
		worst = severities[min(worst.rank(), s.Severity.rank())]
	}
	return worst
}

// Tally returns how many containers a change creates, changes in place, replaces and deletes.
func (s Stack) Tally() (counts [4]int) {
	for _, i := range s.Items {
		counts[0] += len(i.Created)
		counts[2] += len(i.Replaced)
		counts[3] += len(i.Deleted)
		if i.What == "service" && i.Kind == Changed && len(i.Changes) > 0 && len(i.Replaced) == 0 {
			counts[1]++
		}
	}
	return counts
}

// items returns the stack's items of one sort.
func (s Stack) items(what string) []Item {
	return slices.DeleteFunc(slices.Clone(s.Items), func(i Item) bool { return i.What != what })
}

// Kind says what happened to a stack, network, volume or service.
type Kind string

// The kinds.
const (
	Same    Kind = "same"
	Added   Kind = "added"
	Removed Kind = "removed"
	Changed Kind = "changed"
)

// Change is one field with its value before and after. A value that is a secret on either side is never given.
type Change struct {
	Field  string `json:"field"`
	Before string `json:"before,omitempty"` // empty: the field is new
	After  string `json:"after,omitempty"`  // empty: the field is gone
	Diff   string `json:"diff,omitempty"`   // of a file, in unified form
	// InPlace says that the change does not replace the container.
	InPlace bool `json:"inPlace,omitempty"`
}

// Item is one thing that a report says.
type Item struct {
	// What is the sort of thing that changes: stack, settings, network, volume or service. It is
	// data for what the change means for data, fault for what is newly wrong with the stack, such
	// as a required variable without a value, policy for a rule of the catalog that is newly broken,
	// and fixed for what no longer is.
	What string `json:"what"`
	Name string `json:"name,omitempty"` // in the catalog; of data the setting, volume or service
	Kind Kind   `json:"kind,omitempty"`
	Text string `json:"text,omitempty"`

	Changes  []Change `json:"changes,omitempty"`
	Created  []string `json:"created,omitempty"`  // containers
	Deleted  []string `json:"deleted,omitempty"`  // containers
	Replaced []string `json:"replaced,omitempty"` // containers that are stopped and created again
	// Waiting are the services that start after a replaced one, directly or through
	// others. They are not restarted; one that starts at the same time waits.
	Waiting []string `json:"waiting,omitempty"`
}

// ExitCode is 0 for no change, 2 for changes, 3 for changes that touch data. Of a rehearsal it is 0 for no finding, and 2 for findings.
func (r Report) ExitCode() int {
	switch {
	case r.Rehearsal != nil:
		return 2 * min(1, len(r.Rehearsal.Findings))
	case slices.ContainsFunc(r.Stacks, func(s Stack) bool { return len(s.items("data")) > 0 }):
		return 3
	case len(r.Changed()) > 0:
		return 2
	}
	return 0
}

// Changed returns the stacks in which something changes.
func (r Report) Changed() []Stack {
	return slices.DeleteFunc(slices.Clone(r.Stacks), func(s Stack) bool { return s.Kind == Same })
}

// Formats are the ways to write a report.
var Formats = map[string]func(Report, io.Writer) error{"text": Report.Text, "markdown": Report.Markdown, "json": Report.JSON, "junit": Report.JUnit}

// JSON writes the report for programs.
func (r Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// WriteAll writes the report into a folder, in every format for programs and for comments. Without a folder it does nothing.
func (r Report) WriteAll(folder string) error {
	if folder == "" {
		return nil
	}
	failed := os.MkdirAll(folder, 0o750)
	for file, format := range map[string]string{"report.md": "markdown", "report.json": "json", "report.xml": "junit"} {
		var text bytes.Buffer
		failed = errors.Join(failed, Formats[format](r, &text), os.WriteFile(filepath.Join(folder, file), text.Bytes(), 0o600))
	}
	return failed
}
