package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"al.essio.dev/pkg/shellescape"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"trading-platform/settings"
)

// Restore replaces the stack's data with that of a backup, or changes nothing.
func (s *Stack) Restore(ctx context.Context, f *File) error {
	if err := s.fits(ctx, f.Manifest, "the backup", false); err != nil {
		return err
	}
	var keys []string
	if f.Manifest.Postgres != nil {
		pgdata, _ := s.dataOf("postgres")
		keys = append(keys, pgdata)
	}
	for _, e := range f.Manifest.Entries {
		if e.Name == redisName {
			redisdata, _ := s.dataOf("redis")
			keys = append(keys, redisdata)
		} else if e.Volume != "" {
			keys = append(keys, e.Volume)
		}
	}
	g, err := s.replace(ctx, nil, keys...)
	if err != nil {
		return err
	}
	defer g.discard()
	if err := g.fill(ctx, f); err != nil {
		return fmt.Errorf("restoring failed, and nothing was changed: %w", err)
	}
	return g.commit(ctx)
}

// fill puts the data of a backup into the new volumes.
func (g *staging) fill(ctx context.Context, f *File) error {
	extract := func(archive io.Reader) error { // each volume is a folder
		_, err := g.Engine.CopyToContainer(ctx, g.holder, client.CopyToContainerOptions{DestinationPath: "/", Content: archive})
		return err
	}
	var databases []Entry // and the roles, which come first
	for _, e := range f.Manifest.Entries {
		switch {
		case e.Volume != "":
			if err := f.read(e, extract); err != nil {
				return err
			}
		case e.Name == redisName:
			g.Say("restoring Redis")
			key, _ := g.dataOf("redis")
			err := f.read(e, func(from io.Reader) error { return pipe(snapshotArchive(key, from, e.Size), extract) })
			if err == nil {
				err = g.convertSnapshot(ctx, g.volumes[key])
			}
			if err != nil {
				return err
			}
		case e.Name == rolesName, e.Database != "":
			databases = append(databases, e)
		}
	}
	if f.Manifest.Postgres == nil {
		return nil
	}
	key, _ := g.dataOf("postgres")
	return g.newPostgres(ctx, g.volumes[key], f.Manifest.Postgres.Role, "", func(p postgres) error {
		for _, e := range databases {
			if err := f.read(e, func(from io.Reader) error { return p.load(ctx, e.Database, from) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// fits refuses data that the stack's servers cannot read, or whose database the services would not find. PostgreSQL reads the
// files of its own major version alone.
func (s *Stack) fits(ctx context.Context, m Manifest, source string, files bool) error {
	for _, server := range []struct {
		saved                   *Server
		name, service, variable string
		parts                   int // of the version; servers that agree in them read each other's data
	}{
		{m.Postgres, "PostgreSQL", "postgres", "PG_MAJOR", 1},
		{m.Redis, "Redis", "redis", "REDIS_VERSION", 2},
	} {
		if server.saved == nil {
			continue
		}
		service, ok := s.Plan.Lookup(server.service)
		if !ok {
			return refuse(settings.Project+":disabled", "take "+server.service+" out of it", "%s has data of %s, which this stack does not run", source, server.name)
		}
		have, err := s.version(ctx, service.Image.Key(), server.variable)
		if err != nil {
			return err
		}
		older := files && server.parts == 1 && newer(have, server.saved.Version, 1)
		if have != "" && (older || newer(server.saved.Version, have, server.parts)) {
			return refuse("image "+service.Image.Key(), settings.SetCommand(s.Plan.Stack, "--path images."+server.service, "<an image of "+server.name+" "+server.saved.Version+">"),
				"is of %s %s, which does not read %s's data of version %s", server.name, have, source, server.saved.Version)
		}
		if user := service.Value("POSTGRES_USER"); server.saved.User != "" && user != server.saved.User && user != settings.Hidden {
			return refuse(settings.Project+":POSTGRES_USER", settings.SetCommand(s.Plan.Stack, "POSTGRES_USER", shellescape.Quote(server.saved.User)),
				"is %s, and the services of the stack that was saved logged in as %s", user, server.saved.User)
		}
	}
	return nil
}

// newer reports whether a version is newer than another, by their first parts.
func newer(a, b string, parts int) bool {
	var x, y [2]int
	_, _ = fmt.Sscanf(a, "%d.%d", &x[0], &x[1])
	_, _ = fmt.Sscanf(b, "%d.%d", &y[0], &y[1])
	return slices.Compare(x[:parts], y[:parts]) > 0
}

// staging holds the volumes that a stack is about to use. Before commit nothing in the
// stack refers to them.
type staging struct {
	*Stack
	holder    string            // a container that mounts each volume at /<key>; only a copy of files starts it
	volumes   map[string]string // key → new volume
	old       []string          // stopped containers that must not run on the old data again
	committed bool
}

// newVolume is a volume that is to be made.
type newVolume struct {
	key, name string
	labels    map[string]string
}

// replace stages new volumes beside those of the plan, which are to take their place. from is as in stage.
func (s *Stack) replace(ctx context.Context, from []string, keys ...string) (*staging, error) {
	stamp := time.Now().UTC().Format("20060102T150405Z")
	var volumes []newVolume
	for _, key := range keys {
		v := s.Plan.Volume(key)
		if v == nil {
			return nil, refuse("volume "+key, "use the version of this program that made the backup", "is unknown to this version")
		}
		labels := s.Plan.VolumeLabels(*v)
		labels[replacesLabel] = v.Name
		volumes = append(volumes, newVolume{key, fmt.Sprintf("%s_%s_%s", s.Plan.NamePrefix, key, stamp), labels})
	}
	return s.stage(ctx, from, volumes)
}

// stage makes new volumes. They come with one container, made in the same step, that mounts them all: as long as it exists, they
// are staged. from are more volumes for it to mount, which it only reads.
func (s *Stack) stage(ctx context.Context, from []string, volumes []newVolume) (*staging, error) {
	g := &staging{Stack: s, volumes: map[string]string{}}
	host := container.HostConfig{Binds: from}
	for _, v := range volumes {
		if _, err := s.Engine.VolumeInspect(ctx, v.name, client.VolumeInspectOptions{}); !cerrdefs.IsNotFound(err) {
			return nil, errors.Join(err, refuse("volume "+v.name, "run the command again, or: docker volume rm "+v.name, "exists already"))
		}
		g.volumes[v.key] = v.name
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: v.name, Target: "/" + v.key, VolumeOptions: &mount.VolumeOptions{Labels: v.labels}})
	}
	config := container.Config{User: "0", Entrypoint: []string{"sleep", "infinity"}, Labels: map[string]string{stagingLabel: ""}}
	var err error
	if g.holder, err = s.create(ctx, config, host); err != nil {
		g.discard()
		return nil, err
	}
	return g, nil
}

// discard removes the volumes, unless the stack uses them already.
func (g *staging) discard() {
	if g.committed {
		return
	}
	g.remove(g.holder)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, name := range g.volumes {
		if _, err := g.Engine.VolumeRemove(ctx, name, client.VolumeRemoveOptions{Force: true}); err != nil {
			g.Say("volume " + name + " is left over: " + err.Error())
		}
	}
}

// commit switches the stack to the new volumes, and brings it up. Writing the
// settings is the decisive step: before it nothing has changed, and after it the
// stack's next `up` uses the new data, whenever that is. `up` would start
// stopped containers, so those that must not run on the old data again are removed.
func (g *staging) commit(ctx context.Context) error {
	before := g.taken()
	volumes := maps.Clone(before)
	maps.Copy(volumes, g.volumes)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := g.SetVolumes(volumes); err != nil {
		return err
	}
	g.committed = true
	for _, id := range append(g.old, g.holder) {
		g.remove(id)
	}
	err := g.Up(ctx)
	if err == nil {
		g.tellOld(ctx)
		return nil
	}
	if !g.inUse(context.WithoutCancel(ctx)) && g.SetVolumes(before) == nil {
		g.committed = false
		return fmt.Errorf("the stack does not come up with the new data, and keeps its old data: %w", err)
	}
	return fmt.Errorf("the new data is in place, but the stack does not come up with it: %w. Fix: platform up -s %s", err, g.Plan.Stack)
}

// inUse reports whether a container may mount one of the new volumes, and may have written to it.
func (g *staging) inUse(ctx context.Context) bool {
	for _, name := range g.volumes {
		if users, err := g.users(ctx, name); err != nil || len(users) > 0 {
			return true
		}
	}
	return false
}

// taken returns the volumes that the settings name now.
func (s *Stack) taken() map[string]string {
	volumes := map[string]string{}
	for _, v := range s.Plan.Volumes {
		if v.TakeOver {
			volumes[v.Key] = v.Name
		}
	}
	return volumes
}

// tellOld prints where the previous data is, and how to delete it.
func (g *staging) tellOld(ctx context.Context) {
	for _, key := range slices.Sorted(maps.Keys(g.volumes)) {
		old := g.Plan.Volume(key).Name
		v, err := g.Engine.VolumeInspect(ctx, old, client.VolumeInspectOptions{})
		if err != nil { // an empty stack, or one whose setting retainVolumes is off, has none
			continue
		}
		fix := "platform purge -s " + g.Plan.Stack + " --old"
		if !g.Plan.Owns(v.Volume.Labels) { // the stack did not create it, so purge does not delete it
			fix = "docker volume rm " + shellescape.Quote(old)
		}
		g.Say("the previous data is still in volume " + g.sized(ctx, old) + ". To delete it: " + fix)
	}
}
