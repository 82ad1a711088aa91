// Package review reports what a change of the project does to its stacks before it
// reaches one. It compares the plans of two git revisions, which needs no engine. The
// command in its folder preview runs a preview of every stack.
package review

import (
	"encoding/json"
	"io"
	"slices"
)

// Report is what changes between two revisions, in all the stacks that were compared.
type Report struct {
	Base   string  `json:"base"`
	Head   string  `json:"head"`
	Stacks []Stack `json:"stacks"`
	// Unplanned lists changed files whose effect no plan shows, such as how a
	// container is registered with Pulumi. A preview shows it.
	Unplanned []string `json:"unplanned,omitempty"`
}

// Stack is what changes in one stack.
type Stack struct {
	Name string `json:"name"`
	// Kind is Added or Removed for a stack whose file is new or gone, else Changed or Same.
	Kind  Kind   `json:"kind"`
	Items []Item `json:"items,omitempty"`
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
	// as a required variable without a value, and fixed for what no longer is.
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

// ExitCode is 0 for no change, 2 for changes, 3 for changes that touch data.
func (r Report) ExitCode() int {
	switch {
	case slices.ContainsFunc(r.Stacks, func(s Stack) bool { return len(s.items("data")) > 0 }):
		return 3
	case len(r.changed()) > 0:
		return 2
	}
	return 0
}

// changed returns the stacks in which something changes.
func (r Report) changed() []Stack {
	return slices.DeleteFunc(slices.Clone(r.Stacks), func(s Stack) bool { return s.Kind == Same })
}

// Formats are the ways to write a report.
var Formats = map[string]func(Report, io.Writer) error{"text": Report.Text, "markdown": Report.Markdown, "json": Report.JSON}

// JSON writes the report for programs.
func (r Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}
