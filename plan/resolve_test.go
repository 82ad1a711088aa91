package plan_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/catalog/catalogtest"
	"trading-platform/fault"
	"trading-platform/plan"
	"trading-platform/settings"
)

// own are variables that a stack which others can reach can run with: every required one,
// and one in place of each public default.
var own = catalogtest.Required(map[string]string{
	"POSTGRES_PASSWORD": "pg-canary", "GF_SECURITY_ADMIN_PASSWORD": "grafana-canary",
	"WEB_CONSOLE_USER": "me", "WEB_CONSOLE_PASSWORD": "console-canary",
	"ALERT_RECIPIENT_HASH_SECRET": "alert-canary", "SESSION_ENCRYPTION_KEY": "session-canary",
	"AUTH0_DOMAIN": "tenant.example.com", "AUTH0_CLIENT_ID": "client", "AUTH0_CLIENT_SECRET": "auth0-canary",
})

type config map[string]string

// with returns the config with others over it.
func (c config) with(others ...map[string]string) config {
	out := maps.Clone(c)
	for _, o := range others {
		maps.Copy(out, o)
	}
	return out
}

// profiles returns the config of a stack with these profiles and all the variables that they need.
func profiles(names ...string) config {
	list, _ := json.Marshal(names)
	return config{"profiles": string(list)}.with(own)
}

func load(t *testing.T, c config, secret ...string) *settings.Settings {
	t.Helper()
	src := settings.Source{Stack: "test", Root: "/clone", Config: c, Secret: map[string]bool{}}
	for _, key := range secret {
		src.Secret[key] = true
	}
	set, err := settings.Load(src)
	require.NoError(t, err)
	return set
}

func resolve(t *testing.T, c config) *plan.Plan {
	t.Helper()
	p, err := plan.Resolve(load(t, c), nil)
	require.NoError(t, err)
	return p
}

func service(t *testing.T, p *plan.Plan, name string) plan.Service {
	t.Helper()
	s, ok := p.Lookup(name)
	require.True(t, ok, "no %s in the plan", name)
	return s
}

func variable(t *testing.T, p *plan.Plan, name, variable string) plan.Env {
	t.Helper()
	for _, e := range service(t, p, name).Env {
		if e.Name == variable {
			return e
		}
	}
	require.Fail(t, "not set", "%s of %s", variable, name)
	return plan.Env{}
}

func value(t *testing.T, p *plan.Plan, name, of string) string {
	t.Helper()
	return variable(t, p, name, of).Value
}

func TestEverySetOfProfiles(t *testing.T) {
	names := catalog.ProfileNames()
	for mask := range 1 << len(names) {
		var set []string
		for i, name := range names {
			if mask&(1<<i) != 0 {
				set = append(set, name)
			}
		}
		t.Run(strings.Join(append([]string{"base"}, set...), "+"), func(t *testing.T) {
			if slices.Contains(set, "mtls") && slices.Contains(set, "oauth2") {
				_, err := settings.Load(settings.Source{Stack: "test", Config: profiles(set...)})
				require.ErrorContains(t, err, "mtls and oauth2 cannot be in one stack: both publish host ports 80 and 443")
				require.ErrorContains(t, err, "use two stacks")
				return
			}
			c := profiles(set...)
			if slices.Contains(set, "dev") && (slices.Contains(set, "mtls") || slices.Contains(set, "oauth2")) {
				// The dev console's keys are in the repository.
				c["serviceEnv"] = `{"web_console_dev":{"HMAC_SIGNING_KEYS":"02:abc","SESSION_ENCRYPTION_KEY":"mine"}}`
			}
			p := resolve(t, c)
			started, names := map[string]bool{}, map[string]bool{}
			ports := map[string]string{}
			for _, s := range p.Services {
				for _, need := range s.After {
					assert.True(t, started[need], "%s comes before %s, which it waits for", s.Name, need)
				}
				started[s.Name] = true
				assert.NotEmpty(t, s.Probe.Test, "%s has no probe", s.Name)
				for _, e := range s.Env {
					// A service that uses a database waits for it, directly or through others.
					if e.Name == "DATABASE_URL" {
						assert.True(t, waitsFor(p, s, "postgres"), "%s does not wait for postgres", s.Name)
					}
					if e.Name == "REDIS_URL" || e.Name == "REDIS_HOST" {
						assert.True(t, waitsFor(p, s, "redis"), "%s does not wait for redis", s.Name)
					}
					assert.NotContains(t, e.Value, "${", "%s of %s", e.Name, s.Name)
				}
				for _, c := range s.Containers {
					assert.False(t, names[c], "two containers are called %s", c)
					names[c] = true
				}
				for _, port := range s.Ports {
					at := fmt.Sprintf("%s:%d", port.Address, port.Host)
					assert.Empty(t, ports[at], "%s of %s", at, s.Name)
					ports[at] = s.Name
				}
			}
			for _, s := range catalog.Services() {
				assert.Equal(t, s.Profile == "" || slices.Contains(set, s.Profile), started[s.Name], s.Name)
			}
			assert.Empty(t, p.Notes)
		})
	}
}

func waitsFor(p *plan.Plan, s plan.Service, name string) bool {
	return slices.ContainsFunc(s.After, func(need string) bool {
		n, _ := p.Lookup(need)
		return need == name || waitsFor(p, n, name)
	})
}

// faults returns the faults of an invalid stack, by their place.
func faults(t *testing.T, c config) map[string]fault.Fault {
	t.Helper()
	p, err := plan.Resolve(load(t, c), nil)
	assert.NotNil(t, p, "a plan comes with its faults, as far as it goes")
	var list fault.List
	require.ErrorAs(t, err, &list)
	out := map[string]fault.Fault{}
	for _, f := range list {
		out[strings.TrimPrefix(f.Where, "trading-platform:")] = f
	}
	assert.Len(t, out, len(list), "each is said once")
	return out
}

func TestAllMissingVariablesAreInOneError(t *testing.T) {
	got := faults(t, config{
		"profiles": `["oauth2","workers"]`, "POSTGRES_PASSWORD": "mine", "GF_SECURITY_ADMIN_PASSWORD": "mine",
	})
	const init = "platform init -s test generates one, or: "
	for name, want := range map[string]struct{ by, fix string }{
		"ALERT_RECIPIENT_HASH_SECRET": {"alert_worker", init + "pulumi config set -s test --secret ALERT_RECIPIENT_HASH_SECRET"},
		"AUTH0_CLIENT_ID":             {"auth_service", "pulumi config set -s test AUTH0_CLIENT_ID <value>"},
		"AUTH0_CLIENT_SECRET":         {"auth_service", "pulumi config set -s test --secret AUTH0_CLIENT_SECRET"},
		"AUTH0_DOMAIN":                {"auth_service", "pulumi config set -s test AUTH0_DOMAIN <value>"},
		"SESSION_ENCRYPTION_KEY":      {"web_console_oauth2, auth_service", init + "pulumi config set -s test --secret SESSION_ENCRYPTION_KEY"},
		"WEB_CONSOLE_PASSWORD":        {"web_console_oauth2", init + "pulumi config set -s test --secret WEB_CONSOLE_PASSWORD"},
		"WEB_CONSOLE_USER":            {"web_console_oauth2", init + "pulumi config set -s test WEB_CONSOLE_USER <value>"},
	} {
		assert.Equal(t, fault.Fault{Where: "trading-platform:" + name, What: "required by " + want.by + ", but not set", Fix: want.fix}, got[name])
	}
}

