package review

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"trading-platform/plan"
)

// dataConsequences returns what a change means for data: of volumes and where they are
// mounted, and of the databases' images and variables.
func dataConsequences(base, head *Snapshot, services []Item) (out []Item) {
	say := func(subject, what string, args ...any) {
		out = append(out, Item{What: "data", Name: subject, Text: fmt.Sprintf(what, args...)})
	}
	if base.RetainVolumes && !head.RetainVolumes {
		say("retainVolumes", "turned off: from the next up on, `pulumi destroy` and every volume that leaves the stack delete the data")
	}
	// Pulumi decides by what the last up recorded, and not by the new revision.
	fate := "its data stays on the engine"
	if !base.RetainVolumes {
		fate = "its data is DELETED by the next up, because retainVolumes is off"
	}
	for _, b := range base.Volumes {
		volume := "volume " + b.Name
		was, wasAt := base.mounts(b.Key)
		now, nowAt := head.mounts(b.Key)
		switch h := head.Volume(b.Key); {
		case h == nil:
			say(volume, "leaves the stack (%s used it); %s", few(was, 3), fate)
			continue
		case h.Name != b.Name && h.TakeOver:
			say(volume, "is left for the existing volume %s, whose data %s takes over; of the old one, %s", h.Name, few(was, 3), fate)
		case h.Name != b.Name:
			say(volume, "is left for %s, which starts empty unless it exists; of the old one, %s", h.Name, fate)
		}
		if len(was) > 0 && len(now) == 0 {
			say(volume, "is mounted by no service any more (%s did); its data stays on the engine, out of use", few(was, 3))
			continue
		}
		for _, name := range was {
			if _, runs := head.Lookup(name); runs && nowAt[name] == "" {
				say(volume, "is no longer mounted by %s (%s still mounts it)", name, few(now, 3))
			} else if runs && nowAt[name] != wasAt[name] {
				say(volume, "is mounted elsewhere in %s, at %s instead of %s: what looks for its data at the old path finds none", name, nowAt[name], wasAt[name])
			}
		}
	}
	for _, s := range services {
		for _, c := range s.Changes {
			text := ""
			switch {
			case s.Kind == Changed && c.Field == "image":
				text = unreadable(s.Name, c.Before, c.After)
			case s.Kind == Changed && s.Name == "postgres":
				text = onlyOnEmpty[c.Field]
			}
			if text != "" {
				say(s.Name, "%s", text)
			}
		}
	}
	return out
}

// mounts returns the services that mount a volume, in the order in which they start, and where they do.
func (s *Snapshot) mounts(volume string) (services []string, at map[string]string) {
	at = map[string]string{}
	for _, o := range s.Services {
		if i := slices.IndexFunc(o.Mounts, func(m plan.Mount) bool { return m.Volume == volume }); i >= 0 {
			services, at[o.Name] = append(services, o.Name), o.Mounts[i].Path
		}
	}
	return services, at
}

// imageVersion reads major and minor from an image's tag; -1 stands for a part that the tag does not have.
func imageVersion(reference string) (major, minor int) {
	major, minor = -1, -1
	name, _, _ := strings.Cut(path.Base(reference), "@")
	_, tag, _ := strings.Cut(name, ":")
	_, _ = fmt.Sscanf(strings.TrimPrefix(tag, "v"), "%d.%d", &major, &minor)
	return major, minor
}

// onlyOnEmpty are the variables that PostgreSQL's image reads only for an empty volume,
// and what another value does to an existing database. An up sets the password.
var onlyOnEmpty = map[string]string{
	"env POSTGRES_USER": "POSTGRES_USER changes, and counts for an empty volume only: a database that exists has no such role, and an up fails until the old one is set again",
	"env POSTGRES_DB":   "POSTGRES_DB changes: the next up adds an empty database of that name, and the data stays in the old one",
	"env PGDATA":        "PGDATA changes: PostgreSQL starts on an empty folder there, and the data stays in the old one",
}

// unreadable warns of a database whose new image cannot read the data that exists.
func unreadable(service, before, after string) string {
	was, wasMinor := imageVersion(before)
	is, isMinor := imageVersion(after)
	switch {
	case service != "postgres" && service != "redis":
		return ""
	case was < 0 || is < 0:
		return fmt.Sprintf("another image, %s → %s, whose tags do not tell both versions: make sure that it can read the data that is there", before, after)
	case service == "postgres" && was != is:
		return fmt.Sprintf("PostgreSQL %d → %d: version %d cannot read the data of version %d. An up of a stack with data is refused until the data is moved: platform upgrade", was, is, is, was)
	case service == "redis" && (is < was || is == was && isMinor >= 0 && wasMinor > isMinor):
		return fmt.Sprintf("%s → %s is a step back: an older Redis may not read the data of a newer one, and an up is refused then", before, after)
	}
	return ""
}
