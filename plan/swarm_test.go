package plan_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/plan"
)

// onSwarm returns the config of a Swarm with every profile that one stack can have.
func onSwarm(more ...map[string]string) config {
	return profiles("dev", "workers", "oauth2").with(config{
		"orchestrator": "swarm", "serviceEnv": `{"web_console_dev":{"HMAC_SIGNING_KEYS":"02:abc","SESSION_ENCRYPTION_KEY":"mine"}}`,
	}).with(more...)
}

func TestPlacement(t *testing.T) {
	shared := resolve(t, onSwarm(config{"sharedVolumes": `["backtest_data"]`}))
	for _, s := range resolve(t, onSwarm()).Services {
		c, _ := catalog.Lookup(s.Name)
		volumes, foreign, host := 0, 0, 0
		for _, m := range c.Mounts {
			if m.Volume != "" {
				volumes++
			}
			if m.Volume != "" && m.Volume != "backtest_data" {
				foreign++
			}
			if m.Host != "" {
				host++
			}
		}
		want, wantShared := plan.AnyNode, plan.AnyNode
		switch {
		case host > 0:
			want, wantShared = plan.EveryNode, plan.EveryNode
		case foreign > 0:
			want, wantShared = plan.DataNode, plan.DataNode
		case volumes > 0:
			want = plan.DataNode
		}
		assert.Equal(t, want, s.Placement, s.Name)
		assert.Equal(t, wantShared, service(t, shared, s.Name).Placement, s.Name)
		assert.Equal(t, s.Placement == plan.AnyNode, s.RollsOver())
		assert.Empty(t, s.Ports, "%s: bindAddress is loopback, and a Swarm would publish on every address", s.Name)
		assert.Zero(t, s.Probe.StartInterval, s.Name)
		assert.False(t, s.Init, s.Name)
		for _, a := range s.Networks {
			assert.Empty(t, a.Address, s.Name)
		}
	}
	checkout := resolve(t, onSwarm(config{"sourceDir": t.TempDir()}))
	assert.Equal(t, plan.DataNode, service(t, checkout, "signal_service").Placement, "a folder of the checkout is on this machine")
}

func TestPortsOfASwarm(t *testing.T) {
	p := resolve(t, onSwarm(config{"bindAddress": "0.0.0.0", "expose": `["prometheus"]`}))
	for _, s := range p.Services {
		c, _ := catalog.Lookup(s.Name)
		published := map[int]bool{}
		for _, port := range s.Ports {
			published[port.Container] = true
			assert.Equal(t, plan.DataNode, s.Placement, "%s is reached at the engine's address", s.Name)
		}
		for _, port := range c.Ports {
			assert.Equal(t, (port.Login && port.When == "") || s.Name == "prometheus", published[port.Container], "%s %d", s.Name, port.Container)
		}
	}
	found := faults(t, onSwarm(config{"bindAddress": "10.1.2.3"}))
	assert.Contains(t, found["bindAddress"].What, "a Swarm publishes ports on every address of a node, and not on 10.1.2.3 alone")
	assert.Equal(t, "pulumi config set -s test bindAddress 0.0.0.0", found["bindAddress"].Fix)
}

func TestASwarmTrustsNginxsSubnet(t *testing.T) {
	p := resolve(t, onSwarm(config{"subnet": "10.9.0.0/24"}))
	assert.Equal(t, "10.9.0.0/24", value(t, p, "web_console_oauth2", "TRUSTED_PROXY_IPS"))
}

// Docker's init is replaced by a shell, which is given the server's own command.
func TestTheInitOfASwarm(t *testing.T) {
	few, many := resolve(t, onSwarm()), resolve(t, onSwarm(config{"replicas": `{"alert_worker":200}`}))
	command := service(t, few, "postgres").Command
	assert.Equal(t, "sh -c", strings.Join(command[:2], " "))
	assert.Equal(t, []string{"postgres"}, command[4:])
	assert.Regexp(t, `postgres -c max_connections=\d+`, strings.Join(service(t, many, "postgres").Command[4:], " "))
}

func TestNotesOfASwarm(t *testing.T) {
	notes := strings.Join(resolve(t, onSwarm()).Notes, "\n")
	assert.Contains(t, notes, "no port is published: a Swarm publishes on every address of a node, and bindAddress is 127.0.0.1")
	assert.Regexp(t, `on data node: postgres, redis.*\n`, notes)
	assert.Contains(t, notes, "on every node: promtail")
	assert.Regexp(t, `on any node: .*alert_worker`, notes)
}

func TestObjectNames(t *testing.T) {
	p := resolve(t, onSwarm())
	s := service(t, p, "prometheus")
	name := p.ObjectName(s, s.Files[0])
	assert.Regexp(t, `^trading_platform_[0-9a-f]{32}$`, name)
	edited := s.Files[0]
	edited.Content += "\n"
	assert.NotEqual(t, name, p.ObjectName(s, edited), "an edit makes another")
	assert.NotEqual(t, name, p.ObjectName(s, s.Files[1]))
	p.NamePrefix = strings.Repeat("x", 63)
	assert.Len(t, p.ObjectName(s, s.Files[0]), 64, "a Swarm allows no more")
}

func TestImagesThatAreBuiltArePushed(t *testing.T) {
	p := resolve(t, onSwarm(config{"registry": "registry.example:5000/trading"}))
	build := service(t, p, "orchestrator").Image.Build
	require.NotNil(t, build)
	assert.Equal(t, "registry.example:5000/trading/trading_platform/reference:local", build.Name)
	assert.True(t, build.Push)
	assert.False(t, service(t, resolve(t, onSwarm()), "orchestrator").Image.Build.Push)
}
