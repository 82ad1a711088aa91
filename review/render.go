package review

import (
	"embed"
	"fmt"
	"io"
	"strings"
	"text/template"

	"github.com/muesli/termenv"
)

//go:embed report.txt.tmpl report.md.tmpl
var templates embed.FS

// longestComment is the number of bytes of a comment on a pull request, below the limit of GitHub.
const longestComment = 60000

// Text writes the report for a terminal, in colour where w is one and NO_COLOR is not set.
func (r Report) Text(w io.Writer) error {
	out := termenv.NewOutput(w)
	paint := func(colour termenv.Color) func(string) string {
		return func(s string) string { return out.String(s).Foreground(colour).String() }
	}
	red, green, yellow := paint(termenv.ANSIRed), paint(termenv.ANSIGreen), paint(termenv.ANSIYellow)
	lines := map[byte]func(string) string{'!': red, '-': red, '+': green, '~': yellow}
	return r.write(w, "report.txt.tmpl", template.FuncMap{
		"yellow": yellow,
		"faint":  func(s string) string { return out.String(s).Faint().String() },
		"title":  func(s said) string { return s.title("-", func(name string) string { return name }) },
		"sides":  func(c Change) string { return c.sides(red, green) },
		"hunks":  hunks,
		"paint": func(line string) string { // by its first character
			if paint := lines[line[0]]; paint != nil {
				return paint(line)
			}
			return line
		},
	})
}

// Markdown writes the report for a comment of a pull request. A long one loses the
// differences of its files, and is then cut.
func (r Report) Markdown(w io.Writer) error {
	var text strings.Builder
	for _, hunks := range []func(string) []string{hunks, func(string) []string { return nil }} {
		text.Reset()
		if err := r.write(&text, "report.md.tmpl", template.FuncMap{
			"code": code, "escape": escaper.Replace, "hunks": hunks,
			"title": func(s said) string { return s.title("−", code) },
			"sides": func(c Change) string { return c.sides(code, code) },
			"fence": func(lines []string) string { return fence("```", strings.Join(lines, "\n")) },
		}); err != nil {
			return err
		}
		if text.Len() <= longestComment {
			_, err := io.WriteString(w, text.String())
			return err
		}
	}
	_, err := io.WriteString(w, strings.ToValidUTF8(text.String()[:longestComment], "")+
		"\n\n… cut: `platform plan --all --diff <ref>` prints all of it.\n")
	return err
}

func (r Report) write(w io.Writer, name string, funcs template.FuncMap) error {
	funcs["join"], funcs["where"] = strings.Join, r.where
	t, err := template.New(name).Funcs(funcs).ParseFS(templates, name)
	if err != nil {
		return err
	}
	return t.Execute(w, r.view())
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

// fence puts a text into a code block, with a fence longer than any in the text.
func fence(fence, text string) string {
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fence
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
	return each(lines, func(line string) string { return line + strings.Repeat(" ", max(0, 1-len(line))) })
}

// sides returns a change's values before and after, each in a style.
func (c Change) sides(before, after func(string) string) string {
	was, is := focus(c.Before, c.After)
	if c.Secret && was != "" && is != "" {
		was, is = "a secret", "another, or no longer a secret"
	} else if c.Secret {
		was, is = strings.ReplaceAll(was, c.Before, "a secret"), strings.ReplaceAll(is, c.After, "a secret")
	}
	switch {
	case was == "":
		return after(is)
	case is == "":
		return before(was) + ", gone"
	}
	return before(was) + " → " + after(is)
}

// longest is the length from which on values are shortened by what both sides have in common.
const longest = 72

// focus shortens two long values to the place where they begin to differ, with some context.
func focus(before, after string) (string, string) {
	if max(len(before), len(after)) <= longest {
		return before, after
	}
	b, a := []rune(before), []rune(after)
	start := 0
	for start < min(len(a), len(b)) && a[start] == b[start] {
		start++
	}
	excerpt := func(text []rune) string {
		if len(text) <= longest {
			return string(text)
		}
		from := max(0, min(start-24, len(text)-longest))
		to := min(len(text), from+longest)
		return strings.Repeat("…", min(1, from)) + string(text[from:to]) + strings.Repeat("…", min(1, len(text)-to))
	}
	return excerpt(b), excerpt(a)
}
