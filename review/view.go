package review

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// view is a report in the order in which it is read, without repetitions.
type view struct {
	Base, Head, Summary, Unplanned string
	Data, Faults, Fixed, Parts     []said
}

// said is an item with all the stacks that it applies to.
type said struct {
	Item
	Stacks []string
}

func (r Report) view() view {
	v := view{
		Base: r.Base, Head: r.Head, Summary: r.summary(), Unplanned: few(r.Unplanned, 8),
		Data: r.merge("data"), Faults: r.merge("fault"), Fixed: r.merge("fixed"), Parts: r.merge("stack"),
	}
	for i, s := range r.merge("settings") {
		if last := len(v.Parts) - 1; i > 0 && slices.Equal(v.Parts[last].Stacks, s.Stacks) { // under one title
			v.Parts[last].Changes = append(v.Parts[last].Changes, s.Changes...)
		} else {
			v.Parts = append(v.Parts, s)
		}
	}
	services := r.merge("service")
	for i := range services {
		services[i].finish()
	}
	v.Parts = slices.Concat(v.Parts, r.merge("network"), r.merge("volume"), services)
	return v
}

// merge returns the items of one sort, each once for all the stacks in which it is the same.
func (r Report) merge(what string) (all []said) {
	at := map[string]int{}
	for _, stack := range r.changed() {
		if stack.Kind == Added && slices.Contains([]string{"network", "volume", "service"}, what) {
			continue // everything in a new stack is new
		}
		for _, item := range stack.items(what) {
			key := item.key()
			if _, known := at[key]; !known {
				at[key], all = len(all), append(all, said{Item: item})
			}
			one := &all[at[key]]
			if !slices.Contains(strings.Split(one.Name, ", "), item.Name) {
				one.Name += ", " + item.Name
			}
			one.Stacks = union(one.Stacks, []string{stack.Name})
			one.Replaced, one.Waiting = union(one.Replaced, item.Replaced), union(one.Waiting, item.Waiting)
		}
	}
	return all
}

func union(a, b []string) []string { return slices.Concat(a, without(b, a)) }

// changedLine is a line of a unified diff that came or went.
var changedLine = regexp.MustCompile(`(?m)^[+-].*$`)

// key is equal for equal changes. A file's change is the same when the same lines change,
// wherever in the file they are. Services that only get another build of one image
// are listed together: they have one key.
func (s Item) key() string {
	if s.Kind == Changed && len(s.Changes) == 1 && s.Changes[0].Field == imageContent && len(s.Created)+len(s.Deleted) == 0 {
		return s.Changes[0].After
	}
	key := fmt.Sprint(s.Name, s.Kind, s.Text, s.Created, s.Deleted, s.Replaced)
	for _, c := range s.Changes {
		if c.Diff != "" {
			c = Change{Field: c.Field, Diff: strings.Join(changedLine.FindAllString(c.Diff, -1), "\n")}
		}
		key += fmt.Sprintln(c)
	}
	return key
}

// finish says what a change does to a service's containers. What is replaced waits as
// well, and is not mentioned.
func (s *said) finish() {
	s.Waiting = without(s.Waiting, strings.Split(s.Name, ", "))
	for i, names := range [][]string{s.Created, s.Deleted, s.Replaced} {
		if len(names) > 0 {
			s.Text += "; " + []string{"creates ", "deletes ", "replaces "}[i] + few(names, 4)
		}
	}
	s.Text = strings.TrimPrefix(cmp.Or(s.Text, "no container is touched"), "; ")
}

// title returns a sign for what happened, and the name in a style.
func (s said) title(minus string, quote func(string) string) string {
	title := map[Kind]string{Added: "+", Removed: minus, Changed: "~"}[s.Kind]
	if s.What != "service" {
		title += " " + s.What
	}
	if s.Name != "" {
		title += " " + quote(s.Name)
	}
	return title
}

// where says which stacks an item is about; it is empty when only one was compared.
func (r Report) where(stacks []string) string {
	switch {
	case len(r.Stacks) == 1:
		return ""
	case len(stacks) == len(r.Stacks):
		return "in every stack"
	}
	return "in " + strings.Join(stacks, ", ")
}

// summary counts what the report is about, in one line.
func (r Report) summary() string {
	var names, services, replaced []string
	for _, s := range r.changed() {
		names = append(names, s.Name)
		for _, o := range s.items("service") {
			services, replaced = union(services, []string{o.Name}), union(replaced, o.Replaced)
		}
	}
	switch {
	case len(names) == 0 && len(r.Stacks) == 1:
		return "No change in stack " + r.Stacks[0].Name + "."
	case len(names) == 0:
		return "No change in " + count(len(r.Stacks), "stack") + "."
	}
	text := count(len(services), "changed service") + " and " + count(len(replaced), "replaced container")
	if where := r.where(names); where != "" {
		text += " " + where
	}
	if r.ExitCode() == 3 {
		text += "; THIS TOUCHES DATA"
	}
	return text + "."
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// each returns a value for each one of a list.
func each[T, V any](list []T, value func(T) V) (out []V) {
	for _, one := range list {
		out = append(out, value(one))
	}
	return out
}
