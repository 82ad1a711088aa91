//go:build live

package test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog/catalogtest"
)

// fault is one thing that goes wrong with a stack that has rows in its databases.
type fault struct {
	name string
	how  string // it is provoked
	// provoke makes it happen, and gives what the first command after it, or hit by it, said.
	provoke func(l *live) said
	works   bool     // that command succeeds all the same
	may     bool     // it may succeed or fail, by when it is hit
	says    []string // patterns of what it prints: the cause, and the next command where one is needed
	then    []string // patterns of what the next up prints
	loses   string   // the rows that are lost with what was removed; empty for none
}

// TestFaults provokes each fault on a live stack. The faults of a group happen one after the other to one stack, which must
// come back from each by one `platform up`. docs/reliability.md shows them; UPDATE_RELIABILITY=1 writes its table anew.
func TestFaults(t *testing.T) {
	t.Parallel()
	clone := prepareClone(t)
	table := &faultTable{}
	groups := []struct {
		name   string
		make   func(t *testing.T, clone string) *live
		faults []fault
	}{ // the longest first
		{"its probe", promtailLive, probeFaults()},
		{"the runner", plainLive, runnerFaults()},
		{"services", plainLive, serviceFaults()},
		{"the engine", proxiedLive, engineFaults()},
		{"containers", plainLive, containerFaults()},
		{"the state", plainLive, stateFaults()},
		{"its disk", diskLive, diskFaults()},
		{"a restart", restartLive, restartFaults()},
	}
	all := 0
	t.Run("on", func(t *testing.T) {
		for _, group := range groups {
			all += len(group.faults)
			t.Run(group.name, func(t *testing.T) {
				t.Parallel()
				var l *live
				for _, f := range group.faults {
					if l == nil {
						l = group.make(t, clone)
						up := l.platform("up")
						require.NoError(t, up.err, up.out)
						l.fill()
					}
					passed := t.Run(f.name, func(t *testing.T) {
						s := *l
						s.stack = l.in(t)
						s.happens(f, table)
					})
					if !passed { // what comes next wants a stack that is well
						l = nil
					}
				}
			})
		}
	})
	if !t.Failed() {
		table.check(t, all)
	}
}

// happens provokes a fault and sees to what must come of it.
func (l *live) happens(f fault, table *faultTable) {
	l.t.Helper()
	first := f.provoke(l)
	l.t.Cleanup(func() {
		if l.t.Failed() {
			l.t.Logf("the first command (%v):\n%s", first.err, first.out)
		}
	})
	if f.works {
		require.NoError(l.t, first.err, first.out)
	} else if !f.may {
		require.Error(l.t, first.err, first.out)
	}
	var seen []string
	says := f.says
	if first.err == nil && f.may {
		says = nil
	}
	for _, text := range says {
		line := first.line(text)
		assert.NotEmpty(l.t, line, "the first command says nothing of %q", text)
		seen = append(seen, line)
	}
	if f.loses != "" {
		l.fill()
	}
	before := l.ids()
	next := l.converges()
	if f.works {
		assert.Empty(l.t, l.replaced(before), "the first command has done all there was to do")
	}
	for _, text := range f.then {
		line := next.line(text)
		assert.NotEmpty(l.t, line, "the next up says nothing of %q", text)
		if len(f.says) == 0 {
			seen = append(seen, "next: "+line)
		}
	}
	rows := "all"
	if f.loses != "" {
		rows = f.loses
	}
	l.t.Logf("first: %s; next: %s", strings.Join(seen, "; "), summary(next))
	table.add(l, faultRow{fault: f.name, provoked: f.how, seen: strings.Join(slices.Compact(seen), "; "), next: summary(next), rows: rows, test: l.t.Name()})
}

func plainLive(t *testing.T, clone string) *live { return newLive(t, clone, nil) }

// up returns the fault of something that is done to a stack that is up, seen by the next up.
func up(do func(l *live)) func(l *live) said {
	return func(l *live) said {
		do(l)
		return l.platform("up")
	}
}

// engineDoes runs docker commands on the stack's engine; NAME in their arguments is the stack's prefix.
func engineDoes(commands ...string) func(l *live) said {
	return up(func(l *live) {
		for _, command := range commands {
			_, err := l.docker(strings.Fields(strings.ReplaceAll(command, "NAME", l.prefix))...)
			require.NoError(l.t, err)
		}
	})
}

