package review

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/r3labs/diff/v3"

	"trading-platform/plan"
	"trading-platform/settings"
)

// Snapshot is one stack at one revision.
type Snapshot struct {
	plan.Plan
	Faults []string // what the revision finds wrong with the stack, one line each
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

// Compare gives what changes in a stack. A nil snapshot stands for a revision that
// has no such stack.
func Compare(stack string, base, head *Snapshot) (Stack, error) {
	out := Stack{Name: stack, Kind: Changed}
	switch {
	case base == nil:
		out.Kind, base = Added, &Snapshot{}
	case head == nil:
		out.Kind = Removed // nothing happens to it: what it runs stays as it is
		return out, nil
	}
	was, is := base.values(), head.values()
	// From head to base, because the library keeps the order of what it is given first.
	log, err := diff.Diff(is, was)
	if err != nil {
		return out, err
	}
	for _, c := range log {
		if c.Path[1] == "text" {
			out.add(c.Path[0], was, is)
		}
	}
	for i := range out.Services {
		s := &out.Services[i]
		if s.Kind == Changed && slices.ContainsFunc(s.Changes, func(c Change) bool { return !c.InPlace }) {
			o, _ := head.Lookup(s.Name)
			s.Replaced, s.Waiting = without(o.Containers, s.Created), head.waiting(s.Name)
		}
	}
	out.Faults, out.Fixed = without(head.Faults, base.Faults), without(base.Faults, head.Faults)
	if out.Kind == Added {
		out.Settings = nil
		return out, nil
	}
	out.Data = dataConsequences(base, head, out.Services)
	if len(out.Settings)+len(out.Networks)+len(out.Volumes)+len(out.Services)+len(out.Data)+len(out.Faults)+len(out.Fixed) == 0 {
		out.Kind = Same
	}
	return out, nil
}

// add adds one changed value to the network, volume or service that it belongs to.
func (s *Stack) add(path string, was, is []value) {
	find := func(all []value) (v value) {
		if i := slices.IndexFunc(all, func(v value) bool { return v.Path == path }); i >= 0 {
			v = all[i]
		}
		return v
	}
	has := func(all []value, thing string) bool {
		return slices.ContainsFunc(all, func(v value) bool { return v.thing == thing })
	}
	b, h := find(was), find(is)
	v := h
	if h.Path == "" {
		v = b
	}
	c := Change{Field: v.field, Before: b.Text, After: h.Text, InPlace: v.inPlace}
	if c.Before == settings.Hidden || c.After == settings.Hidden {
		c.Secret, c.Before, c.After = true, hidden(c.Before), hidden(c.After)
	} else if b.content != h.content && b.Text != "" && h.Text != "" {
		c.Diff = udiff.Unified("before", "after", b.content, h.content)
	}
	what, name, _ := strings.Cut(v.thing, " ")
	list := map[string]*[]Item{"network": &s.Networks, "volume": &s.Volumes, "service": &s.Services}[what]
	if list == nil {
		s.Settings = append(s.Settings, c)
		return
	}
	i := slices.IndexFunc(*list, func(i Item) bool { return i.Name == name })
	if i < 0 {
		i = len(*list)
		*list = append(*list, Item{Name: name, Kind: Changed})
		if !has(was, v.thing) {
			(*list)[i].Kind = Added
		} else if !has(is, v.thing) {
			(*list)[i].Kind = Removed
		}
	}
	switch item := &(*list)[i]; {
	case c.Field == "container" && c.Before == "":
		item.Created = append(item.Created, c.After)
	case c.Field == "container" && c.After == "":
		item.Deleted = append(item.Deleted, c.Before)
	case what == "service" && item.Kind == Removed, c.Field == imageContent && item.Kind == Added: // goes without saying
	default:
		item.Changes = append(item.Changes, c)
	}
}

// hidden stands for the value of a secret; a value that is not there stays so.
func hidden(value string) string {
	if value == "" {
		return ""
	}
	return settings.Hidden
}

// waiting gives the services that start after the named one, directly or through
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

// without gives what is in all and not in others.
func without(all, others []string) []string {
	var out []string
	for _, one := range all {
		if !slices.Contains(others, one) {
			out = append(out, one)
		}
	}
	return out
}
