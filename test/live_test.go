//go:build live || official

package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/plan"
	"trading-platform/settings"
)

// live is a stack of databases with rows in them, run by `platform` in a clone as a user runs it.
type live struct {
	*stack
	env     []string
	backend string     // the folder of its state
	rows    string     // what the databases hold
	proxy   *proxy     // before its engine, for one that has one
	disk    string     // where its database's volume is, for one on a disk of its own
	daemon  *ownEngine // the engine, for one with an engine of its own
}

// limit is how long a command may take before it counts as hanging.
const limit = 3 * time.Minute

// prepareClone makes a clone with the platform command in it, for many stacks.
func prepareClone(t testing.TB) string {
	t.Helper()
	clone := cloneOfCheckout(t)
	runIn(t, clone, nil, "go", "build", "-o", "bin/platform", "./cmd/platform")
	return clone
}

// newLive returns a stack in a clone that is not up yet. config is laid over the databases alone, on air-gap images.
func newLive(t testing.TB, clone string, config map[string]any) *live {
	t.Helper()
	l := &live{stack: newPlace(t, "", clone), backend: t.TempDir()}
	l.name = strings.TrimPrefix(l.prefix, "tptest-")
	text, err := os.ReadFile(filepath.Join(root, "Pulumi.base.yaml"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(l.file(), text, 0o600))
	l.configure(l.place())
	l.configure(map[string]any{"provider": provider, "images": images()})
	l.configure(databases)
	l.configure(config)
	l.env = append(environ(shared), "PULUMI_BACKEND_URL=file://"+l.backend)
	t.Cleanup(func() {
		if t.Failed() {
			for _, c := range l.containers() {
				t.Logf("%s (%s), last lines:\n%s", c.Names[0], c.Status, l.logs(c.ID, "15"))
			}
		}
		if down := l.platform("down"); down.err != nil {
			t.Logf("down: %v\n%s", down.err, down.out)
		}
		l.sweep()
	})
	return l
}

// moveTo has the stack live on an engine of the test's own.
func (l *live) moveTo(e *ownEngine) {
	l.t.Helper()
	l.engine, l.host, l.daemon = e.client, e.host(), e
	l.env = append(l.env, "DOCKER_HOST="+e.host())
	l.configure(map[string]any{"dockerRoot": filepath.Join(e.dir, "data")})
}

// fill puts rows into the databases, and remembers what they then hold.
func (l *live) fill() {
	l.t.Helper()
	l.sql("create table kept as select i, md5(i::text) as word from generate_series(1, 1000) i")
	l.exec("redis", "redis-cli", "set", "kept", "still here")
	l.rows = l.contents()
}

// contents counts the databases' rows and sums them up.
func (l *live) contents() string {
	l.t.Helper()
	return l.sql(contents) + ", redis: " + l.exec("redis", "redis-cli", "get", "kept")
}

// said is how a command ended and what it printed.
type said struct {
	out string
	err error
}

// line returns the last line that a pattern is found in: the first ones are of the progress.
func (s said) line(pattern string) (found string) {
	for line := range strings.Lines(s.out) {
		if regexp.MustCompile(pattern).MatchString(line) {
			found = strings.TrimSpace(line)
		}
	}
	return found
}

// running is a command that has not been waited for.
type running struct {
	cmd  *exec.Cmd
	out  *lockedBuffer
	done chan error
}

// start begins a platform command, with its arguments, on the stack.
func (l *live) start(command string, env ...string) *running {
	l.t.Helper()
	r := &running{cmd: exec.Command(filepath.Join(l.dir, "bin", "platform"), slices.Insert(strings.Fields(command), 1, "-s", l.name)...), out: &lockedBuffer{}, done: make(chan error, 1)}
	r.cmd.Dir, r.cmd.Env = l.dir, slices.Concat(l.env, env)
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	r.cmd.WaitDelay = time.Second // what a killed command's children still hold open is not waited for
	require.NoError(l.t, r.cmd.Start())
	go func() { r.done <- r.cmd.Wait() }()
	return r
}

// lockedBuffer is what a command has printed so far.
type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// wait waits for the command's end. One that goes past the limit is killed, and fails the test.
func (l *live) wait(r *running) said {
	l.t.Helper()
	select {
	case err := <-r.done:
		return said{r.out.String(), err}
	case <-time.After(limit):
		r.killAll()
		err := <-r.done
		assert.Fail(l.t, "the command hangs", "%s after %s:\n%s", r.cmd, limit, r.out)
		return said{r.out.String(), errors.Join(errors.New("it hangs"), err)}
	}
}

// platform runs a platform command on the stack.
func (l *live) platform(command string, env ...string) said { return l.wait(l.start(command, env...)) }

// killAll kills the command with all that it started, as a machine does that goes down.
func (r *running) killAll() {
	for _, pid := range append([]int{r.cmd.Process.Pid}, descendants(r.cmd.Process.Pid, "")...) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// descendants returns the processes that a process started, and those that they did, whose name begins so.
func descendants(pid int, name string) (found []int) {
	children := map[int][]int{}
	names := map[int]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		var child, parent int
		var state string
		open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
		if _, err := fmt.Sscan(string(text[:open]), &child); err != nil {
			continue
		}
		if _, err := fmt.Sscan(string(text[end+1:]), &state, &parent); err != nil {
			continue
		}
		children[parent] = append(children[parent], child)
		names[child] = string(text[open+1 : end])
	}
	var walk func(int)
	walk = func(pid int) {
		for _, child := range children[pid] {
			if strings.HasPrefix(names[child], name) {
				found = append(found, child)
			}
			walk(child)
		}
	}
	walk(pid)
	return found
}

// during starts a command, and calls then in its middle: when the engine does this to one of the stack's containers. It
// gives the command, which may have been ended.
func (l *live) during(command, action, service string, then func(*running)) *running {
	l.t.Helper()
	ctx, stop := context.WithCancel(l.t.Context())
	defer stop()
	seen := l.engine.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.
		Add("type", string(events.ContainerEventType)).Add("label", plan.IdentityLabel+"="+l.prefix).Add("event", action)})
	r := l.start(command)
	for {
		select {
		case event := <-seen.Messages:
			if service == "" || event.Actor.Attributes["name"] == l.prefix+"_"+service {
				then(r)
				return r
			}
		case err := <-seen.Err:
			require.NoError(l.t, err, "the engine's events")
		case err := <-r.done:
			require.Fail(l.t, "there was no middle", "%s ended (%v) before it had a container's %s:\n%s", command, err, action, r.out)
		case <-time.After(limit):
			r.killAll()
			require.Fail(l.t, "there was no middle", "%s has not come to a container's %s:\n%s", command, action, r.out)
		}
	}
}

