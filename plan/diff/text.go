package diff

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/muesli/termenv"
)

// JSON writes the report for machines.
func (r Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// Text writes the report for a terminal, in colour where w is one and NO_COLOR is not set.
func (r Report) Text(w io.Writer) error {
	t := &printer{out: termenv.NewOutput(w)}
	t.line("%s → %s: %s", r.Base, r.Head, r.summary())
	changed := r.changed()
	t.data(r, changed)
	for _, s := range changed {
		switch s.Kind {
		case Added:
			t.line("\n%s", t.green("+ stack "+s.Name+" is new")+": "+s.serviceNames())
		case Removed:
			t.line("\n%s: %s", t.red("- stack "+s.Name+" has no file any more"), removedStack(s.Name))
		}
	}
	told := detailed(changed)
	for i, settings := 0, mergeChanges(told); i < len(settings); i++ {
		if i == 0 || !slices.Equal(settings[i].stacks, settings[i-1].stacks) {
			t.line("\n%s%s", t.yellow("~ settings"), t.faint(r.where(settings[i].stacks)))
		}
		t.change(settings[i].what)
	}
	t.items(r, "network", merge(told, func(s Stack) []Item { return s.Networks }, sprint[Item]))
	t.items(r, "volume", merge(told, func(s Stack) []Item { return s.Volumes }, sprint[Item]))
	for _, s := range mergeServices(told) {
		t.service(r, s)
	}
	t.list("newly wrong", r, merge(changed, func(s Stack) []string { return s.Faults }, sprint[string]))
	t.list("no longer wrong", r, merge(changed, func(s Stack) []string { return s.Mended }, sprint[string]))
	if len(r.Unplanned) > 0 {
		t.line("\n%s", unplanned(r.Unplanned))
	}
	return t.err
}

// mergeChanges merges the settings that change.
func mergeChanges(stacks []Stack) []merged[Change] {
	return merge(stacks, func(s Stack) []Change { return s.Settings }, sprint[Change])
}

func sprint[T any](v T) string { return fmt.Sprint(v) }

func removedStack(name string) string {
	return "what it runs stays on the engine until `pulumi destroy -s " + name + "` is run from a revision that has the file"
}

func unplanned(files []string) string {
	return "No plan shows what these change; a preview does: " + few(files, 8)
}

// printer writes lines, and keeps the first error.
type printer struct {
	out *termenv.Output
	err error
}

func (t *printer) line(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.out, format+"\n", args...)
	}
}

func (t *printer) red(s string) string {
	return t.out.String(s).Foreground(termenv.ANSIRed).Bold().String()
}
func (t *printer) green(s string) string {
	return t.out.String(s).Foreground(termenv.ANSIGreen).String()
}
func (t *printer) yellow(s string) string {
	return t.out.String(s).Foreground(termenv.ANSIYellow).String()
}

// faint is for what is said beside a line; nothing stays nothing.
func (t *printer) faint(s string) string {
	if s == "" {
		return ""
	}
	return "  " + t.out.String(s).Faint().String()
}

func (t *printer) data(r Report, stacks []Stack) {
	all := merge(stacks, func(s Stack) []Consequence { return s.Data }, sprint[Consequence])
	if len(all) == 0 {
		return
	}
	t.line("\n%s", t.red("!! DATA"))
	for _, c := range all {
		t.line("%s %s%s", t.red("!! "+c.what.Subject+":"), c.what.Text, t.faint(r.where(c.stacks)))
	}
}

func (t *printer) items(r Report, kind string, all []merged[Item]) {
	for _, i := range all {
		t.line("\n%s%s", t.mark(i.what.Kind, kind+" "+i.what.Name), t.faint(r.where(i.stacks)))
		for _, c := range i.what.Changes {
			t.change(c)
		}
	}
}

func (t *printer) mark(kind Kind, text string) string {
	switch kind {
	case Added:
		return t.green("+ " + text)
	case Removed:
		return t.red("- " + text)
	}
	return t.yellow("~ " + text)
}

func (t *printer) service(r Report, s merged[Service]) {
	t.line("\n%s: %s%s", t.mark(s.what.Kind, s.what.Name), s.what.effect(), t.faint(r.where(s.stacks)))
	for _, c := range s.what.telling() {
		t.change(c)
	}
	if len(s.what.Waiting) > 0 {
		t.line("    waiting for it meanwhile: %s", strings.Join(s.what.Waiting, ", "))
	}
}

func (t *printer) change(c Change) {
	if c.Diff != "" {
		t.line("    %s", c.Field)
		for _, line := range hunks(c.Diff) {
			switch line[0] {
			case '+':
				line = t.green(line)
			case '-':
				line = t.red(line)
			}
			t.line("      %s", line)
		}
		return
	}
	before, after := c.words()
	switch {
	case before == "":
		t.line("    %s: %s", c.Field, t.green(after))
	case after == "":
		t.line("    %s: %s, gone", c.Field, t.red(before))
	default:
		t.line("    %s: %s → %s", c.Field, t.red(before), t.green(after))
	}
}

// longestDiff is how many lines of one file's diff are shown.
const longestDiff = 80

// hunks gives a unified diff's lines without the names of the files.
func hunks(unified string) []string {
	lines := strings.Split(strings.TrimSuffix(unified, "\n"), "\n")[2:]
	if len(lines) > longestDiff {
		lines = append(lines[:longestDiff:longestDiff], fmt.Sprintf("… and %d lines more", len(lines)-longestDiff))
	}
	for i, line := range lines {
		if line == "" {
			lines[i] = " "
		}
	}
	return lines
}

func (t *printer) list(title string, r Report, all []merged[string]) {
	if len(all) == 0 {
		return
	}
	t.line("\n%s", t.yellow(title))
	for _, one := range all {
		t.line("    %s%s", one.what, t.faint(r.where(one.stacks)))
	}
}
