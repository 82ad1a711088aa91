package backup

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/moby/moby/client"

	"trading-platform/fault"
	"trading-platform/plan"
)

// The labels of a snapshot's volumes. Those by which a stack knows its volumes are not among them: a snapshot outlives its stack.
const (
	snapshotLabel = "trading-platform.snapshot"          // its name
	keyLabel      = "trading-platform.snapshot.volume"   // the copied volume's name in the catalog
	manifestLabel = "trading-platform.snapshot.manifest" // what it is a copy of, as JSON
)

// Snapshot is a copy of all volumes of a stack as they were at one instant. It stays on the engine.
type Snapshot struct {
	Name string
	Manifest
	Volumes map[string]string // their names on the engine, by those in the catalog
}

// Snapshots returns the snapshots on an engine, of all stacks, sorted by name.
func Snapshots(ctx context.Context, engine client.APIClient) ([]Snapshot, error) {
	volumes, err := engine.VolumeList(ctx, client.VolumeListOptions{Filters: client.Filters{}.Add("label", snapshotLabel)})
	if err != nil {
		return nil, fmt.Errorf("asking the engine for its volumes: %w", err)
	}
	found := map[string]Snapshot{}
	for _, v := range volumes.Items {
		name := v.Labels[snapshotLabel]
		s, ok := found[name]
		if !ok {
			s = Snapshot{Name: name, Volumes: map[string]string{}}
			if err := json.Unmarshal([]byte(v.Labels[manifestLabel]), &s.Manifest); err != nil {
				return nil, fmt.Errorf("label %s of volume %s: %w", manifestLabel, v.Name, err)
			}
			found[name] = s
		}
		s.Volumes[v.Labels[keyLabel]] = v.Name
	}
	return slices.SortedFunc(maps.Values(found), func(a, b Snapshot) int { return cmp.Compare(a.Name, b.Name) }), nil
}

