//go:build live

package test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog/catalogtest"
	"trading-platform/plan"
)

// withLoki is the smallest stack that writes to each kind of volume.
var withLoki = map[string]any{"disabled": catalogtest.BaseWithout("postgres", "redis", "loki_server")}

// TestBackup takes one stack's data through backups and restores, whole ones and such as are cut short.
func TestBackup(t *testing.T) {
	t.Parallel()
	clone := prepareClone(t)
	l := newLive(t, clone, withLoki)
	l.must("up")
	l.fill()
	l.sql("create role reader login")
	l.sql("grant select on kept to reader")
	l.sql(`create database "odd = name"`)
	l.inVolume("backtest_data", "echo 42 > /v/result && chown 1000:1000 /v/result && chmod 640 /v/result && ln -s result /v/latest")
	file := filepath.Join(t.TempDir(), "data.zip")
	step := func(name string, f func(l *live)) {
		t.Run(name, func(t *testing.T) {
			s := *l
			s.stack = l.in(t)
			f(&s)
			s.nothingTemporary()
			l.rows = s.rows
		})
	}
	whole := l.everything()

	step("an interrupted one has no name", func(l *live) {
		unfinished := filepath.Join(t.TempDir(), "killed.zip")
		// Enough for the copy to last longer than it takes to kill.
		l.inVolume("lokidata", "head -c 150000000 /dev/urandom > /v/ballast")
		killed := l.during("backup "+unfinished, "pause", "loki_server", (*running).killAll)
		require.Error(l.t, l.wait(killed).err)
		assert.NoFileExists(l.t, unfinished)
		assert.Equal(l.t, "paused", string(l.inspect("loki_server").State.Status), "where the kill left it")
		ended := l.during("backup "+unfinished, "create", "", func(r *running) { assert.NoError(l.t, r.cmd.Process.Signal(syscall.SIGTERM)) })
		require.Error(l.t, l.wait(ended).err)
		left, err := os.ReadDir(filepath.Dir(unfinished))
		require.NoError(l.t, err)
		assert.Len(l.t, left, 1, "of two interrupted backups the killed one leaves an unnamed file")
		l.inVolume("lokidata", "rm /v/ballast")
		assert.Contains(l.t, l.must("up").out, "is paused: unpausing it")
	})
	step("a whole one", func(l *live) {
		before := l.ids()
		l.must("backup " + file)
		assert.Empty(l.t, l.replaced(before))
		for service := range before {
			assert.Equal(l.t, "healthy", l.health(service), service)
		}
		info, err := os.Stat(file)
		require.NoError(l.t, err)
		assert.Equal(l.t, os.FileMode(0o600), info.Mode().Perm())
		again := l.platform("backup " + file)
		require.Error(l.t, again.err)
		assert.Contains(l.t, again.out, "exists already")
	})
	step("what cannot be restored is refused before anything is touched", func(l *live) {
		content, err := os.ReadFile(file)
		require.NoError(l.t, err)
		damaged := slices.Clone(content)
		damaged[len(damaged)/2] ^= 1
		for name, test := range map[string]struct {
			content []byte
			says    string
		}{
			"a damaged byte":    {damaged, "is not a complete backup"},
			"cut short":         {content[:len(content)-100], "is not a complete backup"},
			"empty":             {nil, "is not a complete backup"},
			"a newer database":  {withManifest(t, file, "postgres", map[string]any{"version": "99.1", "role": "trader", "user": "trader"}), "does not read the backup's data of version 99.1"},
			"a newer Redis":     {withManifest(t, file, "redis", map[string]any{"version": "9.0.0"}), "does not read the backup's data of version 9.0.0"},
			"another role":      {withManifest(t, file, "postgres", map[string]any{"version": "15.1", "role": "trader", "user": "somebody"}), "POSTGRES_USER"},
			"a newer format":    {withManifest(t, file, "format", 2), "has format 2"},
			"a missing content": {withManifest(t, file, "entries", []any{}), "is not a complete backup"},
		} {
			bad := filepath.Join(t.TempDir(), "bad.zip")
			require.NoError(l.t, os.WriteFile(bad, test.content, 0o600))
			ids, volumes := l.ids(), l.volumes()
			said := l.platform("restore " + bad)
			require.Error(l.t, said.err, name)
			assert.Contains(l.t, said.out, test.says, name)
			assert.Contains(l.t, said.out, "nothing was changed", name)
			assert.Equal(l.t, ids, l.ids(), name)
			assert.Equal(l.t, volumes, l.volumes(), name)
		}
	})
	step("an interrupted restore changes nothing", func(l *live) {
		ids, volumes := l.ids(), l.volumes()
		ended := l.during("restore "+file, "start", "", func(r *running) { assert.NoError(l.t, r.cmd.Process.Signal(syscall.SIGTERM)) })
		require.Error(l.t, l.wait(ended).err)
		assert.Equal(l.t, volumes, l.volumes(), "after TERM")
		killed := l.during("restore "+file, "start", "", (*running).killAll)
		require.Error(l.t, l.wait(killed).err)
		assert.Greater(l.t, len(l.volumes()), len(volumes), "a killed restore leaves volumes behind")
		assert.Equal(l.t, ids, l.ids())
		l.must("purge --old --yes")
		assert.Equal(l.t, whole, l.everything())
		assert.Equal(l.t, volumes, l.volumes(), "what the killed one left is gone")
	})
	step("into the stack itself", func(l *live) {
		l.sql("delete from kept where i > 10")
		l.sql("drop role if exists nobody; create table later (i int)")
		l.exec("redis", "redis-cli", "flushall")
		l.inVolume("backtest_data", "rm /v/latest; echo changed > /v/result")
		before := l.volumes()
		said := l.must("restore " + file)
		assert.Contains(l.t, said.out, "the previous data is still in volume "+l.prefix+"_pgdata (")
		assert.Contains(l.t, said.out, "platform purge -s "+l.name+" --old")
		assert.Equal(l.t, whole, l.everything())
		assert.Empty(l.t, l.sql("select 'later' from pg_tables where tablename = 'later'"))
		now := slices.DeleteFunc(l.volumes(), func(name string) bool { return slices.Contains(before, name) })
		assert.Len(l.t, now, len(before))
		l.converges()
		l.must("purge --old --yes")
		assert.Equal(l.t, now, l.volumes(), "the old data alone is gone")
		l.converges()
	})
	step("into an empty stack", func(l *live) {
		other := newLive(l.t, clone, withLoki)
		other.must("restore " + file)
		assert.Equal(l.t, whole, other.everything())
		other.rows = l.rows
		other.converges()
		other.nothingTemporary()
	})
	step("purge", func(l *live) {
		refused := l.platform("purge --yes")
		require.Error(l.t, refused.err)
		assert.Contains(l.t, refused.out, "platform down -s "+l.name)
		l.must("down")
		volumes := l.volumes()
		kept := slices.IndexFunc(volumes, func(name string) bool { return strings.Contains(name, "_lokidata") })
		stranger, err := docker("run", "-d", "--label", runLabel+"="+runID, "-v", volumes[kept]+":/v", "--entrypoint", "sleep", references["redis"], "600")
		require.NoError(l.t, err)
		l.t.Cleanup(func() { _, _ = docker("rm", "-f", "-v", stranger) })

		typo := l.typed("something else\n", "purge")
		require.Error(l.t, typo.err)
		assert.Contains(l.t, typo.out, "nothing was deleted")
		assert.Equal(l.t, volumes, l.volumes())
		done := l.typed(l.name+"\n", "purge")
		require.NoError(l.t, done.err, done.out)
		assert.Contains(l.t, done.out, "kept "+volumes[kept])
		assert.Regexp(l.t, `deleted \S+_pgdata\S* \([0-9.]+MB\)`, done.out)
		assert.Equal(l.t, []string{volumes[kept]}, l.volumes())
		_, err = docker("rm", "-f", "-v", stranger)
		require.NoError(l.t, err)
		l.must("purge --yes")
		assert.Empty(l.t, l.volumes())
		l.must("up")
		assert.Empty(l.t, l.sql("select 'kept' from pg_tables where tablename = 'kept'"))
	})
}

