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
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sync/errgroup"
)

const (
	rolesName = "postgres/roles.sql"
	redisName = "redis.rdb"
	// application is the name under which PostgreSQL lists the connections of a backup.
	application = "trading-platform backup"
	// stagingPort differs from the default, because the old server of an upgrade uses that on the same network.
	stagingPort = "5433"
)

// postgresReady succeeds when a server is up. It connects over TCP, where the image's bootstrap server does not listen.
var postgresReady = []string{"pg_isready", "-q", "-h", "127.0.0.1"}

// postgres is a PostgreSQL server as clients in a container reach it: the server's own
// container, or another that shares its network.
type postgres struct {
	*Stack
	container string
	env       []string // libpq's variables: who connects, and where to
}

// on returns the environment that selects a database. The name is not an argument, because
// the tools interpret an argument with an equals sign as a connection string.
func (p postgres) on(database string) []string {
	return append([]string{"PGDATABASE=" + database}, p.env...)
}

// query runs a query and returns its only column.
func (p postgres) query(ctx context.Context, sql string) ([]string, error) {
	out, err := p.Ask(ctx, p.container, p.on("template1"), "psql", "-XAtq0", "-v", "ON_ERROR_STOP=1", "-c", sql)
	return strings.FieldsFunc(out, func(r rune) bool { return r == 0 }), err
}

// about returns the server's version, its first superuser, and what to dump: the names of the
// databases, after an empty name that stands for the roles.
func (p postgres) about(ctx context.Context) (server *Server, dumps []string, err error) {
	facts, err := p.query(ctx, "select current_setting('server_version') union all select rolname from pg_roles where oid = 10 "+
		"union all select datname from pg_database where datallowconn and not datistemplate")
	if err == nil && len(facts) < 2 {
		err = fmt.Errorf("expected the server's version, first superuser and databases, and got %q", facts)
	}
	if err != nil {
		return nil, nil, err
	}
	return &Server{Version: facts[0], Role: facts[1]}, append([]string{""}, facts[2:]...), nil
}

// dump writes a database, or the roles as SQL. Tablespaces, which are folders of the container, are left out.
func (p postgres) dump(ctx context.Context, database string, to io.Writer) error {
	if database == "" {
		return p.exec(ctx, p.container, p.on("template1"), http.NoBody, to, "pg_dumpall", "--roles-only")
	}
	p.Say("saving database " + database)
	return p.exec(ctx, p.container, p.on(database), http.NoBody, to, "pg_dump", "--format=custom")
}

// load restores what dump wrote. Roles come first. The first superuser exists already, but without its password and settings.
func (p postgres) load(ctx context.Context, database string, from io.Reader) error {
	if database != "" {
		p.Say("restoring database " + database)
		return p.exec(ctx, p.container, p.env, from, io.Discard, "pg_restore",
			"--exit-on-error", "--create", "--clean", "--if-exists", "--no-tablespaces", "--dbname=template1")
	}
	sql, readErr := io.ReadAll(from)
	first, err := p.query(ctx, "select quote_ident(rolname) from pg_roles where oid = 10")
	if err := errors.Join(readErr, err); err != nil {
		return err
	}
	rest := strings.Replace(string(sql), "\nCREATE ROLE "+strings.Join(first, "")+";\n", "\n", 1)
	return p.exec(ctx, p.container, p.on("template1"), strings.NewReader(rest), io.Discard, "psql", "-Xq", "-v", "ON_ERROR_STOP=1")
}

// savePostgres dumps the roles and every database of the stack's server.
func (s *Stack) savePostgres(ctx context.Context, c container.InspectResponse, w *writer) (*Server, error) {
	user := variableOf(c.Config.Env, "POSTGRES_USER")
	p := postgres{s, c.ID, []string{"PGUSER=" + user, "PGPASSWORD=" + variableOf(c.Config.Env, "POSTGRES_PASSWORD"), "PGAPPNAME=" + application}}
	// A command in a container does not end when its client is gone: pg_dump would go on without a reader.
	defer func() {
		_, _ = p.query(context.WithoutCancel(ctx), "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and application_name = '"+application+"'")
	}()
	server, dumps, err := p.about(ctx)
	if err != nil {
		return nil, err
	}
	server.User = user
	for i, database := range dumps {
		entry, method := Entry{Name: rolesName}, zip.Deflate
		if database != "" { // pg_dump has compressed it
			entry, method = Entry{Name: fmt.Sprintf("postgres/%d.dump", i-1), Database: database}, zip.Store
		}
		if err := w.add(entry, method, func(to io.Writer) error { return p.dump(ctx, database, to) }); err != nil {
			return nil, err
		}
	}
	return server, nil
}

