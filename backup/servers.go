package backup

import (
	"archive/tar"
	"archive/zip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
)

const (
	rolesName = "postgres/roles.sql"
	redisName = "redis.rdb"
)

// postgres is a PostgreSQL server as seen from a container: its own, or another that
// shares its network.
type postgres struct {
	*Stack
	container string
	env       []string // libpq's variables: who connects, and where to
}

// on is the environment with a database chosen. The name does not go through an
// argument, where the tools take one with an equals sign for a connection string.
func (p postgres) on(database string) []string {
	return append([]string{"PGDATABASE=" + database}, p.env...)
}

// query runs a query and gives its one column.
func (p postgres) query(ctx context.Context, sql string) ([]string, error) {
	out, err := p.ask(ctx, p.container, p.on("template1"), "psql", "-XAtq0", "-v", "ON_ERROR_STOP=1", "-c", sql)
	return strings.FieldsFunc(out, func(r rune) bool { return r == 0 }), err
}

// about gives the server's version and its first superuser.
func (p postgres) about(ctx context.Context) (*Server, error) {
	facts, err := p.query(ctx, "select current_setting('server_version') union all select rolname from pg_roles where oid = 10")
	if err == nil && len(facts) != 2 {
		err = fmt.Errorf("the server's version and first superuser are not two facts: %q", facts)
	}
	if err != nil {
		return nil, err
	}
	return &Server{Version: facts[0], Role: facts[1]}, nil
}

func (p postgres) databases(ctx context.Context) ([]string, error) {
	return p.query(ctx, "select datname from pg_database where datallowconn and not datistemplate order by datname")
}

// saveRoles writes the roles as SQL. Tablespaces, which are folders of the container, are left out.
func (p postgres) saveRoles(ctx context.Context, to io.Writer) error {
	return p.exec(ctx, p.container, p.on("template1"), http.NoBody, to, "pg_dumpall", "--roles-only")
}

func (p postgres) save(ctx context.Context, database string, to io.Writer) error {
	p.Say("saving database " + database)
	return p.exec(ctx, p.container, p.on(database), http.NoBody, to, "pg_dump", "--format=custom")
}

// loadRoles makes the roles. The first superuser is there already, but not yet as it was.
func (p postgres) loadRoles(ctx context.Context, from io.Reader) error {
	sql, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	first, err := p.query(ctx, "select quote_ident(rolname) from pg_roles where oid = 10")
	if err != nil {
		return err
	}
	rest := strings.Replace(string(sql), "\nCREATE ROLE "+strings.Join(first, "")+";\n", "\n", 1)
	return p.exec(ctx, p.container, p.on("template1"), strings.NewReader(rest), io.Discard, "psql", "-Xq", "-v", "ON_ERROR_STOP=1")
}

func (p postgres) load(ctx context.Context, database string, from io.Reader) error {
	p.Say("restoring database " + database)
	return p.exec(ctx, p.container, p.env, from, io.Discard, "pg_restore",
		"--exit-on-error", "--create", "--clean", "--if-exists", "--no-tablespaces", "--dbname=template1")
}

// application is the name under which PostgreSQL lists the connections of a backup.
const application = "trading-platform backup"

// savePostgres dumps the roles and every database of the stack's server.
func (s *Stack) savePostgres(ctx context.Context, c container.InspectResponse, w *writer) (*Server, error) {
	user := variableOf(c.Config.Env, "POSTGRES_USER")
	p := postgres{s, c.ID, []string{"PGUSER=" + user, "PGPASSWORD=" + variableOf(c.Config.Env, "POSTGRES_PASSWORD"), "PGAPPNAME=" + application}}
	// A command in a container does not end when whoever started it is gone: pg_dump would go on, to nobody.
	defer func() {
		_, _ = p.query(context.WithoutCancel(ctx), "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and application_name = '"+application+"'")
	}()
	about, err := p.about(ctx)
	if err != nil {
		return nil, err
	}
	about.User = user
	if err := w.add(Entry{Name: rolesName}, zip.Deflate, func(to io.Writer) error { return p.saveRoles(ctx, to) }); err != nil {
		return nil, err
	}
	names, err := p.databases(ctx)
	for i, name := range names {
		if err == nil { // pg_dump has compressed it
			err = w.add(Entry{Name: fmt.Sprintf("postgres/%d.dump", i), Database: name}, zip.Store, func(to io.Writer) error { return p.save(ctx, name, to) })
		}
	}
	return about, err
}

// stagingPort is not the usual one, which the old server of an upgrade has on the same network.
const stagingPort = "5433"

