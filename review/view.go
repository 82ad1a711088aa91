package review

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// said is an item with all the stacks that it applies to.
type said struct {
	Item
	Stacks []string
}

// merge returns the items of some sorts, in the order of these, each once for all the stacks in which it is the same.
func (r Report) merge(sorts ...string) (all []said) {
	at := map[string]int{}
	for _, sort := range sorts {
		for _, stack := range r.Stacks {
			for _, item := range stack.items(sort) {
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
	}
	for i := range all {
		if all[i].What == "service" {
			all[i].finish()
		}
	}
	return all
}

// changedLine is a line of a unified diff that came or went.
var changedLine = regexp.MustCompile(`(?m)^[+-].*$`)

// key is equal for equal changes. A file's change is the same when the same lines change,
// wherever in the file they are. Services that only get another build of one image
// are listed together: they have one key.
func (i Item) key() string {
	if i.Kind == Changed && len(i.Changes) == 1 && i.Changes[0].Field == imageContent && len(i.Created)+len(i.Deleted) == 0 {
		return i.Changes[0].After
	}
	key := fmt.Sprint(i.What, i.Name, i.Kind, i.Text, i.Created, i.Deleted, i.Replaced)
	for _, c := range i.Changes {
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
	for _, s := range r.Changed() {
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
