//go:build live

package test

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/plan"
)

// worktree makes a second git worktree of the stack's clone, and returns the stack of the same name in it. It has the same
// environment, and no place in its settings: the platform command chooses it.
func (l *live) worktree(branch string) *live {
	l.t.Helper()
	dir := filepath.Join(l.t.TempDir(), runID+"-"+branch)
	runIn(l.t, l.dir, nil, "git", "worktree", "add", "-q", "-b", branch, dir)
	// What is built is copied, and its sources are older.
	runIn(l.t, dir, nil, "sh", "-c", `find . -mindepth 1 -exec touch -d 2000-01-01 {} + && cp -pr "$0/bin" .`, l.dir)
	second := *l
	s := *l.stack
	s.dir = dir
	second.stack = &s
	settings := second.place()
	for _, chosen := range []string{"namePrefix", "portOffset", "subnet", "ignoreCompose"} {
		delete(settings, chosen)
	}
	identity := l.prefix + "-" + branch // by which the run finds what it leaves behind
	text := runIn(l.t, l.dir, nil, "cat", "Pulumi.base.yaml")
	runIn(l.t, dir, nil, "sh", "-c", `printf %s "$0" > "$1"`, text, second.file())
	second.configure(settings)
	second.configure(map[string]any{"identity": identity, "provider": provider, "images": images()})
	second.configure(databases)
	var printed plan.Plan
	require.NoError(l.t, json.Unmarshal([]byte(second.must("plan -o json").out), &printed))
	s.prefix = printed.NamePrefix
	l.t.Cleanup(func() {
		rest := s
		rest.prefix = identity
		rest.sweep()
	})
	return &second
}

