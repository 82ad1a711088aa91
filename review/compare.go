package review

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"

	"trading-platform/plan"
	"trading-platform/settings"
)

// Snapshot is one stack at one revision.
type Snapshot struct {
	plan.Plan
	Faults []string // the faults of the stack at this revision, one line each
	// Edited lists, by folder that an image is built from, the files in it that
	// differ between the revisions. It is set on the head alone.
	Edited map[string][]string
}

// Read decodes a plan's JSON. The contents of the configuration files, which the JSON
// leaves out, come from files, as <service>/<path>.
func Read(text []byte, files fs.FS) (*Snapshot, error) {
	s := &Snapshot{}
	if err := json.Unmarshal(text, &s.Plan); err != nil {
		return nil, fmt.Errorf("reading the JSON of a plan: %w", err)
	}
	for _, o := range s.Services {
		for i := range o.Files {
			if o.Files[i].Secret {
				continue
			}
			content, err := fs.ReadFile(files, o.Name+o.Files[i].Path)
			if err != nil {
				return nil, err
			}
			o.Files[i].Content = string(content)
		}
	}
	return s, nil
}

// Compare returns what changes in a stack. A nil snapshot stands for a revision that
// has no such stack.
func Compare(stack string, base, head *Snapshot) Stack {
	if head == nil {
		text := "what it runs stays on the engine until `pulumi destroy -s " + stack + "` is run from a revision that has the file"
		return Stack{stack, Removed, []Item{{What: "stack", Name: stack, Kind: Removed, Text: text}}}
	}
	out := Stack{Name: stack, Kind: Changed}
	if base == nil {
		out.Kind, base = Added, &Snapshot{}
	}
	for _, p := range match(base.parts(), head.parts()) {
		item := compareParts(p.was, p.is)
		switch {
		case item.What == "settings" && out.Kind == Added, len(item.Changes)+len(item.Created)+len(item.Deleted) == 0:
			continue
		case item.What == "settings": // one by one, because stacks may share some of them
			for _, c := range item.Changes {
				out.Items = append(out.Items, Item{What: item.What, Kind: Changed, Changes: []Change{c}})
			}
			continue
		case item.Kind == Changed && slices.ContainsFunc(item.Changes, func(c Change) bool { return !c.InPlace }):
			o, _ := head.Lookup(item.Name)
			item.Replaced, item.Waiting = without(o.Containers, item.Created), head.waiting(item.Name)
		}
		out.Items = append(out.Items, item)
	}
	if out.Kind == Added {
		names := each(out.items("service"), func(i Item) string { return i.Name })
		out.Items = append(out.Items, Item{What: "stack", Name: stack, Kind: Added, Text: strings.Join(names, ", ")})
	} else {
		out.Items = append(out.Items, dataConsequences(base, head, out.items("service"))...)
	}
	fault := func(text string) Item { return Item{What: "fault", Text: text} }
	fixed := func(text string) Item { return Item{What: "fixed", Text: text} }
	out.Items = append(out.Items, each(without(head.Faults, base.Faults), fault)...)
	out.Items = append(out.Items, each(without(base.Faults, head.Faults), fixed)...)
	if len(out.Items) == 0 {
		out.Kind = Same
	}
	return out
}

// pair is one thing at both revisions; the zero value stands for one that does not exist.
type pair[T any] struct{ was, is T }

// match pairs what has the same ID: first everything in is, in its order, then what is only in was.
func match[T interface{ id() string }](was, is []T) (all []pair[T]) {
	at := map[string]int{}
	for _, t := range is {
		at[t.id()] = len(all)
		all = append(all, pair[T]{is: t})
	}
	for _, t := range was {
		if i, ok := at[t.id()]; ok {
			all[i].was = t
		} else {
			all = append(all, pair[T]{was: t})
		}
	}
	return all
}

// compareParts returns the changed values of a part, and of a service also the containers that come and go.
func compareParts(was, is part) Item {
	item := Item{What: cmp.Or(is.what, was.what), Name: cmp.Or(is.name, was.name), Kind: Changed}
	if was.what == "" {
		item.Kind = Added
	} else if is.what == "" {
		item.Kind = Removed
	}
	for _, v := range match(was.values, is.values) {
		c := Change{Field: cmp.Or(v.is.field, v.was.field), Before: v.was.text, After: v.is.text, InPlace: v.was.inPlace || v.is.inPlace}
		switch {
		case c.Before == c.After: // no change
		case c.Field == "container" && c.Before == "":
			item.Created = append(item.Created, c.After)
		case c.Field == "container" && c.After == "":
			item.Deleted = append(item.Deleted, c.Before)
		case item.What == "service" && item.Kind == Removed, item.What == "service" && item.Kind == Added && !toldOfNew(c.Field): // needs no mention
		case c.Before == settings.Hidden || c.After == settings.Hidden:
			c.Secret, c.Before, c.After = true, hidden(c.Before), hidden(c.After)
			item.Changes = append(item.Changes, c)
		default:
			if v.was.content != v.is.content && c.Before != "" && c.After != "" {
				c.Diff = udiff.Unified("before", "after", v.was.content, v.is.content)
			}
			item.Changes = append(item.Changes, c)
		}
	}
	return item
}

// toldOfNew reports whether a field of a new service is mentioned, although all of its fields are new.
func toldOfNew(field string) bool {
	word, _, _ := strings.Cut(field, " ")
	return field != imageContent && slices.Contains([]string{"image", "port", "mount", "starts"}, word)
}

// hidden replaces the value of a secret; a missing value stays missing.
func hidden(value string) string { return when(value != "", settings.Hidden) }

// waiting returns the services that start after the named one, directly or through
// others, in the order in which they start.
func (s *Snapshot) waiting(name string) []string {
	waits := map[string]bool{name: true}
	var names []string
	for _, o := range s.Services { // each comes after those that it waits for
		if slices.ContainsFunc(o.After, func(after string) bool { return waits[after] }) {
			waits[o.Name], names = true, append(names, o.Name)
		}
	}
	return names
}

// without returns what is in all and not in others.
func without(all, others []string) []string {
	var out []string
	for _, one := range all {
		if !slices.Contains(others, one) {
			out = append(out, one)
		}
	}
	return out
}
