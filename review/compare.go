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
	out := Stack{Name: stack, Kind: Changed}
	switch {
	case head == nil:
		text := "what it runs stays on the engine until `pulumi destroy -s " + stack + "` is run from a revision that has the file"
		return Stack{Name: stack, Kind: Removed, Severity: None, Items: []Item{{What: "stack", Name: stack, Kind: Removed, Text: text}}}
	case base == nil:
		base = &Snapshot{}
		var names []string
		for _, o := range head.Services {
			names = append(names, o.Name)
		}
		out.Kind, out.Items = Added, []Item{{What: "stack", Name: stack, Kind: Added, Text: strings.Join(names, ", "), Created: head.Containers()}}
	default:
		out.Items = differences(base.values(), head.values())
		for i := range out.Items {
			item := &out.Items[i]
			if item.Kind == Changed && slices.ContainsFunc(item.Changes, func(c Change) bool { return !c.InPlace }) {
				o, _ := head.Lookup(item.Name)
				item.Replaced, item.Waiting = without(o.Containers, item.Created), head.waiting(item.Name)
			}
		}
		out.Items = slices.Concat(out.Items, dataConsequences(base, head, out.items("service")), removedVolumes(base, head))
	}
	for _, text := range without(head.Faults, base.Faults) {
		out.Items = append(out.Items, faultItem(text))
	}
	for _, text := range without(base.Faults, head.Faults) {
		out.Items = append(out.Items, Item{What: "fixed", Text: text})
	}
	if len(out.Items) == 0 {
		out.Kind = Same
	}
	out.Severity = out.severity(head)
	return out
}

// differences returns an item for each part of a stack that changes: first those of is, in its order, then what is only in was.
func differences(was, is []value) (items []Item) {
	before, after := map[string]value{}, map[string]value{}
	parts := map[string]Kind{}
	for _, v := range was {
		before[v.id()], parts[v.part()] = v, Removed
	}
	for _, v := range is {
		after[v.id()] = v
		if kind := parts[v.part()]; kind == "" {
			parts[v.part()] = Added
		} else if kind == Removed {
			parts[v.part()] = Changed
		}
	}
	at := map[string]int{}
	for _, v := range slices.Concat(is, slices.DeleteFunc(slices.Clone(was), func(v value) bool { return after[v.id()] != value{} })) {
		i, known := at[v.part()]
		if !known {
			i, at[v.part()] = len(items), len(items)
			items = append(items, Item{What: v.what, Name: v.name, Kind: parts[v.part()]})
		}
		items[i].note(before[v.id()], after[v.id()])
	}
	return slices.DeleteFunc(items, func(i Item) bool { return len(i.Changes)+len(i.Created)+len(i.Deleted) == 0 })
}

// note adds the change of a value to the item. Of a new or deleted service, few fields need a mention.
func (i *Item) note(was, is value) {
	c := Change{Field: cmp.Or(is, was).field, Before: was.text, After: is.text, InPlace: was.inPlace || is.inPlace}
	sort, _, _ := strings.Cut(c.Field, " ")
	mentioned := i.What != "service" || i.Kind == Changed ||
		i.Kind == Added && c.Field != imageContent && slices.Contains([]string{"image", "port", "mount", "starts"}, sort)
	switch {
	case c.Before == c.After:
	case c.Field == "container" && c.Before == "":
		i.Created = append(i.Created, c.After)
	case c.Field == "container" && c.After == "":
		i.Deleted = append(i.Deleted, c.Before)
	case mentioned:
		if c.Before == settings.Hidden || c.After == settings.Hidden {
			c.Before, c.After = hidden(c.Before), hidden(c.After)
		} else if was.content != is.content && c.Before != "" && c.After != "" {
			c.Diff = udiff.Unified("before", "after", was.content, is.content)
		}
		i.Changes = append(i.Changes, c)
	}
}

// hidden hides a value that was a secret, or becomes one.
func hidden(value string) string {
	if value == "" || value == settings.Hidden {
		return value
	}
	return "[hidden]"
}

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
	return slices.DeleteFunc(slices.Clone(all), func(one string) bool { return slices.Contains(others, one) })
}

func union(a, b []string) []string { return slices.Concat(a, without(b, a)) }
