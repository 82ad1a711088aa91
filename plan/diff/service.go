package diff

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aymanbagabas/go-udiff"

	"trading-platform/plan"
)

// changes gathers the properties that differ.
type changes []Change

func (c *changes) add(field, before, after string) {
	if before != after {
		*c = append(*c, Change{Field: field, Before: before, After: after})
	}
}

// inPlace adds a property that the container does not carry, or that changes on a running one.
func (c *changes) inPlace(field, before, after string) {
	if before != after {
		*c = append(*c, Change{Field: field, Before: before, After: after, InPlace: true})
	}
}

// lists adds each value that came or went.
func (c *changes) lists(field string, before, after []string) {
	for _, gone := range without(before, after) {
		c.inPlace(field, gone, "")
	}
	for _, came := range without(after, before) {
		c.inPlace(field, "", came)
	}
}

// pairs adds what came, went or differs between two maps given as ordered pairs.
func (c *changes) pairs(field string, before, after [][2]string) {
	was := map[string]string{}
	for _, p := range before {
		was[p[0]] = p[1]
	}
	is := map[string]bool{}
	for _, p := range after {
		c.add(field+" "+p[0], was[p[0]], p[1])
		is[p[0]] = true
	}
	for _, p := range before {
		if !is[p[0]] {
			c.add(field+" "+p[0], p[1], "")
		}
	}
}

// serviceChanges compares what a service's containers are made of. Which of it
// replaces them follows components.Service: all that the container carries does;
// edges and the time to stop do not.
func serviceChanges(base, head *Snapshot, b, h service) []Change {
	var c changes
	c.add("image", imageName(b.Image), imageName(h.Image))
	c.sources(base, head, b, h)
	for i := range min(len(b.Containers), len(h.Containers)) {
		c.add("container", b.Containers[i], h.Containers[i])
	}
	c.add("command", strings.Join(b.Command, " "), strings.Join(h.Command, " "))
	c.add("user", b.User, h.User)
	c.env(b.Env, h.Env)
	c.pairs("port", portPairs(b.Ports), portPairs(h.Ports))
	c.pairs("mount", mountPairs(base, b.Mounts), mountPairs(head, h.Mounts))
	c.files(base, head, b, h)
	c.pairs("network", networkPairs(base, b.Networks), networkPairs(head, h.Networks))
	c.probe(b.Probe, h.Probe)
	c.add("capabilities", strings.Join(b.Capabilities, " "), strings.Join(h.Capabilities, " "))
	c.add("read-only image", strconv.FormatBool(b.ReadOnly), strconv.FormatBool(h.ReadOnly))
	c.add("folders in memory", strings.Join(b.Tmpfs, " "), strings.Join(h.Tmpfs, " "))
	c.inPlace("memory limit in MB", number(b.Memory), number(h.Memory))
	c.lists("starts after", b.After, h.After)
	c.inPlace("time to stop", b.Grace, h.Grace)
	c.inPlace("health", b.Health, h.Health)
	c.inPlace("metrics", b.Metrics, h.Metrics)
	c.inPlace("profile", b.Profile, h.Profile)
	c.inPlace("tier", b.Tier, h.Tier)
	return c
}

// number spells a number; empty for none.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// imageName names an image; empty for none.
func imageName(i plan.Image) string {
	if i == (plan.Image{}) {
		return ""
	}
	return i.String()
}

// imageContent is the field of a change to what an image is built from.
const imageContent = "image content"

// sources adds the files that an image is built from, when the image keeps its name.
func (c *changes) sources(base, head *Snapshot, b, h service) {
	if h.Image.Build == nil || b.Image.Build == nil || h.Image.Build.Context != b.Image.Build.Context {
		return
	}
	context := h.Image.Build.Context
	c.pairs("build argument", argPairs(b.Image.Build.Args), argPairs(h.Image.Build.Args))
	was, is := base.Sources[context], head.Sources[context]
	if was == nil || is == nil {
		return
	}
	differ := map[string]bool{}
	for path, sum := range is {
		differ[path] = was[path] != sum
	}
	for path := range was {
		if _, still := is[path]; !still {
			differ[path] = true
		}
	}
	maps.DeleteFunc(differ, func(_ string, differs bool) bool { return !differs })
	if len(differ) > 0 {
		*c = append(*c, Change{Field: imageContent, After: "built anew: " + few(slices.Sorted(maps.Keys(differ)), 3)})
	}
}

func argPairs(args map[string]string) [][2]string {
	var pairs [][2]string
	for _, name := range slices.Sorted(maps.Keys(args)) {
		pairs = append(pairs, [2]string{name, args[name]})
	}
	return pairs
}

// few lists the first n and says how many more there are.
func few(list []string, n int) string {
	if len(list) <= n {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:n], ", "), len(list)-n)
}

