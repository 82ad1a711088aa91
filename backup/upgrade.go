package backup

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"trading-platform/observe"
	"trading-platform/settings"
)

// Upgrade moves PostgreSQL's data to the major version of the stack's image. from is an
// image of the version that made the data; when it is empty, the image of the container
// that uses the data is taken, or postgres:<version>.
func (s *Stack) Upgrade(ctx context.Context, from string) error {
	service, ok := s.Plan.Lookup("postgres")
	if !ok {
		return refuse(settings.Project+":disabled", "take postgres out of it", "this stack does not run PostgreSQL")
	}
	key, _ := s.dataOf("postgres")
	volume, image := s.Plan.Volume(key).Name, service.Image.Key()
	if _, err := s.Engine.VolumeInspect(ctx, volume, client.VolumeInspectOptions{}); err != nil {
		return err
	}
	want, err := s.version(ctx, image, "PG_MAJOR")
	if err != nil {
		return err
	}
	have, err := s.run(ctx, image, []string{volume + ":/old:ro"}, "cat", "/old/PG_VERSION")
	if err != nil {
		return err
	}
	if _, err := strconv.ParseFloat(have, 64); err != nil {
		return refuse("volume "+volume, "platform up -s "+s.Plan.Stack, "holds no data of PostgreSQL, so there is nothing to upgrade (%s)", have)
	}
	if have == want {
		s.Say("volume " + volume + " holds data of PostgreSQL " + have + ", the version of image " + image + ": there is nothing to do")
		return nil
	}
	if newer(have, want, 1) {
		return refuse("volume "+volume, settings.SetCommand(s.Plan.Stack, "--path images.postgres", "postgres:"+have),
			"holds data of PostgreSQL %s, and image %s is of version %s: no server reads the dump of a newer one", have, image, want)
	}
	users, err := s.users(ctx, volume)
	if err != nil {
		return err
	}
	for _, c := range users {
		if !s.Plan.Owns(c.Labels) {
			return refuse("volume "+volume, "docker rm -f "+c.ID[:12], "container %s, which does not belong to this stack, uses it", observe.Name(c))
		}
		from = cmp.Or(from, c.ImageID)
	}
	from = cmp.Or(from, "postgres:"+have)
	if major, err := s.version(ctx, from, "PG_MAJOR"); err != nil {
		return err
	} else if major != have {
		return refuse("image "+from, "platform upgrade -s "+s.Plan.Stack+" --from <an image of PostgreSQL "+have+">",
			"is of PostgreSQL %s, and the data in volume %s is of version %s", major, volume, have)
	}

	g, err := s.replace(ctx, nil, key)
	if err != nil {
		return err
	}
	defer g.discard()
	for _, c := range users {
		g.old = append(g.old, c.ID)
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
	s.Say("moving the data from PostgreSQL " + have + " to " + want)
	if err := g.move(ctx, from, volume, service.Value("POSTGRES_USER")); err != nil {
		return fmt.Errorf("the upgrade failed, and nothing was changed: %w", err)
	}
	return g.commit(ctx)
}

// move starts a server from an image on the old volume, and copies its roles and databases into the new one.
func (g *staging) move(ctx context.Context, image, volume, user string) error {
	key, path := g.dataOf("postgres")
	// The stack's labels matter when this process is killed: the next `up` must remove this
	// server before it starts another one on the same data.
	config, host := container.Config{Image: image, Labels: g.Plan.OwnLabels()}, container.HostConfig{Binds: []string{volume + ":" + path}}
	return g.serve(ctx, config, host, postgresReady, func(old string) error {
		env := []string{"PGUSER=" + user}
		server, dumps, err := postgres{g.Stack, old, env}.about(ctx)
		if err != nil {
			return err
		}
		return g.newPostgres(ctx, g.volumes[key], server.Role, container.NetworkMode("container:"+old), func(to postgres) error {
			// The tools of the new version read the old server, because they know what changed between the two versions.
			from := postgres{g.Stack, to.container, append(env, "PGHOST=127.0.0.1", "PGPORT=5432")}
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
