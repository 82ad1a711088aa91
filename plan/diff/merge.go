package diff

import (
	"fmt"
	"slices"
	"strings"
)

// merged is a thing that is the same in several stacks, said once.
type merged[T any] struct {
	what   T
	stacks []string
}

// merge says once what is the same in several stacks; key tells what is the same.
func merge[T any](stacks []Stack, of func(Stack) []T, key func(T) string) []merged[T] {
	var out []merged[T]
	at := map[string]int{}
	for _, s := range stacks {
		for _, one := range of(s) {
			k := key(one)
			i, known := at[k]
			if !known {
				i = len(out)
				at[k] = i
				out = append(out, merged[T]{what: one})
			}
			if !slices.Contains(out[i].stacks, s.Name) {
				out[i].stacks = append(out[i].stacks, s.Name)
			}
		}
	}
	return out
}

// mergeServices merges services whose changes read the same, and gathers what
// waits for them over the stacks. A file's change is the same when the same lines
// change, wherever in the file they stand in each stack.
func mergeServices(stacks []Stack) []merged[Service] {
	all := merge(stacks, func(s Stack) []Service { return s.Services }, serviceKey)
	for i := range all {
		key := serviceKey(all[i].what)
		for _, s := range stacks {
			for _, o := range s.Services {
				if serviceKey(o) != key {
					continue
				}
				for _, name := range o.Waiting {
					if !slices.Contains(all[i].what.Waiting, name) {
						all[i].what.Waiting = append(slices.Clone(all[i].what.Waiting), name)
					}
				}
			}
		}
	}
	return mergeRebuilt(all)
}

// mergeRebuilt makes one of all services that only get another build of one
// image: they are many, and there is nothing to say of each.
func mergeRebuilt(all []merged[Service]) []merged[Service] {
	var out []merged[Service]
	first := map[string]int{} // by what is built
	for _, m := range all {
		s := m.what
		if s.Kind != Changed || len(s.Changes) != 1 || s.Changes[0].Field != imageContent || len(s.Created)+len(s.Deleted) > 0 {
			out = append(out, m)
			continue
		}
		i, known := first[s.Changes[0].After]
		if !known {
			first[s.Changes[0].After] = len(out)
			out = append(out, m)
			continue
		}
		into := &out[i]
		into.what.Name += ", " + s.Name
		into.what.Replaced = slices.Concat(into.what.Replaced, without(s.Replaced, into.what.Replaced))
		into.what.Waiting = slices.Concat(into.what.Waiting, without(s.Waiting, into.what.Waiting))
		into.stacks = slices.Concat(into.stacks, without(m.stacks, into.stacks))
	}
	for i := range out {
		// What is replaced itself does not only wait.
		out[i].what.Waiting = without(out[i].what.Waiting, strings.Split(out[i].what.Name, ", "))
	}
	return out
}

func serviceKey(s Service) string {
	var b strings.Builder
	fmt.Fprintln(&b, s.Name, s.Kind, s.Created, s.Deleted, s.Replaced)
	for _, c := range s.Changes {
		if c.Diff != "" {
			fmt.Fprintln(&b, c.Field, changedLines(c.Diff))
			continue
		}
		fmt.Fprintln(&b, c)
	}
	return b.String()
}

// changedLines gives a unified diff's lines that came or went, without their place.
func changedLines(unified string) []string {
	var out []string
	for _, line := range strings.Split(unified, "\n")[2:] { // past the names of the files
		if strings.HasPrefix(line, "+") || strings.HasPrefix(line, "-") {
			out = append(out, line)
		}
	}
	return out
}

// changed gives the stacks in which something changes.
func (r Report) changed() []Stack {
	return slices.DeleteFunc(slices.Clone(r.Stacks), func(s Stack) bool { return s.Kind == Same })
}

// detailed gives the stacks whose changes are worth telling one by one: of a new
// one, everything is new.
func detailed(stacks []Stack) []Stack {
	return slices.DeleteFunc(slices.Clone(stacks), func(s Stack) bool { return s.Kind != Changed })
}

// serviceNames lists what a new stack runs.
func (s Stack) serviceNames() string {
	var names []string
	for _, o := range s.Services {
		names = append(names, o.Name)
	}
	return strings.Join(names, ", ")
}

// where says which stacks a thing is about; empty when only one was compared.
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
	changed := r.changed()
	if len(changed) == 0 {
		return "No change in " + r.subject() + "."
	}
	names := make([]string, len(changed))
	services, replaced, data := map[string]bool{}, map[string]bool{}, false
	for i, s := range changed {
		names[i] = s.Name
		data = data || len(s.Data) > 0
		for _, o := range s.Services {
			services[o.Name] = true
			for _, c := range o.Replaced {
				replaced[c] = true
			}
		}
	}
	text := fmt.Sprintf("%s and %s", count(len(services), "changed service"), count(len(replaced), "replaced container"))
	if where := r.where(names); where != "" {
		text += " " + where
	}
	if data {
		text += "; THIS TOUCHES DATA"
	}
	return text + "."
}

func (r Report) subject() string {
	if len(r.Stacks) == 1 {
		return "stack " + r.Stacks[0].Name
	}
	return count(len(r.Stacks), "stack")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// effect says what a change does to a service's containers.
func (s Service) effect() string {
	var parts []string
	for _, p := range []struct {
		verb  string
		names []string
	}{{"creates", s.Created}, {"deletes", s.Deleted}, {"replaces", s.Replaced}} {
		if len(p.names) > 0 {
			parts = append(parts, p.verb+" "+few(p.names, 4))
		}
	}
	if len(parts) == 0 {
		return "no container is touched"
	}
	return strings.Join(parts, "; ")
}

// telling leaves out what says nothing of a service that is new altogether.
func (s Service) telling() []Change {
	if s.Kind != Added {
		return s.Changes
	}
	var out []Change
	for _, c := range s.Changes {
		word, _, _ := strings.Cut(c.Field, " ")
		if slices.Contains([]string{"image", "port", "mount", "starts"}, word) {
			out = append(out, c)
		}
	}
	return out
}

// words give a change's two sides as people should read them.
func (c Change) words() (before, after string) {
	if c.Secret {
		switch {
		case c.Before == "":
			return "", "a secret"
		case c.After == "":
			return "a secret", ""
		}
		return "a secret", "another, or no longer a secret"
	}
	return focus(c.Before, c.After)
}

// longest is how long a value may be before what both sides share is cut away.
const longest = 72

// focus cuts two long values down to where they differ, with some of what is around.
func focus(before, after string) (string, string) {
	if len(before) <= longest && len(after) <= longest {
		return before, after
	}
	b, a := []rune(before), []rune(after)
	start := 0
	for start < len(b) && start < len(a) && b[start] == a[start] {
		start++
	}
	end := 0
	for end < len(b)-start && end < len(a)-start && b[len(b)-1-end] == a[len(a)-1-end] {
		end++
	}
	return excerpt(b, start, end), excerpt(a, start, end)
}

// excerpt cuts what lies more than a little away from the part between start and end.
func excerpt(text []rune, start, end int) string {
	const around = 24
	from, to := max(0, start-around), min(len(text), len(text)-end+around)
	to = min(to, from+2*around+longest)
	out := string(text[from:to])
	if from > 0 {
		out = "…" + out
	}
	if to < len(text) {
		out += "…"
	}
	return out
}
