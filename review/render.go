package review

import (
	"embed"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/template"

	"github.com/docker/go-units"
	"github.com/muesli/termenv"
)

//go:embed report.txt.tmpl report.md.tmpl
var templates embed.FS

// A comment on a pull request has the comparison of the plans and a rehearsal, together at most 65,000 characters. GitHub's limit is 65,536.
const longestPlans, longestRehearsal = 45000, 19500

// Text writes the report for a terminal, in colour where w is one and NO_COLOR is not set.
func (r Report) Text(w io.Writer) error {
	plain := func(text string) string { return text }
	text, err := r.render("report.txt.tmpl", template.FuncMap{
		"title": func(s said) string { return s.title("-", plain) },
		"sides": func(c Change) string { return c.sides(plain) },
		"hunks": hunks,
		"lines": func(text string) []string { return strings.Split(text, "\n") },
	})
	if err != nil {
		return err
	}
	out := termenv.NewOutput(w)
	colours := map[byte]termenv.Color{'!': termenv.ANSIRed, '-': termenv.ANSIRed, '+': termenv.ANSIGreen, '~': termenv.ANSIYellow}
	for line := range strings.SplitSeq(text, "\n") {
		// A title and a line of a difference begin with a sign; the differences are indented.
		if mark := strings.TrimPrefix(line, "      "); mark != "" && colours[mark[0]] != nil {
			line = out.String(line).Foreground(colours[mark[0]]).String()
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// Markdown writes the report for a comment of a pull request. A long one loses the
// differences of its files, and is then cut.
func (r Report) Markdown(w io.Writer) error {
	shown := hunks
	funcs := template.FuncMap{
		"code": code, "escape": escaper.Replace,
		"hunks":  func(diff string) []string { return shown(diff) },
		"title":  func(s said) string { return s.title("−", code) },
		"sides":  func(c Change) string { return c.sides(code) },
		"fence":  func(lines []string) string { return fence("```", strings.Join(lines, "\n")) },
		"fenced": func(text string) string { f := fence("```", text); return f + "\n" + text + "\n" + f },
	}
	longest := longestPlans
	if r.Rehearsal != nil {
		longest = longestRehearsal
	}
	text, err := r.render("report.md.tmpl", funcs)
	if err == nil && len(text) > longest {
		shown = func(string) []string { return nil }
		text, err = r.render("report.md.tmpl", funcs)
	}
	if err != nil {
		return err
	}
	if len(text) > longest {
		cut := strings.ToValidUTF8(text[:longest], "")
		text = cut + "\n\n" + strings.Repeat("</details>\n", strings.Count(cut, "<details>")-strings.Count(cut, "</details>")) +
			"… cut: the report's artifact has all of it, and so has `platform plan --all --diff <ref>`.\n"
	}
	_, err = io.WriteString(w, text)
	return err
}

func (r Report) render(name string, funcs template.FuncMap) (string, error) {
	funcs["merge"], funcs["summary"], funcs["where"], funcs["few"], funcs["join"] = r.merge, r.summary, r.where, few, strings.Join
	funcs["seconds"] = func(s float64) string { return fmt.Sprintf("%.1f s", s) }
	funcs["findings"] = func(all []Finding) string { return count(len(all), "finding") }
	funcs["count"], funcs["images"], funcs["warnings"], funcs["worst"] = counted, images, warnings, r.worst
	funcs["callout"] = func(s Severity) string { return callouts[s.rank()] }
	t, err := template.New(name).Funcs(funcs).ParseFS(templates, name)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	err = t.Execute(&text, r)
	return text.String(), err
}

// escaper escapes what would be Markdown, a mention or a tag in a sentence.
var escaper = strings.NewReplacer(
	"\\", "\\\\", "`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]",
	"<", "&lt;", ">", "&gt;", "#", "\\#", "|", "\\|", "@", "@\u200b", "\n", " ",
)

// code quotes a value so that nothing in it is Markdown, whatever it holds.
func code(value string) string {
	value = strings.Join(strings.Fields(value), " ")
	quote := fence("`", value)
	if len(quote) > 1 {
		value = " " + value + " "
	}
	return quote + value + quote
}

// fence returns a mark that is longer than any such mark in the text.
func fence(mark, text string) string {
	for strings.Contains(text, mark) {
		mark += "`"
	}
	return mark
}

// longestDiff is how many lines of one file's difference are shown.
const longestDiff = 80

// hunks returns a unified diff's lines without the names of the files; nil for none.
func hunks(unified string) []string {
	if unified == "" {
		return nil
	}
	lines := strings.Split(strings.TrimSuffix(unified, "\n"), "\n")[2:]
	if len(lines) > longestDiff {
		lines = append(lines[:longestDiff:longestDiff], fmt.Sprintf("… and %d lines more", len(lines)-longestDiff))
	}
	return lines
}

// sides returns a change's values before and after, each in a style.
func (c Change) sides(style func(string) string) string {
	switch {
	case c.Before == "":
		return style(c.After)
	case c.After == "":
		return style(c.Before) + ", gone"
	}
	return style(c.Before) + " → " + style(c.After)
}

// title returns a sign for what happened, and the name in a style.
func (s said) title(minus string, style func(string) string) string {
	title := map[Kind]string{Added: "+", Removed: minus, Changed: "~"}[s.Kind]
	if s.What != "service" {
		title += " " + s.What
	}
	if s.Name != "" {
		title += " " + style(s.Name)
	}
	return title
}

// counted returns a number, or that there is none.
func counted(n int) string {
	if n == Unreadable {
		return "cannot be read"
	}
	return strconv.Itoa(n)
}

// images returns the sizes of a service's image, or of both if it changes.
func images(m Measured) string {
	before, after := units.HumanSize(float64(m.ImageBefore)), units.HumanSize(float64(m.ImageAfter))
	switch {
	case m.ImageBefore == m.ImageAfter || m.ImageBefore == 0:
		return after
	case m.ImageAfter == 0:
		return before + ", gone"
	}
	return before + " → " + after
}

// warnings returns the new warnings of all services, a few of each.
func warnings(s Step) string {
	var lines []string
	for _, m := range s.Services {
		for i, line := range m.Warnings {
			if i == 3 {
				lines = append(lines, fmt.Sprintf("%s: … and %d more", m.Service, len(m.Warnings)-i))
				break
			}
			lines = append(lines, m.Service+": "+line)
		}
	}
	return strings.Join(lines, "\n")
}
