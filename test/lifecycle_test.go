//go:build live

package test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog/catalogtest"
)

func TestASecondRunChangesNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t, "base", nil)
	s.up()
	before := s.ids()
	s.unchanged("a preview after up")
	assert.Contains(t, s.up(), "unchanged")
	s.refresh()
	s.unchanged("a preview after refresh")
	assert.Empty(t, s.replaced(before))
}

func TestDataOutlivesTheStack(t *testing.T) {
	t.Parallel()
	s := newStack(t, "base", databases)
	s.up()
	s.sql("create table kept (word text); insert into kept values ('still here')")
	s.exec("redis", "redis-cli", "set", "kept", "still here")

	s.destroy()
	assert.Empty(t, s.names(), "containers after destroy")
	assert.Empty(t, s.networks(), "networks after destroy")
	assert.Len(t, s.volumes(), len(s.plan().Volumes), "volumes after destroy")

	s.up()
	assert.Equal(t, "still here", s.sql("select word from kept"))
	assert.Equal(t, "still here", s.exec("redis", "redis-cli", "get", "kept"))
	log := s.logs(s.prefix+"_postgres", "all")
	assert.Contains(t, log, "database system was shut down at", "a clean stop before")
	assert.NotContains(t, log, "not properly shut down")
}

func TestVolumesGoWithTheStackWhenAskedTo(t *testing.T) {
	t.Parallel()
	s := newStack(t, "base", databases)
	s.configure(map[string]any{"retainVolumes": false})
	s.up()
	s.destroy()
	assert.Empty(t, s.volumes())
}

func TestWhatIsGoneComesBack(t *testing.T) {
	t.Parallel()
	s := newStack(t, "base", databases)
	s.up()
	ctx := context.Background()
	remove := func(service string) {
		_, err := engine.ContainerRemove(ctx, s.prefix+"_"+service, client.ContainerRemoveOptions{Force: true})
		require.NoError(t, err)
	}

	// The engine restarts what it was not asked to stop, so a container is stopped to stand for a dead one.
	_, err := engine.ContainerStop(ctx, s.prefix+"_postgres", client.ContainerStopOptions{})
	require.NoError(t, err)
	remove("redis")
	s.refresh()
	s.up()
	assert.ElementsMatch(t, []string{"postgres", "redis"}, s.names())
	assert.True(t, s.inspect("postgres").State.Running, "postgres runs again")
	s.unchanged("after the repair")

	remove("redis")
	s.destroy()
	assert.Empty(t, s.names(), "destroy does not fail on what is gone")
}

func TestEditsReplaceExactlyWhatTheyTouch(t *testing.T) {
	t.Parallel()
	s := newStack(t, "base", nil)
	s.up()
	clone := cloneOfCheckout(t)
	edit := func(file, from, to string) {
		path := filepath.Join(clone, file)
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Contains(t, string(text), from, file)
		require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o600))
	}

	before := s.ids()
	s.useProgram(clone)
	edit("infra/files/prometheus/etc/prometheus/prometheus.yml.tmpl", "scrape_timeout: 10s", "scrape_timeout: 9s")
	s.up()
	assert.Equal(t, []string{"prometheus"}, s.replaced(before), "an edit of Prometheus' configuration")
	assert.Contains(t, s.exec("prometheus", "cat", "/etc/prometheus/prometheus.yml"), "scrape_timeout: 9s")

	before = s.ids()
	edit("catalog/base.go", "redis-cli ping | grep -q PONG", "redis-cli -p 6379 ping | grep -q PONG")
	s.up()
	assert.Equal(t, []string{"redis"}, s.replaced(before), "an edit of redis' probe")
	assert.Contains(t, strings.Join(s.inspect("redis").Config.Healthcheck.Test, " "), "redis-cli -p 6379 ping", "what the engine runs")
}