// stateFile is where the stack's state lies.
func (l *live) stateFile() string {
	return filepath.Join(l.backend, ".pulumi", "stacks", settings.Project, l.name+".json")
}

// converges asserts what every fault must come to by one `platform up`: exactly the stack's containers, all healthy, no lock,
// and every row there.
func (l *live) converges() said {
	l.t.Helper()
	up := l.platform("up")
	require.NoError(l.t, up.err, "the next up:\n%s", up.out)
	want := map[string]bool{}
	for _, name := range l.services() {
		want[name] = true
		assert.Equal(l.t, "healthy", l.health(name), name)
	}
	mine, err := l.engine.ContainerList(l.t.Context(), client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", plan.IdentityLabel+"="+l.prefix)})
	require.NoError(l.t, err)
	have := map[string]bool{}
	for _, c := range mine.Items {
		have[strings.TrimPrefix(c.Names[0], "/"+l.prefix+"_")] = true
	}
	assert.Equal(l.t, want, maps.Clone(have), "containers with the stack's label")
	assert.Len(l.t, l.networks(), len(l.plan().Networks))
	assert.Equal(l.t, l.rows, l.contents(), "the rows")
	locks, err := filepath.Glob(filepath.Join(filepath.Dir(l.stateFile()), "..", "..", "locks", "*", "*", l.name, "*.json"))
	require.NoError(l.t, err)
	assert.Empty(l.t, locks)
	return up
}

// faultTable collects what the faults came to, from parallel tests.
type faultTable struct {
	mu   sync.Mutex
	rows map[string]faultRow
}

type faultRow struct{ fault, provoked, seen, next, rows, test string }