// newPostgres fills a new volume: it starts the stack's image on it, without the
// stack's networks, with a given first superuser, and has fill put the data in.
func (s *Stack) newPostgres(ctx context.Context, volume, role string, network container.NetworkMode, fill func(postgres) error) error {
	service, _ := s.Plan.Lookup("postgres")
	_, path := s.dataOf("postgres")
	env := []string{
		// The roles bring their own passwords. Those made before PostgreSQL 14 are hashed with MD5,
		// which only the method md5 takes; it takes SCRAM passwords too, and uses SCRAM for them.
		"POSTGRES_USER=" + role, "POSTGRES_PASSWORD=" + rand.Text(), "POSTGRES_DB=postgres", "POSTGRES_HOST_AUTH_METHOD=md5",
		"PGPORT=" + stagingPort, // for the server and for all clients in the container
	}
	for _, e := range service.Env {
		if !strings.HasPrefix(e.Name, "POSTGRES_") || e.Name == "POSTGRES_INITDB_ARGS" {
			env = append(env, e.Name+"="+e.Value)
		}
	}
	config := container.Config{Image: service.Image.Key(), Env: env}
	host := container.HostConfig{NetworkMode: network, Binds: []string{volume + ":" + path}}
	return s.serve(ctx, config, host, postgresReady, func(id string) error {
		p := postgres{s, id, []string{"PGUSER=" + role}}
		if err := fill(p); err != nil {
			return err
		}
		// A dump has no statistics, which the planner needs.
		_, err := s.Ask(ctx, id, p.env, "vacuumdb", "--all", "--analyze-only", "--quiet")
		return err
	})
}

// saveRedis lets the server produce a snapshot, as it would for a replica.
func (s *Stack) saveRedis(ctx context.Context, c container.InspectResponse, w *writer) (*Server, error) {
	var env []string
	if password := variableOf(c.Config.Env, "REDIS_PASSWORD"); password != "" {
		env = append(env, "REDISCLI_AUTH="+password)
	}
	info, err := s.Ask(ctx, c.ID, env, "redis-cli", "info", "server")
	if err != nil {
		return nil, err
	}
	_, version, _ := strings.Cut(info, "redis_version:")
	version, _, _ = strings.Cut(version, "\r")
	s.Say("saving Redis")
	return &Server{Version: version}, w.add(Entry{Name: redisName}, zip.Deflate, func(to io.Writer) error {
		return s.exec(ctx, c.ID, env, http.NoBody, to, "redis-cli", "--rdb", "-")
	})
}

// snapshotArchive returns a snapshot of Redis as an archive that holds, in a folder, the file which a server reads when it starts.
func snapshotArchive(folder string, snapshot io.Reader, size int64) func(io.Writer) error {
	return func(to io.Writer) error {
		archive := tar.NewWriter(to)
		err := archive.WriteHeader(&tar.Header{Name: folder + "/dump.rdb", Mode: 0o644, Size: size})
		if err == nil {
			_, err = io.Copy(archive, snapshot)
		}
		return errors.Join(err, archive.Close())
	}
}

// convertSnapshot has the stack's image read the snapshot in a volume, and write the
// append-only file that the stack's server reads. The snapshot cannot take that file's
// place itself, because redis-cli leaves a marker of the replication at its end.
func (s *Stack) convertSnapshot(ctx context.Context, volume string) error {
	service, _ := s.Plan.Lookup("redis")
	_, path := s.dataOf("redis")
	config := container.Config{Image: service.Image.Key(), Cmd: []string{"redis-server", "--appendonly", "no", "--save", ""}}
	host := container.HostConfig{Binds: []string{volume + ":" + path}}
	loaded := []string{"sh", "-c", "redis-cli ping | grep -q PONG"} // it answers LOADING with exit code 0
	return s.serve(ctx, config, host, loaded, func(id string) error {
		if answer, err := s.Ask(ctx, id, nil, "redis-cli", "config", "set", "appendonly", "yes"); err != nil || answer != "OK" {
			return errors.Join(err, fmt.Errorf("switching the append-only file on: %s", answer))
		}
		for {
			info, err := s.Ask(ctx, id, nil, "redis-cli", "info", "persistence")
			if err != nil || strings.Contains(info, "aof_last_bgrewrite_status:err") {
				return errors.Join(err, fmt.Errorf("writing the append-only file failed: %s", s.log(id, "10")))
			}
			if strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0") {
				return nil
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
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