func containerFaults() []fault {
	return []fault{
		{
			name: "container killed", how: "docker kill", works: true,
			provoke: engineDoes("kill NAME_postgres"), says: []string{"_postgres is stopped: starting it"},
		},
		{
			name: "container stopped", how: "docker stop", works: true,
			provoke: engineDoes("stop NAME_redis"), says: []string{"_redis is stopped: starting it"},
		},
		{
			name: "container paused", how: "docker pause", works: true,
			provoke: engineDoes("pause NAME_postgres"), says: []string{"_postgres is paused: unpausing it"},
		},
		{
			name: "container removed by hand", how: "docker rm -f", works: true,
			provoke: engineDoes("rm -f NAME_postgres"), says: []string{"_postgres is gone from the engine"},
		},
		{
			name: "all containers removed", how: "docker rm -f of each, as docker compose down does", works: true,
			provoke: engineDoes("rm -f NAME_postgres NAME_redis"),
			says:    []string{"_postgres is gone from the engine", "_redis is gone from the engine"},
		},
		{
			name: "network removed", how: "docker network disconnect -f of each container, docker network rm", works: true,
			provoke: engineDoes("network disconnect -f NAME_default NAME_postgres", "network disconnect -f NAME_default NAME_redis", "network rm NAME_default"),
			says:    []string{"_default is gone from the engine"},
		},
		{
			name: "volume removed", how: "docker volume rm of one that no running service mounts", works: true,
			provoke: engineDoes("volume rm NAME_promtaildata"),
			says:    []string{"_promtaildata is gone from the engine, and its data with it"},
		},
		{
			name: "the database's volume removed", how: "docker rm -f postgres, docker volume rm", works: true, loses: "those in the removed volume",
			provoke: engineDoes("rm -f NAME_postgres", "volume rm NAME_pgdata"),
			says:    []string{"_pgdata is gone from the engine, and its data with it"},
		},
	}
}

// imageFault lets a service have another image for one up, and its own again for the next.
func imageFault(service string, image func(l *live) string) func(l *live) said {
	return func(l *live) said {
		l.configure(map[string]any{"images": merged(images(), service, image(l))})
		defer l.configure(map[string]any{"images": images()})
		return l.platform("up")
	}
}

func serviceFaults() []fault {
	return []fault{
		{
			name: "service exits at start", how: "an image of redis that exits with code 3",
			provoke: imageFault("redis", func(l *live) string {
				return testImage(l.t, "exits", references["redis"], `ENTRYPOINT ["sh", "-c", "echo could not read the frobnicator; exit 3"]`)
			}),
			says: []string{"_redis restarts over and over", "last exited with code 3", "could not read the frobnicator", "docker logs", "` to continue"},
		},
		{
			name: "image missing", how: "an image of redis that is neither on the engine nor in a registry",
			provoke: imageFault("redis", func(l *live) string { return l.prefix + "/nowhere:latest" }),
			says:    []string{"/nowhere:latest", "` to continue"},
		},
		{
			name: "dependency slow to become healthy", how: "an image of postgres that waits 20 s before it starts", works: true,
			provoke: up(func(l *live) {
				l.configure(map[string]any{"images": merged(images(), "postgres", slowPostgres(l.t))})
			}),
			says: []string{"_postgres: starting"},
		},
	}
}

// slowPostgres is an image of PostgreSQL that takes its time.
func slowPostgres(t testing.TB) string {
	return testImage(t, "slow", references["postgres"], `ENTRYPOINT ["sh", "-c", "sleep 20; exec docker-entrypoint.sh postgres"]`)
}

// touch changes a variable of postgres, so that the next up replaces its container.
func (l *live) touch() {
	l.t.Helper()
	l.configure(map[string]any{"serviceEnv": map[string]any{"postgres": map[string]any{"TOUCHED": time.Now().Format(time.RFC3339Nano)}}})
}

