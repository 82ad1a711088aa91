package diff

import (
	"fmt"
	"io"
	"strings"
)

// longestComment is what a comment of a pull request holds, in bytes, with room to spare.
const longestComment = 60000

// Markdown writes the report for a pull request's comment. A long one is cut.
func (r Report) Markdown(w io.Writer) error {
	m := &markdown{report: r}
	m.all()
	text := m.String()
	if len(text) > longestComment {
		short := &markdown{report: r, withoutDiffs: true}
		short.all()
		text = short.String()
	}
	if len(text) > longestComment {
		text = strings.ToValidUTF8(text[:longestComment], "") + "\n\n… cut: `platform plan --all --diff <ref>` prints all of it.\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

type markdown struct {
	strings.Builder
	report       Report
	withoutDiffs bool
}

func (m *markdown) line(format string, args ...any) { fmt.Fprintf(m, format+"\n", args...) }

func (m *markdown) all() {
	r := m.report
	changed := r.changed()
	m.line("### What changes in the stacks\n")
	m.line("%s → %s: %s", code(r.Base), code(r.Head), r.summary())
	if data := merge(changed, func(s Stack) []Consequence { return s.Data }, sprint[Consequence]); len(data) > 0 {
		m.line("\n> [!CAUTION]\n> **This touches data**")
		for _, c := range data {
			m.line("> - **%s**: %s%s", escape(c.what.Subject), escape(c.what.Text), m.where(c.stacks))
		}
	}
	if wrong := merge(changed, func(s Stack) []string { return s.Faults }, sprint[string]); len(wrong) > 0 {
		m.line("\n> [!WARNING]\n> **Newly wrong: the stack does not come up before this is mended**")
		for _, f := range wrong {
			m.line("> - %s%s", escape(f.what), m.where(f.stacks))
		}
	}
	for _, s := range changed {
		switch s.Kind {
		case Added:
			m.line("\n**+ stack %s** is new: %s", code(s.Name), escape(s.serviceNames()))
		case Removed:
			m.line("\n**− stack %s** has no file any more: %s", code(s.Name), removedStack(s.Name))
		}
	}
	told := detailed(changed)
	m.changes("settings", mergeChanges(told))
	m.items("network", merge(told, func(s Stack) []Item { return s.Networks }, sprint[Item]))
	m.items("volume", merge(told, func(s Stack) []Item { return s.Volumes }, sprint[Item]))
	for _, s := range mergeServices(told) {
		m.service(s)
	}
	if mended := merge(changed, func(s Stack) []string { return s.Mended }, sprint[string]); len(mended) > 0 {
		m.line("\n**No longer wrong**\n")
		for _, f := range mended {
			m.line("- %s%s", escape(f.what), m.where(f.stacks))
		}
	}
	if len(r.Unplanned) > 0 {
		m.line("\n%s", escape(unplanned(r.Unplanned)))
	}
}

func (m *markdown) where(stacks []string) string {
	if where := m.report.where(stacks); where != "" {
		return " _(" + where + ")_"
	}
	return ""
}

func (m *markdown) changes(title string, all []merged[Change]) {
	if len(all) == 0 {
		return
	}
	m.line("\n**~ %s**\n", title)
	for _, c := range all {
		m.change(c.what, m.where(c.stacks))
	}
}

func (m *markdown) items(kind string, all []merged[Item]) {
	for _, i := range all {
		m.line("\n**%s %s %s**%s\n", sign(i.what.Kind), kind, code(i.what.Name), m.where(i.stacks))
		for _, c := range i.what.Changes {
			m.change(c, "")
		}
	}
}

func sign(kind Kind) string {
	switch kind {
	case Added:
		return "+"
	case Removed:
		return "−"
	}
	return "~"
}

func (m *markdown) service(s merged[Service]) {
	m.line("\n**%s %s** %s%s\n", sign(s.what.Kind), code(s.what.Name), escape(s.what.effect()), m.where(s.stacks))
	for _, c := range s.what.telling() {
		m.change(c, "")
	}
	if len(s.what.Waiting) > 0 {
		m.line("- waiting for it meanwhile: %s", escape(strings.Join(s.what.Waiting, ", ")))
	}
}

func (m *markdown) change(c Change, where string) {
	if c.Diff != "" && !m.withoutDiffs {
		lines := hunks(c.Diff)
		fence := fenceFor(lines)
		m.line("- %s%s\n\n  %sdiff", escape(c.Field), where, fence)
		for _, line := range lines {
			m.line("  %s", line)
		}
		m.line("  %s\n", fence)
		return
	}
	before, after := c.words()
	switch {
	case before == "":
		m.line("- %s: %s%s", escape(c.Field), code(after), where)
	case after == "":
		m.line("- %s: %s, gone%s", escape(c.Field), code(before), where)
	default:
		m.line("- %s: %s → %s%s", escape(c.Field), code(before), code(after), where)
	}
}

// code quotes a value so that nothing in it is Markdown, whatever it holds.
func code(value string) string {
	value = strings.Join(strings.Fields(value), " ")
	fence := "`"
	for strings.Contains(value, fence) {
		fence += "`"
	}
	if len(fence) > 1 {
		return fence + " " + value + " " + fence
	}
	return fence + value + fence
}

// fenceFor gives a fence that none of the lines ends.
func fenceFor(lines []string) string {
	fence := "```"
	for strings.Contains(strings.Join(lines, "\n"), fence) {
		fence += "`"
	}
	return fence
}

// escaper takes the meaning from what would be Markdown, a mention or a tag in a sentence.
var escaper = strings.NewReplacer(
	"\\", "\\\\", "`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]",
	"<", "&lt;", ">", "&gt;", "#", "\\#", "|", "\\|", "@", "@\u200b", "\n", " ",
)

func escape(text string) string { return escaper.Replace(text) }
