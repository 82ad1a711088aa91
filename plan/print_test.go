package plan_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"trading-platform/catalog"
	"trading-platform/plan"
	"trading-platform/settings"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares a service with its file under testdata, which is made for reviewers. The
// file shows the plan of one catalog entry, and begins with the hash of that entry. If the
// entry is new or has changed, the test does not fail: the file is written with -update.
func golden(t *testing.T, s plan.Service) {
	t.Helper()
	path := filepath.Join("testdata", string(s.Tier), s.Name+".yaml")
	entry, _ := catalog.Lookup(s.Name)
	text, err := json.Marshal(entry)
	require.NoError(t, err)
	of := fmt.Sprintf("# catalog entry %x\n", sha256.Sum256(text))
	got := of + readable(t, s)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o750))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Logf("%s is new: go test ./plan -update writes it down", s.Name)
		return
	}
	require.NoError(t, err)
	if !strings.HasPrefix(string(want), of) {
		t.Logf("%s is of an earlier catalog entry: go test ./plan -update writes it anew", path)
		return
	}
	assert.Equal(t, string(want), got, "%s differs; when that is meant: go test ./plan -update", path)
}

// contentHash matches the hash of a configuration file in a plan's JSON. The tests of
// package infra check the content of these files.
var contentHash = regexp.MustCompile(`("sha256": ?")[0-9a-f]{64}"`)

// readable writes a service as YAML without long lines, with one variable per line.
func readable(t *testing.T, s plan.Service) string {
	t.Helper()
	text, err := json.Marshal(s)
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(contentHash.ReplaceAll(text, []byte(`$1…"`)), &fields))
	env := map[string]any{}
	for _, e := range s.Env {
		var value any = e.Value
		if e.Secret {
			value = settings.Hidden
		} else if strings.HasPrefix(e.Value, "[") || strings.HasPrefix(e.Value, "{") {
			require.NoError(t, json.Unmarshal([]byte(e.Value), &value))
		}
		env[e.Name] = value
	}
	fields["env"] = env
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	require.NoError(t, encoder.Encode(fields))
	return out.String()
}

func printed(t *testing.T, write func(*bytes.Buffer) error) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, write(&out))
	return out.String()
}

// The golden of each service is its plan in the first stack that runs it.
func TestEveryServiceOfTheStacks(t *testing.T) {
	project, err := os.ReadFile("../Pulumi.yaml")
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, stack := range append([]string{"base"}, catalog.ProfileNames()...) {
		file, err := os.ReadFile("../Pulumi." + stack + ".yaml")
		if errors.Is(err, fs.ErrNotExist) { // a new profile needs no stack of its own
			file, err = []byte("config: {trading-platform:profiles: ["+stack+"]}"), nil
		}
		require.NoError(t, err)
		src, err := settings.FromYAML(stack, "/clone", project, file)
		require.NoError(t, err)
		if stack == "mtls" || stack == "oauth2" || stack == "manual" {
			for name, value := range own { // what `platform init` makes
				src.Config[name] = value
			}
		}
		set, err := settings.Load(src)
		require.NoError(t, err)
		p, err := plan.Resolve(set, nil)
		require.NoError(t, err)
		for _, s := range p.Services {
			if !seen[s.Name] {
				seen[s.Name] = true
				t.Run(s.Name, func(t *testing.T) { golden(t, s) })
			}
		}
	}
	files, err := filepath.Glob("testdata/*/*.yaml")
	require.NoError(t, err)
	for _, f := range files {
		assert.True(t, seen[strings.TrimSuffix(filepath.Base(f), ".yaml")], "%s is of no service any more: delete it", f)
	}
	assert.NotEmpty(t, files)
}

func TestText(t *testing.T) {
	p := resolve(t, profiles("workers").with(config{
		"disabled": `["grafana","promtail","loki_server","prometheus","backtest_worker_low","backtest_worker_normal"]`,
		"replicas": `{"backtest_worker_high":2}`, "images": `{"reference":"ref:1"}`, "volumes": `{"pgdata":"old_pgdata"}`,
	}))
	text := printed(t, func(b *bytes.Buffer) error { return p.Text(b) })
	head, rest, _ := strings.Cut(text, "redisdata  ") // which volumes there are, the catalog knows
	assert.Equal(t, `Stack test: 4 services, profiles: workers

SERVICE               CONTAINER                                           IMAGE           HOST PORTS      STARTS AFTER
postgres              trading_platform_postgres                           postgres:16     127.0.0.1:5433  —
redis                 trading_platform_redis                              redis:7-alpine  127.0.0.1:6379  —
backtest_worker_high  trading_platform_backtest_worker_high (2 replicas)  ref:1           —               redis, postgres
alert_worker          trading_platform_alert_worker                       ref:1           —               redis, postgres

NETWORK           NAME                               SUBNET
default           trading_platform_default           —
trading_platform  trading_platform_trading_platform  172.28.0.0/16

VOLUME          NAME
pgdata          old_pgdata
`, head)
	assert.Contains(t, rest, `
backtest_data   trading_platform_backtest_data
`)
	assert.Contains(t, rest, `

note: prometheus is disabled
note: loki_server is disabled
note: promtail is disabled
note: grafana is disabled
note: backtest_worker_normal is disabled
note: backtest_worker_low is disabled
`)
}

