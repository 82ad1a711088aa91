//go:build live

package preview

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/review"
	"trading-platform/workspace"
)

// canary is a secret that may appear nowhere.
const canary = "c4n4ry-d0-n0t-pr1nt"

// branches are changes that a person might make, each with exactly what it does to stack dev.
var branches = map[string]struct {
	edit    func(c *clone)
	code    int
	fields  map[string][]string // service → what changes in it
	waiting map[string][]string // replaced service → what waits for it; a service left out is not replaced
	data    []string            // the subjects of what it means for data
	prints  []string            // what the text says
	prefix  string              // everything is replaced by what has this prefix
}{
	"one port": {
		edit: func(c *clone) {
			c.replace("catalog/base.go", "{Host: 9090, URL", "{Host: 9099, URL")
		},
		code: 2,
		fields: map[string][]string{
			"prometheus":      {"port 9090"},
			"web_console_dev": {"file /app/contract.json"}, // its link to Prometheus
		},
		waiting: map[string][]string{"prometheus": {"grafana"}, "web_console_dev": nil},
		prints: []string{
			"~ prometheus: replaces trading_platform_prometheus",
			"port 9090: 127.0.0.1:9090 → 127.0.0.1:9099",
			"waiting for it meanwhile: grafana",
		},
	},
	"prometheus.yml": {
		edit: func(c *clone) {
			c.replace("infra/files/prometheus/etc/prometheus/prometheus.yml.tmpl", "  scrape_interval: 15s", "  scrape_interval: 20s")
		},
		code:    2,
		fields:  map[string][]string{"prometheus": {"file /etc/prometheus/prometheus.yml"}},
		waiting: map[string][]string{"prometheus": {"grafana"}},
		prints:  []string{"-  scrape_interval: 15s\n", "+  scrape_interval: 20s\n"},
	},
	"a service": {
		edit: func(c *clone) {
			c.replace("catalog/apis.go", "	return []Service{\n", `	return []Service{
		api("risk_service", 8006, Service{
			About: "limits", After: []string{"redis"}, Metrics: Metrics{Component: "risk"},
		}),
`)
		},
		code: 2,
		fields: map[string][]string{
			"risk_service":    {"all of it"},
			"prometheus":      {"file /etc/prometheus/prometheus.yml"}, // a target more
			"web_console_dev": {"file /app/contract.json"},             // a row more
		},
		waiting: map[string][]string{"prometheus": {"grafana"}, "web_console_dev": nil},
		prints: []string{
			"+ risk_service: creates trading_platform_risk_service",
			"port 8006: 127.0.0.1:8006",
			"starts after: redis",
			`+  - job_name: "risk_service"`,
		},
	},
	"a probe": {
		edit: func(c *clone) {
			c.replace("catalog/base.go", "redis-cli ping | grep -q PONG", "redis-cli -t 2 ping | grep -q PONG")
		},
		code:   2,
		fields: map[string][]string{"redis": {"probe"}},
		waiting: map[string][]string{"redis": {"execution_gateway", "signal_service", "market_data_service", "orchestrator",
			"backtest_worker_dev", "web_console_dev"}},
		prints: []string{"redis-cli ping", "redis-cli -t 2 ping"},
	},
	"a PostgreSQL major version": {
		edit:   func(c *clone) { c.replace("catalog/base.go", `"postgres:16"`, `"postgres:17"`) },
		code:   3,
		fields: map[string][]string{"postgres": {"image"}},
		waiting: map[string][]string{"postgres": {"prometheus", "grafana", "execution_gateway", "signal_service",
			"market_data_service", "orchestrator", "backtest_worker_dev", "web_console_dev"}},
		data:   []string{"postgres"},
		prints: []string{"!! DATA", "PostgreSQL 16 → 17", "image: postgres:16 → postgres:17"},
	},
	"a comment": {
		edit: func(c *clone) {
			c.add("catalog/base.go", "\n// A comment.\n")
			c.add("Pulumi.dev.yaml", "# A comment.\n")
		},
		code:   0,
		prints: []string{"No change in stack dev."},
	},
	"volumes that are not kept": {
		edit: func(c *clone) {
			c.replace("Pulumi.dev.yaml", "config:\n", "config:\n  trading-platform:retainVolumes: false\n")
		},
		code:   3,
		data:   []string{"retainVolumes"},
		prints: []string{"!! DATA", "retainVolumes: true → false"},
	},
	"a volume that nobody mounts": {
		edit: func(c *clone) {
			c.replace("catalog/base.go", `			Mounts:  []Mount{{Volume: "redisdata", Path: "/data"}},
`, "")
		},
		code:   3,
		fields: map[string][]string{"redis": {"mount /data"}},
		waiting: map[string][]string{"redis": {"execution_gateway", "signal_service", "market_data_service", "orchestrator",
			"backtest_worker_dev", "web_console_dev"}},
		data:   []string{"volume trading_platform_redisdata"},
		prints: []string{"is mounted by no service any more (redis did)"},
	},
	"a volume that is not declared": {
		edit: func(c *clone) {
			c.replace("catalog/catalog.go", `	"redisdata",      // Redis' append-only file
`, "")
		},
		code:   3,
		fields: map[string][]string{"redis": {"mount /data"}},
		waiting: map[string][]string{"redis": {"execution_gateway", "signal_service", "market_data_service", "orchestrator",
			"backtest_worker_dev", "web_console_dev"}},
		data: []string{"volume trading_platform_redisdata"},
		prints: []string{
			"mount /data: volume trading_platform_redisdata → volume redisdata, which is not declared",
			"newly wrong\n    catalog/base.go: service redis mounts volume redisdata, which is not in the catalog",
		},
	},
	"the reference app": {
		edit:   func(c *clone) { c.add("apps/reference/main.go", "\n// Another image.\n") },
		code:   2,
		prints: []string{"built again: apps/reference/main.go"},
		fields: map[string][]string{
			"execution_gateway": {"image content"}, "signal_service": {"image content"}, "market_data_service": {"image content"},
			"model_registry": {"image content"}, "orchestrator": {"image content"}, "backtest_worker_dev": {"image content"},
			"web_console_dev": {"image content"},
		},
		waiting: map[string][]string{
			"execution_gateway": {"market_data_service", "orchestrator", "web_console_dev"}, "signal_service": {"orchestrator"},
			"market_data_service": nil, "model_registry": nil, "orchestrator": nil, "backtest_worker_dev": nil, "web_console_dev": nil,
		},
	},
	"an image": {
		edit:    func(c *clone) { c.replace("catalog/base.go", `"prom/prometheus:v2.55.1"`, `"prom/prometheus:v2.55.2"`) },
		code:    2,
		fields:  map[string][]string{"prometheus": {"image"}},
		waiting: map[string][]string{"prometheus": {"grafana"}},
		prints:  []string{"image: prom/prometheus:v2.55.1 → prom/prometheus:v2.55.2"},
	},
	"an edge": {
		edit: func(c *clone) {
			c.replace("catalog/apis.go", `			About:  "models, as files in its folder",
`, `			About:  "models, as files in its folder", After: []string{"redis"},
`)
		},
		code:    2,
		fields:  map[string][]string{"model_registry": {"file /app/contract.json", "starts after"}, "web_console_dev": {"file /app/contract.json"}},
		waiting: map[string][]string{"model_registry": nil, "web_console_dev": nil},
		prints:  []string{"starts after: redis"},
	},
	"a variable less": {
		edit: func(c *clone) {
			c.replace("catalog/apis.go", `optional("STRATEGY_ID=alpha_baseline", "LOG_LEVEL=INFO"),`, `optional("STRATEGY_ID=alpha_baseline"),`)
		},
		code:    2,
		fields:  map[string][]string{"orchestrator": {"file /app/contract.json", "env LOG_LEVEL"}},
		waiting: map[string][]string{"orchestrator": nil},
		prints:  []string{"env LOG_LEVEL: INFO, gone"},
	},
	"a secret": {
		edit: func(c *clone) {
			c.replace("catalog/apis.go", `optional("STRATEGY_ID=alpha_baseline", "LOG_LEVEL=INFO"),`, `optional("STRATEGY_ID=alpha_baseline", "LOG_LEVEL=INFO"), required("BROKER_TOKEN"),`)
		},
		code:    2,
		fields:  map[string][]string{"orchestrator": {"env BROKER_TOKEN", "file /app/contract.json"}},
		waiting: map[string][]string{"orchestrator": nil},
		prints:  []string{"newly wrong\n    trading-platform:BROKER_TOKEN: required by orchestrator, but not set"},
	},
	"another subnet": {
		edit: func(c *clone) {
			c.replace("Pulumi.dev.yaml", "config:\n", "config:\n  trading-platform:subnet: 172.29.0.0/16\n")
		},
		code:    2,
		fields:  map[string][]string{"prometheus": {"network trading_platform"}, "web_console_dev": {"network trading_platform"}},
		waiting: map[string][]string{"prometheus": {"grafana"}, "web_console_dev": nil},
		prints:  []string{"~ network trading_platform", "name: trading_platform_trading_platform 172.28.0.0/16 → trading_platform_trading_platform 172.29.0.0/16"},
	},
	"a broken probe": {
		edit: func(c *clone) {
			c.replace("catalog/base.go", "redis-cli ping | grep -q PONG", "redis-cli ping | grep -q PING")
		},
		code:   2,
		fields: map[string][]string{"redis": {"probe"}},
		waiting: map[string][]string{"redis": {"execution_gateway", "signal_service", "market_data_service", "orchestrator",
			"backtest_worker_dev", "web_console_dev"}},
		prints: []string{"grep -q PING"},
	},
	"another prefix": {
		edit: func(c *clone) {
			c.replace("Pulumi.dev.yaml", "config:\n", "config:\n  trading-platform:namePrefix: other\n")
		},
		code:   3,
		prefix: "other",
		prints: []string{"namePrefix: trading_platform → other", "is left for other_pgdata, which starts empty unless it exists"},
	},
	"a rule": {
		edit:    func(c *clone) { c.replace("catalog/base.go", `"prom/prometheus:v2.55.1"`, `"prom/prometheus:latest"`) },
		code:    2,
		fields:  map[string][]string{"prometheus": {"image"}},
		waiting: map[string][]string{"prometheus": {"grafana"}},
		prints:  []string{"newly broken rules\n    pinned-image: service prometheus runs image prom/prometheus:latest, which can be another one tomorrow"},
	},
	"a component": {
		edit:   func(c *clone) { c.add("components/service.go", "\n// What this does shows in no plan.\n") },
		code:   0,
		prints: []string{"No change in stack dev.", "No plan shows what these change; a preview does: components/service.go"},
	},
}