// ended returns the faults of a runner that is ended in the middle of each command.
func ended(signal, how string, end func(*running), says, then []string) (faults []fault) {
	middles := map[string]struct {
		command, action, service string
		before                   func(l *live)
	}{
		"an up":     {"up", "start", "postgres", func(l *live) { require.NoError(l.t, l.platform("down").err) }},
		"an update": {"up", "destroy", "postgres", func(l *live) { l.touch() }},
		"a destroy": {"down", "destroy", "", func(*live) {}},
	}
	for _, middle := range slices.Sorted(maps.Keys(middles)) {
		m := middles[middle]
		faults = append(faults, fault{
			name: signal + " in the middle of " + middle, how: how,
			provoke: func(l *live) said {
				m.before(l)
				return l.wait(l.during(m.command, m.action, m.service, end))
			},
			says: says, then: then,
		})
	}
	return faults
}

func runnerFaults() []fault {
	// As platform runs the CLI for more than 50 containers.
	large := ended("runner of a large stack ended by KILL", "the same, with the state saved at the end only", (*running).killAll, nil,
		[]string{"cleared the lock of a run that was killed"})
	for i, f := range large {
		large[i].provoke = func(l *live) said {
			l.env = append(slices.Clip(l.env), "PULUMI_SKIP_CHECKPOINTS=true")
			return f.provoke(l)
		}
	}
	return slices.Concat(large,
		ended("runner ended by TERM", "kill -TERM of platform", func(r *running) { _ = r.cmd.Process.Signal(syscall.SIGTERM) }, []string{"interrupted. Fix: run `make"}, nil),
		ended("runner ended by KILL", "kill -KILL of platform and of all that it started", (*running).killAll, nil,
			[]string{"cleared the lock of a run that was killed"}),
		[]fault{
			{
				name: "provider killed", how: "kill -KILL of pulumi-resource-docker in the middle of an update",
				provoke: func(l *live) said {
					l.touch()
					return l.wait(l.during("up", "destroy", "postgres", func(r *running) {
						found := descendants(r.cmd.Process.Pid, "pulumi-resource")
						assert.NotEmpty(l.t, found)
						for _, pid := range found {
							assert.NoError(l.t, syscall.Kill(pid, syscall.SIGKILL))
						}
					}))
				},
				says: []string{"pulumi-resource-docker", "` to continue"},
			},
			{
				name: "two ups at once", how: "a second up while the first waits for a postgres that is slow",
				provoke: func(l *live) said {
					l.configure(map[string]any{"images": merged(images(), "postgres", slowPostgres(l.t))})
					var second said
					first := l.wait(l.during("up", "create", "postgres", func(*running) { second = l.platform("up") }))
					l.configure(map[string]any{"images": images()})
					assert.NoError(l.t, first.err, first.out)
					return second
				},
				says: []string{"another run has it locked: process", "wait until it has ended"},
			},
		})
}

func stateFaults() []fault {
	return []fault{
		{
			name: "state file truncated", how: "half of it cut off", works: true,
			provoke: up(func(l *live) {
				info, err := os.Stat(l.stateFile())
				require.NoError(l.t, err)
				require.NoError(l.t, os.Truncate(l.stateFile(), info.Size()/2))
			}),
			says: []string{"was damaged, and Pulumi's last copy takes its place"},
		},
		{
			name: "state file and its copy truncated", how: "both cut to nothing", works: true,
			provoke: up(func(l *live) {
				require.NoError(l.t, os.Truncate(l.stateFile(), 0))
				require.NoError(l.t, os.Truncate(l.stateFile()+".bak", 0))
			}),
			says: []string{"was damaged, and is rebuilt from the engine"},
		},
		{
			name: "state file gone", how: "it and all its copies removed", works: true,
			provoke: up(func(l *live) {
				files, err := filepath.Glob(strings.TrimSuffix(l.stateFile(), ".json") + ".*")
				require.NoError(l.t, err)
				require.NotEmpty(l.t, files)
				for _, file := range files {
					require.NoError(l.t, os.Remove(file))
				}
			}),
			says: []string{"its own settings and secrets are in"},
		},
		{
			name: "wrong passphrase", how: "PULUMI_CONFIG_PASSPHRASE set to another",
			provoke: func(l *live) said {
				l.touch() // an up that has nothing to do needs no passphrase
				return l.platform("up", "PULUMI_CONFIG_PASSPHRASE=another")
			},
			says: []string{"incorrect passphrase", "Fix: set PULUMI_CONFIG_PASSPHRASE"},
		},
	}
}

