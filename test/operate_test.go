//go:build live

package test

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestOperate does with the services of a running stack what people did with docker compose.
func TestOperate(t *testing.T) {
	t.Parallel()
	l := newLive(t, prepareClone(t), nil)
	refused := l.platform("restart redis")
	require.Error(t, refused.err)
	assert.Contains(t, refused.out, l.prefix+"_redis of stack "+l.name+" does not exist. Fix: make up STACK="+l.name)
	must := func(command string) string {
		t.Helper()
		said := l.platform(command)
		require.NoError(t, said.err, "%s\n%s", command, said.out)
		return said.out
	}
	must("up")

	t.Run("a name that is none", func(t *testing.T) {
		l := &live{stack: l.in(t), env: l.env}
		said := l.platform("logs postgress")
		require.Error(t, said.err)
		assert.Contains(t, said.out, "service postgress: is not in stack "+l.name+"; did you mean postgres?")
		assert.Contains(t, must("__complete exec ''"), "postgres\nredis\n")
	})
	t.Run("logs", func(t *testing.T) {
		l := &live{stack: l.in(t), env: l.env}
		var times []time.Time
		services := map[string]int{}
		for text := range strings.Lines(must("logs --json")) {
			var one struct {
				Time          time.Time
				Service, Text string
			}
			require.NoError(t, json.Unmarshal([]byte(text), &one), text)
			times = append(times, one.Time)
			services[one.Service]++
		}
		assert.Len(t, services, 2)
		assert.IsNonDecreasing(t, nanoseconds(times), "in the order of time")
		assert.Equal(t, 3, strings.Count(must("logs --tail 3 redis"), "\n"))
		assert.Empty(t, must("logs --since 2100-01-01T00:00:00Z"))
		assert.Contains(t, must("logs postgres"), "postgres | ", "without colours, because it is no terminal")

		r := l.start("logs --follow --tail 0 postgres")
		wait := func(want string) {
			t.Helper()
			for deadline := time.Now().Add(30 * time.Second); !strings.Contains(r.out.String(), want); time.Sleep(100 * time.Millisecond) {
				require.True(t, time.Now().Before(deadline), "%q is not in:\n%s", want, r.out)
			}
		}
		say := func(words string) { l.sql("do $$ begin raise warning '" + words + "'; end $$") }
		time.Sleep(2 * time.Second) // until it follows
		say("before the restart")
		wait("before the restart")
		must("restart postgres")
		say("after the restart")
		wait("after the restart")
		l.touch()
		must("up")
		say("of another container")
		wait("of another container")
		assert.Equal(t, 1, strings.Count(r.out.String(), "WARNING:  before the restart"), "no line twice:\n%s", r.out)
		require.NoError(t, r.cmd.Process.Signal(syscall.SIGINT))
		ended := l.wait(r)
		assert.NoError(t, ended.err, ended.out)
	})
	t.Run("stop and start", func(t *testing.T) {
		l := &live{stack: l.in(t), env: l.env}
		must("stop redis")
		assert.False(t, l.inspect("redis").State.Running)
		status := l.platform("status")
		require.Error(t, status.err)
		assert.Regexp(t, `redis +\S+_redis +stopped`, status.out)
		must("start redis")
		assert.Equal(t, "healthy", l.health("redis"), "start waits for it")
		must("stop postgres redis")
		assert.Contains(t, must("up"), l.prefix+"_redis is stopped: starting it")
		assert.Equal(t, "healthy", l.health("postgres"))
	})
	t.Run("exec", func(t *testing.T) {
		l := &live{stack: l.in(t), env: l.env}
		assert.Equal(t, "PONG\n", must("exec redis redis-cli ping"))
		assert.Equal(t, "1\n", must("exec postgres psql -U trader -tAc select(1)"), "flags after the service are those of its command")
		failed := l.platform("exec redis false")
		require.Error(t, failed.err)
		shell := l.start("shell redis")
		assert.NoError(t, l.wait(shell).err, "with nothing on its standard input, the shell ends")
	})
}

func nanoseconds(times []time.Time) (all []int64) {
	for _, t := range times {
		all = append(all, t.UnixNano())
	}
	return all
}