// env compares variables by name: their order means nothing to a container. What
// is a secret on either side shows no value on both.
func (c *changes) env(before, after []plan.Env) {
	was := map[string]plan.Env{}
	for _, e := range before {
		was[e.Name] = e
	}
	note := func(name string, b, h plan.Env, inBefore, inAfter bool) {
		change := Change{Field: "env " + name}
		if inBefore {
			change.Before = shown(b)
		}
		if inAfter {
			change.After = shown(h)
		}
		if b.Secret || h.Secret {
			change.Secret, change.Before, change.After = true, "", ""
			if inBefore {
				change.Before = hidden
			}
			if inAfter {
				change.After = hidden
			}
		}
		*c = append(*c, change)
	}
	is := map[string]bool{}
	for _, h := range after {
		is[h.Name] = true
		if b, there := was[h.Name]; !there || b != h {
			note(h.Name, b, h, there, true)
		}
	}
	for _, b := range before {
		if !is[b.Name] {
			note(b.Name, b, plan.Env{}, true, false)
		}
	}
}

// hidden stands for the value of a secret; empty for a variable that is set to nothing.
const (
	hidden = "[secret]"
	empty  = "(empty)"
)

func shown(e plan.Env) string {
	if e.Value == "" {
		return empty
	}
	return e.Value
}

func portPairs(ports []plan.Port) [][2]string {
	var pairs [][2]string
	for _, p := range ports {
		// By the container's end: that is what stays when the host's end moves.
		pairs = append(pairs, [2]string{strconv.Itoa(p.Container), fmt.Sprintf("%s:%d", p.Address, p.Host)})
	}
	return pairs
}

func mountPairs(s *Snapshot, mounts []plan.Mount) [][2]string {
	var pairs [][2]string
	for _, m := range mounts {
		from := "folder " + m.Host
		if m.Volume != "" {
			v, _ := s.volume(m.Volume)
			from = "volume " + v.Name
		}
		if m.ReadOnly {
			from += ", read-only"
		}
		pairs = append(pairs, [2]string{m.Path, from})
	}
	return pairs
}

// networkPairs has the network's own name and subnet in it: a network that is made
// anew takes its containers with it.
func networkPairs(s *Snapshot, attachments []plan.Attachment) [][2]string {
	var pairs [][2]string
	for _, a := range attachments {
		text := a.Network
		for _, n := range s.Networks {
			if n.Key == a.Network {
				text = strings.TrimSpace(n.Name + " " + n.Subnet)
			}
		}
		if a.Address != "" {
			text += " at " + a.Address
		}
		if a.Alias != "" {
			text += " as " + a.Alias
		}
		pairs = append(pairs, [2]string{a.Network, text})
	}
	return pairs
}

func (c *changes) probe(b, h probe) {
	c.add("probe", strings.Join(b.Test, " "), strings.Join(h.Test, " "))
	c.add("probe interval", b.Interval, h.Interval)
	c.add("probe timeout", b.Timeout, h.Timeout)
	if b.Retries != h.Retries {
		c.add("probe retries", strconv.Itoa(b.Retries), strconv.Itoa(h.Retries))
	}
	c.add("probe start period", b.StartPeriod, h.StartPeriod)
	c.add("probe start interval", b.StartInterval, h.StartInterval)
}

// files compares the configuration files, with a unified diff where both contents are known.
func (c *changes) files(base, head *Snapshot, b, h service) {
	was := map[string]file{}
	for _, f := range b.Files {
		was[f.Path] = f
	}
	is := map[string]bool{}
	for _, f := range h.Files {
		is[f.Path] = true
		old, there := was[f.Path]
		if there && old == f {
			continue
		}
		change := Change{Field: "file " + f.Path, After: fingerprint(f), Secret: f.Secret || old.Secret}
		if there {
			change.Before = fingerprint(old)
		}
		before, knowBefore := base.Files[b.Name][f.Path]
		after, knowAfter := head.Files[h.Name][f.Path]
		if there && knowBefore && knowAfter && !change.Secret {
			change.Diff = unified(before, after)
		}
		*c = append(*c, change)
	}
	for _, f := range b.Files {
		if !is[f.Path] {
			*c = append(*c, Change{Field: "file " + f.Path, Before: fingerprint(f), Secret: f.Secret})
		}
	}
}

// unified gives a unified diff of whole lines.
func unified(before, after string) string {
	text, err := udiff.ToUnified("before", "after", before, udiff.Lines(before, after), udiff.DefaultContextLines)
	if err != nil {
		return "" // of edits that do not fit the text, which these do; the hashes tell that it differs
	}
	return text
}

func fingerprint(f file) string {
	if f.Secret || len(f.SHA256) < 12 {
		return hidden
	}
	return "sha256 " + f.SHA256[:12]
}
