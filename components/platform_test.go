package components_test

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/components"
	"trading-platform/plan"
	"trading-platform/settings"
)

func TestNamesAndParents(t *testing.T) {
	p := planOf(t, own)
	bothWays(t, p, func(t *testing.T, m *monitor) {
		const theStack = "trading-platform-test"
		parents := map[string]string{}
		for _, r := range m.all {
			_, twice := parents[r.TypeToken+" "+r.Name]
			assert.False(t, twice, "%s %s is registered twice", r.TypeToken, r.Name)
			parents[r.TypeToken+" "+r.Name] = nameOf(r.RegisterRPC.Parent)
		}
		want := map[string]string{
			providerType + " docker":                                 theStack,
			"trading-platform:components:Platform platform":          theStack,
			"trading-platform:components:Networks platform-networks": "platform",
			"trading-platform:components:Volumes platform-volumes":   "platform",
			"trading-platform:components:Images platform-images":     "platform",
		}
		for _, tier := range []string{"base", "api", "workers", "web", "proxy"} {
			want["trading-platform:components:Tier platform-"+tier] = "platform"
		}
		for _, n := range p.Networks {
			want[networkType+" platform-networks-"+n.Key] = "platform-networks"
		}
		for _, v := range p.Volumes {
			want[volumeType+" platform-volumes-"+v.Key] = "platform-volumes"
		}
		for _, s := range p.Services {
			token := remoteType
			if s.Image.Build != nil {
				token = imageType
			}
			want[token+" platform-images-"+s.Image.Key()] = "platform-images"
			want["trading-platform:components:Service platform-"+s.Name] = "platform-" + string(s.Tier)
			want[containerType+" platform-"+s.Name] = "platform-" + s.Name
			for i := 2; i <= len(s.Containers); i++ {
				want[fmt.Sprintf("%s platform-%s_%d", containerType, s.Name, i)] = "platform-" + s.Name
			}
		}
		assert.Equal(t, want, parents)
		assert.Contains(t, want, containerType+" platform-alert_worker_2")
	})
}

func TestEveryChildUsesTheGivenProvider(t *testing.T) {
	bothWays(t, planOf(t, own), func(t *testing.T, m *monitor) {
		seen := 0
		for _, r := range m.all {
			if !r.Custom || r.TypeToken == providerType {
				continue
			}
			seen++
			assert.Contains(t, r.Provider, "::"+providerType+"::docker::", "%s %s", r.TypeToken, r.Name)
		}
		assert.Equal(t, len(catalog.Volumes)+len(catalog.Networks)+8+len(m.of(containerType)), seen, "volumes, networks, images, containers")
		assert.Len(t, m.of(providerType), 1, "no default provider")
	})
}

// The Go SDK can lose a dependency on a component, so each names the container.
func TestDependenciesAreThePlansAndNameContainers(t *testing.T) {
	p := planOf(t, own)
	bothWays(t, p, func(t *testing.T, m *monitor) {
		containers := m.of(containerType)
		types := map[string]string{} // by URN's name, the types that bear it and are custom
		for _, r := range m.all {
			if r.Custom {
				types[r.Name] = r.TypeToken
			}
		}
		for _, s := range p.Services {
			var want []string
			for _, need := range s.After {
				n, _ := p.Lookup(need)
				want = append(want, "platform-"+need)
				for i := 2; i <= len(n.Containers); i++ {
					want = append(want, fmt.Sprintf("platform-%s_%d", need, i))
				}
			}
			for i := range s.Containers {
				name := "platform-" + s.Name
				if i > 0 {
					name = fmt.Sprintf("%s_%d", name, i+1)
				}
				rpc := containers[name].RegisterRPC
				require.NotNil(t, rpc, name)
				var got []string
				for _, urn := range rpc.Dependencies {
					assert.NotContains(t, urn, "::trading-platform:components:Service::", "%s waits for a component", name)
					if types[nameOf(urn)] == containerType {
						got = append(got, nameOf(urn))
					}
				}
				assert.ElementsMatch(t, want, got, name)
				for property, d := range rpc.PropertyDependencies {
					for _, urn := range d.Urns {
						assert.NotEqual(t, containerType, types[nameOf(urn)],
							"%s of %s: a property's edge would tear it down when the other is replaced", property, name)
					}
				}
			}
		}
	})
}

