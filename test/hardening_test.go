//go:build live

package test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// assertHardened asserts what no container of the stack may do, as the engine and the kernel have it.
func assertHardened(t *testing.T, s *stack) {
	t.Helper()
	plan := s.plan()
	require.NotEmpty(t, plan.Services)
	for _, service := range plan.Services {
		c := s.inspect(service.Name)
		assert.Equal(t, []string{"no-new-privileges:true"}, c.HostConfig.SecurityOpt, service.Name)
		assert.Equal(t, []string{"ALL"}, c.HostConfig.CapDrop, service.Name)
		assert.EqualValues(t, service.Memory<<20, c.HostConfig.Memory, service.Name)
		assert.EqualValues(t, service.Memory<<20, c.HostConfig.MemorySwap, service.Name)
		assert.Equal(t, service.ReadOnly, c.HostConfig.ReadonlyRootfs, service.Name)
		for _, m := range c.Mounts {
			assert.NotContains(t, m.Source, "docker.sock", service.Name)
		}
	}
	for service, want := range map[string]string{
		"postgres":   "no capability, no new privilege, not root",
		"redis":      "no capability, no new privilege, not root",
		"prometheus": "no capability, no new privilege, not root",
		"promtail":   "no capability, no new privilege",
	} {
		process := "1"
		if service == "postgres" { // whose first process is the engine's init
			process = strings.Fields(s.exec(service, "cat", "/var/lib/postgresql/data/postmaster.pid"))[0]
		}
		status := s.exec(service, "cat", "/proc/"+process+"/status")
		field := func(name string) string {
			for line := range strings.Lines(status) {
				if value, ok := strings.CutPrefix(line, name+":"); ok {
					return strings.Fields(value)[0]
				}
			}
			return ""
		}
		assert.Equal(t, strings.Repeat("0", 16), field("CapEff"), "%s: %s", service, want)
		assert.Equal(t, "1", field("NoNewPrivs"), "%s: %s", service, want)
		if strings.Contains(want, "not root") {
			assert.NotEqual(t, "0", field("Uid"), "%s: %s", service, want)
		}
	}
}

// assertSurvivesACutProbe asserts that PostgreSQL goes on when a probe's shell is killed and its psql ends with an error
// afterwards: as the container's first process it took that for the crash of a session, and restarted.
func assertSurvivesACutProbe(t *testing.T, s *stack) {
	t.Helper()
	_, _ = docker("exec", s.prefix+"_postgres", "sh", "-c", "(sleep 0.5; exit 2) & kill -9 $$")
	time.Sleep(2 * time.Second)
	log := s.logs(s.prefix+"_postgres", "all")
	assert.Contains(t, log, "database system is ready to accept connections")
	assert.NotContains(t, log, "reinitializing")
}

// TestContainersHaveWhatTheyNeed runs the base with no more than that.
func TestContainersHaveWhatTheyNeed(t *testing.T) {
	t.Parallel()
	s := newStack(t, "base", nil)
	s.up()
	assertHardened(t, s)
	assertSurvivesACutProbe(t, s)
	s.unchanged("right after up")
	s.refresh()
	s.unchanged("after refresh")
	before := s.ids()
	s.configure(map[string]any{"memory": map[string]any{"redis": 5000}})
	s.up()
	assert.Empty(t, s.replaced(before), "a memory limit changes on the live container")
	assert.EqualValues(t, 5000<<20, s.inspect("redis").HostConfig.Memory)
	s.restart(t, "postgres") // with data that is another user's now
	s.restart(t, "redis")
	for _, service := range []string{"postgres", "redis"} {
		assertLogged(t, s, service)
	}
}
