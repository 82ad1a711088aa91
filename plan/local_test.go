package plan_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/plan"
	"trading-platform/settings"
)

// local resolves a stack beside a platform.local.yaml.
func local(t *testing.T, c config, file string) (*plan.Plan, error) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, catalog.LocalFile), []byte(file), 0o600))
	t.Cleanup(func() { catalog.SetLocal(nil) })
	set, err := settings.Load(settings.Source{Stack: "test", Root: dir, Config: c, Secret: map[string]bool{"MAIL_PASSWORD": true}})
	if err != nil {
		return nil, err
	}
	return plan.Resolve(set, nil)
}

const mail = `services:
  mail:
    about: catches mail
    image: example/mail:1
    port: 8025
    ports: [{host: 8025, url: http}]
    env:
      - {name: MAIL_PASSWORD, from: [MAIL_PASSWORD], required: true}
      - {name: SMTP, value: "${url:postgres}"}
    after: [postgres]
    probe: {command: [CMD, probe, "${probe_url}"], path: /ready, start: 2m}
    readOnly: true
  redis:
    image: example/redis:8
    ports: [{host: 6400}]
  signal_service:
    env: [{name: LOG_LEVEL, value: DEBUG}, {name: MINE, value: "1"}]
    probe: {start: 3m}
`

func TestLocalServices(t *testing.T) {
	tracked := resolve(t, profiles("dev"))
	p, err := local(t, profiles("dev").with(config{"MAIL_PASSWORD": "canary", "images": `{"redis":"mirror/redis:7"}`, "portOffset": "10"}), mail)
	require.NoError(t, err)

	added := service(t, p, "mail")
	assert.True(t, added.Local)
	assert.Equal(t, catalog.Local, added.Tier)
	assert.Equal(t, "example/mail:1", added.Image.Reference)
	assert.Equal(t, []string{"postgres"}, added.After)
	assert.Equal(t, "http://127.0.0.1:8035", p.URLs()["mail"])
	assert.Equal(t, []plan.Env{{Name: "MAIL_PASSWORD", Value: "canary", Secret: true}, {Name: "SMTP", Value: "http://postgres:5432"}}, added.Env)
	assert.Equal(t, 2*time.Minute, added.Probe.StartPeriod.Duration)
	assert.True(t, added.ReadOnly)
	assert.Positive(t, added.Memory)

	redis := service(t, p, "redis")
	assert.True(t, redis.Local)
	assert.Equal(t, "example/redis:8", redis.Image.Reference, "over the stack's own image")
	assert.Equal(t, 6410, redis.Ports[0].Host)
	assert.Equal(t, 6379, redis.Ports[0].Container)
	assert.Equal(t, service(t, tracked, "redis").Command, redis.Command, "what the file does not name stays")

	signals := service(t, p, "signal_service")
	assert.Equal(t, "DEBUG", signals.Value("LOG_LEVEL"))
	assert.Equal(t, "1", signals.Value("MINE"))
	assert.Equal(t, service(t, tracked, "signal_service").Value("DATABASE_URL"), signals.Value("DATABASE_URL"))
	assert.Equal(t, 3*time.Minute, signals.Probe.StartPeriod.Duration)
	assert.Equal(t, service(t, tracked, "signal_service").Probe.Test, signals.Probe.Test)

	var text bytes.Buffer
	require.NoError(t, p.Text(&text))
	assert.Regexp(t, `(?m)^mail \(local\) `, text.String())
	assert.Regexp(t, `(?m)^redis \(local\) `, text.String())
	assert.Regexp(t, `(?m)^postgres  `, text.String())

	again := resolve(t, profiles("dev"))
	assert.Equal(t, tracked, again, "another checkout has no part in it")
	t.Setenv(settings.TrackedOnly, "true")
	p, err = local(t, profiles("dev"), mail)
	require.NoError(t, err)
	assert.Equal(t, tracked.Services, p.Services, "as a pull request's diff sees it")
}

