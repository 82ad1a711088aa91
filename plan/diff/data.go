package diff

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"trading-platform/plan"
)

// dataConsequences gives what a change means for data, the gravest first.
func dataConsequences(base, head *Snapshot) []Consequence {
	var out []Consequence
	say := func(subject, what string, args ...any) {
		out = append(out, Consequence{Subject: subject, Text: fmt.Sprintf(what, args...)})
	}
	if base.RetainVolumes && !head.RetainVolumes {
		say("retainVolumes", "turned off: from the next up on, `pulumi destroy` and every volume that leaves the stack delete the data")
	}
	for _, b := range base.Volumes {
		volumeConsequences(say, base, head, b)
	}
	for _, h := range head.Services {
		if b, there := base.lookup(h.Name); there {
			imageConsequences(say, b, h)
			firstRunConsequences(say, b, h)
		}
	}
	return out
}

// volumeConsequences follows one volume of the base.
func volumeConsequences(say func(subject, what string, args ...any), base, head *Snapshot, b plan.Volume) {
	subject := "volume " + b.Name
	// Pulumi deletes by what the last up recorded, not by what the new revision says.
	fate := "its data stays on the engine"
	if !base.RetainVolumes {
		fate = "its data is DELETED by the next up, because retainVolumes is off"
	}
	was := base.mounters(b.Key)
	h, there := head.volume(b.Key)
	switch {
	case !there:
		say(subject, "leaves the stack (%s used it); %s", few(was, 3), fate)
		return
	case h.Name != b.Name && h.TakeOver:
		say(subject, "is left for the existing volume %s, whose data %s takes over; of the old one, %s", h.Name, few(was, 3), fate)
	case h.Name != b.Name:
		say(subject, "is left for %s, which starts empty unless it exists; of the old one, %s", h.Name, fate)
	}
	now := head.mounters(b.Key)
	if len(was) > 0 && len(now) == 0 {
		say(subject, "is mounted by no service any more (%s did); its data stays on the engine, out of use", few(was, 3))
	}
	for _, name := range was {
		if !slices.Contains(now, name) {
			if _, runs := head.lookup(name); runs && len(now) > 0 {
				say(subject, "is no longer mounted by %s (%s still mounts it)", name, few(now, 3))
			}
			continue
		}
		bs, _ := base.lookup(name)
		hs, _ := head.lookup(name)
		if before, after := paths(bs, b.Key), paths(hs, b.Key); before != after {
			say(subject, "is mounted elsewhere in %s, at %s instead of %s: what looks for its data at the old path finds none", name, after, before)
		}
	}
}

// paths gives where a service mounts a volume.
func paths(s service, volume string) string {
	var all []string
	for _, m := range s.Mounts {
		if m.Volume == volume {
			all = append(all, m.Path)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// tagVersion is the version at the start of an image's tag.
var tagVersion = regexp.MustCompile(`:v?([0-9]+)(?:\.([0-9]+))?[^/]*$`)

// imageVersion reads major and minor from an image's tag; -1 for what it does not tell.
func imageVersion(reference string) (major, minor int) {
	found := tagVersion.FindStringSubmatch(reference)
	if found == nil {
		return -1, -1
	}
	major, _ = strconv.Atoi(found[1])
	minor, err := strconv.Atoi(found[2])
	if err != nil {
		minor = -1
	}
	return major, minor
}

// imageConsequences tells of databases whose other version cannot read the data that is there.
func imageConsequences(say func(subject, what string, args ...any), b, h service) {
	before, after := b.Image.Reference, h.Image.Reference
	if before == after || h.Name != "postgres" && h.Name != "redis" {
		return
	}
	was, wasMinor := imageVersion(before)
	is, isMinor := imageVersion(after)
	switch {
	case was < 0 || is < 0:
		say(h.Name, "another image, %s → %s, whose tags do not tell both versions: make sure that it can read the data that is there", before, after)
	case h.Name == "postgres" && was != is:
		say(h.Name, "PostgreSQL %d → %d: version %d cannot read the data of version %d. An up of a stack with data is refused until the data is moved: platform upgrade", was, is, is, was)
	case h.Name == "redis" && (is < was || is == was && isMinor >= 0 && wasMinor > isMinor):
		say(h.Name, "%s → %s is a step back: an older Redis may not read the data of a newer one, and an up is refused then", before, after)
	}
}

// firstRun are the variables that a database's image reads when its volume is empty, and never again.
var firstRun = []string{"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "PGDATA"}

func firstRunConsequences(say func(subject, what string, args ...any), b, h service) {
	if h.Name != "postgres" {
		return
	}
	var c changes
	c.env(b.Env, h.Env)
	for _, change := range c {
		if name := strings.TrimPrefix(change.Field, "env "); slices.Contains(firstRun, name) {
			say(h.Name, "%s changes, and counts for an empty volume only: a database that exists keeps what it was made with, and services that use the new value cannot log in", name)
		}
	}
}