func TestServicesThatFail(t *testing.T) {
	t.Parallel()
	s := newStack(t, "base", databases)
	exits := testImage(t, "exits", references["redis"], `ENTRYPOINT ["sh", "-c", "echo could not read the frobnicator; exit 3"]`)
	s.configure(map[string]any{"images": merged(images(), "redis", exits)})
	started := time.Now()
	out, err := s.try("up", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
	require.Error(t, err)
	// A bound far above the seconds it takes, and far below redis' two minutes of start period.
	assert.Less(t, time.Since(started), time.Minute, "an exit is reported at once")
	assert.Contains(t, out, s.prefix+"_redis")
	assert.Contains(t, out, "could not read the frobnicator", "its last log lines")
	assert.Contains(t, out, "code 3")

	s.configure(map[string]any{"images": images()})
	s.up()
	assert.Equal(t, "healthy", string(s.inspect("redis").State.Health.Status), "fixed, the next up goes green")
	s.unchanged("after the fix")
}

func TestAServiceThatNeverTurnsHealthy(t *testing.T) {
	t.Parallel()
	s := newStack(t, "base", map[string]any{"disabled": catalogtest.BaseWithout("postgres", "redis", "loki_server", "promtail")})
	sleeps := testImage(t, "sleeps", references["promtail"], `ENTRYPOINT ["sh", "-c", "echo waiting for the other shoe; exec sleep infinity"]`)
	s.configure(map[string]any{"images": merged(images(), "promtail", sleeps)})
	out, err := s.try("up", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
	require.Error(t, err)
	assert.Contains(t, out, s.prefix+"_promtail")
	assert.Contains(t, out, "unhealthy")
	assert.Contains(t, out, "waiting for the other shoe", "its last log lines")
	assert.Contains(t, s.names(), "promtail", "the container is left for a look")

	s.configure(map[string]any{"images": images()})
	s.up()
	assert.Equal(t, "healthy", string(s.inspect("promtail").State.Health.Status))
}

func TestEveryFaultInOneError(t *testing.T) {
	t.Parallel()
	s := newStack(t, "workers", nil)
	taken, err := net.Listen("tcp", strings.TrimPrefix(s.url(6379, ""), "http://"))
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	stranger, err := docker("create", "--name", s.prefix+"_postgres", "--label", runLabel+"="+runID, references["redis"])
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = docker("rm", "-fv", stranger) })
	s.configure(map[string]any{"env": nil, "retainVolume": true})

	text, err := s.try("up", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
	require.Error(t, err)
	assert.Contains(t, text, "4 things are wrong, and nothing was changed")
	assert.Contains(t, text, "of redis: taken by a program on this host")
	assert.Contains(t, text, "container "+s.prefix+"_postgres: taken by something else")
	assert.Contains(t, text, "ALERT_RECIPIENT_HASH_SECRET: required by alert_worker, but not set")
	assert.Contains(t, text, "retainVolume: no such setting; did you mean retainVolumes?")
	assert.Equal(t, []string{"postgres"}, s.names(), "nothing was made")
	assert.Empty(t, s.networks())
	assert.Empty(t, s.volumes())
}

func TestASecondStackWithTheSameNames(t *testing.T) {
	t.Parallel()
	first := newStack(t, "base", databases)
	first.up()
	second := newStack(t, "workers", databases)
	second.configure(map[string]any{"namePrefix": first.prefix, "portOffset": first.offset, "subnet": first.subnet}) // its identity is its own
	out, err := second.try("up", "-s", second.name, "--yes", "--skip-preview", "--non-interactive")
	require.Error(t, err)
	assert.Contains(t, out, "taken by stack base")
	assert.Contains(t, out, "add workers to profiles in Pulumi.base.yaml")
	assert.Contains(t, out, "namePrefix, portOffset and subnet of its own")
}

func TestAStackStaysWithItsProvider(t *testing.T) {
	t.Parallel()
	s := newStack(t, "base", databases)
	s.up()
	s.configure(map[string]any{"provider": "official"})
	out, err := s.try("preview", "-s", s.name, "--non-interactive")
	require.Error(t, err)
	assert.Contains(t, out, "was made with the offline docker provider")
	assert.Contains(t, out, "pulumi destroy -s base")
	s.configure(map[string]any{"provider": "offline"})
	s.unchanged("with its own provider again")
}