func TestABranchShowsExactlyWhatItChanges(t *testing.T) {
	for name, branch := range branches {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClone(t)
			branch.edit(c)
			c.commit(name)
			before := c.state()
			text, said, code := c.run(nil, "plan", "-s", "dev", "--diff", "HEAD^", "-o", "json")
			require.Equal(t, branch.code, code, "%s%s", text, said)
			var report review.Report
			require.NoError(t, json.Unmarshal([]byte(text), &report))
			require.Len(t, report.Stacks, 1)

			fields, waiting, data := map[string][]string{}, map[string][]string{}, []string(nil)
			for _, s := range report.Stacks[0].Items {
				switch {
				case s.What == "data":
					data = append(data, s.Name)
					continue
				case s.What != "service":
					continue
				case s.Kind == review.Added:
					fields[s.Name] = []string{"all of it"}
					continue
				}
				for _, change := range s.Changes {
					fields[s.Name] = append(fields[s.Name], change.Field)
				}
				if len(s.Replaced) > 0 && branch.prefix == "" {
					assert.Equal(t, []string{"trading_platform_" + s.Name}, s.Replaced)
					waiting[s.Name] = s.Waiting
				}
			}
			if branch.prefix != "" {
				for _, s := range report.Stacks[0].Items {
					if s.What == "service" {
						assert.Equal(t, []string{branch.prefix + "_" + s.Name}, s.Replaced)
						delete(fields, s.Name)
						delete(waiting, s.Name)
					}
				}
				assert.Len(t, data, len(catalog.Volumes))
				branch.data = data
			}
			if branch.fields == nil {
				branch.fields, branch.waiting = map[string][]string{}, map[string][]string{}
			}
			assert.Equal(t, branch.fields, fields)
			assert.Len(t, waiting, len(branch.waiting))
			for service, want := range branch.waiting {
				assert.Contains(t, waiting, service)
				assert.Subset(t, waiting[service], want, service) // and whatever else of the catalog waits for it
			}
			assert.Equal(t, branch.data, data)

			text, _, code = c.run(nil, "plan", "-s", "dev", "--diff", "HEAD^")
			assert.Equal(t, branch.code, code)
			for _, line := range branch.prints {
				assert.Contains(t, text, line)
			}
			assert.NotContains(t, text, "\x1b", "colour where nobody looks")
			assert.Equal(t, before, c.state(), "the work tree or the index was touched")
		})
	}
}