// TestAServiceThatRunsOnce looks at what is registered for it, and for a service that starts after it.
func TestAServiceThatRunsOnce(t *testing.T) {
	for name, test := range map[string]struct {
		provider string
		exit     int
		want     string
	}{
		"official, and it succeeds":           {settings.Official, 0, ""},
		"official, for which it always does":  {settings.Official, 3, "container trading_platform_redis ended with exit code 3\nFix: docker logs trading_platform_redis"},
		"offline, which reports it by itself": {settings.Offline, 3, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := planOf(t, own, map[string]string{"provider": test.provider})
			for i, s := range p.Services {
				if s.Name == "redis" {
					p.Services[i].Once, p.Services[i].Probe = true, plan.Probe{StartPeriod: plan.Duration{Duration: time.Minute}}
				}
			}
			m := &monitor{exit: test.exit}
			err := pulumi.RunErr(func(ctx *pulumi.Context) error {
				_, err := components.NewPlatform(ctx, "platform", &components.PlatformArgs{Plan: p, BuildPlatform: "linux/riscv64"})
				return err
			}, pulumi.WithMocks("trading-platform", "test", m))
			if test.want != "" {
				require.ErrorContains(t, err, test.want)
				assert.NotContains(t, m.of(containerType), "platform-signal_service", "it does not start")
				return
			}
			require.NoError(t, err)
			step := plain(m.of(containerType)["platform-redis"].Inputs)
			assert.Equal(t, []any{false, true, "no", 90.0, true}, []any{step["mustRun"], step["attach"], step["restart"], step["waitTimeout"], step["removeVolumes"]})
			for _, none := range []string{"wait", "healthcheck", "logs"} {
				assert.NotContains(t, step, none)
			}
			signals, _ := p.Lookup("signal_service")
			assert.EqualValues(t, int(signals.Probe.WaitTimeout().Seconds()), plain(m.of(containerType)["platform-signal_service"].Inputs)["waitTimeout"])
		})
	}
}

func TestOptionsOfContainers(t *testing.T) {
	bothWays(t, planOf(t, own), func(t *testing.T, m *monitor) {
		require.NotEmpty(t, m.of(containerType))
		for name, r := range m.of(containerType) {
			assert.True(t, r.RegisterRPC.DeleteBeforeReplace, "%s: two containers cannot share a name", name)
			assert.ElementsMatch(t, []string{"healthcheck", "tmpfs", "init", "cpuQuota", "cpuPeriod"}, r.RegisterRPC.ReplaceOnChanges, name)
			assert.False(t, r.RegisterRPC.GetRetainOnDelete(), name)
			assert.Empty(t, r.RegisterRPC.IgnoreChanges, name)
		}
	})
}

func TestVolumes(t *testing.T) {
	for name, test := range map[string]struct {
		config map[string]string
		retain bool
	}{
		"outlive the stack":         {nil, true},
		"unless told otherwise":     {map[string]string{"retainVolumes": "false"}, false},
		"taken over under its name": {map[string]string{"volumes": `{"pgdata":"old_pgdata"}`}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := planOf(t, test.config)
			bothWays(t, p, func(t *testing.T, m *monitor) {
				volumes := m.of(volumeType)
				require.Len(t, volumes, len(catalog.Volumes))
				for _, v := range p.Volumes {
					r := volumes["platform-volumes-"+v.Key]
					assert.Equal(t, test.retain, r.RegisterRPC.GetRetainOnDelete(), v.Key)
					assert.ElementsMatch(t, []string{"labels", "driver", "driverOpts"}, r.RegisterRPC.IgnoreChanges, v.Key)
					assert.Equal(t, map[string]any{"name": v.Name, "labels": []any{
						map[string]any{"label": "com.docker.compose.project", "value": "trading_platform"}, map[string]any{"label": "com.docker.compose.volume", "value": v.Key},
						map[string]any{"label": "trading-platform.id", "value": "id"}, map[string]any{"label": "trading-platform.stack", "value": "test"},
						map[string]any{"label": "trading-platform.volume", "value": v.Key},
					}}, plain(r.Inputs))
				}
			})
		})
	}
}