func TestLocalFileWithFaults(t *testing.T) {
	for name, test := range map[string]struct{ file, want string }{
		"a key that is none":   {"services:\n  mail:\n    imag: x:1\n", "platform.local.yaml:3: no key \"imag\"; did you mean image?"},
		"one in a list":        {"services:\n  redis:\n    ports:\n    - {host: 1, container: 2, hots: 3}\n", "platform.local.yaml:4: no key \"hots\"; did you mean host?"},
		"one at the top":       {"service:\n  redis: {}\n", "platform.local.yaml:1: no key \"service\"; did you mean services?"},
		"the wrong type":       {"services:\n  redis:\n    memory: much\n", "platform.local.yaml: unmarshal errors: line 3: cannot unmarshal !!str `much` into int"},
		"no YAML":              {"services: [", "platform.local.yaml: line 1: did not find expected node content"},
		"no name of a service": {"services:\n  Mail-1: {image: 'x:1', probe: {command: [CMD, x]}}\n", "platform.local.yaml:2: \"Mail-1\" is not the name of a service"},
		"what the catalog checks": {
			"services:\n  mail:\n    image: x:1\n    after: [postgress]\n",
			"platform.local.yaml:2: service mail has no probe, so no service can wait for it",
		},
		"a variable without a value": {
			"services:\n  mail:\n    image: x:1\n    probe: {command: [CMD, x]}\n    env: [{name: A_TOKEN, from: [A_TOKEN], required: true}]\n",
			"trading-platform:A_TOKEN: required by mail, but not set\n     Fix: platform init -s test generates one, or: pulumi config set -s test --secret A_TOKEN",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := local(t, profiles(), test.file)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestAServiceThatRunsOnce(t *testing.T) {
	p, err := local(t, profiles("dev"), `services:
  migrations:
    app: migrations
    profile: dev
    once: true
    after: [postgres]
  signal_service:
    after: [postgres, redis, migrations]
  console_links:
    image: example:1
    once: true
    probe: {start: 1m}
`)
	require.NoError(t, err)
	step := service(t, p, "migrations")
	assert.True(t, step.Once)
	assert.Equal(t, "no", step.Restart())
	assert.Equal(t, []string{"once"}, step.Command, "the reference app, in its place")
	assert.Empty(t, step.Probe.Test)
	assert.Equal(t, 10*time.Minute+30*time.Second, step.Probe.WaitTimeout())
	assert.Equal(t, 90*time.Second, service(t, p, "console_links").Probe.WaitTimeout())
	signals := service(t, p, "signal_service")
	assert.Equal(t, "unless-stopped", signals.Restart())
	assert.Contains(t, signals.Labels(p, 0)["com.docker.compose.depends_on"], "redis:service_healthy:false,migrations:service_completed_successfully:false")
	for _, s := range p.Services {
		for _, f := range s.Files {
			if f.Path == "/app/contract.json" && s.Name != "migrations" {
				assert.NotContains(t, f.Content, "migrations", "%s cannot ask it for its health", s.Name)
			}
		}
	}
	_, err = local(t, profiles(), "services:\n  step:\n    image: x:1\n    once: true\n    port: 1\n")
	require.ErrorContains(t, err, "service step runs once, and can have neither a port, a probe nor replicas")
}

func TestHandOver(t *testing.T) {
	before := resolve(t, profiles("dev").with(config{"portOffset": "100"}))
	p := resolve(t, profiles("dev").with(config{"portOffset": "100", "handOver": `["orchestrator","model_registry","market_data_service"]`, "sourceDir": t.TempDir()}))
	s := service(t, p, "orchestrator")
	require.NotNil(t, s.Host)
	assert.Equal(t, 8103, s.Host.Port)
	assert.Equal(t, []string{"forward", "8003", "8103"}, s.Command)
	assert.Equal(t, "trading_platform/reference:local", s.Image.Key(), "whatever the app's own image")
	assert.Empty(t, s.Ports, "the app has them")
	assert.Empty(t, s.Env)
	assert.Equal(t, service(t, before, "orchestrator").Networks, s.Networks, "under the app's name")
	env := map[string]string{}
	for _, name := range []string{"orchestrator", "model_registry", "market_data_service"} {
		for _, e := range service(t, p, name).Host.Env {
			env[name+" "+e.Name] = e.Value
		}
	}
	for variable, want := range map[string]string{
		"orchestrator DATABASE_URL":                 "postgresql://trader:pg-canary@127.0.0.1:5533/trader",
		"orchestrator REDIS_HOST":                   "127.0.0.1",
		"orchestrator REDIS_PORT":                   "6479",
		"orchestrator REDIS_DB":                     "0",
		"orchestrator SIGNAL_SERVICE_URL":           "http://127.0.0.1:8101",
		"orchestrator STRATEGY_ID":                  "alpha_baseline",
		"market_data_service EXECUTION_GATEWAY_URL": "http://127.0.0.1:8102",
		"market_data_service ALLOWED_SERVICE_IDS":   "orchestrator,signal_service,execution_gateway,web_console_ng",
		"model_registry MODEL_REGISTRY_PORT":        "8105",
	} {
		assert.Equal(t, want, env[variable], variable)
	}
	assert.Regexp(t, `^/.+/data/models$`, env["model_registry MODEL_REGISTRY_DIR"], "the folder of the checkout that is mounted there")
	assert.Contains(t, p.Notes, "orchestrator runs on this host, at port 8103, until: platform take-back -s test orchestrator")
	assert.Equal(t, service(t, before, "redis"), service(t, p, "redis"), "the others stay as they are")

	set := load(t, profiles("dev").with(config{"handOver": `["redis"]`}))
	_, err := plan.Resolve(set, nil)
	require.ErrorContains(t, err, "handOver: redis cannot run on this host: only an app with one container can\n     Fix: platform take-back -s test redis")
}