// TestWorktrees has the same stack in two worktrees at once, with different data, and moves data from one to the other.
func TestWorktrees(t *testing.T) {
	t.Parallel()
	l := newLive(t, prepareClone(t), nil)
	for _, command := range []string{"git init -q -b main", "git add --all", "git -c user.name=Tester -c user.email=tester@example.com commit -q -m All"} {
		runIn(t, l.dir, nil, strings.Fields(command)...)
	}
	none := l.platform("snapshot save early")
	require.Error(t, none.err)
	assert.Contains(t, none.out, "stack "+l.name+": was never up, and has no data")
	l.must("up")
	l.fill()
	before := l.ids()
	second := l.worktree("second")
	require.NotEqual(t, l.prefix, second.prefix)
	healthy := func(t *testing.T) {
		t.Helper()
		assert.ElementsMatch(t, []string{"postgres", "redis"}, second.names())
		assert.Equal(t, []string{"healthy", "healthy"}, []string{second.health("postgres"), second.health("redis")})
	}

	t.Run("side by side", func(t *testing.T) {
		assert.Contains(t, second.platform("status").out, "missing", "it does not show the other one's containers")
		up := second.must("up").out
		assert.Contains(t, up, "this is a worktree, so its stacks have names, ports and a subnet of their own: "+second.prefix)
		assert.Regexp(t, `platform: redis: redis://127\.0\.0\.1:[12]\d{4}`, up)
		healthy(t)
		second.sql("create table mine as select 1")
		assert.Equal(t, before, l.ids(), "the first one is as it was")
		assert.Equal(t, l.rows, l.contents())
		_, err := l.trySQL("select * from mine")
		require.ErrorContains(t, err, "does not exist")
		assert.Contains(t, second.must("up").out, "nothing to change", "its place stays")
		assert.Contains(t, l.must("up").out, "nothing to change")
	})
	t.Run("stacks", func(t *testing.T) {
		said := l.must("stacks")
		assert.Regexp(t, l.prefix+` +`+l.name+` +2/2 healthy +.+[kM]B +main +`+l.dir+` +\d+, \d+\n`, said.out)
		assert.Regexp(t, second.prefix+` +`+l.name+` +2/2 healthy +.+[kM]B +second +`+second.dir+` +\d+, \d+\n`, said.out)
		l.must("stacks prune --yes") // nothing of a worktree that exists
		healthy(t)
		assert.Equal(t, "stack "+l.name+" has no page\n", second.must("open").out, "the databases have none")
	})
	name := l.prefix + "-save"
	t.Run("a snapshot while rows and keys are written", func(t *testing.T) {
		l.sql("create table ticks (i int primary key)")
		l.sql("create procedure tick() language plpgsql as $$ begin for i in 1..10000000 loop insert into ticks values (i); commit; end loop; end $$")
		writers := []*exec.Cmd{
			exec.Command("docker", "exec", l.prefix+"_postgres", "psql", "-U", "trader", "-h", "127.0.0.1", "-c", "call tick()"),
			exec.Command("docker", "exec", l.prefix+"_redis", "sh", "-c", `i=0; while :; do i=$((i+1)); echo "set tick:$i $i"; done | redis-cli >/dev/null`),
		}
		for _, w := range writers {
			require.NoError(t, w.Start())
		}
		ticks := func(l *live) (rows, keys int) {
			_, err := fmt.Sscan(l.sql("select count(*) from ticks"), &rows)
			require.NoError(t, err)
			_, err = fmt.Sscan(l.exec("redis", "redis-cli", "dbsize"), &keys)
			require.NoError(t, err)
			return rows, keys
		}
		require.Eventually(t, func() bool {
			rows, keys := ticks(l)
			return rows > 100 && keys > 100
		}, time.Minute, 200*time.Millisecond)
		rows, keys := ticks(l)
		said := l.must("snapshot save " + name)
		assert.Regexp(t, `saved snapshot \S+ in [0-9.]+ s; 2 containers were paused, for [0-9.]+ s`, said.out)
		l.sql("select pg_terminate_backend(pid) from pg_stat_activity where query = 'call tick()'")
		l.must("restart redis")
		for _, w := range writers {
			_ = w.Wait() // their ends are errors
		}
		after, afterKeys := ticks(l)
		assert.Contains(t, second.must("snapshot list").out, name+"  "+l.prefix)
		again := second.platform("snapshot save " + name)
		require.Error(t, again.err)
		assert.Contains(t, again.out, "exists already")

		second.must("fork " + name)
		healthy(t)
		assert.Equal(t, l.rows, second.contents())
		_, err := second.trySQL("select * from mine")
		require.ErrorContains(t, err, "does not exist", "its own data is in its previous volumes")
		assert.Empty(t, second.exec("postgres", "pg_amcheck", "-U", "trader", "-h", "127.0.0.1", "--all", "--install-missing", "--heapallindexed"))
		forked, forkedKeys := ticks(second)
		assert.Equal(t, strconv.Itoa(forked), second.sql("select max(i) from ticks"), "no row is missing")
		assert.Equal(t, strconv.Itoa(forkedKeys-1), second.exec("redis", "redis-cli", "get", fmt.Sprintf("tick:%d", forkedKeys-1)), "no key is missing")
		assert.GreaterOrEqual(t, forked, rows)
		assert.GreaterOrEqual(t, forkedKeys, keys)
		assert.Less(t, forked, after)
		assert.Less(t, forkedKeys, afterKeys)
	})
	t.Run("what cannot be forked is refused before anything is made", func(t *testing.T) {
		before, volumes, ids := second.must("plan -o json").out, second.volumes(), second.ids()
		older := testImage(t, "postgres", references["postgres"], "ENV PG_MAJOR=13")
		second.configure(map[string]any{"images": merged(images(), "postgres", older)})
		refused := second.platform("fork " + name)
		require.Error(t, refused.err)
		assert.Contains(t, refused.out, "is of PostgreSQL 13, which does not read snapshot "+name+"'s data of version 15")
		second.configure(map[string]any{"images": images()})
		unknown := second.platform("fork " + name + "s")
		require.Error(t, unknown.err)
		assert.Contains(t, unknown.out, "snapshot "+name+"s: does not exist; did you mean "+name+"?")
		foreign := second.platform("snapshot restore " + name)
		require.Error(t, foreign.err)
		assert.Contains(t, foreign.out, "Fix: platform fork -s "+l.name+" "+name)
		assert.Equal(t, before, second.must("plan -o json").out)
		assert.Equal(t, volumes, second.volumes())
		assert.Equal(t, ids, second.ids())
	})
	t.Run("the tools of a coding assistant", func(t *testing.T) { assistant(t, second) })
	t.Run("the live table", func(t *testing.T) {
		keys, typed := io.Pipe()
		shown := &lockedBuffer{}
		cmd := exec.Command("script", "-qec", "stty cols 200 rows 30; bin/platform status --watch -s "+second.name, "/dev/null")
		cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = second.dir, slices.Concat(second.env, []string{"TERM=xterm-256color"}), keys, shown, shown
		require.NoError(t, cmd.Start())
		wait := func(text string) {
			t.Helper()
			require.Eventually(t, func() bool { return strings.Contains(shown.String(), text) }, time.Minute, 100*time.Millisecond, "%q is not in:\n%s", text, shown)
		}
		wait("redis://127.0.0.1:")
		wait("healthy")
		_, err := typed.Write([]byte("r"))
		require.NoError(t, err)
		wait("was restarted, and is healthy")
		_, err = typed.Write([]byte("q"))
		require.NoError(t, err)
		require.NoError(t, typed.Close())
		assert.NoError(t, cmd.Wait())
	})
	t.Run("back to a snapshot", func(t *testing.T) {
		l.sql("truncate kept")
		l.must("snapshot restore " + name)
		assert.Equal(t, l.rows, l.contents())
		l.must("snapshot rm " + name)
		assert.NotContains(t, l.must("snapshot list").out, name)
	})
	t.Run("prune", func(t *testing.T) {
		runIn(t, l.dir, nil, "git", "worktree", "remove", "--force", second.dir)
		assert.Regexp(t, second.prefix+` +.*`+second.dir+` \(removed\)`, l.must("stacks").out)
		kept := l.typed("yes\n", "stacks prune")
		require.Error(t, kept.err)
		assert.Contains(t, kept.out, "nothing was deleted")
		assert.NotEmpty(t, second.containers())
		done := l.typed("prune\n", "stacks prune")
		require.NoError(t, done.err, done.out)
		assert.Contains(t, done.out, "deleted "+second.prefix+" of "+second.dir)
		assert.NotContains(t, done.out, l.prefix+" of")
		assert.Empty(t, second.containers())
		assert.Empty(t, second.volumes())
		assert.Empty(t, second.networks())
		left, err := filepath.Glob(filepath.Join(l.backend, ".pulumi", "trading-platform", "worktrees", "*", "*"))
		require.NoError(t, err)
		assert.Empty(t, left, "its state and secrets")
		l.converges()
	})
}

