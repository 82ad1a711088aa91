package backup

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"trading-platform/observe"
	"trading-platform/plan"
	"trading-platform/settings"
)

// upgrade is a move of PostgreSQL's data from one major version to another.
type upgrade struct {
	*Stack
	service    plan.Service
	volume     string              // with the old data
	from       string              // an image of the version that made the data
	have, want string              // major versions
	containers []container.Summary // that have the volume
}

// Upgrade moves PostgreSQL's data to the major version of the stack's image. from is an
// image of the version that made the data; when it is empty, the image of the container
// that uses the data is taken, or postgres:<version>.
func (s *Stack) Upgrade(ctx context.Context, from string) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	u := &upgrade{Stack: s, from: from}
	if err := u.prepare(ctx); err != nil {
		return err
	}
	if u.have == u.want {
		s.Say("volume " + u.volume + " holds data of PostgreSQL " + u.have + ", the version of image " + u.service.Image.Key() + ": there is nothing to do")
		return nil
	}
	key, _ := s.dataOf("postgres")
	g, err := s.stage(ctx, key)
	if err != nil {
		return err
	}
	defer g.discard()
	var stopped []string
	for _, c := range u.containers {
		stopped = append(stopped, c.ID)
		if c.State != container.StateRunning {
			continue
		}
		// Data that is written after the dump would be lost.
		s.Say("stopping container " + observe.Name(c))
		defer func() {
			if !g.committed { // otherwise it is removed
				_, _ = s.Engine.ContainerStart(context.WithoutCancel(ctx), c.ID, client.ContainerStartOptions{})
			}
		}()
		if err := s.stop(ctx, c.ID); err != nil {
			return err
		}
	}
	if err := u.move(ctx, g.volumes[key]); err != nil {
		return fmt.Errorf("the upgrade failed, and nothing was changed: %w", err)
	}
	return g.commit(ctx, stopped...)
}

// prepare finds out what is to be moved, and refuses what cannot be moved.
func (u *upgrade) prepare(ctx context.Context) (err error) {
	var ok bool
	if u.service, ok = u.Plan.Lookup("postgres"); !ok {
		return refuse(settings.Project+":disabled", "take postgres out of it", "this stack does not run PostgreSQL")
	}
	key, _ := u.dataOf("postgres")
	u.volume = u.Plan.Volume(key).Name
	if _, err := u.Engine.VolumeInspect(ctx, u.volume, client.VolumeInspectOptions{}); err != nil {
		return err
	}
	if u.want, err = u.version(ctx, u.service.Image.Key(), "PG_MAJOR"); err != nil {
		return err
	}
	if u.have, err = u.dataVersion(ctx); err != nil || u.have == u.want {
		return err
	}
	if newer(u.have, u.want, 1) {
		return refuse("volume "+u.volume, settings.SetCommand(u.Plan.Stack, "--path images.postgres", "postgres:"+u.have),
			"holds data of PostgreSQL %s, and image %s is of version %s: no server reads the dump of a newer one", u.have, u.service.Image.Key(), u.want)
	}
	if u.containers, err = u.users(ctx, u.volume); err != nil {
		return err
	}
	for _, c := range u.containers {
		if !u.Plan.Owns(c.Labels) {
			return refuse("volume "+u.volume, "docker rm -f "+c.ID[:12], "container %s, which does not belong to this stack, uses it", observe.Name(c))
		}
		u.from = cmp.Or(u.from, c.ImageID)
	}
	u.from = cmp.Or(u.from, "postgres:"+u.have)
	if major, err := u.version(ctx, u.from, "PG_MAJOR"); err != nil {
		return err
	} else if major != u.have {
		return refuse("image "+u.from, "platform upgrade -s "+u.Plan.Stack+" --from <an image of PostgreSQL "+u.have+">",
			"is of PostgreSQL %s, and the data in volume %s is of version %s", major, u.volume, u.have)
	}
	return nil
}

// move starts the old server once more and copies its roles and databases into a new volume.
func (u *upgrade) move(ctx context.Context, volume string) error {
	// The stack's labels matter when this process is killed: the next `up` must remove this
	// server before it starts another one on the same data.
	_, path := u.dataOf("postgres")
	config, host := container.Config{Image: u.from, Labels: u.Plan.OwnLabels()}, container.HostConfig{Binds: []string{u.volume + ":" + path}}
	u.Say("moving the data from PostgreSQL " + u.have + " to " + u.want)
	return u.serve(ctx, config, host, postgresReady, func(old string) error {
		user := "PGUSER=" + u.service.Value("POSTGRES_USER")
		server, dumps, err := postgres{u.Stack, old, []string{user}}.about(ctx)
		if err != nil {
			return err
		}
		return u.newPostgres(ctx, volume, server.Role, container.NetworkMode("container:"+old), func(to postgres) error {
			// The tools of the new version read the old server, because they know what changed between the two versions.
			from := postgres{u.Stack, to.container, []string{user, "PGHOST=127.0.0.1", "PGPORT=5432"}}
			for _, database := range dumps {
				err := pipe(
					func(w io.Writer) error { return from.dump(ctx, database, w) },
					func(r io.Reader) error { return to.load(ctx, database, r) },
				)
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// dataVersion reads the major version of the PostgreSQL that made the data.
func (u *upgrade) dataVersion(ctx context.Context) (string, error) {
	id, err := u.create(ctx, container.Config{}, container.HostConfig{Binds: []string{u.volume + ":/old:ro"}})
	if err != nil {
		return "", err
	}
	defer u.remove(id)
	file, err := u.Engine.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: "/old/PG_VERSION"})
	if cerrdefs.IsNotFound(err) {
		return "", refuse("volume "+u.volume, "platform up -s "+u.Plan.Stack, "holds no data of PostgreSQL, so there is nothing to upgrade")
	} else if err != nil {
		return "", err
	}
	archive := tar.NewReader(file.Content)
	_, err = archive.Next()
	text, readErr := io.ReadAll(archive)
	return strings.TrimSpace(string(text)), errors.Join(err, readErr, file.Content.Close())
}
