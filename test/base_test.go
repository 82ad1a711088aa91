package test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMakeUpFromACleanClone is what a person does on a machine that has Go, make and
// an engine: no Pulumi, no settings, the default names and ports.
func TestMakeUpFromACleanClone(t *testing.T) {
	clone := filepath.Join(t.TempDir(), "clone")
	runIn(t, root, nil, "git", "clone", "-q", root, clone)
	env := cleanMachine(t)
	t.Cleanup(func() {
		down := exec.Command("make", "down", "STACK=base")
		down.Dir, down.Env = clone, env
		out, err := down.CombinedOutput()
		assert.NoError(t, err, string(out))
		removeVolumes(t, "trading_platform_")
	})
	runIn(t, clone, env, "make", "up", "STACK=base")
	assert.Empty(t, runIn(t, clone, env, "git", "status", "--porcelain"), "the clone stays clean")
	s := &stack{t: t, name: "base", dir: clone, prefix: "trading_platform"}

	assert.ElementsMatch(t, []string{"postgres", "redis", "prometheus", "loki_server", "promtail"}, s.names())
	assert.ElementsMatch(t, []string{"trading_platform_default", "trading_platform_trading_platform"}, s.networks())
	assert.ElementsMatch(t, []string{
		"trading_platform_pgdata", "trading_platform_redisdata", "trading_platform_prometheusdata", "trading_platform_grafanadata",
		"trading_platform_lokidata", "trading_platform_promtaildata", "trading_platform_backtest_data",
	}, s.volumes())
	ports := map[string][]int{"postgres": {5433}, "redis": {6379}, "prometheus": {9090}, "loki_server": {3100}, "promtail": nil}
	for service, want := range ports {
		c := s.inspect(service)
		assert.Equal(t, "healthy", string(c.State.Health.Status), service)
		var got []int
		for _, bindings := range c.HostConfig.PortBindings {
			for _, b := range bindings {
				assert.Equal(t, netip.MustParseAddr("127.0.0.1"), b.HostIP, service)
				port, _ := strconv.Atoi(b.HostPort)
				got = append(got, port)
			}
		}
		assert.Equal(t, want, got, "%s: host ports", service)
		endpoint := c.NetworkSettings.Networks["trading_platform_default"]
		if assert.NotNil(t, endpoint, "%s is on the default network", service) {
			assert.Contains(t, endpoint.Aliases, service)
		}
		for _, label := range []string{"config-hash", "container-number", "oneoff", "project", "service"} {
			assert.NotEmpty(t, c.Config.Labels["com.docker.compose."+label], "%s: Compose's label %s", service, label)
		}
	}

	t.Run("postgres answers psql", func(t *testing.T) {
		out := runIn(t, clone, append(env, "PGPASSWORD=trader"), "psql", "-h", "127.0.0.1", "-p", "5433", "-U", "trader", "-tAc", "select 40 + 2")
		assert.Equal(t, "42", strings.TrimSpace(out))
	})
	t.Run("redis answers redis-cli", func(t *testing.T) {
		assert.Equal(t, "PONG", strings.TrimSpace(runIn(t, clone, env, "redis-cli", "-p", "6379", "ping")))
	})
	t.Run("every Prometheus target is up", func(t *testing.T) {
		assertTargetsUp(t, s, "prometheus", "loki_server", "promtail")
	})
	t.Run("every container's log is in Loki", func(t *testing.T) {
		for service := range ports {
			assertLogged(t, s, service)
		}
	})
	t.Run("plain pulumi works beside make", func(t *testing.T) {
		env := append(slices.Clone(env), "PATH="+filepath.Join(clone, "bin", "shim")+":"+os.Getenv("PATH"))
		runIn(t, clone, env, "make", "-s", "env")
		out := runIn(t, clone, env, "pulumi", "preview", "-s", "base", "--expect-no-changes", "--non-interactive")
		assert.Contains(t, out, "unchanged")
		assert.Contains(t, runIn(t, clone, env, "make", "status", "STACK=base"), "healthy")
		assert.Empty(t, runIn(t, clone, env, "git", "status", "--porcelain"))
	})
	t.Run("an edit of the tracked stack file takes effect", func(t *testing.T) {
		file := filepath.Join(clone, "Pulumi.base.yaml")
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, append(text, []byte("  trading-platform:bindAdress: 127.0.0.1\n")...), 0o600))
		cmd := exec.Command("make", "preview", "STACK=base")
		cmd.Dir, cmd.Env = clone, env
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(out), "bindAdress: no such setting; did you mean bindAddress?")
		runIn(t, clone, env, "git", "checkout", "-q", "Pulumi.base.yaml")
	})
}

// cleanMachine is the environment of a user who never ran Pulumi.
func cleanMachine(t *testing.T) []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PULUMI_") {
			env = append(env, e)
		}
	}
	return append(env, "PULUMI_HOME="+t.TempDir(), "PULUMI_BACKEND_URL=file://"+t.TempDir())
}

// runIn runs a command that must succeed, and gives what it printed.
func runIn(t *testing.T, dir string, env []string, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, env
	// The command is looked for where the environment says.
	for _, e := range env {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			for _, d := range filepath.SplitList(path) {
				if _, err := os.Stat(filepath.Join(d, command[0])); err == nil {
					cmd.Path, cmd.Err = filepath.Join(d, command[0]), nil
				}
			}
		}
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s\n%s", strings.Join(command, " "), out)
	return string(out)
}

func removeVolumes(t *testing.T, prefix string) {
	s := &stack{t: t, prefix: strings.TrimSuffix(prefix, "_")}
	for _, name := range s.volumes() {
		_, err := engine.VolumeRemove(context.Background(), name, client.VolumeRemoveOptions{})
		assert.NoError(t, err)
	}
}

// getJSON asks an address of a stack and decodes the answer.
func getJSON(t assert.TestingT, address string, into any) bool {
	response, err := http.Get(address) //nolint:gosec // loopback
	if !assert.NoError(t, err) {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return assert.NoError(t, err) && assert.Equal(t, 200, response.StatusCode, string(text)) &&
		assert.NoError(t, json.Unmarshal(text, into), string(text))
}

// assertTargetsUp asserts that Prometheus has exactly these services as targets, all up.
func assertTargetsUp(t *testing.T, s *stack, services ...string) {
	t.Helper()
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		var answer struct {
			Data struct {
				ActiveTargets []struct {
					Labels    map[string]string
					Health    string
					LastError string
				}
			}
		}
		if !getJSON(t, s.url(9090, "/api/v1/targets"), &answer) {
			return
		}
		var names []string
		for _, target := range answer.Data.ActiveTargets {
			names = append(names, target.Labels["service"])
			assert.Equal(t, "up", target.Health, "%s: %s", target.Labels["service"], target.LastError)
		}
		assert.ElementsMatch(t, services, names)
	}, time.Minute, time.Second)
}

// assertLogged asserts that Loki has a line of a service by its `service` label.
func assertLogged(t *testing.T, s *stack, service string) {
	t.Helper()
	query := url.Values{"query": {`{service="` + service + `"}`}, "limit": {"1"}}
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		var answer struct {
			Data struct{ Result []any }
		}
		if getJSON(t, s.url(3100, "/loki/api/v1/query_range?"+query.Encode()), &answer) {
			assert.NotEmpty(t, answer.Data.Result, "no log line of %s", service)
		}
	}, time.Minute, time.Second)
}