func TestNetworks(t *testing.T) {
	bothWays(t, planOf(t, map[string]string{"subnet": "10.9.0.0/24", "namePrefix": "blue"}), func(t *testing.T, m *monitor) {
		networks := m.of(networkType)
		require.Len(t, networks, 2)
		label := func(network string) []any {
			return []any{
				map[string]any{"label": "com.docker.compose.network", "value": network}, map[string]any{"label": "com.docker.compose.project", "value": "blue"},
				map[string]any{"label": "trading-platform.id", "value": "id"}, map[string]any{"label": "trading-platform.stack", "value": "test"},
			}
		}
		assert.Equal(t, map[string]any{"name": "blue_default", "driver": "bridge", "labels": label("default")}, plain(networks["platform-networks-default"].Inputs))
		assert.Equal(t, map[string]any{
			"name": "blue_trading_platform", "driver": "bridge", "labels": label("trading_platform"),
			"ipamConfigs": []any{map[string]any{"subnet": "10.9.0.0/24"}},
		}, plain(networks["platform-networks-trading_platform"].Inputs))
		waits := networks["platform-networks-default"].RegisterRPC.Dependencies
		require.Len(t, waits, 1, "or the engine could give it the other's subnet")
		assert.Equal(t, "platform-networks-trading_platform", nameOf(waits[0]))
		for name, r := range networks {
			assert.True(t, r.RegisterRPC.DeleteBeforeReplace, "%s: two networks cannot share a name or a subnet", name)
		}
	})
}

// plain returns inputs as JSON values, and secrets as "secret(…)".
func plain(m resource.PropertyMap) map[string]any {
	return m.MapRepl(nil, func(v resource.PropertyValue) (any, bool) {
		if v.IsSecret() {
			return fmt.Sprintf("secret(%v)", v.SecretValue().Element.V), true
		}
		return nil, false
	})
}