// newPostgres fills a new volume: it starts the stack's image on it, away from the
// stack's networks, with a given first superuser, and has fill put the data in.
func (s *Stack) newPostgres(ctx context.Context, volume, role string, network container.NetworkMode, fill func(postgres) error) error {
	service, _ := s.Plan.Lookup("postgres")
	_, path := s.volumeOf("postgres")
	env := []string{
		// The roles bring their own passwords. Those made before PostgreSQL 14 are hashed with MD5,
		// which only the method md5 takes; it takes SCRAM's, too, and then is SCRAM.
		"POSTGRES_USER=" + role, "POSTGRES_PASSWORD=" + rand.Text(), "POSTGRES_DB=postgres", "POSTGRES_HOST_AUTH_METHOD=md5",
		"PGPORT=" + stagingPort, // for the server and for all clients in the container
	}
	for _, e := range service.Env {
		if !strings.HasPrefix(e.Name, "POSTGRES_") || e.Name == "POSTGRES_INITDB_ARGS" {
			env = append(env, e.Name+"="+e.Value)
		}
	}
	id, err := s.create(ctx, temporary{
		image: service.Image.Key(), env: env, network: network,
		mounts: []mount.Mount{{Type: mount.TypeVolume, Source: volume, Target: path}},
	})
	if err != nil {
		return err
	}
	defer s.remove(id)
	// Over TCP, where the image's bootstrap server does not listen.
	if err := s.start(ctx, id, "pg_isready", "-q", "-h", "127.0.0.1"); err != nil {
		return err
	}
	p := postgres{s, id, []string{"PGUSER=" + role}}
	if err := fill(p); err != nil {
		return err
	}
	// A dump has no statistics, and without them the planner guesses.
	if _, err := s.ask(ctx, id, p.env, "vacuumdb", "--all", "--analyze-only", "--quiet"); err != nil {
		return err
	}
	return s.stop(ctx, id)
}

var redisVersion = regexp.MustCompile(`redis_version:(\S+)`)

// saveRedis has the server make a snapshot, as it would for a replica.
func (s *Stack) saveRedis(ctx context.Context, c container.InspectResponse, w *writer) (*Server, error) {
	var env []string
	if password := variableOf(c.Config.Env, "REDIS_PASSWORD"); password != "" {
		env = append(env, "REDISCLI_AUTH="+password)
	}
	info, err := s.ask(ctx, c.ID, env, "redis-cli", "info", "server")
	version := redisVersion.FindStringSubmatch(info)
	if err != nil || version == nil {
		return nil, errors.Join(err, fmt.Errorf("redis-cli info does not tell the version: %s", info))
	}
	s.Say("saving Redis")
	return &Server{Version: version[1]}, w.add(Entry{Name: redisName}, zip.Deflate, func(to io.Writer) error {
		return s.exec(ctx, c.ID, env, http.NoBody, to, "redis-cli", "--rdb", "-")
	})
}

// newRedis fills a new volume: it starts the stack's image with the snapshot, and has it
// write the append-only file that the stack's server reads.
func (s *Stack) newRedis(ctx context.Context, volume string, f *File) error {
	service, _ := s.Plan.Lookup("redis")
	_, path := s.volumeOf("redis")
	id, err := s.create(ctx, temporary{
		image: service.Image.Key(), command: []string{"redis-server", "--appendonly", "no", "--save", ""},
		mounts: []mount.Mount{{Type: mount.TypeVolume, Source: volume, Target: path}},
	})
	if err != nil {
		return err
	}
	defer s.remove(id)
	s.Say("restoring Redis")
	entry, err := f.entry(redisName)
	if err != nil {
		return err
	}
	if err := f.read(entry, func(from io.Reader) error {
		return pipe(func(to io.Writer) error {
			archive := tar.NewWriter(to)
			err := archive.WriteHeader(&tar.Header{Name: "dump.rdb", Mode: 0o644, Size: entry.Size})
			if err == nil {
				_, err = io.Copy(archive, from)
			}
			return errors.Join(err, archive.Close())
		}, func(archive io.Reader) error {
			_, err := s.Engine.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: path, Content: archive})
			return err
		})
	}); err != nil {
		return err
	}
	if err := s.start(ctx, id, "sh", "-c", "redis-cli ping | grep -q PONG"); err != nil { // it answers LOADING with exit code 0
		return err
	}
	if answer, err := s.ask(ctx, id, nil, "redis-cli", "config", "set", "appendonly", "yes"); err != nil || answer != "OK" {
		return errors.Join(err, fmt.Errorf("turning the append-only file on: %s", answer))
	}
	for {
		info, err := s.ask(ctx, id, nil, "redis-cli", "info", "persistence")
		switch {
		case err != nil:
			return err
		case strings.Contains(info, "aof_last_bgrewrite_status:err"):
			return fmt.Errorf("writing the append-only file failed: %s", s.log(id))
		case strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0"):
			return s.stop(ctx, id)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// pipe runs two functions at once, of which the second reads what the first writes.
func pipe(from func(io.Writer) error, to func(io.Reader) error) error {
	r, w := io.Pipe()
	var both errgroup.Group
	both.Go(func() error {
		err := from(w)
		_ = w.CloseWithError(err)
		return err
	})
	both.Go(func() error {
		err := to(r)
		_ = r.CloseWithError(err)
		return err
	})
	return both.Wait()
}