// FindSnapshot returns a snapshot on an engine, of any stack.
func FindSnapshot(ctx context.Context, engine client.APIClient, name string) (Snapshot, error) {
	all, err := Snapshots(ctx, engine)
	var names []string
	for _, s := range all {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Snapshot{}, cmp.Or(err, refuse("snapshot "+name, "platform snapshot list", "does not exist%s", fault.DidYouMean(name, names)))
}

// The scripts run as root in a container with the volumes to copy at /from/<key> and the new ones at /<key>, and get the keys as
// arguments. copyLive copies what it can while the stack writes on, and copyRest what has changed since, while nothing writes. Any
// change sets a file's ctime, which no program can set to another time. At the end, both must have the same files. BusyBox, which
// some images have in place of GNU's tools, leaves all to copyRest.
const (
	copyAll = `for key in "$@"; do
	cp -a --reflink=auto "/from/$key/." "/$key/" 2>/dev/null || cp -a "/from/$key/." "/$key/" || exit 1
done`
	copyLive = `find --version >/dev/null 2>&1 || exit 0
touch -d '2 seconds ago' /tmp/began
for key in "$@"; do cp -a --reflink=auto "/from/$key/." "/$key/" 2>/dev/null; done
exit 0`
	copyRest = `set -e
if [ ! -e /tmp/began ]; then
	` + copyAll + `
	exit 0
fi
export LC_ALL=C
all() { find . -print0 | sort -z; }
files() { find . ! -type d -printf '%P %s %T@ %U:%G %m\n' | sort; }
for key in "$@"; do
	cd "/from/$key"
	all >/tmp/from
	(cd "/$key" && all >/tmp/to && comm -z -13 /tmp/from /tmp/to | xargs -0 -r rm -rf --)
	find . -type d -print0 | tar -c --no-recursion --null -T - | tar -x -C "/$key"
	find . -cnewer /tmp/began ! -type d -print0 | xargs -0 -r cp -a --reflink=auto --parents -t "/$key"
	files >/tmp/from
	(cd "/$key" && files >/tmp/to)
	cmp /tmp/from /tmp/to >&2
done`
)

var snapshotName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

// SaveSnapshot copies all volumes of the stack, as they are at one instant. All containers that write to one of them are paused,
// but only while that is copied which has changed during the rest of the copy. The databases recover from such files as from a
// power failure: each has everything that it has confirmed.
func (s *Stack) SaveSnapshot(ctx context.Context, name string) error {
	began := time.Now()
	if _, err := FindSnapshot(ctx, s.Engine, name); err == nil || !snapshotName.MatchString(name) {
		return refuse("snapshot "+name, "platform snapshot list; take another name, of at most 63 letters, digits and . _ -", "exists already, or is no name of a snapshot")
	}
	m := Manifest{Format: format, Stack: s.Plan.Stack, NamePrefix: s.Plan.NamePrefix, Made: time.Now().UTC().Truncate(time.Second)}
	var from, names []string
	for _, v := range s.Plan.Volumes {
		if _, err := s.Engine.VolumeInspect(ctx, v.Name, client.VolumeInspectOptions{}); err == nil {
			m.Entries = append(m.Entries, Entry{Name: v.Name, Volume: v.Key})
			from, names = append(from, v.Name+":/from/"+v.Key+":ro"), append(names, v.Name)
		}
	}
	if len(names) == 0 {
		return refuse("stack "+s.Plan.Stack, "make up STACK="+s.Plan.Stack, "was never up, and has no data")
	}
	for service, into := range map[string]**Server{"postgres": &m.Postgres, "redis": &m.Redis} {
		if found, ok := s.Plan.Lookup(service); ok {
			version, err := s.version(ctx, found.Image.Key(), map[string]string{"postgres": "PG_MAJOR", "redis": "REDIS_VERSION"}[service])
			if err != nil {
				return err
			}
			*into = &Server{Version: version, User: found.Value("POSTGRES_USER")}
		}
	}
	text, _ := json.Marshal(m) // texts, numbers and a time
	var volumes []newVolume
	for _, e := range m.Entries {
		volumes = append(volumes, newVolume{e.Volume, fmt.Sprintf("%s_snapshot_%s_%s", s.Plan.NamePrefix, name, e.Volume), map[string]string{
			plan.IdentityLabel: s.Plan.Identity, snapshotLabel: name, keyLabel: e.Volume, manifestLabel: string(text),
		}})
	}
	g, err := s.stage(ctx, from, volumes)
	if err != nil {
		return err
	}
	defer g.discard()
	if err := g.shell(ctx, copyLive); err != nil {
		return err
	}
	pausedAt := time.Now()
	paused, err := s.pausing(ctx, func() error { return g.shell(ctx, copyRest) }, names...)
	if err != nil {
		return fmt.Errorf("copying the volumes: %w", err)
	}
	s.Say(fmt.Sprintf("saved snapshot %s in %.1f s; %d containers were paused, for %.1f s", name, time.Since(began).Seconds(), len(paused), time.Since(pausedAt).Seconds()))
	g.committed = true
	g.remove(g.holder)
	return s.await(ctx, paused)
}

// shell runs a script in the container that holds the volumes, with the volumes' keys as its arguments.
func (g *staging) shell(ctx context.Context, script string) error {
	if _, err := g.Engine.ContainerStart(ctx, g.holder, client.ContainerStartOptions{}); err != nil { // no error if it runs already
		return err
	}
	command := append([]string{"sh", "-c", script, "sh"}, slices.Sorted(maps.Keys(g.volumes))...)
	return g.exec(ctx, g.holder, nil, http.NoBody, io.Discard, command...)
}

// RestoreSnapshot replaces the stack's data with a copy of a snapshot, which may be another stack's, and brings the stack up. Nothing
// is made if the stack's servers cannot read it.
func (s *Stack) RestoreSnapshot(ctx context.Context, snapshot Snapshot) error {
	if len(snapshot.Volumes) != len(snapshot.Entries) {
		return refuse("snapshot "+snapshot.Name, "platform snapshot rm "+snapshot.Name, "is not complete, because its removal was interrupted")
	}
	if err := s.fits(ctx, snapshot.Manifest, "snapshot "+snapshot.Name, true); err != nil {
		return err
	}
	var from []string
	for key, volume := range snapshot.Volumes {
		from = append(from, volume+":/from/"+key+":ro")
	}
	g, err := s.replace(ctx, from, slices.Collect(maps.Keys(snapshot.Volumes))...)
	if err != nil {
		return err
	}
	defer g.discard()
	s.Say(fmt.Sprintf("copying snapshot %s of %s, from %s", snapshot.Name, snapshot.NamePrefix, snapshot.Made.Local().Format(time.DateTime)))
	if err := g.shell(ctx, copyAll); err != nil {
		return fmt.Errorf("copying the volumes failed, and nothing was changed: %w", err)
	}
	return g.commit(ctx)
}
