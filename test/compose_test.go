//go:build live

package test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/bench/composecli"
)

// TestComposeCommands uses Docker Compose itself on a running stack, without a Compose file.
func TestComposeCommands(t *testing.T) {
	t.Parallel()
	binary, err := composecli.Binary(t.Context(), "v5.6.0")
	require.NoError(t, err)
	l := newLive(t, prepareClone(t), nil)
	compose := func(words ...string) string {
		t.Helper()
		cmd := exec.Command(binary, append([]string{"-p", l.prefix}, words...)...)
		cmd.Dir = t.TempDir() // where no Compose file is
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "docker compose %s\n%s", strings.Join(words, " "), out)
		return string(out)
	}
	up := func() string {
		t.Helper()
		said := l.platform("up")
		require.NoError(t, said.err, said.out)
		return said.out
	}
	up()
	l.fill()

	assert.Regexp(t, `(?s)_postgres .*trading-platform-airgap/postgres.* healthy.*_redis `, strings.ReplaceAll(compose("ps"), "(healthy)", " healthy"))
	assert.Contains(t, compose("logs", "redis"), "Ready to accept connections")
	assert.Equal(t, "PONG\n", compose("exec", "-T", "redis", "redis-cli", "ping"))
	assert.Contains(t, compose("top", "postgres"), "postgres: checkpointer")
	assert.Regexp(t, `^127\.0\.0\.1:\d+\n$`, compose("port", "redis", "6379"))
	assert.Regexp(t, `_redis +trading-platform-airgap/redis +7`, compose("images"))
	assert.Contains(t, compose("stats", "--no-stream"), l.prefix+"_redis")
	assert.Regexp(t, l.prefix+` +running\(2\) +Pulumi\.`+l.name+`\.yaml`, compose("ls"))
	for _, v := range l.plan().Volumes {
		assert.Contains(t, compose("volumes"), v.Name)
	}
	compose("cp", "redis:/etc/hostname", t.TempDir())

	var seen, followed lockedBuffer
	for words, out := range map[string]*lockedBuffer{"events": &seen, "logs -f --no-color redis": &followed} {
		cmd := exec.Command(binary, append([]string{"-p", l.prefix}, strings.Fields(words)...)...)
		cmd.Stdout = out
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	assert.Eventually(t, func() bool { // again, because nothing tells when they began to listen
		compose("restart", "redis")
		return strings.Contains(seen.String(), "container restart") && strings.Contains(followed.String(), "Ready to accept connections")
	}, time.Minute, time.Second)
	require.Eventually(t, func() bool { return l.health("redis") == "healthy" }, time.Minute, 100*time.Millisecond)

	// What they change, status shows and up repairs.
	for _, change := range []struct{ command, status, repair string }{
		{"pause redis", "Paused", "_redis is paused: unpausing it"},
		{"stop", "stopped", "_redis is stopped: starting it"},
		{"kill postgres", "stopped", "_postgres is stopped: starting it"},
		{"rm -f -s redis", "missing", "_redis is gone from the engine"},
		{"down", "missing", "_redis is gone from the engine"},
	} {
		compose(strings.Fields(change.command)...)
		status := l.platform("status")
		require.Error(t, status.err, "status after %s", change.command)
		assert.Contains(t, status.out, change.status, "status after %s", change.command)
		if change.command == "down" {
			assert.Empty(t, l.networks(), "the networks after %s", change.command)
			assert.Len(t, l.volumes(), len(l.plan().Volumes), "the volumes after %s", change.command)
		}
		assert.Contains(t, up(), change.repair, "up after %s", change.command)
		assert.Equal(t, l.rows, l.contents(), "the rows after %s", change.command)
	}
	before := l.ids()
	compose("stop")
	compose("start")
	up()
	assert.Empty(t, l.replaced(before), "stop and start leave nothing that up changes")
}