func TestImages(t *testing.T) {
	p := planOf(t, own)
	bothWays(t, p, func(t *testing.T, m *monitor) {
		remote := m.of(remoteType)
		assert.ElementsMatch(t, []string{
			"platform-images-postgres:16", "platform-images-redis:7-alpine", "platform-images-prom/prometheus:v2.55.1",
			"platform-images-grafana/loki:3.0.0", "platform-images-grafana/promtail:3.0.0", "platform-images-grafana/grafana:10.4.2",
			"platform-images-nginx:1.25-alpine",
		}, slices.Collect(maps.Keys(remote)))
		assert.Equal(t, map[string]any{"name": "postgres:16", "keepLocally": true}, plain(remote["platform-images-postgres:16"].Inputs))

		built := m.of(imageType)
		require.Len(t, built, 1, "the services that run one image share its build")
		reference := plain(built["platform-images-trading_platform/reference:local"].Inputs)
		assert.Equal(t, "trading_platform/reference:local", reference["imageName"])
		assert.Equal(t, true, reference["skipPush"])
		assert.NotEqual(t, true, reference["buildOnPreview"])
		assert.Equal(t, map[string]any{
			"context": "apps/reference", "dockerfile": "apps/reference/Dockerfile", "platform": "linux/riscv64",
		}, withoutEmpty(reference["build"].(map[string]any)))
	})
	t.Run("containers name them, and carry the id in a label", func(t *testing.T) {
		containers := standUp(t, false, p).of(containerType)
		for name, image := range map[string]string{"postgres": "postgres:16", "signal_service": "trading_platform/reference:local"} {
			inputs := containers["platform-"+name].Inputs
			assert.Equal(t, image, inputs["image"].StringValue(), name)
			assert.Contains(t, plain(inputs)["labels"], map[string]any{"label": "trading-platform.image", "value": "sha256:id-of-" + image}, name)
		}
	})
	t.Run("a preview does not know the id, and does not wait for it", func(t *testing.T) {
		inputs := standUp(t, true, p).of(containerType)["platform-postgres"].Inputs
		assert.Equal(t, "postgres:16", inputs["image"].StringValue())
		assert.NotContains(t, fmt.Sprint(plain(inputs)), "sha256:id-of-")
	})
	t.Run("an app of the checkout", func(t *testing.T) {
		checkout := t.TempDir()
		built := standUp(t, false, planOf(t, own, map[string]string{"sourceDir": checkout})).of(imageType)
		console := plain(built["platform-images-trading_platform/web_console_ng:local"].Inputs)
		assert.Equal(t, map[string]any{
			"context": checkout, "dockerfile": checkout + "/apps/web_console_ng/Dockerfile", "platform": "linux/riscv64",
			"args": map[string]any{"APP_UID": "1000", "APP_GID": "1000"},
		}, console["build"])
		apps := map[string]bool{}
		for _, s := range catalog.Services() {
			apps[s.App] = s.App != ""
			for _, c := range s.BuildContexts {
				apps[c.Name] = true
			}
		}
		delete(apps, "")
		assert.Len(t, built, len(apps), "one for each app, and a build context")
		context := built["platform-images-qlib_src:latest"]
		assert.Equal(t, map[string]any{
			"context": checkout, "dockerfile": "infra/build-context.Dockerfile", "platform": "linux/riscv64",
			"args": map[string]any{"FOLDER": "apps/signal_service/qlib_placeholder"},
		}, plain(context.Inputs)["build"])
		after := built["platform-images-trading_platform/signal_service:local"].RegisterRPC.Dependencies
		require.Len(t, after, 1, "who copies from it is built after it")
		assert.Contains(t, after[0], "::platform-images-qlib_src:latest")
	})
}

var logOpts = map[string]any{
	"max-size": "10m", "max-file": "3", "tag": "{{.Name}}", "labels": "com.docker.compose.project,com.docker.compose.service",
}