// TestComposeAndBack has a stack take over the volumes of the old Compose stack, and that stack its data back.
func TestComposeAndBack(t *testing.T) {
	t.Parallel()
	l := newLive(t, prepareClone(t), map[string]any{"ignoreCompose": nil})
	project := strings.ToLower(l.prefix) + "old"
	for _, key := range []string{"pgdata", "redisdata", "prometheusdata"} {
		_, err := docker("volume", "create", "--label", plan.IdentityLabel+"="+l.prefix, "--label", "com.docker.compose.project="+project,
			"--label", "com.docker.compose.volume="+key, project+"_"+key)
		require.NoError(t, err)
	}
	compose := func(words ...string) (rows, keys string) {
		databases, err := docker("run", "-d", "--label", runLabel+"="+runID, "-v", project+"_pgdata:/var/lib/postgresql/data", "-e", "POSTGRES_USER=trader", "-e", "POSTGRES_PASSWORD=trader", references["postgres"])
		require.NoError(t, err)
		cache, err := docker("run", "-d", "--label", runLabel+"="+runID, "-v", project+"_redisdata:/data", references["redis"], "redis-server", "--appendonly", "yes")
		require.NoError(t, err)
		defer func() {
			_, err := docker("stop", databases, cache)
			require.NoError(t, err)
			_, err = docker("rm", "-v", databases, cache)
			require.NoError(t, err)
		}()
		require.Eventually(t, func() bool {
			_, err := docker("exec", databases, "psql", "-U", "trader", "-h", "127.0.0.1", "-c", "select 1")
			pong, _ := docker("exec", cache, "redis-cli", "ping")
			return err == nil && pong == "PONG"
		}, time.Minute, 200*time.Millisecond)
		for _, word := range words {
			_, err := docker("exec", databases, "psql", "-U", "trader", "-c", "create table if not exists words (word text)", "-c", "insert into words values ('"+word+"')")
			require.NoError(t, err)
			_, err = docker("exec", cache, "redis-cli", "rpush", "words", word)
			require.NoError(t, err)
		}
		rows, err = docker("exec", databases, "psql", "-U", "trader", "-tAc", "select string_agg(word, ' ') from words")
		require.NoError(t, err)
		keys, err = docker("exec", cache, "redis-cli", "lrange", "words", "0", "-1")
		require.NoError(t, err)
		return rows, strings.Join(strings.Fields(keys), " ")
	}
	compose("compose")

	refused := l.platform("up")
	require.Error(t, refused.err)
	assert.Contains(t, refused.out, "the old Compose project "+project+" left its data in "+project+"_pgdata")
	l.configure(map[string]any{"volumes": map[string]string{"pgdata": project + "_pgdata", "redisdata": project + "_redisdata", "prometheusdata": project + "_prometheusdata"}})
	l.must("up")
	assert.Equal(t, "compose", l.sql("select string_agg(word, ' ') from words"))
	assert.Equal(t, "compose", l.exec("redis", "redis-cli", "lrange", "words", "0", "-1"))
	l.sql("insert into words values ('pulumi')")
	l.exec("redis", "redis-cli", "rpush", "words", "pulumi")
	l.must("down")

	rows, keys := compose("again")
	assert.Equal(t, "compose pulumi again", rows)
	assert.Equal(t, "compose pulumi again", keys)
}