// proxiedLive reaches its engine through a proxy, always.
func proxiedLive(t *testing.T, clone string) *live {
	t.Helper()
	p := newProxy(t, nil)
	l := newLive(t, clone, nil)
	l.proxy = p
	l.env = append(l.env, "DOCKER_HOST="+p.host())
	return l
}

func engineFaults() []fault {
	return []fault{
		{
			name: "connection to the engine cut", how: "a proxy before the engine that ends all connections when an up creates postgres, and lets none through",
			provoke: func(l *live) said {
				l.touch()
				said := l.wait(l.during("up", "create", "postgres", func(*running) { l.proxy.cut() }))
				l.proxy.listen()
				return said
			},
			says: []string{`(connect|docker API).*engine\.sock`, "` to continue"},
		},
		{
			name: "connection to the engine cut for a moment", how: "the same, for half a second while postgres starts", may: true,
			provoke: func(l *live) said {
				l.touch()
				return l.wait(l.during("up", "start", "postgres", func(*running) {
					l.proxy.cut()
					time.Sleep(500 * time.Millisecond)
					l.proxy.listen()
				}))
			},
			says: []string{`(connect|docker API).*engine\.sock`, "` to continue"},
		},
		{
			name: "clock jumping", how: "a proxy that moves the times that the engine tells by an hour forward while an up creates postgres, and back in the next", works: true,
			provoke: func(l *live) said {
				defer l.proxy.skew.Store(0)
				for _, by := range []time.Duration{time.Hour, -time.Hour} {
					l.touch()
					said := l.wait(l.during("up", "create", "postgres", func(*running) { l.proxy.skew.Store(int64(by)) }))
					if said.err != nil || by < 0 {
						return said
					}
				}
				return said{}
			},
		},
		{
			name: "engine at another address", how: "DOCKER_HOST names another way to the same engine; redis removed by hand", works: true,
			provoke: func(l *live) said {
				_, err := l.docker("rm", "-f", l.prefix+"_redis")
				require.NoError(l.t, err)
				return l.platform("up", "DOCKER_HOST="+engine.DaemonHost())
			},
			says: []string{"_redis is gone from the engine"},
		},
	}
}

func promtailLive(t *testing.T, clone string) *live {
	return newLive(t, clone, map[string]any{"disabled": catalogtest.BaseWithout("postgres", "redis", "loki_server", "promtail")})
}

func probeFaults() []fault {
	return []fault{{
		name: "service unhealthy at start", how: "an image of promtail that only sleeps",
		provoke: imageFault("promtail", func(l *live) string {
			return testImage(l.t, "sleeps", references["promtail"], `ENTRYPOINT ["sh", "-c", "echo waiting for the other shoe; exec sleep infinity"]`)
		}),
		says: []string{"_promtail is unhealthy", "waiting for the other shoe", "docker logs", "` to continue"},
	}}
}

// diskLive keeps the database on a small disk.
func diskLive(t *testing.T, clone string) *live {
	t.Helper()
	disk := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=200m,mode=0777"), "mounting a small disk; this needs root")
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(disk, 0)) })
	volume := runID + "-disk"
	_, err := docker("volume", "create", "--label", runLabel+"="+runID, "--opt", "type=none", "--opt", "o=bind", "--opt", "device="+disk, volume)
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = docker("volume", "rm", volume) })
	l := newLive(t, clone, map[string]any{"volumes": map[string]any{"pgdata": volume}})
	l.disk = disk
	return l
}

func diskFaults() []fault {
	fill := func(l *live) (free func()) {
		file := filepath.Join(l.disk, "filler")
		for _, block := range []string{"1M", "4k"} { // the last block too
			out, err := exec.Command("dd", "if=/dev/zero", "of="+file, "bs="+block, "oflag=append", "conv=notrunc").CombinedOutput()
			require.Error(l.t, err, "the disk is full")
			require.Contains(l.t, string(out), "No space left on device")
		}
		return func() { require.NoError(l.t, os.Remove(file)) }
	}
	return []fault{{
		name: "disk full in a data volume", how: "docker stop postgres; its volume, a tmpfs of 200 MB, filled",
		provoke: func(l *live) said {
			_, err := l.docker("stop", l.prefix+"_postgres")
			require.NoError(l.t, err)
			free := fill(l)
			defer free()
			return l.platform("up")
		},
		says: []string{"No space left on device", "docker logs"},
	}}
}