// assistant uses the tools as a coding assistant does, with the SDK's own client.
func assistant(t *testing.T, l *live) {
	t.Helper()
	session := func(arguments ...string) *mcp.ClientSession {
		cmd := exec.Command(filepath.Join(l.dir, "bin", "platform"), append([]string{"mcp", "-s", l.name}, arguments...)...)
		cmd.Dir, cmd.Env = l.dir, l.env
		s, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(), &mcp.CommandTransport{Command: cmd}, nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	names := func(s *mcp.ClientSession) (names []string) {
		tools, err := s.ListTools(t.Context(), nil)
		require.NoError(t, err)
		for _, tool := range tools.Tools {
			assert.Equal(t, tool.Name != "restart", tool.Annotations.ReadOnlyHint, tool.Name)
			names = append(names, tool.Name)
		}
		return names
	}
	call := func(s *mcp.ClientSession, tool string, arguments map[string]any) (text string, failed bool) {
		result, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: tool, Arguments: arguments})
		require.NoError(t, err, tool)
		require.Len(t, result.Content, 1, tool)
		return result.Content[0].(*mcp.TextContent).Text, result.IsError
	}
	reader := session()
	assert.ElementsMatch(t, []string{"status", "logs", "plan", "diff"}, names(reader), "without --write, nothing that changes the stack")
	status, _ := call(reader, "status", nil)
	assert.Contains(t, status, l.prefix+"_redis: healthy, Up ")
	logs, _ := call(reader, "logs", map[string]any{"services": []string{"redis"}, "tail": 3})
	assert.Equal(t, 3, strings.Count(logs, "redis | "), logs)
	unknown, failed := call(reader, "logs", map[string]any{"services": []string{"rediss"}})
	assert.True(t, failed)
	assert.Contains(t, unknown, "did you mean redis?")
	printed, _ := call(reader, "plan", nil)
	assert.Contains(t, printed, `"namePrefix": "`+l.prefix+`"`)
	_, failed = call(reader, "diff", map[string]any{"ref": "no-such-branch"})
	assert.True(t, failed)
	_, err := reader.CallTool(t.Context(), &mcp.CallToolParams{Name: "restart", Arguments: map[string]any{"services": []string{"redis"}}})
	require.Error(t, err)

	writer := session("--write")
	assert.Contains(t, names(writer), "restart")
	started := l.inspect("redis").State.StartedAt
	said, failed := call(writer, "restart", map[string]any{"services": []string{"redis"}})
	require.False(t, failed, said)
	assert.NotEqual(t, started, l.inspect("redis").State.StartedAt)
	assert.Equal(t, "healthy", l.health("redis"))
}