// TestUpgrade moves a database from PostgreSQL 13 to the version of the air-gap image, 15.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	l := newLive(t, prepareClone(t), nil)
	makeOldPostgres(t)
	l.configure(map[string]any{"images": merged(images(), "postgres", oldPostgres)})
	l.must("up")
	l.fill()
	l.sql("create role reader login password 'md5 at the time'")
	assert.Contains(t, l.sql("select version()"), "PostgreSQL 13")

	l.configure(map[string]any{"images": images()})
	refused := l.platform("up")
	require.Error(t, refused.err)
	assert.Contains(t, refused.out, "holds data of PostgreSQL 13")
	assert.Contains(t, refused.out, "platform upgrade -s "+l.name)
	volumes := l.volumes()
	killed := l.during("upgrade", "start", "", (*running).killAll)
	require.Error(t, l.wait(killed).err)

	said := l.must("upgrade")
	assert.Contains(t, said.out, "moving the data from PostgreSQL 13 to 15")
	assert.Contains(t, said.out, "the previous data is still in volume "+l.prefix+"_pgdata (")
	assert.Contains(t, l.sql("select version()"), "PostgreSQL 15")
	assert.Equal(t, l.rows, l.contents())
	assert.Equal(t, "md5", l.sql("select left(rolpassword, 3) from pg_authid where rolname = 'reader'"))
	_, err := docker("exec", "-e", "PGPASSWORD=md5 at the time", l.prefix+"_postgres", "psql", "-h", l.prefix+"_postgres", "-U", "reader", "-d", "trader", "-c", "select 1")
	require.NoError(t, err, "a password from before is still good")
	l.converges()
	l.nothingTemporary()
	assert.Len(t, l.volumes(), len(volumes)+1)
	assert.Contains(t, l.must("upgrade").out, "there is nothing to do")
	l.must("purge --old --yes")
	assert.Len(t, l.volumes(), len(volumes))
	l.converges()
}

