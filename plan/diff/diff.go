package diff

import (
	"slices"
	"strconv"
	"strings"

	"trading-platform/plan"
)

// Report is what changes between two revisions, in all the stacks that were compared.
type Report struct {
	Base   string  `json:"base"`
	Head   string  `json:"head"`
	Stacks []Stack `json:"stacks"`
	// Unplanned lists changed files whose effect no plan shows, such as how a
	// container is registered with Pulumi: a preview has to.
	Unplanned []string `json:"unplanned,omitempty"`
}

// Stack is what changes in one stack.
type Stack struct {
	Name string `json:"name"`
	// Kind is Added or Removed for a stack whose file is new or gone, else Changed or Same.
	Kind     Kind          `json:"kind"`
	Data     []Consequence `json:"data,omitempty"` // what the change means for data
	Settings []Change      `json:"settings,omitempty"`
	Networks []Item        `json:"networks,omitempty"`
	Volumes  []Item        `json:"volumes,omitempty"`
	Services []Service     `json:"services,omitempty"`
	// Faults are what is newly wrong with the stack, such as a required variable
	// without a value; Mended is what no longer is.
	Faults []string `json:"faults,omitempty"`
	Mended []string `json:"mended,omitempty"`
}

// Kind says what became of a thing.
type Kind string

// The kinds.
const (
	Same    Kind = "same"
	Added   Kind = "added"
	Removed Kind = "removed"
	Changed Kind = "changed"
)

// Consequence is what a change means for data.
type Consequence struct {
	Subject string `json:"subject"` // the volume or service
	Text    string `json:"text"`
}

// Change is one property with what it was and what it will be. Neither is given
// for a secret.
type Change struct {
	Field  string `json:"field"`
	Before string `json:"before,omitempty"` // empty: it was not there
	After  string `json:"after,omitempty"`  // empty: it is gone
	Secret bool   `json:"secret,omitempty"`
	Diff   string `json:"diff,omitempty"` // of a file, in unified form
	// InPlace changes leave the container as it is.
	InPlace bool `json:"inPlace,omitempty"`
}

// Item is a network or volume.
type Item struct {
	Name    string   `json:"name"` // in the catalog
	Kind    Kind     `json:"kind"`
	Changes []Change `json:"changes,omitempty"`
}

// Service is what changes in a service, and what that does to its containers.
type Service struct {
	Name     string   `json:"name"`
	Kind     Kind     `json:"kind"`
	Changes  []Change `json:"changes,omitempty"`
	Created  []string `json:"created,omitempty"`  // containers
	Deleted  []string `json:"deleted,omitempty"`  // containers
	Replaced []string `json:"replaced,omitempty"` // containers that are stopped and made anew
	// Waiting are the services that start after a replaced one, straight or through
	// others. They are not restarted; what starts among them waits.
	Waiting []string `json:"waiting,omitempty"`
}

// ExitCode is 0 for no change, 2 for changes, 3 for changes that touch data.
func (r Report) ExitCode() int {
	code := 0
	for _, s := range r.Stacks {
		switch {
		case len(s.Data) > 0:
			return 3
		case s.Kind != Same:
			code = 2
		}
	}
	return code
}

// Compare gives what changes in a stack. A nil snapshot stands for a revision
// that has no such stack.
func Compare(stack string, base, head *Snapshot) Stack {
	out := Stack{Name: stack, Kind: Changed}
	switch {
	case base == nil:
		out.Kind = Added
		base = &Snapshot{RetainVolumes: true}
	case head == nil:
		// Nothing happens to a stack whose file is gone: it stays as it is.
		out.Kind = Removed
		return out
	}
	out.Settings = settingsChanges(base, head, out.Kind)
	out.Networks = items(base.Networks, head.Networks, func(n plan.Network) (string, string) {
		return n.Key, strings.TrimSpace(n.Name + " " + n.Subnet)
	})
	out.Volumes = items(base.Volumes, head.Volumes, func(v plan.Volume) (string, string) {
		if v.TakeOver {
			return v.Key, v.Name + " (taken over)"
		}
		return v.Key, v.Name
	})
	out.Services = services(base, head)
	if out.Kind == Changed {
		out.Data = dataConsequences(base, head)
	}
	out.Faults = without(head.Faults, base.Faults)
	out.Mended = without(base.Faults, head.Faults)
	if out.Kind == Changed && len(out.Settings)+len(out.Networks)+len(out.Volumes)+len(out.Services)+len(out.Data)+len(out.Faults)+len(out.Mended) == 0 {
		out.Kind = Same
	}
	return out
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

func settingsChanges(base, head *Snapshot, kind Kind) []Change {
	if kind == Added {
		return nil
	}
	var c changes
	c.add("profiles", strings.Join(base.Profiles, ", "), strings.Join(head.Profiles, ", "))
	c.add("namePrefix", base.NamePrefix, head.NamePrefix)
	c.add("provider", base.Provider, head.Provider)
	c.add("retainVolumes", strconv.FormatBool(base.RetainVolumes), strconv.FormatBool(head.RetainVolumes))
	c.lists("note", base.Notes, head.Notes)
	return c
}

// items compares things by their key; describe gives the key and all that is to compare.
func items[T any](base, head []T, describe func(T) (key, text string)) []Item {
	var out []Item
	before := map[string]string{}
	for _, b := range base {
		key, text := describe(b)
		before[key] = text
	}
	for _, h := range head {
		key, text := describe(h)
		was, there := before[key]
		switch {
		case !there:
			out = append(out, Item{Name: key, Kind: Added, Changes: []Change{{Field: "name", After: text}}})
		case was != text:
			out = append(out, Item{Name: key, Kind: Changed, Changes: []Change{{Field: "name", Before: was, After: text}}})
		}
		delete(before, key)
	}
	for _, b := range base {
		if key, text := describe(b); before[key] != "" {
			out = append(out, Item{Name: key, Kind: Removed, Changes: []Change{{Field: "name", Before: text}}})
		}
	}
	return out
}

func services(base, head *Snapshot) []Service {
	var out []Service
	for _, h := range head.Services {
		b, there := base.lookup(h.Name)
		if !there {
			out = append(out, Service{Name: h.Name, Kind: Added, Changes: serviceChanges(base, head, service{}, h), Created: h.Containers})
			continue
		}
		s := Service{Name: h.Name, Kind: Changed, Changes: serviceChanges(base, head, b, h)}
		both := min(len(b.Containers), len(h.Containers))
		s.Deleted, s.Created = nonEmpty(b.Containers[both:]), nonEmpty(h.Containers[both:])
		if slices.ContainsFunc(s.Changes, func(c Change) bool { return !c.InPlace }) {
			s.Replaced = h.Containers[:both]
			s.Waiting = head.waiting(h.Name)
		}
		if len(s.Changes)+len(s.Deleted)+len(s.Created) > 0 {
			out = append(out, s)
		}
	}
	for _, b := range base.Services {
		if _, there := head.lookup(b.Name); !there {
			out = append(out, Service{Name: b.Name, Kind: Removed, Deleted: b.Containers})
		}
	}
	return out
}

func nonEmpty(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}