func TestVariablesThatInitMustSet(t *testing.T) {
	p, err := plan.Resolve(load(t, config{"profiles": `["oauth2"]`}), nil)
	var names []string
	for _, v := range p.Unset {
		names = append(names, v.Name)
	}
	require.Error(t, err)
	assert.Subset(t, names, []string{
		"AUTH0_CLIENT_ID", "AUTH0_CLIENT_SECRET", "AUTH0_DOMAIN", "SESSION_ENCRYPTION_KEY", "WEB_CONSOLE_PASSWORD", "WEB_CONSOLE_USER",
		"GF_SECURITY_ADMIN_PASSWORD", "POSTGRES_PASSWORD", // known to everyone
	})
	assert.Empty(t, resolve(t, profiles("oauth2")).Unset)
	assert.Empty(t, resolve(t, config{}).Unset)
}

func TestPublicDefaultsAreRefused(t *testing.T) {
	const known = " would run with its public default, and "
	local := config{"profiles": `["dev","workers"]`}.with(map[string]string{
		"env": `{"WEB_CONSOLE_USER":"admin","WEB_CONSOLE_PASSWORD":"admin","ALERT_RECIPIENT_HASH_SECRET":"local-only-alert-hash-secret"}`,
	})
	t.Run("are fine on loopback", func(t *testing.T) { resolve(t, local) })
	t.Run("are fine on the other loopback addresses", func(t *testing.T) {
		resolve(t, local.with(config{"bindAddress": "127.0.0.2"}))
		resolve(t, local.with(config{"bindAddress": "::1"}))
	})
	t.Run("are refused on an address that others reach", func(t *testing.T) {
		got := faults(t, local.with(config{"bindAddress": "0.0.0.0"}))
		const why = known + "bindAddress 0.0.0.0 opens the stack to others"
		assert.Equal(t, map[string]fault.Fault{
			"POSTGRES_PASSWORD": {
				Where: "trading-platform:POSTGRES_PASSWORD", What: "postgres" + why,
				Fix: "platform init -s test generates one, or: pulumi config set -s test --secret POSTGRES_PASSWORD",
			},
			"GF_SECURITY_ADMIN_PASSWORD": {
				Where: "trading-platform:GF_SECURITY_ADMIN_PASSWORD", What: "grafana" + why,
				Fix: "platform init -s test generates one, or: pulumi config set -s test --secret GF_SECURITY_ADMIN_PASSWORD",
			},
			"WEB_CONSOLE_PASSWORD": {
				Where: "trading-platform:WEB_CONSOLE_PASSWORD", What: "web_console_dev" + why,
				Fix: "platform init -s test generates one, or: pulumi config set -s test --secret WEB_CONSOLE_PASSWORD",
			},
			"ALERT_RECIPIENT_HASH_SECRET": {
				Where: "trading-platform:ALERT_RECIPIENT_HASH_SECRET", What: "alert_worker" + why,
				Fix: "platform init -s test generates one, or: pulumi config set -s test --secret ALERT_RECIPIENT_HASH_SECRET",
			},
			"HMAC_SIGNING_KEYS": {
				Where: "trading-platform:HMAC_SIGNING_KEYS", What: "web_console_dev" + why,
				Fix: "pulumi config set -s test --secret --path serviceEnv.web_console_dev.HMAC_SIGNING_KEYS",
			},
			"SESSION_ENCRYPTION_KEY": {
				Where: "trading-platform:SESSION_ENCRYPTION_KEY", What: "web_console_dev" + why,
				Fix: "pulumi config set -s test --secret --path serviceEnv.web_console_dev.SESSION_ENCRYPTION_KEY",
			},
		}, got)
	})
	for _, profile := range []string{"mtls", "oauth2"} {
		t.Run("are refused with "+profile, func(t *testing.T) {
			got := faults(t, profiles(profile).with(config{"POSTGRES_PASSWORD": "trader"}))
			assert.Equal(t, "postgres"+known+"profile "+profile+" is for stacks that others can reach", got["POSTGRES_PASSWORD"].What)
			assert.Len(t, got, 1)
		})
	}
	t.Run("are refused from serviceEnv", func(t *testing.T) {
		got := faults(t, profiles("mtls").with(config{"serviceEnv": `{"grafana":{"GF_SECURITY_ADMIN_PASSWORD":"admin"}}`}))
		assert.Contains(t, got, "GF_SECURITY_ADMIN_PASSWORD")
	})
}

func TestExpose(t *testing.T) {
	address := func(p *plan.Plan, name string) string { return service(t, p, name).Ports[0].Address }
	t.Run("databases stay on loopback when bindAddress moves", func(t *testing.T) {
		p := resolve(t, profiles().with(config{"bindAddress": "0.0.0.0"}))
		assert.Equal(t, "127.0.0.1", address(p, "postgres"))
		assert.Equal(t, "127.0.0.1", address(p, "redis"))
		assert.Equal(t, "0.0.0.0", address(p, "grafana"))
		assert.Equal(t, "http://127.0.0.1:3000", p.URLs()["grafana"], "an address that a browser can open")
		assert.Equal(t, "postgresql://127.0.0.1:5433", p.URLs()["postgres"])
	})
	t.Run("an exposed one follows it", func(t *testing.T) {
		p := resolve(t, profiles().with(config{"bindAddress": "192.0.2.7", "expose": `["postgres"]`}))
		assert.Equal(t, "192.0.2.7", address(p, "postgres"))
		assert.Equal(t, "127.0.0.1", address(p, "redis"))
		assert.Equal(t, "http://192.0.2.7:3000", p.URLs()["grafana"])
	})
	t.Run("only with a password of its own", func(t *testing.T) {
		got := faults(t, config{"bindAddress": "192.0.2.7", "expose": `["postgres"]`, "GF_SECURITY_ADMIN_PASSWORD": "mine"})
		assert.Contains(t, got, "POSTGRES_PASSWORD")
		assert.Len(t, got, 1)
	})
	t.Run("redis only with a password", func(t *testing.T) {
		c := profiles("dev").with(config{"bindAddress": "192.0.2.7", "expose": `["redis"]`,
			"serviceEnv": `{"web_console_dev":{"HMAC_SIGNING_KEYS":"02:abc","SESSION_ENCRYPTION_KEY":"mine"}}`})
		assert.Equal(t, map[string]fault.Fault{"expose": {
			Where: "trading-platform:expose",
			What:  "redis has no password in this stack, so it cannot be exposed on 192.0.2.7",
			Fix:   "pulumi config set -s test --secret REDIS_PASSWORD, or remove redis from expose",
		}}, faults(t, c))
		p := resolve(t, c.with(config{"REDIS_PASSWORD": "p@ss/w%"}))
		assert.Equal(t, "192.0.2.7", address(p, "redis"))
		assert.Equal(t, []string{"redis is open to whoever reaches 192.0.2.7 and knows REDIS_PASSWORD"}, p.Open)
		assert.Equal(t, "redis://:p%40ss%2Fw%25@redis:6379/0", value(t, p, "signal_service", "REDIS_URL"))
		for _, name := range []string{"redis", "execution_gateway", "market_data_service", "orchestrator", "web_console_dev"} {
			assert.Equal(t, plan.Env{Name: "REDIS_PASSWORD", Value: "p@ss/w%", Secret: true}, variable(t, p, name, "REDIS_PASSWORD"), name)
		}
		assert.True(t, variable(t, p, "signal_service", "REDIS_URL").Secret)
	})
	t.Run("what has no login is opened by its name alone, and said", func(t *testing.T) {
		c := profiles("dev").with(config{"bindAddress": "0.0.0.0", "NOTEBOOK_LAUNCH_COMMAND": "jupyter lab",
			"serviceEnv": `{"web_console_dev":{"HMAC_SIGNING_KEYS":"02:abc","SESSION_ENCRYPTION_KEY":"mine"}}`})
		open := func(p *plan.Plan) []string {
			var names []string
			for _, s := range p.Services {
				for i, port := range s.Ports {
					if port.Address != "127.0.0.1" && i < 2 {
						names = append(names, fmt.Sprintf("%s:%d", s.Name, port.Host))
					}
				}
			}
			return names
		}
		p := resolve(t, c)
		assert.ElementsMatch(t, []string{"grafana:3000", "web_console_dev:8080"}, open(p))
		assert.Empty(t, p.Open)
		p = resolve(t, c.with(config{"expose": `["prometheus","web_console_dev"]`}))
		assert.ElementsMatch(t, []string{"grafana:3000", "web_console_dev:8080", "web_console_dev:8900", "prometheus:9090"}, open(p))
		assert.Equal(t, []string{
			"prometheus is open without a login to whoever reaches 0.0.0.0", "web_console_dev is open without a login to whoever reaches 0.0.0.0",
		}, p.Open)
	})
	t.Run("on loopback there is nothing to refuse", func(t *testing.T) {
		resolve(t, config{"expose": `["postgres","redis"]`})
	})
	t.Run("IPv6", func(t *testing.T) {
		p := resolve(t, profiles().with(config{"bindAddress": "::"}))
		assert.Equal(t, "http://[::1]:3000", p.URLs()["grafana"])
	})
}