// BenchmarkBackup measures a backup of 1 GB of rows beside pg_dump's own time, and the memory that platform takes for it.
//
//	go test -tags live ./test -run '^$' -bench Backup -benchtime 1x -timeout 30m
func BenchmarkBackup(b *testing.B) {
	l := newLive(b, prepareClone(b), nil)
	l.must("up")
	// A row is 1 KB and hard to compress.
	l.sql("create table big as select i, (select string_agg(md5(random()::text || i || j), '') from generate_series(1, 31) j) as noise from generate_series(1, 1000000) i")
	l.sql("vacuum big") // else the first reader alone would do that work
	l.sql("checkpoint")
	b.Logf("the table has %s", l.sql("select pg_size_pretty(pg_total_relation_size('big'))"))
	var alone, backup time.Duration
	var peak int64
	runs := 0
	for b.Loop() {
		file := filepath.Join(b.TempDir(), "data.zip")
		alone += timed(func() {
			out, err := exec.Command("sh", "-c", `docker exec "$0" pg_dump -U trader -Fc trader > "$1"`, l.prefix+"_postgres", file+".dump").CombinedOutput()
			require.NoError(b, err, string(out))
		})
		var r *running
		backup += timed(func() {
			r = l.start("backup " + file)
			require.NoError(b, (<-r.done), r.out)
		})
		peak = max(peak, r.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
		runs++
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(alone.Seconds()/float64(runs), "s/pg_dump")
	b.ReportMetric(backup.Seconds()/float64(runs), "s/backup")
	b.ReportMetric(float64(backup)/float64(alone), "backup/pg_dump")
	b.ReportMetric(float64(peak)/1024, "MB-peak")
}

// volumes returns the names of the stack's volumes, sorted.
func (l *live) volumes() []string { return slices.Sorted(slices.Values(l.stack.volumes())) }

// must runs a platform command that must succeed.
func (l *live) must(command string) said {
	l.t.Helper()
	s := l.platform(command)
	require.NoError(l.t, s.err, "platform %s\n%s", command, s.out)
	return s
}

// typed runs a platform command with something typed into it.
func (l *live) typed(text, command string) said {
	l.t.Helper()
	cmd := exec.Command(filepath.Join(l.dir, "bin", "platform"), append(strings.Fields(command), "-s", l.name)...)
	cmd.Dir, cmd.Env, cmd.Stdin = l.dir, l.env, strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	return said{string(out), err}
}

// inVolume runs a shell line with one of the stack's volumes, as it is named now, at /v.
func (l *live) inVolume(key, line string) string {
	l.t.Helper()
	var newest string
	for _, name := range l.volumes() {
		if strings.HasPrefix(name, l.prefix+"_"+key) {
			newest = name
		}
	}
	out, err := docker("run", "--rm", "--label", runLabel+"="+runID, "-v", newest+":/v", "--entrypoint", "sh", references["redis"], "-c", line)
	require.NoError(l.t, err)
	return out
}

// everything tells what a backup must bring back: rows, roles, rights, databases, keys and files.
func (l *live) everything() string {
	l.t.Helper()
	return strings.Join([]string{
		l.contents(),
		l.sql("select string_agg(rolname || ' ' || left(rolpassword, 9), ', ' order by rolname) from pg_authid where oid >= 16384 or oid = 10"),
		l.sql("select relacl from pg_class where relname = 'kept'"),
		l.sql("select string_agg(datname, ', ' order by datname) from pg_database"),
		l.inVolume("backtest_data", "cd /v && stat -c '%n %a %u %g %F' * && readlink latest && cat result"),
	}, "\n")
}

// nothingTemporary asserts that no container of a backup or restore is left.
func (l *live) nothingTemporary() {
	l.t.Helper()
	left, err := l.engine.ContainerList(context.Background(), client.ContainerListOptions{
		All: true, Filters: client.Filters{}.Add("label", plan.IdentityLabel+"="+l.prefix, "trading-platform.temporary"),
	})
	require.NoError(l.t, err)
	assert.Empty(l.t, left.Items)
}

// withManifest returns a backup with another value of one key of its manifest.
func withManifest(t *testing.T, file, key string, value any) []byte {
	t.Helper()
	from, err := zip.OpenReader(file)
	require.NoError(t, err)
	defer func() { _ = from.Close() }()
	var out bytes.Buffer
	to := zip.NewWriter(&out)
	for _, entry := range from.File {
		if entry.Name != "manifest.json" {
			require.NoError(t, to.Copy(entry))
			continue
		}
		r, err := entry.Open()
		require.NoError(t, err)
		text, err := io.ReadAll(r)
		require.NoError(t, err)
		var manifest map[string]any
		require.NoError(t, json.Unmarshal(text, &manifest))
		manifest[key] = value
		w, err := to.Create(entry.Name)
		require.NoError(t, err)
		require.NoError(t, json.NewEncoder(w).Encode(manifest))
	}
	require.NoError(t, to.Close())
	return out.Bytes()
}

// oldPostgres is an image of PostgreSQL 13.
const oldPostgres = "trading-platform-test/postgres:13"

// makeOldPostgres builds oldPostgres from Debian 11. The image stays on the engine, because building it takes most of a minute.
func makeOldPostgres(t *testing.T) {
	t.Helper()
	if _, err := engine.ImageInspect(t.Context(), oldPostgres); err == nil {
		return
	}
	dir := t.TempDir()
	build := exec.Command("sh", "-euc", `
		mmdebstrap --variant=essential --include=postgresql-13,locales --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
			--essential-hook='groupadd -R "$1" -g 999 postgres && useradd -R "$1" -u 999 -g 999 -d /var/lib/postgresql -s /bin/bash postgres' \
			--essential-hook='mkdir -p "$1/etc/postgresql-common" && echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"' \
			--customize-hook='chroot "$1" localedef -i en_US -c -f UTF-8 -A /usr/share/locale/locale.alias en_US.UTF-8' \
			--customize-hook="copy-in $0/airgap/postgres/docker-entrypoint.sh /usr/local/bin" \
			--customize-hook='chmod 755 "$1/usr/local/bin/docker-entrypoint.sh" && mkdir -p "$1/docker-entrypoint-initdb.d"' \
			bullseye root.tar 'deb http://deb.debian.org/debian bullseye main'
		docker import root.tar "$1"`,
		root, oldPostgres+"-files")
	build.Dir = dir
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	buildImage(t, oldPostgres, `FROM `+oldPostgres+`-files
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/13/bin LANG=en_US.utf8 PG_MAJOR=13 PGDATA=/var/lib/postgresql/data
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
STOPSIGNAL SIGINT
VOLUME /var/lib/postgresql/data
`)
}

func timed(work func()) time.Duration {
	started := time.Now()
	work()
	return time.Since(started)
}
