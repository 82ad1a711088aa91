package review

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"trading-platform/settings"
)

// value is one value of a stack in the form that is compared.
type value struct {
	what, name string // the sort and name of the Item that a change of the value belongs to
	field, key string // the key tells apart the values of one field
	text       string // as a report words it; a value without a text is not set
	inPlace    bool
	content    string // of a file
}

func (v value) part() string { return v.what + " " + v.name }
func (v value) id() string   { return v.part() + "\x00" + v.field + "\x00" + v.key }

// What the change of a field does to a service's containers. Fields that are part of the
// container replace it; others are not part of it, or can be changed while it runs. This follows
// components.Service.
const replaces, inPlace = false, true

// imageContent is the field for the files that an image is built from.
const imageContent = "image content"

// values is the table of all fields, in the order in which a report shows them: what
// the change of a field does, its name, and the text of the value.
func (s *Snapshot) values() []value {
	var all []value
	what, name := "settings", ""
	addKeyed := func(inPlace bool, field, key, text string) {
		all = append(all, value{what: what, name: name, field: field, key: key, text: text, inPlace: inPlace})
	}
	add := func(inPlace bool, field, text string) { addKeyed(inPlace, field, "", text) }
	add(replaces, "profiles", strings.Join(s.Profiles, ", "))
	add(replaces, "namePrefix", s.NamePrefix)
	add(replaces, "provider", s.Provider)
	add(replaces, "orchestrator", s.Orchestrator)
	add(replaces, "retainVolumes", strconv.FormatBool(s.RetainVolumes))
	for _, text := range s.Notes {
		addKeyed(inPlace, "note", text, text)
	}
	for _, text := range s.Open {
		addKeyed(inPlace, "open", text, text)
	}
	networks := map[string]string{}
	for _, n := range s.Networks {
		what, name, networks[n.Key] = "network", n.Key, strings.TrimSpace(n.Name+" "+n.Subnet)
		add(replaces, "name", networks[n.Key])
	}
	for _, v := range s.Volumes {
		what, name = "volume", v.Key
		add(replaces, "name", v.Name+when(v.TakeOver, " (taken over)"))
	}
	for _, o := range s.Services {
		what, name = "service", o.Name
		add(replaces, "image", o.Image.String())
		if b := o.Image.Build; b != nil {
			edited := few(s.Edited[b.Context], 3)
			add(replaces, imageContent, when(edited != "", "built again: "+edited))
			for _, name := range slices.Sorted(maps.Keys(b.Args)) {
				add(replaces, "build argument "+name, b.Args[name])
			}
		}
		for i, name := range o.Containers {
			addKeyed(replaces, "container", strconv.Itoa(i), name)
		}
		add(replaces, "runs once", when(o.Once, "yes"))
		add(replaces, "runs on this host", when(o.Host != nil, "yes"))
		add(inPlace, "local", when(o.Local, "yes"))
		add(replaces, "command", strings.Join(o.Command, " "))
		add(replaces, "user", o.User)
		for _, e := range o.Env {
			text := cmp.Or(e.Value, "(empty)")
			if e.Secret {
				text = settings.Hidden
			}
			add(replaces, "env "+e.Name, text)
		}
		for _, p := range o.Ports { // named by the container's port, which stays when the host's port changes
			add(replaces, "port "+strconv.Itoa(p.Container), fmt.Sprintf("%s:%d", p.Address, p.Host))
		}
		for _, m := range o.Mounts {
			from := "folder " + m.Host
			if v := s.Volume(m.Volume); v != nil {
				from = "volume " + v.Name
			} else if m.Volume != "" {
				from = "volume " + m.Volume + ", which is not declared"
			}
			add(replaces, "mount "+m.Path, from+when(m.ReadOnly, ", read-only"))
		}
		for _, f := range o.Files {
			if f.Secret {
				add(replaces, "file "+f.Path, settings.Hidden)
			} else {
				add(replaces, "file "+f.Path, "sha256 "+f.SHA256()[:12])
				all[len(all)-1].content = f.Content
			}
		}
		for _, a := range o.Networks { // with the network's own name and subnet, because its containers are replaced together with a network
			add(replaces, "network "+a.Network, cmp.Or(networks[a.Network], a.Network)+when(a.Address != "", " at "+a.Address)+when(a.Alias != "", " as "+a.Alias))
		}
		add(replaces, "probe", strings.Join(o.Probe.Test, " "))
		add(replaces, "probe interval", o.Probe.Interval.String())
		add(replaces, "probe timeout", o.Probe.Timeout.String())
		add(replaces, "probe retries", strconv.Itoa(o.Probe.Retries))
		add(replaces, "probe start period", o.Probe.StartPeriod.String())
		add(replaces, "probe start interval", o.Probe.StartInterval.String())
		add(replaces, "capabilities", strings.Join(o.Capabilities, " "))
		add(replaces, "read-only image", strconv.FormatBool(o.ReadOnly))
		add(replaces, "folders in memory", strings.Join(o.Tmpfs, " "))
		add(replaces, "DNS options", strings.Join(o.DNSOptions, " "))
		add(replaces, "the engine's init", strconv.FormatBool(o.Init))
		add(inPlace, "memory limit in MB", when(o.Memory != 0, strconv.Itoa(o.Memory)))
		add(inPlace, "CPU shares", when(o.CPUShares != 0, strconv.Itoa(o.CPUShares)))
		for _, name := range o.After {
			addKeyed(replaces, "starts after", name, name) // in a label, for Compose
		}
		add(inPlace, "time to stop", o.Grace.String())
		add(inPlace, "nodes", o.Placement)
		add(inPlace, "health", o.Health)
		add(inPlace, "metrics", o.Metrics)
		add(inPlace, "profile", o.Profile)
		add(inPlace, "tier", string(o.Tier))
	}
	return all
}

func when(condition bool, text string) string {
	if condition {
		return text
	}
	return ""
}

// few lists the first n and says how many more there are.
func few(list []string, n int) string {
	if len(list) <= n {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:n], ", "), len(list)-n)
}