func TestPortOffsetIsUsedEverywhere(t *testing.T) {
	p := resolve(t, profiles("dev", "oauth2").with(config{
		"portOffset": "1000",
		"serviceEnv": `{"web_console_dev":{"HMAC_SIGNING_KEYS":"02:abc","SESSION_ENCRYPTION_KEY":"mine"}}`,
	}))
	for _, s := range p.Services {
		c, _ := catalog.Lookup(s.Name)
		for i, port := range s.Ports {
			assert.Equal(t, c.Ports[i].Host+1000, port.Host, s.Name)
			assert.Equal(t, c.Ports[i].Container, port.Container, s.Name)
		}
	}
	assert.Equal(t, "http://127.0.0.1:9080", p.URLs()["web_console_dev"])
	assert.Equal(t, "https://127.0.0.1:1443", p.URLs()["nginx_oauth2"], "not port 80, which only redirects")
	const public = "https://web-console.trading-platform.local:1443"
	assert.Equal(t, "http://localhost:9080,http://127.0.0.1:9080", value(t, p, "model_registry", "ALLOWED_ORIGINS"))
	assert.Equal(t, public+"/callback", value(t, p, "auth_service", "OAUTH2_REDIRECT_URI"))
	assert.Equal(t, public, value(t, p, "auth_service", "OAUTH2_LOGOUT_REDIRECT_URI"))
	assert.Equal(t, public+"/callback", value(t, p, "web_console_oauth2", "OAUTH2_REDIRECT_URI"))
	assert.Equal(t, public+"/logout", value(t, p, "web_console_oauth2", "OAUTH2_LOGOUT_REDIRECT_URI"))
	assert.Contains(t, content(t, p, "web_console_dev", "contract.json"), `"grafana": "http://127.0.0.1:4000"`)
	assert.Equal(t, "http://execution_gateway:8002", value(t, p, "orchestrator", "EXECUTION_GATEWAY_URL"), "inside, nothing moves")

	p = resolve(t, profiles("oauth2"))
	assert.Equal(t, "https://web-console.trading-platform.local/callback", value(t, p, "auth_service", "OAUTH2_REDIRECT_URI"), "443 goes without saying")
	assert.Contains(t, content(t, p, "nginx_oauth2", "nginx.conf"), "web-console.trading-platform.local")
}

func content(t *testing.T, p *plan.Plan, name, ending string) string {
	t.Helper()
	for _, f := range service(t, p, name).Files {
		if strings.HasSuffix(f.Path, ending) {
			return f.Content
		}
	}
	require.Fail(t, "no such file", "%s of %s", ending, name)
	return ""
}

func TestABuildContextOutsideOfTheCheckout(t *testing.T) {
	for name, folder := range map[string]string{"absolute": "/opt/qlib", "beside it": "../qlib"} {
		t.Run(name, func(t *testing.T) {
			_, err := plan.Resolve(load(t, profiles("dev").with(config{"sourceDir": t.TempDir(), "env": `{"QLIB_SOURCE_DIR":"` + folder + `"}`})), nil)
			require.EqualError(t, err, "One thing is wrong, and nothing was changed:\n  1. trading-platform:QLIB_SOURCE_DIR: "+folder+" is not the relative path of a folder in the checkout\n"+
				"     Fix: copy it into the checkout, or build the image with docker build --build-context qlib_src="+folder+
				" and name it: pulumi config set -s test --path images.signal_service <reference>")
		})
	}
}

func TestAPortPast65535(t *testing.T) {
	set := load(t, config{"profiles": `["dev"]`, "portOffset": "50000"}.with(own))
	set.PortOffset = 60000 // more than settings let through
	p, err := plan.Resolve(set, nil)
	require.ErrorContains(t, err, "trading-platform:portOffset: 60000 puts prometheus on port 69090, which is above 65535\n     Fix: pulumi config set -s test portOffset 1000")
	assert.Empty(t, service(t, p, "prometheus").Ports)
	assert.NotContains(t, content(t, p, "web_console_dev", "contract.json"), `"prometheus": "http://127`)

	set.PortOffset = 50000
	_, err = plan.Resolve(set, nil)
	require.NoError(t, err, "the largest that settings let through fits")
}

func TestSubnetAndNginxAddressAreUsedEverywhere(t *testing.T) {
	for name, test := range map[string]struct {
		config                  config
		subnet, address, around string
	}{
		"by default": {config{}, "172.28.0.0/16", "172.28.0.10", "172.28.0.0/16"},
		"a subnet":   {config{"subnet": "10.9.0.0/24"}, "10.9.0.0/24", "10.9.0.10", "10.9.0.0/24"},
		"an address": {config{"nginxAddress": "172.28.5.6"}, "172.28.0.0/16", "172.28.5.6", "172.28.0.0/16"},
		"a /26":      {config{"subnet": "10.9.0.64/26"}, "10.9.0.64/26", "10.9.0.74", "10.9.0.64/26"},
		"a part":     {config{"TRUSTED_PROXY_SUBNET": "172.28.0.0/30"}, "172.28.0.0/16", "172.28.0.10", "172.28.0.0/30"},
		"one's own":  {config{"TRUSTED_PROXY_SUBNET": "10.0.0.0/8"}, "172.28.0.0/16", "172.28.0.10", "10.0.0.0/8"},
		"for nginx":  {config{"serviceEnv": `{"nginx_oauth2":{"TRUSTED_PROXY_SUBNET":"10.0.0.0/8"}}`}, "172.28.0.0/16", "172.28.0.10", "10.0.0.0/8"},
	} {
		t.Run(name, func(t *testing.T) {
			p := resolve(t, profiles("oauth2").with(test.config))
			assert.Equal(t, []plan.Network{
				{Key: "default", Name: "trading_platform_default"},
				{Key: "trading_platform", Name: "trading_platform_trading_platform", Subnet: test.subnet},
			}, p.Networks)
			assert.Equal(t, []plan.Attachment{{Network: "trading_platform", Alias: "nginx_oauth2", Address: test.address}}, service(t, p, "nginx_oauth2").Networks)
			assert.Equal(t, test.address, value(t, p, "web_console_oauth2", "TRUSTED_PROXY_IPS"))
			assert.Equal(t, test.address, value(t, p, "auth_service", "TRUSTED_PROXY_IPS"))
			assert.Equal(t, test.around, value(t, p, "nginx_oauth2", "TRUSTED_PROXY_SUBNET"))
			config := content(t, p, "nginx_oauth2", "nginx.conf")
			assert.Contains(t, config, test.around)
			trusted := regexp.MustCompile(`set_real_ip_from (\S+);`).FindAllStringSubmatch(config, -1)
			assert.NotEmpty(t, trusted)
			for _, m := range trusted {
				assert.False(t, netip.MustParsePrefix(m[1]).Contains(netip.MustParsePrefix(test.subnet).Addr().Next()), "the gateway is trusted: %s", m[1])
			}
		})
	}
}

