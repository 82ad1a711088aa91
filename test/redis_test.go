//go:build live

package test

import (
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
)

// outside returns an address of this host that is not loopback.
func outside(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr().String()
		}
	}
	require.Fail(t, "this host has no address but loopback")
	return ""
}

// TestRedisOpenedToOthers opens Redis beyond loopback, which takes a password.
func TestRedisOpenedToOthers(t *testing.T) {
	t.Parallel()
	const password = `it's "%$HOME` + "`" + ` \ é;x#`
	address := outside(t)
	services := []string{"postgres", "redis", "execution_gateway", "model_registry", "backtest_worker_dev"}
	s := newStack(t, "dev", map[string]any{
		"bindAddress": address, "expose": []string{"redis", "model_registry"},
		"disabled": slices.DeleteFunc(catalog.ServiceNames(), func(name string) bool { return slices.Contains(services, name) }),
		"env":      map[string]any{"POSTGRES_PASSWORD": "only-in-this-test"},
	})
	out, err := s.try("up", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
	require.Error(t, err)
	assert.Contains(t, out, "redis has no password in this stack, so it cannot be exposed on "+address)

	s.configure(map[string]any{"env": map[string]any{"POSTGRES_PASSWORD": "only-in-this-test", "REDIS_PASSWORD": password}})
	out = s.up()
	assert.Contains(t, out, "redis is open to whoever reaches "+address+" and knows REDIS_PASSWORD")
	assert.Contains(t, out, "model_registry is open without a login to whoever reaches "+address)
	assertAllHealthy(t, s, services...)
	s.unchanged("right after up")

	redis := func(auth, at string) string {
		cmd := exec.CommandContext(t.Context(), "redis-cli", "-h", at, "-p", strconv.Itoa(6379+s.offset), "ping")
		cmd.Env = append(cmd.Environ(), "REDISCLI_AUTH="+auth)
		out, _ := cmd.CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	assert.Equal(t, "PONG", redis(password, address))
	assert.Contains(t, redis("another", address), "NOAUTH")
	_, err = net.Dial("tcp", net.JoinHostPort(address, strconv.Itoa(5433+s.offset)))
	require.Error(t, err, "postgres is not opened by name")
	_, err = net.Dial("tcp", net.JoinHostPort(address, strconv.Itoa(8002+s.offset)))
	require.Error(t, err, "nor is the order API")
	processes := s.exec("redis", "sh", "-c", `cat /proc/[0-9]*/cmdline | tr '\0' ' '`)
	assert.Contains(t, processes, "redis-server")
	assert.NotContains(t, processes, "HOME`")
}