// state is the clone's status and index, as they are in the files.
func (c *clone) state() string {
	c.t.Helper()
	index, err := os.ReadFile(filepath.Join(c.dir, ".git", "index"))
	require.NoError(c.t, err)
	return fmt.Sprintf("index %x\n", sha256.Sum256(index)) + c.git("--no-optional-locks", "status", "--porcelain", "--ignored")
}

func TestEveryStackIsComparedAndWhatIsTheSameIsSaidOnce(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	c.replace("catalog/base.go", "{Host: 3100, URL", "{Host: 3101, URL")
	c.replace("Pulumi.workers.yaml", "config:\n", "config:\n  trading-platform:replicas: {alert_worker: 2}\n")
	// Not committed: the checkout as it is counts.
	c.git("mv", "Pulumi.manual.yaml", "Pulumi.console.yaml")
	out, said, code := c.run(nil, "plan", "--all", "--diff", "HEAD", "-o", "markdown")
	require.Equal(t, 2, code, "%s%s", out, said)
	assert.Contains(t, out, "- port 3100: `127.0.0.1:3100` → `127.0.0.1:3101`")
	assert.Contains(t, out, "**~ `alert_worker`** creates trading\\_platform\\_alert\\_worker\\_2 _(in workers)_")
	assert.Contains(t, out, "**+ stack `console`** is new: postgres, redis, ")
	assert.Contains(t, out, "**− stack `manual`** has no file any more: what it runs stays on the engine until `pulumi destroy -s manual` is run")
	assert.Contains(t, out, "with edits")
}