func restartLive(t *testing.T, clone string) *live {
	t.Helper()
	own := newOwnEngine(t, nil)
	own.load(references["postgres"], references["redis"])
	l := newLive(t, clone, nil)
	l.moveTo(own)
	return l
}

func restartFaults() []fault {
	return []fault{{
		name: "engine restarted", how: "dockerd ended and started again when an up starts postgres", may: true,
		provoke: func(l *live) said {
			l.touch()
			return l.wait(l.during("up", "start", "postgres", func(*running) {
				l.daemon.stop()
				l.daemon.start()
			}))
		},
		says: []string{`(connect|docker API).*docker\.sock|was stopped while it started`, "` to continue"},
	}}
}

var (
	changed  = regexp.MustCompile(`(?m)^ +(?:[-+~]+ ?)?(\d+ (?:created|updated|replaced|deleted|unchanged))$`)
	changing = regexp.MustCompile(`Error response from daemon: [^;]*|\d{4}-\d\d-\d\d [\d:.]+ UTC |\d+(\.\d+)?m?s\b|, \d\d:\d\d:\d\d on \d+ \w+|, since \d\d:\d\d:\d\d on \d+ \w+|[^\s"]*(?:/|%2F)(?:tmp|var)(?:/|%2F)[^\s";]+`)
	numbers  = regexp.MustCompile(`(process|kill) \d+`)
)

// summary is what an up did, by Pulumi's own count.
func summary(s said) string {
	var parts []string
	for _, found := range changed.FindAllStringSubmatch(s.out, -1) {
		parts = append(parts, found[1])
	}
	return strings.Join(parts, ", ")
}

func (f *faultTable) add(l *live, row faultRow) {
	row.seen = numbers.ReplaceAllString(changing.ReplaceAllString(row.seen, "…"), "$1 …")
	row.seen = strings.NewReplacer(l.prefix, "trading_platform", l.name, "dev", "platform: ", "", "……", "…", "/testfaults-on-", "/").Replace(row.seen)
	if row.seen == "" {
		row.seen = "nothing out of the ordinary"
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rows == nil {
		f.rows = map[string]faultRow{}
	}
	f.rows[row.fault] = row
}

// check holds the table in docs/reliability.md against what was seen, by the faults' names, tests and rows kept, or writes it.
// all is how many faults there are; with -run some were left out.
func (f *faultTable) check(t *testing.T, all int) {
	t.Helper()
	const begin, end = "<!-- faults: written by UPDATE_RELIABILITY=1 go test -tags live ./test -run TestFaults -->\n", "<!-- end of faults -->\n"
	file := filepath.Join(root, "docs", "reliability.md")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(text), begin)
	require.True(t, ok, "%s has no line %s", file, begin)
	written, tail, ok := strings.Cut(rest, end)
	require.True(t, ok, "%s has no line %s", file, end)
	cell := strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace
	lines := []string{"| fault | how it is provoked | what the first command says | what the next `platform up` does | rows kept | test |", "|---|---|---|---|---|---|"}
	for _, name := range slices.Sorted(maps.Keys(f.rows)) {
		r := f.rows[name]
		lines = append(lines, fmt.Sprintf("| %s | %s | %s | %s | %s | `%s` |", r.fault, cell(r.provoked), cell(r.seen), cell(r.next), r.rows, r.test))
	}
	table := strings.Join(lines, "\n") + "\n"
	if os.Getenv("UPDATE_RELIABILITY") == "1" {
		require.Len(t, f.rows, all, "the whole table is written, or nothing")
		require.NoError(t, os.WriteFile(file, []byte(head+begin+table+end+tail), 0o644))
		return
	}
	steady := func(table string) (rows []string) {
		for line := range strings.Lines(table) {
			cells := regexp.MustCompile(`[^\\]\|`).Split(line, -1)
			if len(cells) > 6 {
				rows = append(rows, cells[0]+"|"+cells[1]+"|"+cells[len(cells)-3]+"|"+cells[len(cells)-2])
			}
		}
		return rows
	}
	if len(f.rows) < all {
		assert.Subset(t, steady(written), steady(table), "docs/reliability.md is another; UPDATE_RELIABILITY=1 writes it")
		return
	}
	assert.Equal(t, steady(table), steady(written), "docs/reliability.md is another; UPDATE_RELIABILITY=1 writes it")
}