func TestInvalidTrustedProxySubnet(t *testing.T) {
	got := faults(t, profiles("oauth2").with(config{"TRUSTED_PROXY_SUBNET": "everywhere"}))
	assert.Equal(t, `"everywhere" is not a subnet of proxies that nginx_oauth2 can trust`, got["TRUSTED_PROXY_SUBNET"].What)
}

func TestAServiceThatNeedsADisabledOne(t *testing.T) {
	got := faults(t, config{"disabled": `["loki_server"]`})
	assert.Equal(t, fault.Fault{
		Where: "trading-platform:disabled", What: "loki_server is disabled, and promtail cannot run without it",
		Fix: "remove loki_server from `disabled`, or add promtail to it",
	}, got["disabled"])
	got = faults(t, profiles("mtls").with(config{"disabled": `["web_console_mtls"]`}))
	assert.Contains(t, got["disabled"].What, "nginx_mtls cannot run without it")
}

func TestNamePrefixIsUsedEverywhere(t *testing.T) {
	p := resolve(t, profiles("dev").with(config{"namePrefix": "Blue"}))
	for _, s := range p.Services {
		assert.Equal(t, []string{"Blue_" + s.Name}, s.Containers)
		for _, a := range s.Networks {
			assert.Equal(t, s.Name, a.Alias, "services find each other by their bare names")
		}
		assert.Equal(t, "Blue", s.Labels(p, 0)["com.docker.compose.project"])
		if s.Image.Build != nil {
			assert.Equal(t, "blue/reference:local", s.Image.Build.Name, "image names are lower case")
		}
	}
	assert.Equal(t, "Blue_default", p.Networks[0].Name)
	assert.Equal(t, "Blue_trading_platform", p.Networks[1].Name)
	for _, v := range p.Volumes {
		assert.Equal(t, "Blue_"+v.Key, v.Name)
	}
	assert.Contains(t, content(t, p, "promtail", "promtail-config.yml"), "Blue")
}

func TestVolumes(t *testing.T) {
	p := resolve(t, config{"volumes": `{"pgdata":"my-trading_pgdata"}`, "retainVolumes": "false"})
	assert.Equal(t, plan.Volume{Key: "pgdata", Name: "my-trading_pgdata", TakeOver: true}, p.Volumes[0])
	assert.Equal(t, plan.Volume{Key: "redisdata", Name: "trading_platform_redisdata"}, p.Volumes[1])
	assert.Equal(t, []string{"retainVolumes is off: `pulumi destroy` deletes the data of all volumes"}, p.Notes)
	assert.Equal(t, []plan.Mount{{Volume: "pgdata", Path: "/var/lib/postgresql/data"}}, service(t, p, "postgres").Mounts)
	assert.False(t, p.RetainVolumes)
}

// What Prometheus is told of is not part of a stack: its container outlives every change of the profiles.
func TestPrometheusStaysWhateverElseTheStackHas(t *testing.T) {
	want := service(t, resolve(t, config{}), "prometheus")
	for name, c := range map[string]config{
		"dev and workers": profiles("dev", "workers"), "mtls": profiles("mtls"), "every exporter": profiles("observability"),
		"replicas": profiles("workers").with(config{"replicas": `{"alert_worker":7}`}), "without logs": {"disabled": `["loki_server","promtail"]`},
	} {
		assert.Equal(t, want, service(t, resolve(t, c), "prometheus"), name)
	}
}

func TestPrometheusScrapesOnlyWhatServesMetrics(t *testing.T) {
	for name, c := range map[string]config{"of the checkout": {"sourceDir": t.TempDir()}, "from an image": {"images": `{"alert_worker":"mine:1"}`}} {
		p := resolve(t, profiles("workers").with(c))
		assert.Empty(t, service(t, p, "alert_worker").Metrics, "a worker %s has none", name)
		assert.NotContains(t, content(t, p, "prometheus", "prometheus.yml"), "alert_worker", name)
	}
	assert.Equal(t, "http://alert_worker:9100/metrics", service(t, resolve(t, profiles("workers")), "alert_worker").Metrics)
}

func TestDisabled(t *testing.T) {
	p := resolve(t, profiles("dev").with(config{"disabled": `["grafana","loki_server","promtail","redis"]`}))
	for _, name := range []string{"grafana", "loki_server", "promtail", "redis"} {
		_, ok := p.Lookup(name)
		assert.False(t, ok, name)
	}
	assert.Equal(t, []string{"postgres"}, service(t, p, "execution_gateway").After)
	assert.Equal(t, []string{
		"redis is disabled", "loki_server is disabled", "promtail is disabled", "grafana is disabled",
		"execution_gateway does not wait for redis, which is not in the stack",
		"signal_service does not wait for redis, which is not in the stack",
		"market_data_service does not wait for redis, which is not in the stack",
		"orchestrator does not wait for redis, which is not in the stack",
		"backtest_worker_dev does not wait for redis, which is not in the stack",
	}, p.Notes)
	assert.NotContains(t, content(t, p, "web_console_dev", "contract.json"), "grafana")
	assert.Empty(t, resolve(t, config{"disabled": `["web_console"]`}).Notes, "what no profile brings is not missed")
}

func TestReplicas(t *testing.T) {
	p := resolve(t, profiles("workers").with(config{"replicas": `{"backtest_worker_high":3}`}))
	assert.Equal(t, []string{
		"trading_platform_backtest_worker_high", "trading_platform_backtest_worker_high_2", "trading_platform_backtest_worker_high_3",
	}, service(t, p, "backtest_worker_high").Containers)
	assert.Equal(t, []string{"trading_platform_backtest_worker_low"}, service(t, p, "backtest_worker_low").Containers)
	one := service(t, resolve(t, profiles("workers")), "backtest_worker_high")
	many := service(t, p, "backtest_worker_high")
	many.Containers = one.Containers
	assert.Equal(t, one, many, "scaling touches nothing else")
}

func TestConnectionsFollowFromThePlan(t *testing.T) {
	for _, names := range [][]string{nil, {"dev"}, {"workers"}, {"oauth2"}, {"manual"}} {
		postgres := service(t, resolve(t, profiles(names...)), "postgres")
		assert.Empty(t, postgres.Command, "PostgreSQL's own default is enough for %s", names)
		assert.Equal(t, 4096, postgres.Memory, names)
	}
	for replicas, want := range map[int]string{10: "", 99: "postgres -c max_connections=800", 100: "postgres -c max_connections=800", 300: "postgres -c max_connections=1600"} {
		p := resolve(t, profiles("workers").with(config{"replicas": fmt.Sprintf(`{"alert_worker":%d}`, replicas)}))
		assert.Equal(t, want, strings.Join(service(t, p, "postgres").Command, " "), "%d replicas", replicas)
		assert.Equal(t, service(t, resolve(t, profiles("workers")), "redis"), service(t, p, "redis"), "10,000 clients are its default")
	}
	large := resolve(t, profiles("workers").with(config{"replicas": `{"alert_worker":1000}`}))
	assert.Greater(t, service(t, large, "postgres").Memory, 4096, "each connection is a process")
}

