//go:build live

package test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMakeUpFromACleanClone is what a person does on a machine that has Go, make and
// an engine: no Pulumi, no settings. Only the names and ports are this test's; unit
// tests hold the default ones.
func TestMakeUpFromACleanClone(t *testing.T) {
	s := newPlace(t, "base", filepath.Join(t.TempDir(), "clone"))
	s.clone()
	env := cleanMachine(t)
	t.Cleanup(func() { s.makeDown(env) })
	s.own = ownFile(t, runIn(t, s.dir, env, "make", "up", "STACK=base"))
	assert.Empty(t, runIn(t, s.dir, env, "git", "status", "--porcelain"), "the clone stays clean")

	p := s.plan()
	assertHealthy(t, s)
	assert.Contains(t, s.names(), "postgres")
	var networks, volumes []string
	for _, n := range p.Networks {
		networks = append(networks, n.Name)
	}
	for _, v := range p.Volumes {
		volumes = append(volumes, v.Name)
	}
	assert.ElementsMatch(t, networks, s.networks())
	assert.ElementsMatch(t, volumes, s.volumes())
	for _, service := range p.Services {
		var want []int
		for _, port := range service.Ports {
			want = append(want, port.Host-s.offset)
		}
		assert.Equal(t, want, s.hostPorts(service.Name), "%s: host ports", service.Name)
		service := service.Name
		c := s.inspect(service)
		endpoint := c.NetworkSettings.Networks[s.prefix+"_default"]
		if assert.NotNil(t, endpoint, "%s is on the default network", service) {
			assert.Contains(t, endpoint.Aliases, service)
		}
		for _, label := range []string{"config-hash", "container-number", "oneoff", "project", "service"} {
			assert.NotEmpty(t, c.Config.Labels["com.docker.compose."+label], "%s: Compose's label %s", service, label)
		}
	}

	t.Run("postgres answers psql", func(t *testing.T) {
		out := runIn(t, s.dir, append(env, "PGPASSWORD=trader"), "psql", "-h", "127.0.0.1", "-p", strconv.Itoa(5433+s.offset), "-U", "trader", "-tAc", "select 40 + 2")
		assert.Equal(t, "42", strings.TrimSpace(out))
	})
	t.Run("redis answers redis-cli", func(t *testing.T) {
		assert.Equal(t, "PONG", strings.TrimSpace(runIn(t, s.dir, env, "redis-cli", "-p", strconv.Itoa(6379+s.offset), "ping")))
	})
	t.Run("every Prometheus target is up", func(t *testing.T) {
		assertTargetsUp(t, s, s.targets()...)
	})
	t.Run("every container's log is in Loki", func(t *testing.T) {
		for _, service := range s.services() {
			assertLogged(t, s, service)
		}
	})
	t.Run("plain pulumi works beside make", func(t *testing.T) {
		env := append(slices.Clone(env), "PATH="+filepath.Join(s.dir, "bin", "shim")+":"+os.Getenv("PATH"))
		runIn(t, s.dir, env, "make", "-s", "env")
		out := runIn(t, s.dir, env, "pulumi", "preview", "-s", "base", "--expect-no-changes", "--non-interactive")
		assert.Contains(t, out, "unchanged")
		assert.Contains(t, runIn(t, s.dir, env, "make", "status", "STACK=base"), "healthy")
		assert.Empty(t, runIn(t, s.dir, env, "git", "status", "--porcelain"))
	})
	t.Run("an edit of the tracked stack file takes effect", func(t *testing.T) {
		tracked := s.in(t)
		tracked.own = ""
		tracked.configure(map[string]any{"bindAdress": "127.0.0.1"})
		cmd := exec.Command("make", "preview", "STACK=base")
		cmd.Dir, cmd.Env = s.dir, env
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(out), "bindAdress: no such setting; did you mean bindAddress?")
		runIn(t, s.dir, env, "git", "checkout", "-q", "Pulumi.base.yaml")
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

// ownFile finds, in what make printed, where the stack's own config file lies.
func ownFile(t *testing.T, printed string) string {
	t.Helper()
	said := regexp.MustCompile(`its own settings and secrets are in (\S+)`).FindStringSubmatch(printed)
	require.NotNil(t, said, printed)
	return said[1]
}

// getJSON asks an address of a stack and decodes the answer.
func getJSON(t assert.TestingT, address string, into any) bool {
	response, err := http.Get(address)
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