func TestAMachinesOwnSettingsDoNotCount(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	home := t.TempDir()
	backend := "file://" + home
	own := (&workspace.Workspace{Backend: backend}).StackFile("dev")
	require.NoError(t, os.MkdirAll(filepath.Dir(own), 0o700))
	require.NoError(t, os.WriteFile(own, []byte("config:\n  trading-platform:profiles: [workers]\n  trading-platform:POSTGRES_PASSWORD: "+canary+"\n"), 0o600))
	env := []string{"PULUMI_HOME=" + home, "PULUMI_BACKEND_URL=" + backend}
	c.add(catalog.LocalFile, "services:\n  redis: {user: '7'}\n")
	plan, said, _ := c.run(env, "plan", "-s", "dev")
	require.Contains(t, plan, "profiles: dev, workers", "the machine's own settings do count for a plan: %s", said)
	require.Contains(t, plan, "redis (local)")
	out, said, code := c.run(env, "plan", "-s", "dev", "--diff", "HEAD")
	assert.Equal(t, 0, code, "%s%s", out, said)
}

func TestNoSecretShows(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	plant(c)
	c.commit("Set secrets")
	for _, format := range []string{"text", "markdown", "json"} {
		out, said, code := c.run([]string{"GITHUB_TOKEN=" + canary}, "plan", "--all", "--diff", "HEAD^", "-o", format)
		assert.Equal(t, 2, code, said)
		assert.NotContains(t, out+said, canary)
		assert.Contains(t, out, "POSTGRES", "that it changed does show")
	}
}

// plant writes a canary wherever a person might put a secret.
func plant(c *clone) {
	c.t.Helper()
	c.replace("Pulumi.dev.yaml", "config:\n", `config:
  trading-platform:POSTGRES_PASSWORD: `+canary+`
  trading-platform:ALPACA_API_SECRET_KEY: `+canary+`
  trading-platform:serviceEnv:
    orchestrator: {BROKER_TOKEN: `+canary+`, FEED: "https://user:`+canary+`@feed.example"}
`)
	c.replace("Pulumi.oauth2.yaml", "config:\n", `config:
  trading-platform:AUTH0_CLIENT_SECRET: `+canary+`
  trading-platform:SESSION_ENCRYPTION_KEY: `+canary+`
`)
}

func TestWhatCannotBeCompared(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	c.git("checkout", "-q", "--orphan", "old")
	c.git("rm", "-rq", "--cached", ".")
	c.git("commit", "-q", "--allow-empty", "-m", "Before there was a plan")
	c.git("checkout", "-q", "-f", "main")
	for name, wrong := range map[string]struct {
		args []string
		want string
	}{
		"a revision that is not there":  {[]string{"--diff", "nowhere"}, `no revision "nowhere" in this clone; git log shows what there is, and git fetch origin <branch> brings a branch`},
		"a revision from before":        {[]string{"--diff", "old"}, "has no cmd/platform, which is what prints its plan: it is older than this command; name a later one"},
		"a stack that neither side has": {[]string{"--diff", "HEAD", "-s", "prod"}, "neither HEAD nor this checkout has a file Pulumi.prod.yaml; stacks here: base, dev, manual, mtls, oauth2, observability, workers"},
		"a format for plans":            {[]string{"--diff", "HEAD", "-o", "mermaid"}, "with --diff, -o must be text, markdown, json or junit, not mermaid"},
		"all without a revision":        {[]string{"--all"}, "--all needs --diff"},
		"no revision":                   {[]string{"--diff", ""}, `no revision "" in this clone`},
	} {
		t.Run(name, func(t *testing.T) {
			out, said, code := c.run(nil, append([]string{"plan"}, wrong.args...)...)
			assert.Equal(t, 1, code)
			assert.Empty(t, out)
			assert.Contains(t, said, wrong.want)
		})
	}
}

func TestARevisionThatDoesNotCompileSaysSo(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	c.add("catalog/base.go", "\nfunc broken() int { return \"\" }\n")
	_, said, code := c.run(nil, "plan", "--diff", "HEAD")
	assert.Equal(t, 1, code)
	assert.Contains(t, said, "this checkout (")
	assert.Contains(t, said, "does not build, so it has no plan")
	assert.Contains(t, said, "catalog/base.go")
}