func TestAContainersArguments(t *testing.T) {
	p := planOf(t, own, map[string]string{"engineApi": "1.44"})
	bothWays(t, p, func(t *testing.T, m *monitor) {
		got := plain(m.of(containerType)["platform-postgres"].Inputs)
		labels := got["labels"].([]any)
		assert.Equal(t, "trading-platform.image", labels[len(labels)-1].(map[string]any)["label"]) // TestImages has its value
		got["labels"] = labels[:len(labels)-1]
		s, _ := p.Lookup("postgres")
		hash := s.Labels(p, 0)["com.docker.compose.config-hash"]
		label := func(name, value string) map[string]any { return map[string]any{"label": name, "value": value} }
		assert.Equal(t, map[string]any{
			"name":    "trading_platform_postgres",
			"image":   "postgres:16",
			"restart": "unless-stopped",
			"envs":    []any{"POSTGRES_USER=trader", "secret(POSTGRES_PASSWORD=pg)", "POSTGRES_DB=trader"},
			"healthcheck": map[string]any{
				"tests":    []any{"CMD-SHELL", s.Probe.Test[1]},
				"interval": "15s", "timeout": "15s", "retries": 3.0, "startPeriod": "5m0s", "startInterval": "1s",
			},
			"wait": true, "waitTimeout": 420.0,
			"destroyGraceSeconds": 60.0, "cpuShares": 16384.0, "removeVolumes": false,
			"logDriver": "json-file", "logOpts": logOpts,
			"securityOpts": []any{"no-new-privileges:true"},
			"capabilities": map[string]any{"drops": []any{"ALL"}, "adds": []any{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_KILL"}},
			"memory":       4096.0, "memorySwap": 4096.0,
			"readOnly": true, "init": true, "tmpfs": map[string]any{"/tmp": "", "/run/postgresql": ""},
			"labels": []any{
				label("com.docker.compose.config-hash", hash), label("com.docker.compose.container-number", "1"), label("com.docker.compose.depends_on", ""), label("com.docker.compose.oneoff", "False"),
				label("com.docker.compose.project", "trading_platform"), label("com.docker.compose.project.config_files", "Pulumi.test.yaml"), label("com.docker.compose.service", "postgres"), label("trading-platform.id", "id"), label("trading-platform.stack", "test"),
			},
			"ports":            []any{map[string]any{"ip": "127.0.0.1", "external": 5433.0, "internal": 5432.0}},
			"volumes":          []any{map[string]any{"volumeName": "trading_platform_pgdata", "containerPath": "/var/lib/postgresql/data"}},
			"networksAdvanced": []any{map[string]any{"name": "trading_platform_default", "aliases": []any{"postgres"}}},
		}, withoutEmpty(got))
	})
}

// withoutEmpty leaves out the lists and maps that are empty.
func withoutEmpty(m map[string]any) map[string]any {
	maps.DeleteFunc(m, func(_ string, v any) bool {
		list, isList := v.([]any)
		object, isObject := v.(map[string]any)
		return v == nil || isList && len(list) == 0 || isObject && len(object) == 0
	})
	return m
}

func TestEveryContainer(t *testing.T) {
	for name, engine := range map[string]string{"of an old engine": "1.41", "of a new engine": "1.44"} {
		t.Run(name, func(t *testing.T) {
			p := planOf(t, own, map[string]string{"engineApi": engine, "NOTEBOOK_LAUNCH_COMMAND": "jupyter"})
			bothWays(t, p, func(t *testing.T, m *monitor) { everyContainer(t, p, m, engine == "1.44") })
		})
	}
}

func everyContainer(t *testing.T, p *plan.Plan, m *monitor, startInterval bool) {
	t.Helper()
	containers := m.of(containerType)
	for _, s := range p.Services {
		c := plain(containers["platform-"+s.Name].Inputs)
		assert.Equal(t, "unless-stopped", c["restart"], s.Name)
		assert.Equal(t, true, c["wait"], s.Name)
		assert.Equal(t, false, c["removeVolumes"], s.Name)
		assert.GreaterOrEqual(t, c["destroyGraceSeconds"], 15.0, "%s: without one the plugin kills", s.Name)
		assert.Equal(t, "json-file", c["logDriver"], s.Name)
		assert.Equal(t, logOpts, c["logOpts"], s.Name)
		assert.Equal(t, []any{"no-new-privileges:true"}, c["securityOpts"], s.Name)
		assert.Equal(t, []any{"ALL"}, c["capabilities"].(map[string]any)["drops"], s.Name)
		assert.EqualValues(t, s.Memory, c["memory"], s.Name)
		assert.Equal(t, c["memory"], c["memorySwap"], "%s: left out, it differs forever", s.Name)
		assert.Equal(t, s.ReadOnly, c["readOnly"] == true, s.Name)
		options, _ := c["dnsOpts"].([]any)
		require.Len(t, options, len(s.DNSOptions), s.Name)
		for i, option := range options {
			assert.Equal(t, s.DNSOptions[i], option)
		}
		assert.False(t, s.ReadOnly && len(s.Files) > 0, "%s: the engine puts no file into a read-only container", s.Name)

		h := c["healthcheck"].(map[string]any)
		assert.NotEmpty(t, h["tests"], s.Name)
		durations := []string{"interval", "timeout", "startPeriod"}
		if startInterval {
			durations = append(durations, "startInterval")
		} else {
			assert.NotContains(t, h, "startInterval", "%s: an older engine refuses to create the container", s.Name)
		}
		for _, key := range durations {
			d, err := time.ParseDuration(h[key].(string))
			require.NoError(t, err)
			assert.Equal(t, d.String(), h[key], "%s of %s: another spelling differs forever", key, s.Name)
		}
		assert.EqualValues(t, s.Probe.WaitTimeout()/time.Second, c["waitTimeout"], s.Name)

		ports, _ := c["ports"].([]any)
		assert.Len(t, ports, len(s.Ports), s.Name)
		for _, port := range ports {
			assert.Equal(t, "127.0.0.1", port.(map[string]any)["ip"], "%s: without an address a port is open to everyone", s.Name)
		}
		volumes, _ := c["volumes"].([]any)
		require.Len(t, volumes, len(s.Mounts), s.Name)
		for i, v := range volumes {
			mount := s.Mounts[i]
			assert.Equal(t, mount.Path, v.(map[string]any)["containerPath"])
			assert.Equal(t, mount.ReadOnly, v.(map[string]any)["readOnly"] == true, "%s at %s", s.Name, mount.Path)
			if mount.Volume != "" {
				assert.Equal(t, "trading_platform_"+mount.Volume, v.(map[string]any)["volumeName"])
			} else {
				assert.Equal(t, mount.Host, v.(map[string]any)["hostPath"])
			}
		}
		networks := c["networksAdvanced"].([]any)
		require.Len(t, networks, len(s.Networks), s.Name)
		for i, n := range networks {
			assert.Equal(t, []any{s.Name}, n.(map[string]any)["aliases"], "one alias a network, since their order is not defined")
			if address := s.Networks[i].Address; address != "" {
				assert.Equal(t, address, n.(map[string]any)["ipv4Address"])
			} else {
				assert.NotContains(t, n, "ipv4Address", s.Name)
			}
		}
		assert.Equal(t, s.User, orEmpty(c["user"]), s.Name)
		var command []any
		for _, word := range s.Command {
			command = append(command, word)
		}
		got, _ := c["command"].([]any)
		assert.ElementsMatch(t, command, got, s.Name)
		_, given := c["command"]
		assert.Equal(t, len(s.Command) > 0, given, "%s: to the official plugin an empty list is not the image's own command", s.Name)
	}
}

func orEmpty(v any) string {
	text, _ := v.(string)
	return text
}

func TestSecretsAreSecretAndTheRestIsNot(t *testing.T) {
	p := planOf(t, own)
	bothWays(t, p, func(t *testing.T, m *monitor) {
		for _, s := range p.Services {
			inputs := m.of(containerType)["platform-"+s.Name].Inputs
			envs := list(inputs["envs"])
			require.Len(t, envs, len(s.Env), s.Name)
			for i, e := range s.Env {
				assert.Equal(t, e.Secret, envs[i].IsSecret(), "%s of %s", e.Name, s.Name)
				got := envs[i]
				if got.IsSecret() {
					got = got.SecretValue().Element
				}
				assert.Equal(t, e.Name+"="+e.Value, got.StringValue())
			}
			uploads := list(inputs["uploads"])
			require.Len(t, uploads, len(s.Files), s.Name)
			for i, f := range s.Files {
				content := uploads[i].ObjectValue()["content"]
				assert.Equal(t, f.Secret, content.IsSecret(), "%s of %s", f.Path, s.Name)
				assert.Equal(t, f.Path, uploads[i].ObjectValue()["file"].StringValue())
				if content.IsSecret() {
					content = content.SecretValue().Element
				}
				assert.Equal(t, f.Content, content.StringValue())
				assert.NotContains(t, uploads[i].ObjectValue(), resource.PropertyKey("source"), "an edit of a source goes unseen")
			}
		}
	})
}

func list(v resource.PropertyValue) []resource.PropertyValue {
	if !v.IsArray() {
		return nil
	}
	return v.ArrayValue()
}

func TestReplicasDifferOnlyInNameAndNumber(t *testing.T) {
	containers := standUp(t, false, planOf(t, own)).of(containerType)
	first, second := plain(containers["platform-alert_worker"].Inputs), plain(containers["platform-alert_worker_2"].Inputs)
	assert.Equal(t, "trading_platform_alert_worker", first["name"])
	assert.Equal(t, "trading_platform_alert_worker_2", second["name"])
	number := second["labels"].([]any)[1].(map[string]any)
	assert.Equal(t, "com.docker.compose.container-number", number["label"])
	assert.Equal(t, "2", number["value"])
	number["value"], second["name"] = "1", first["name"]
	assert.Equal(t, first, second)
}

func TestOutputs(t *testing.T) {
	p := planOf(t, own)
	var mu sync.Mutex
	got := map[string]any{}
	err := pulumi.RunErr(func(ctx *pulumi.Context) error {
		platform, err := components.NewPlatform(ctx, "platform", &components.PlatformArgs{Plan: p, BuildPlatform: "linux/amd64"})
		if err != nil {
			return err
		}
		for name, output := range platform.Outputs {
			output.(pulumi.Output).ApplyT(func(v any) any {
				mu.Lock()
				defer mu.Unlock()
				got[name] = v
				return v
			})
		}
		return nil
	}, pulumi.WithMocks("trading-platform", "test", &monitor{}))
	require.NoError(t, err)
	// The program does not wait for an output that depends on no resource.
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == 4
	}, 10*time.Second, time.Millisecond)
	assert.Equal(t, p.URLs(), got["urls"])
	var containers []string
	for _, s := range p.Services {
		containers = append(containers, s.Containers...)
	}
	assert.Equal(t, containers, got["containers"], "in the order in which they start")
	assert.Equal(t, map[string]string{"default": "trading_platform_default", "trading_platform": "trading_platform_trading_platform"}, got["networks"])
	assert.Equal(t, "trading_platform_pgdata", got["volumes"].(map[string]string)["pgdata"])
	assert.Len(t, got["volumes"], len(catalog.Volumes))
}