func TestReplicasThatTheStackCannotServe(t *testing.T) {
	const set = "pulumi config set -s test --path replicas."
	for name, test := range map[string]struct {
		config config
		want   [][3]string // where, what, fix
	}{
		"a network": {config{"replicas": `{"alert_worker":5000}`}, [][3]string{
			{"replicas.alert_worker", "the stack needs 5009 containers on network trading_platform_default, and a Linux bridge connects at most 1023", set + "alert_worker 1014"},
			{"replicas.alert_worker", "the stack needs 20112 connections to redis, and it accepts 10000", set + "alert_worker 2472"}}},
		"a network, by two workers": {config{"replicas": `{"alert_worker":600,"backtest_worker_low":700}`}, [][3]string{{
			"replicas.backtest_worker_low", "the stack needs 1308 containers on network trading_platform_default, and a Linux bridge connects at most 1023", set + "backtest_worker_low 415"}}},
		"a network, by more than the largest number": {config{"replicas": `{"alert_worker":1100,"backtest_worker_low":1200}`}, [][3]string{{
			"replicas.backtest_worker_low", "the stack needs 2308 containers on network trading_platform_default, and a Linux bridge connects at most 1023",
			set + "backtest_worker_low 1 && " + set + "alert_worker 1014"}}},
		"the memory that postgres is given": {config{"replicas": `{"alert_worker":300}`, "memory": `{"postgres":1024}`}, [][3]string{{
			"replicas.alert_worker", "the stack needs 1232 connections to postgres, and its memory of 1024 MB is enough for 341", set + "alert_worker 77"}}},
		"both": {config{"replicas": `{"alert_worker":2000}`, "memory": `{"postgres":1024}`}, [][3]string{
			{"replicas.alert_worker", "the stack needs 2009 containers on network trading_platform_default, and a Linux bridge connects at most 1023", set + "alert_worker 1014"},
			{"replicas.alert_worker", "the stack needs 8032 connections to postgres, and its memory of 1024 MB is enough for 341", set + "alert_worker 77"}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := plan.Resolve(load(t, profiles("workers").with(test.config)), nil)
			var faults fault.List
			require.ErrorAs(t, err, &faults)
			var want fault.List
			for _, f := range test.want {
				want = append(want, fault.Fault{Where: "trading-platform:" + f[0], What: f[1], Fix: f[2]})
			}
			assert.Equal(t, want, faults)
		})
	}
}

func TestWhereAnImageComesFrom(t *testing.T) {
	checkout := t.TempDir()
	reference := plan.Build{Name: "trading_platform/reference:local", Context: "apps/reference", Dockerfile: "apps/reference/Dockerfile"}
	for name, test := range map[string]struct {
		config      config
		service     string
		want        plan.Image
		isReference bool
	}{
		"a stock image":                 {config{}, "postgres", plan.Image{Reference: "postgres:16"}, false},
		"a stock image, overridden":     {config{"images": `{"postgres":"mirror/postgres:15"}`}, "postgres", plan.Image{Reference: "mirror/postgres:15"}, false},
		"a stock image with a checkout": {config{"sourceDir": checkout}, "postgres", plan.Image{Reference: "postgres:16"}, false},
		"the reference app, built":      {config{}, "signal_service", plan.Image{Build: &reference}, true},
		"the reference app, given":      {config{"images": `{"reference":"ref:1"}`}, "signal_service", plan.Image{Reference: "ref:1"}, true},
		"a checkout over the reference app": {config{"sourceDir": checkout, "images": `{"reference":"ref:1"}`}, "signal_service", plan.Image{Build: &plan.Build{
			Name: "trading_platform/signal_service:local", Context: checkout, Dockerfile: checkout + "/apps/signal_service/Dockerfile", Args: map[string]string{},
			Contexts: []plan.Build{{Name: "qlib_src:latest", Context: checkout, Dockerfile: "infra/build-context.Dockerfile",
				Args: map[string]string{"FOLDER": "apps/signal_service/qlib_placeholder"}}},
		}}, false},
		"another folder for a build context": {config{"sourceDir": checkout, "env": `{"QLIB_SOURCE_DIR":"./libs/qlib/"}`}, "signal_service", plan.Image{Build: &plan.Build{
			Name: "trading_platform/signal_service:local", Context: checkout, Dockerfile: checkout + "/apps/signal_service/Dockerfile", Args: map[string]string{},
			Contexts: []plan.Build{{Name: "qlib_src:latest", Context: checkout, Dockerfile: "infra/build-context.Dockerfile",
				Args: map[string]string{"FOLDER": "libs/qlib"}}},
		}}, false},
		"a reference over all": {config{"sourceDir": checkout, "images": `{"reference":"ref:1","signal_service":"mine:2"}`}, "signal_service",
			plan.Image{Reference: "mine:2"}, false},
		"the app's folder, not the service's": {config{"sourceDir": checkout}, "web_console_dev", plan.Image{Build: &plan.Build{
			Name: "trading_platform/web_console_ng:local", Context: checkout, Dockerfile: checkout + "/apps/web_console_ng/Dockerfile",
			Args: map[string]string{"APP_UID": "1000", "APP_GID": "1000"},
		}}, false},
		"build arguments of the user's": {config{"sourceDir": checkout, "env": `{"WEB_CONSOLE_UID":1001}`}, "web_console_dev", plan.Image{Build: &plan.Build{
			Name: "trading_platform/web_console_ng:local", Context: checkout, Dockerfile: checkout + "/apps/web_console_ng/Dockerfile",
			Args: map[string]string{"APP_UID": "1001", "APP_GID": "1000"},
		}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := resolve(t, profiles("dev").with(test.config))
			s := service(t, p, test.service)
			assert.Equal(t, test.want, s.Image)
			if test.isReference {
				assert.Equal(t, []string{"serve"}, s.Command)
				assert.Contains(t, strings.Join(s.Probe.Test, " "), "/app/reference probe")
				assert.Equal(t, "/app/contract.json", s.Files[0].Path)
				return
			}
			c, _ := catalog.Lookup(test.service)
			assert.Equal(t, c.Command, s.Command)
			assert.Empty(t, s.Files, "the platform's own apps get what the inventory lists, no more")
		})
	}
}

func TestBindMountsOnlyWithACheckout(t *testing.T) {
	hosts := func(p *plan.Plan) map[string]string {
		out := map[string]string{}
		for _, s := range p.Services {
			for _, m := range s.Mounts {
				if m.Host != "" {
					out[s.Name+":"+m.Path] = m.Host
				}
			}
		}
		return out
	}
	socket := map[string]string{"promtail:/var/lib/docker/containers": "/var/lib/docker/containers"}
	assert.Equal(t, socket, hosts(resolve(t, profiles("dev", "workers", "manual"))))

	checkout := t.TempDir()
	assert.Equal(t, map[string]string{
		"promtail:/var/lib/docker/containers":              "/var/lib/docker/containers",
		"execution_gateway:/app/apps/web_console_ng/certs": checkout + "/apps/web_console_ng/certs",
		"signal_service:/app/data":                         checkout + "/data",
		"model_registry:/app/data/models":                  checkout + "/data/models",
		"backtest_worker_dev:/app/data/market_data":        checkout + "/data",
		"web_console_dev:/app/data":                        checkout + "/data",
		"web_console_dev:/app/data/models":                 checkout + "/data/models",
		"web_console_dev:/app/artifacts":                   checkout + "/artifacts",
		"web_console_dev:/app/notebooks":                   checkout + "/notebooks",
		"web_console_dev:/app/apps/web_console_ng/certs":   checkout + "/apps/web_console_ng/certs",
	}, hosts(resolve(t, profiles("dev").with(config{"sourceDir": checkout}))))
}