func TestConsecutivePortsArePrintedAsARange(t *testing.T) {
	p := resolve(t, profiles("dev").with(config{"NOTEBOOK_LAUNCH_COMMAND": "jupyter"}))
	text := printed(t, func(b *bytes.Buffer) error { return p.Text(b) })
	assert.Contains(t, text, "127.0.0.1:8080, 127.0.0.1:8900-8949")
	assert.Contains(t, text, "trading_platform/reference:local (built from apps/reference)")
}

func TestMermaid(t *testing.T) {
	p := resolve(t, config{"disabled": `["grafana"]`})
	assert.Equal(t, `graph LR
  postgres
  redis
  prometheus
  prometheus --> postgres
  loki_server
  promtail
  promtail --> loki_server
`, printed(t, func(b *bytes.Buffer) error { return p.Mermaid(b) }))
}

// No format of a plan shows a secret, however it was set.
func TestNoSecretIsPrinted(t *testing.T) {
	const canary = "c4n4ry"
	c := profiles("oauth2", "workers")
	var secret []string
	for name := range own {
		if name != "WEB_CONSOLE_USER" && name != "AUTH0_DOMAIN" && name != "AUTH0_CLIENT_ID" {
			c[name] = canary + "-" + name
		}
	}
	c["REDIS_URL_DOCKER"] = "redis://:" + canary + "@redis:6379"
	c["serviceEnv"] = `{"postgres":{"EXTRA":"` + canary + `"}}`
	c["LOG_LEVEL"] = canary
	secret = append(secret, "serviceEnv", "LOG_LEVEL")
	certs := map[string]string{"server.key": canary, "server.crt": canary, "ca.crt": canary, "dhparam.pem": canary}
	p, err := plan.Resolve(load(t, c, secret...), certs)
	require.NoError(t, err)
	for name, write := range map[string]func(*bytes.Buffer) error{
		"text":    func(b *bytes.Buffer) error { return p.Text(b) },
		"json":    func(b *bytes.Buffer) error { return p.JSON(b) },
		"mermaid": func(b *bytes.Buffer) error { return p.Mermaid(b) },
	} {
		assert.NotContains(t, printed(t, write), canary, name)
	}
	for _, s := range p.Services {
		for _, value := range s.Labels(p, 0) {
			assert.NotContains(t, value, canary)
		}
		assert.NotContains(t, strings.Join(append(s.Probe.Test, s.Command...), " "), canary)
		for _, f := range s.Files {
			assert.True(t, f.Secret || !strings.Contains(f.Content, canary), f.Path)
		}
	}
	json := printed(t, func(b *bytes.Buffer) error { return p.JSON(b) })
	assert.Contains(t, json, `"name": "POSTGRES_PASSWORD",`+"\n"+`          "value": "[secret]",`)
	assert.NotContains(t, json, "sha256\": \"\"", "a secret file has no hash that could be guessed at")
}

func TestFingerprint(t *testing.T) {
	resolve := func() *plan.Plan {
		p, err := plan.Resolve(load(t, profiles("mtls")), map[string]string{"server.key": "key", "server.crt": "crt", "ca.crt": "ca", "dhparam.pem": "pem"})
		require.NotNil(t, p, "%v", err)
		return p
	}
	same := resolve().Fingerprint()
	assert.Equal(t, same, resolve().Fingerprint())
	change := func(name string, edit func(p *plan.Plan)) {
		p := resolve()
		edit(p)
		assert.NotEqual(t, same, p.Fingerprint(), name)
	}
	change("identity", func(p *plan.Plan) { p.Identity = "other" })
	for i, s := range resolve().Services {
		change(s.Name, func(p *plan.Plan) { p.Services[i].Image.Reference += "x" })
		for j, e := range s.Env {
			change(s.Name+" "+e.Name, func(p *plan.Plan) { p.Services[i].Env[j].Value += "x" })
		}
		for j, f := range s.Files {
			change(s.Name+" "+f.Path, func(p *plan.Plan) { p.Services[i].Files[j].Content += "x" })
			change(s.Name+" "+f.Path, func(p *plan.Plan) { p.Services[i].Files[j].Private = !f.Private })
		}
	}
}
