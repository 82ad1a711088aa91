package components_test

import (
	"encoding/base64"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/plan"
)

const (
	serviceType = "docker:index/service:Service"
	configType  = "docker:index/serviceConfig:ServiceConfig"
	secretType  = "docker:index/secret:Secret"
)

func swarmOf(t *testing.T) *plan.Plan {
	t.Helper()
	p := planOf(t, own, map[string]string{"orchestrator": "swarm", "bindAddress": "0.0.0.0", "sharedVolumes": `["backtest_data"]`})
	p.Node = "n1"
	return p
}

func TestASwarmHasServicesInPlaceOfContainers(t *testing.T) {
	p := swarmOf(t)
	bothWays(t, p, func(t *testing.T, m *monitor) {
		assert.Empty(t, m.of(containerType))
		made := m.of(serviceType)
		require.Len(t, made, len(p.Services))
		files := 0
		for _, s := range p.Services {
			r := made["platform-"+s.Name]
			in := r.Inputs
			assert.Equal(t, s.Containers[0], in["name"].StringValue())
			for _, needed := range s.After {
				assert.Contains(t, namesOf(r.RegisterRPC.Dependencies), "platform-"+needed, s.Name)
			}
			assert.Equal(t, "dnsrr", in["endpointSpec"].ObjectValue()["mode"].StringValue())
			ports := in["endpointSpec"].ObjectValue()["ports"]
			assert.Equal(t, len(s.Ports) > 0, ports.IsArray() && len(ports.ArrayValue()) > 0, s.Name)
			mode, task := in["mode"].ObjectValue(), in["taskSpec"].ObjectValue()
			constraints := task["placement"].ObjectValue()["constraints"]
			switch s.Placement {
			case plan.EveryNode:
				assert.True(t, mode["global"].BoolValue(), s.Name)
			case plan.DataNode:
				assert.Equal(t, "node.id==n1", constraints.ArrayValue()[0].StringValue(), s.Name)
			default:
				assert.False(t, constraints.IsArray() && len(constraints.ArrayValue()) > 0, s.Name)
				assert.Len(t, s.Containers, int(mode["replicated"].ObjectValue()["replicas"].NumberValue()), s.Name)
			}
			order := map[bool]string{true: "start-first", false: "stop-first"}[s.RollsOver()]
			assert.Equal(t, order, in["updateConfig"].ObjectValue()["order"].StringValue(), s.Name)
			assert.Equal(t, "rollback", in["updateConfig"].ObjectValue()["failureAction"].StringValue())
			files += len(s.Files)
		}
		assert.Len(t, m.of(configType), files-len(m.of(secretType)))
		for _, n := range m.of(networkType) {
			assert.Equal(t, "overlay", n.Inputs["driver"].StringValue())
			assert.True(t, n.Inputs["attachable"].BoolValue())
		}
	})
}

// namesOf returns the names at the end of URNs.
func namesOf(urns []string) (names []string) {
	for _, urn := range urns {
		names = append(names, nameOf(urn))
	}
	return names
}

func TestFilesOfASwarm(t *testing.T) {
	p := swarmOf(t)
	m := standUp(t, false, p)
	key := m.of(secretType)["platform-nginx_oauth2/etc/nginx/certs/server.key"]
	require.NotEmpty(t, key.Name)
	assert.True(t, key.Inputs["data"].IsSecret(), "it must not be in the state in plain")
	assert.Equal(t, base64.StdEncoding.EncodeToString([]byte("key")), key.Inputs["data"].SecretValue().Element.StringValue())
	config := m.of(configType)["platform-prometheus/etc/prometheus/prometheus.yml"]
	text, err := base64.StdEncoding.DecodeString(config.Inputs["data"].StringValue())
	require.NoError(t, err)
	assert.Contains(t, string(text), "scrape_configs")
	container := m.of(serviceType)["platform-nginx_oauth2"].Inputs["taskSpec"].ObjectValue()["containerSpec"].ObjectValue()
	private := 0
	for _, f := range container["secrets"].ArrayValue() {
		if f.ObjectValue()["fileMode"].NumberValue() == 0o400 {
			private++
		}
	}
	assert.Equal(t, 1, private, "the key alone is for root only")
}

// Every node pulls an image of a registry by its digest; it has others under the same ID.
func TestImagesOfASwarm(t *testing.T) {
	p := swarmOf(t)
	image := func(m *monitor, service string) string {
		return m.of(serviceType)["platform-"+service].Inputs["taskSpec"].ObjectValue()["containerSpec"].ObjectValue()["image"].StringValue()
	}
	m := standUp(t, false, p)
	assert.Equal(t, "sha256:id-of-redis:7-alpine", image(m, "redis"))
	assert.Equal(t, "sha256:id-of-trading_platform/reference:local", image(m, "orchestrator"))
	m = standUp(t, false, planOf(t, own, map[string]string{"orchestrator": "swarm", "registry": "registry.example/a"}))
	assert.Equal(t, "registry.example/a/trading_platform/reference:local@sha256:id-of-registry.example/a/trading_platform/reference:local", image(m, "orchestrator"))
	for _, built := range m.of(imageType) {
		assert.Equal(t, resource.NewBoolProperty(false), built.Inputs["skipPush"])
	}
}