func TestNotebookPortsOnlyWithACommand(t *testing.T) {
	assert.Len(t, service(t, resolve(t, profiles("dev")), "web_console_dev").Ports, 1)
	p := resolve(t, profiles("dev").with(config{"NOTEBOOK_LAUNCH_COMMAND": "jupyter lab"}))
	ports := service(t, p, "web_console_dev").Ports
	require.Len(t, ports, 51)
	assert.Equal(t, plan.Port{Address: "127.0.0.1", Host: 8900, Container: 8900}, ports[1])
	assert.Equal(t, plan.Port{Address: "127.0.0.1", Host: 8949, Container: 8949}, ports[50])
	assert.Equal(t, "http://127.0.0.1:8080", p.URLs()["web_console_dev"])
}

func TestDatabaseURL(t *testing.T) {
	for name, test := range map[string]struct {
		config config
		want   string
	}{
		"by default":      {config{"POSTGRES_PASSWORD": ""}, "postgresql://trader:trader@postgres:5432/trader"},
		"all of it":       {config{"POSTGRES_USER": "u", "POSTGRES_PASSWORD": "p", "POSTGRES_DB": "d"}, "postgresql://u:p@postgres:5432/d"},
		"what a URL uses": {config{"POSTGRES_PASSWORD": "p@ss:w/rd?#%&é "}, "postgresql://trader:p%40ss%3Aw%2Frd%3F%23%25&%C3%A9%20@postgres:5432/trader"},
		"in the user":     {config{"POSTGRES_USER": "u@h", "POSTGRES_PASSWORD": "p"}, "postgresql://u%40h:p@postgres:5432/trader"},
	} {
		t.Run(name, func(t *testing.T) {
			p := resolve(t, profiles("dev", "workers").with(test.config))
			for _, name := range []string{"execution_gateway", "signal_service", "orchestrator", "backtest_worker_high", "web_console_dev"} {
				assert.Equal(t, test.want, value(t, p, name, "DATABASE_URL"), name)
			}
		})
	}
	t.Run("workers take theirs first", func(t *testing.T) {
		p := resolve(t, profiles("dev", "workers").with(config{"DATABASE_URL_DOCKER": "postgresql://elsewhere", "REDIS_URL_DOCKER": "redis://elsewhere"}))
		assert.Equal(t, "postgresql://elsewhere", value(t, p, "alert_worker", "DATABASE_URL"))
		assert.Equal(t, "redis://elsewhere", value(t, p, "alert_worker", "REDIS_URL"))
		assert.Equal(t, "redis://elsewhere", value(t, p, "web_console_dev", "REDIS_URL"))
		assert.Equal(t, "redis://redis:6379/0", value(t, p, "signal_service", "REDIS_URL"))
		assert.Equal(t, "postgresql://trader:pg-canary@postgres:5432/trader", value(t, p, "signal_service", "DATABASE_URL"))
	})
}

