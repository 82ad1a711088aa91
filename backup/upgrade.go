package backup

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"trading-platform/settings"
)

// Upgrade moves PostgreSQL's data to the major version of the stack's image. from is an
// image of the version that made the data; when it is empty, the image of the container
// that uses the data is taken, or postgres:<version>.
func (s *Stack) Upgrade(ctx context.Context, from string) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	service, ok := s.Plan.Lookup("postgres")
	if !ok {
		return refuse(settings.Project+":disabled", "take postgres out of it", "this stack does not run PostgreSQL")
	}
	key, path := s.volumeOf("postgres")
	volume := s.Plan.Volume(key).Name
	if _, err := s.Engine.VolumeInspect(ctx, volume, client.VolumeInspectOptions{}); err != nil {
		return err
	}
	want, err := s.image(ctx, service.Image.Key(), "PG_MAJOR")
	if err != nil {
		return err
	}
	have, err := s.dataVersion(ctx, volume)
	switch {
	case err != nil:
		return err
	case have == want:
		s.Say("volume " + volume + " holds data of PostgreSQL " + have + ", the version of image " + service.Image.Key() + ": there is nothing to do")
		return nil
	case newer(have, want, 1):
		return refuse("volume "+volume, settings.Set(s.Plan.Stack, "--path images.postgres", "postgres:"+have),
			"holds data of PostgreSQL %s, and image %s is of version %s: no server reads the dump of a newer one", have, service.Image.Key(), want)
	}
	users, err := s.Engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("volume", volume)})
	if err != nil {
		return err
	}
	for _, c := range users.Items {
		if !s.Plan.Owns(c.Labels) {
			return refuse("volume "+volume, "docker rm -f "+c.ID[:12], "container %s, which is not of this stack, uses it", strings.TrimPrefix(c.Names[0], "/"))
		}
		if from == "" {
			from = c.ImageID
		}
	}
	if from == "" {
		from = "postgres:" + have
	}
	if major, err := s.image(ctx, from, "PG_MAJOR"); err != nil {
		return err
	} else if major != have {
		return refuse("image "+from, "platform upgrade -s "+s.Plan.Stack+" --from <an image of PostgreSQL "+have+">",
			"is of PostgreSQL %s, and the data in volume %s is of version %s", major, volume, have)
	}
	g, err := s.stage(ctx, key)
	if err != nil {
		return err
	}
	defer g.discard()
	var stopped []string
	for _, c := range users.Items {
		stopped = append(stopped, c.ID)
		if c.State != container.StateRunning {
			continue
		}
		// What is written after the dump would be lost.
		s.Say("stopping container " + strings.TrimPrefix(c.Names[0], "/"))
		defer func() {
			if !g.committed { // else it is gone
				_, _ = s.Engine.ContainerStart(context.WithoutCancel(ctx), c.ID, client.ContainerStartOptions{})
			}
		}()
		if err := s.stop(ctx, c.ID); err != nil {
			return err
		}
	}
	// With the stack's labels: should this run be killed, the next `up` must remove this
	// server before it starts another one on the same data.
	old, err := s.create(ctx, temporary{
		image: from, labels: s.labels(), mounts: []mount.Mount{{Type: mount.TypeVolume, Source: volume, Target: path}},
	})
	if err != nil {
		return err
	}
	defer s.remove(old)
	s.Say("moving the data from PostgreSQL " + have + " to " + want)
	if err := s.start(ctx, old, "pg_isready", "-q", "-h", "127.0.0.1"); err != nil {
		return err
	}
	source := postgres{s, old, []string{"PGUSER=" + service.Value("POSTGRES_USER")}}
	about, err := source.about(ctx)
	if err != nil {
		return err
	}
	err = s.newPostgres(ctx, g.volumes[key], about.Role, container.NetworkMode("container:"+old), func(p postgres) error {
		// The new version's own tools read the old server: they know what changed between the two.
		return move(ctx, postgres{s, p.container, append(source.env, "PGHOST=127.0.0.1", "PGPORT=5432")}, p)
	})
	if err == nil {
		err = s.stop(ctx, old)
	}
	if err != nil {
		return fmt.Errorf("the upgrade failed, and nothing was changed: %w", err)
	}
	s.remove(old)
	return g.commit(ctx, stopped...)
}

// move copies roles and databases from one running server to another.
func move(ctx context.Context, from, to postgres) error {
	err := pipe(
		func(w io.Writer) error { return from.saveRoles(ctx, w) },
		func(r io.Reader) error { return to.loadRoles(ctx, r) },
	)
	if err != nil {
		return err
	}
	names, err := from.databases(ctx)
	for _, name := range names {
		if err == nil {
			err = pipe(
				func(w io.Writer) error { return from.save(ctx, name, w) },
				func(r io.Reader) error { return to.load(ctx, name, r) },
			)
		}
	}
	return err
}

// dataVersion reads the major version of the PostgreSQL that made the data in a volume.
func (s *Stack) dataVersion(ctx context.Context, volume string) (string, error) {
	id, err := s.create(ctx, temporary{mounts: []mount.Mount{{Type: mount.TypeVolume, Source: volume, Target: "/old", ReadOnly: true}}})
	if err != nil {
		return "", err
	}
	defer s.remove(id)
	file, err := s.Engine.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: "/old/PG_VERSION"})
	if cerrdefs.IsNotFound(err) {
		return "", refuse("volume "+volume, "platform up -s "+s.Plan.Stack, "holds no data of PostgreSQL, so there is nothing to upgrade")
	} else if err != nil {
		return "", err
	}
	archive := tar.NewReader(file.Content)
	_, err = archive.Next()
	text, readErr := io.ReadAll(archive)
	return strings.TrimSpace(string(text)), errors.Join(err, readErr, file.Content.Close())
}