func TestAPlatformNeedsAPlan(t *testing.T) {
	for name, args := range map[string]*components.PlatformArgs{"no arguments": nil, "no plan": {BuildPlatform: "linux/amd64"}, "no platform to build for": {Plan: planOf(t)}} {
		t.Run(name, func(t *testing.T) {
			m := &monitor{}
			err := pulumi.RunErr(func(ctx *pulumi.Context) error {
				_, err := components.NewPlatform(ctx, "platform", args)
				return err
			}, pulumi.WithMocks("trading-platform", "test", m))
			require.ErrorContains(t, err, "platform platform needs a plan")
			assert.Empty(t, m.all, "nothing is registered")
		})
	}
}

// The caller's slice of options is not changed, so that two platforms can be made with one slice.
func TestOptionsOfTheCallerAreNotChanged(t *testing.T) {
	p := planOf(t)
	opts := make([]pulumi.ResourceOption, 0, 8)
	err := pulumi.RunErr(func(ctx *pulumi.Context) error {
		for _, name := range []string{"one", "two"} {
			if _, err := components.NewPlatform(ctx, name, &components.PlatformArgs{Plan: p, BuildPlatform: "linux/amd64"}, opts...); err != nil {
				return err
			}
		}
		return nil
	}, pulumi.WithMocks("trading-platform", "test", &monitor{}))
	require.NoError(t, err)
	for _, o := range opts[:cap(opts)] {
		assert.Nil(t, o)
	}
}