// The addresses in a dotenv file are those for programs on the host.
func TestADotenvFileDoesNotOverrideFixedVariables(t *testing.T) {
	file := filepath.Join(t.TempDir(), ".env")
	require.NoError(t, os.WriteFile(file, []byte(`
DATABASE_URL=postgresql://localhost/x
REDIS_URL=redis://localhost
REDIS_HOST=localhost
REDIS_PORT=7777
EXECUTION_GATEWAY_URL=http://localhost:8002
ENVIRONMENT=prod
PROMETHEUS_URL=http://localhost:9090
SESSION_ENCRYPTION_KEY=mine
STRATEGY_ID=mine
`), 0o600))
	p := resolve(t, profiles("dev", "manual").with(config{"envFile": file, "SESSION_ENCRYPTION_KEY": ""}))
	for _, s := range p.Services {
		if strings.HasPrefix(s.Name, "web_console") {
			continue // REDIS_HOST and REDIS_PORT are a user's there
		}
		for _, e := range s.Env {
			assert.NotContains(t, e.Value, "localhost/", "%s of %s", e.Name, s.Name)
			assert.NotEqual(t, "7777", e.Value, "%s of %s", e.Name, s.Name)
		}
	}
	assert.Equal(t, "redis", value(t, p, "execution_gateway", "REDIS_HOST"))
	assert.Equal(t, "localhost", value(t, p, "web_console", "REDIS_HOST"))
	assert.Equal(t, "http://localhost:9090", value(t, p, "web_console", "PROMETHEUS_URL"))
	assert.Equal(t, "http://prometheus:9090", value(t, p, "web_console_dev", "PROMETHEUS_URL"))
	assert.Equal(t, "http://execution_gateway:8002", value(t, p, "web_console_dev", "EXECUTION_GATEWAY_URL"))
	assert.Equal(t, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", value(t, p, "web_console_dev", "SESSION_ENCRYPTION_KEY"))
	assert.Equal(t, "dev", value(t, p, "model_registry", "ENVIRONMENT"))
	assert.Equal(t, "prod", value(t, p, "backtest_worker_dev", "ENVIRONMENT"))
	assert.Equal(t, "mine", value(t, p, "signal_service", "STRATEGY_ID"))
}

func TestFallbacks(t *testing.T) {
	p := resolve(t, profiles("dev").with(config{"ALPACA_API_KEY_ID": "id", "ALPACA_API_SECRET_KEY": "secret"}))
	assert.Equal(t, "id", value(t, p, "market_data_service", "ALPACA_API_KEY"))
	assert.Equal(t, "secret", value(t, p, "market_data_service", "ALPACA_SECRET_KEY"))
	p = resolve(t, profiles("dev").with(config{"ALPACA_API_KEY_ID": "id", "ALPACA_API_KEY": "own"}))
	assert.Equal(t, "own", value(t, p, "market_data_service", "ALPACA_API_KEY"))
	assert.Equal(t, "id", value(t, p, "execution_gateway", "ALPACA_API_KEY_ID"))
}

func TestServiceEnv(t *testing.T) {
	p := resolve(t, profiles("dev").with(config{
		"LOG_LEVEL":  "WARN",
		"serviceEnv": `{"signal_service":{"LOG_LEVEL":"DEBUG","REDIS_URL":"redis://mine","ZZ":"1","AA":"2"}}`,
	}))
	assert.Equal(t, "DEBUG", value(t, p, "signal_service", "LOG_LEVEL"))
	assert.Equal(t, "redis://mine", value(t, p, "signal_service", "REDIS_URL"), "fixed ones too: that is what it is for")
	assert.Equal(t, "WARN", value(t, p, "orchestrator", "LOG_LEVEL"))
	env := service(t, p, "signal_service").Env
	assert.Equal(t, []plan.Env{{Name: "AA", Value: "2"}, {Name: "ZZ", Value: "1"}}, env[len(env)-2:], "by name, after the service's own")
	require.NotEmpty(t, faults(t, profiles("workers").with(config{"serviceEnv": `{"alert_worker":{"ALERT_RECIPIENT_HASH_SECRET":""}}`})),
		"a required variable cannot be emptied")
}

func TestWhichVariablesAreSecret(t *testing.T) {
	resolved := func(c config, secret ...string) *plan.Plan {
		p, err := plan.Resolve(load(t, c, secret...), nil)
		require.NoError(t, err)
		return p
	}
	t.Run("by name", func(t *testing.T) {
		p := resolved(profiles("dev").with(config{"ALPACA_API_SECRET_KEY": "s"}))
		assert.True(t, variable(t, p, "execution_gateway", "ALPACA_API_SECRET_KEY").Secret)
		assert.True(t, variable(t, p, "postgres", "POSTGRES_PASSWORD").Secret)
		assert.True(t, variable(t, p, "signal_service", "DATABASE_URL").Secret)
		assert.False(t, variable(t, p, "execution_gateway", "INTERNAL_TOKEN_SECRET").Secret, "an empty value hides nothing but its list")
		assert.False(t, variable(t, p, "postgres", "POSTGRES_USER").Secret)
	})
	t.Run("local-only values are none", func(t *testing.T) {
		p := resolved(config{"profiles": `["dev"]`, "env": `{"WEB_CONSOLE_USER":"admin","WEB_CONSOLE_PASSWORD":"admin"}`})
		for _, s := range p.Services {
			for _, e := range s.Env {
				assert.False(t, e.Secret, "%s of %s", e.Name, s.Name)
			}
		}
	})
	t.Run("given as one", func(t *testing.T) {
		p := resolved(profiles("dev").with(config{"LOG_LEVEL": "DEBUG", "POSTGRES_PASSWORD": "trader"}), "LOG_LEVEL", "POSTGRES_PASSWORD")
		assert.True(t, variable(t, p, "signal_service", "LOG_LEVEL").Secret)
		assert.True(t, variable(t, p, "postgres", "POSTGRES_PASSWORD").Secret)
		assert.True(t, variable(t, p, "signal_service", "DATABASE_URL").Secret)
	})
	t.Run("in a URL", func(t *testing.T) {
		p := resolved(profiles("workers").with(config{"REDIS_URL_DOCKER": "redis://:pw@redis:6379/0"}))
		assert.True(t, variable(t, p, "alert_worker", "REDIS_URL").Secret)
	})
	t.Run("in serviceEnv", func(t *testing.T) {
		p := resolved(profiles("dev").with(config{"serviceEnv": `{"signal_service":{"MY_TOKEN":"x","MORE":"y"}}`}))
		assert.True(t, variable(t, p, "signal_service", "MY_TOKEN").Secret)
		assert.False(t, variable(t, p, "signal_service", "MORE").Secret)
		p = resolved(profiles("dev").with(config{"serviceEnv": `{"signal_service":{"MORE":"y"}}`}), "serviceEnv")
		assert.True(t, variable(t, p, "signal_service", "MORE").Secret)
	})
	t.Run("certificates", func(t *testing.T) {
		p, err := plan.Resolve(load(t, profiles("mtls")), map[string]string{"server.key": "key-canary"})
		require.NoError(t, err)
		for _, f := range service(t, p, "nginx_mtls").Files {
			assert.Equal(t, strings.HasPrefix(f.Path, "/etc/nginx/certs/"), f.Secret, f.Path)
		}
		assert.Equal(t, "key-canary", content(t, p, "nginx_mtls", "server.key"))
	})
}

func TestOnlyItsOwnCertificates(t *testing.T) {
	paths := func(name string) []string {
		var out []string
		for _, f := range service(t, resolve(t, profiles("oauth2")), name).Files {
			if f.Secret {
				out = append(out, filepath.Base(f.Path))
			}
		}
		return out
	}
	assert.Equal(t, []string{"server.crt", "server.key", "ca.crt", "dhparam.pem"}, paths("nginx_oauth2"))
	assert.Equal(t, []string{"ca.crt"}, paths("web_console_oauth2"), "no key where none is needed")
	assert.Empty(t, paths("auth_service"))
}

func TestReferenceContract(t *testing.T) {
	p := resolve(t, profiles("dev"))
	type contract struct {
		Name, Role, Health string
		Needs, Variables   map[string]string
		Required, Folders  []string
		Services           []struct {
			Name, Tier, Health string
			Dependencies       []string
		}
		Links  map[string]string
		Queues []string
	}
	of := func(service string) (c contract) {
		require.NoError(t, json.Unmarshal([]byte(content(t, p, service, "contract.json")), &c))
		return c
	}
	orchestrator := of("orchestrator")
	assert.Equal(t, "api", orchestrator.Role)
	assert.Equal(t, "http://orchestrator:8003/health", orchestrator.Health)
	assert.Equal(t, map[string]string{
		"postgres": "tcp://postgres:5432", "redis": "tcp://redis:6379",
		"signal_service": "http://signal_service:8001/health", "execution_gateway": "http://execution_gateway:8002/health",
	}, orchestrator.Needs)
	assert.Empty(t, orchestrator.Services, "only a console shows them")
	c, _ := catalog.Lookup("orchestrator")
	assert.Len(t, orchestrator.Variables, len(c.Env))

	worker := of("backtest_worker_dev")
	assert.Equal(t, "worker", worker.Role)
	assert.Equal(t, "http://backtest_worker_dev:9100/health", worker.Health, "the platform's own workers serve none")
	assert.Equal(t, []string{"/app/data/backtest_results", "/app/locks"}, worker.Folders)

	console := of("web_console_dev")
	assert.Equal(t, "console", console.Role)
	assert.Subset(t, console.Required, []string{"WEB_CONSOLE_USER", "WEB_CONSOLE_PASSWORD"})
	assert.Equal(t, []string{"backtest_high", "backtest_normal", "backtest_low"}, console.Queues[:3], "in the order of their priority")
	assert.Len(t, console.Services, len(p.Services))
	for _, s := range console.Services {
		assert.NotEmpty(t, s.Health, s.Name)
		assert.NotNil(t, s.Dependencies, s.Name)
	}
	assert.Equal(t, "login", func() string { p = resolve(t, profiles("oauth2")); return of("auth_service").Role }())
}

func TestProbeTiming(t *testing.T) {
	const ping = `{ [ -z "$REDIS_PASSWORD" ] || export REDISCLI_AUTH="$REDIS_PASSWORD"; redis-cli ping | grep -q PONG; }`
	second := func(n int) plan.Duration { return plan.Duration{Duration: time.Duration(n) * time.Second} }
	for name, test := range map[string]struct {
		engine string
		old    bool
	}{
		"an engine of which nothing is known": {"", true},
		"the last without a start interval":   {"1.43", true},
		"the first with one":                  {"1.44", false},
		"a newer one":                         {"2.0", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := resolve(t, config{"engineApi": test.engine})
			postgres, redis := service(t, p, "postgres").Probe, service(t, p, "redis").Probe
			assert.Equal(t, second(300), postgres.StartPeriod, "time to replay its log")
			assert.Equal(t, second(60), service(t, p, "promtail").Probe.StartPeriod, "unless the catalog says otherwise")
			assert.Equal(t, 3, postgres.Retries)
			if test.old {
				assert.Contains(t, redis.Test[1], "sleep 15; check || exit 1")
				assert.Equal(t, 200*time.Millisecond, postgres.Interval.Duration)
				assert.Equal(t, second(5*(15+15)), postgres.Timeout, "longer than four checks, each after a wait")
				assert.Equal(t, second(5*(15+3)), redis.Timeout)
				assert.Zero(t, postgres.StartInterval)
				assert.Equal(t, 300*time.Second+150*time.Second+30*time.Second, postgres.WaitTimeout())
				return
			}
			assert.Equal(t, []string{"CMD-SHELL", ping}, redis.Test)
			assert.Equal(t, second(15), postgres.Interval)
			assert.Equal(t, second(15), postgres.Timeout)
			assert.Equal(t, second(3), redis.Timeout)
			assert.Equal(t, second(1), postgres.StartInterval)
			assert.Equal(t, 300*time.Second+3*(30*time.Second)+30*time.Second, postgres.WaitTimeout())
		})
	}
	t.Run("a command is quoted for the shell of an older engine", func(t *testing.T) {
		assert.Contains(t, service(t, resolve(t, config{}), "prometheus").Probe.Test[1], "timeout 5 wget -q -O /dev/null http://127.0.0.1:9090/-/ready;")
		assert.Contains(t, service(t, resolve(t, config{}), "redis").Probe.Test[1], `timeout 3 sh -c '{ [ -z "$REDIS_PASSWORD" ]`)
		assert.Contains(t, service(t, resolve(t, config{}), "promtail").Probe.Test[1], `timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/9080 && printf '"'"'GET`)
	})
	t.Run("what a user sets is in no command", func(t *testing.T) {
		c := config{"POSTGRES_USER": "o'neil; rm -rf /", "POSTGRES_DB": "x; y", "POSTGRES_PASSWORD": "z; w"}
		assert.Equal(t, service(t, resolve(t, config{}), "postgres").Probe, service(t, resolve(t, c), "postgres").Probe)
	})
	t.Run("postgres marks its data where the stack is a secured one", func(t *testing.T) {
		mark := func(c config) string {
			_, after, _ := strings.Cut(service(t, resolve(t, c), "postgres").Probe.Test[1], "/trading-platform-secured")
			return regexp.MustCompile("WHERE (true|false)").FindString(after)
		}
		assert.Equal(t, "WHERE false", mark(profiles("dev", "workers").with(config{"env": "{}"})))
		assert.Equal(t, "WHERE true", mark(profiles("mtls")))
		assert.Equal(t, "WHERE true", mark(profiles("oauth2")))
	})
	t.Run("every probe has an interval, a timeout and retries", func(t *testing.T) {
		for _, s := range resolve(t, profiles("dev", "workers", "oauth2", "manual").with(config{
			"serviceEnv": `{"web_console_dev":{"HMAC_SIGNING_KEYS":"02:abc","SESSION_ENCRYPTION_KEY":"mine"}}`,
		})).Services {
			assert.Positive(t, s.Probe.Timeout.Duration, s.Name)
			assert.Positive(t, s.Probe.Interval.Duration, s.Name)
			assert.Greater(t, s.Probe.WaitTimeout(), s.Probe.StartPeriod.Duration, s.Name)
		}
	})
}

func TestMemory(t *testing.T) {
	memory := func(c config, name string) int {
		return service(t, resolve(t, profiles("dev", "workers").with(c)), name).Memory
	}
	assert.Equal(t, 4096, memory(nil, "redis"))
	assert.Equal(t, 8192, memory(config{"memory": `{"redis":8192}`}, "redis"))
	assert.Equal(t, 2048+4096, memory(nil, "backtest_worker_high"), "above what its jobs may take")
	assert.Equal(t, 2048+8192, memory(config{"env": `{"BACKTEST_JOB_MEMORY_LIMIT":8589934592}`}, "backtest_worker_high"))
	assert.Equal(t, 3000, memory(config{"memory": `{"backtest_worker_high":3000}`}, "backtest_worker_high"), "unless it is said")
	for _, wrong := range []string{"lots", "-1"} {
		assert.Equal(t, 2048, memory(config{"BACKTEST_JOB_MEMORY_LIMIT": wrong}, "backtest_worker_high"), "the worker says what is wrong")
	}
	assert.Equal(t, 1<<20, memory(config{"BACKTEST_JOB_MEMORY_LIMIT": "9223372036854775807"}, "backtest_worker_high"))
}

func TestTheReferenceAppNeedsNoCapability(t *testing.T) {
	assert.Empty(t, service(t, resolve(t, profiles("dev")), "orchestrator").Capabilities)
	assert.NotEmpty(t, service(t, resolve(t, profiles("dev").with(config{"images": `{"orchestrator":"mine:1"}`})), "orchestrator").Capabilities)
}

func TestDockerRoot(t *testing.T) {
	assert.Equal(t, "/var/lib/docker/containers", service(t, resolve(t, nil), "promtail").Mounts[1].Host)
	assert.Equal(t, "/data/containers", service(t, resolve(t, config{"dockerRoot": "/data"}), "promtail").Mounts[1].Host)
}

func TestLabels(t *testing.T) {
	p := resolve(t, profiles("workers").with(config{"replicas": `{"alert_worker":2}`}))
	s := service(t, p, "alert_worker")
	first, second := s.Labels(p, 0), s.Labels(p, 1)
	hash := first["com.docker.compose.config-hash"]
	assert.Regexp(t, "^[0-9a-f]{64}$", hash)
	assert.Equal(t, map[string]string{
		"com.docker.compose.project": "trading_platform", "com.docker.compose.service": "alert_worker", "com.docker.compose.oneoff": "False",
		"com.docker.compose.depends_on": strings.Join(s.After, ":service_healthy:false,") + ":service_healthy:false", "com.docker.compose.project.config_files": "Pulumi.test.yaml",
		"com.docker.compose.container-number": "1", "com.docker.compose.config-hash": hash, "trading-platform.stack": "test", "trading-platform.id": "",
	}, first)
	assert.Equal(t, "2", second["com.docker.compose.container-number"])
	second["com.docker.compose.container-number"] = "1"
	assert.Equal(t, first, second)

	other := resolve(t, profiles("workers").with(config{"ALERT_RECIPIENT_HASH_SECRET": "another"}))
	assert.Equal(t, s.Labels(p, 0), service(t, other, "alert_worker").Labels(p, 0), "no secret goes into the hash")
}

// The same settings give the same plan, so that nothing differs by chance from one run to the next.
func TestThePlanIsDeterministic(t *testing.T) {
	c := profiles("dev", "workers").with(config{"serviceEnv": `{"redis":{"C":"1","B":"2","A":"3"}}`})
	first := resolve(t, c)
	for range 5 {
		assert.Equal(t, first, resolve(t, c))
	}
}

func TestResolveChangesNeitherSettingsNorCatalog(t *testing.T) {
	set := load(t, profiles("dev").with(config{"disabled": `["redis"]`}))
	before := *set
	_, err := plan.Resolve(set, nil)
	require.NoError(t, err)
	assert.Equal(t, before, *set)
	s, _ := catalog.Lookup("execution_gateway")
	assert.Equal(t, []string{"postgres", "redis"}, s.After)
}

func TestAMountOfAnUndeclaredVolumeIsReported(t *testing.T) {
	declared := catalog.Volumes
	t.Cleanup(func() { catalog.Volumes = declared })
	catalog.Volumes = slices.DeleteFunc(slices.Clone(declared), func(name string) bool { return name == "redisdata" })
	set, err := settings.Load(settings.Source{Stack: "dev", Root: "/clone", Config: map[string]string{}})
	require.NoError(t, err)
	p, err := plan.Resolve(set, nil)
	require.NotNil(t, p)
	require.ErrorContains(t, err, "1. catalog/base.go: service redis mounts volume redisdata, which is not in the catalog\n")
}

func TestBackwards(t *testing.T) {
	p := resolve(t, profiles("dev"))
	var mu sync.Mutex
	var stopped []string
	err := p.Backwards(func(s plan.Service) error {
		mu.Lock()
		defer mu.Unlock()
		stopped = append(stopped, s.Name)
		if s.Name == "orchestrator" {
			return errors.New("it hangs")
		}
		return nil
	})
	require.EqualError(t, err, "it hangs")
	assert.Len(t, stopped, len(p.Services), "the others go on")
	for _, s := range p.Services {
		for _, needed := range s.After {
			assert.Less(t, slices.Index(stopped, s.Name), slices.Index(stopped, needed), "%s before %s", s.Name, needed)
		}
	}
}
