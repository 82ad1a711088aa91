package infra

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "rewrite the golden files under testdata from what is rendered now")

// full is a stack with everything in it: services at both intervals, one with another path, and a service with replicas.
func full() Values {
	return Values{
		NamePrefix: "trading_platform",
		Targets: []Target{
			{Service: "prometheus", Address: "prometheus:9090", Path: "/metrics", Tier: "observability", Component: "metrics"},
			{Service: "loki_server", Address: "loki_server:3100", Path: "/metrics", Tier: "observability", Component: "logs"},
			{Service: "execution_gateway", Address: "execution_gateway:8002", Path: "/metrics", Tier: "api", Component: "trading", Interval: 10 * time.Second},
			{Service: "web_console_dev", Address: "web_console_dev:8080", Path: "/internal/metrics", Tier: "web", Component: "console"},
			{Service: "backtest_worker_high", Address: "trading_platform_backtest_worker_high:9101", Path: "/metrics", Tier: "workers", Component: "backtest"},
			{Service: "alert_worker", Address: "alert_worker:9101", Path: "/metrics", Tier: "workers", Component: "alerts"},
			{Service: "backtest_worker_high", Address: "trading_platform_backtest_worker_high_2:9101", Path: "/metrics", Tier: "workers", Component: "backtest"},
		},
		LokiEnabled:       true,
		PrometheusEnabled: true,
		Nginx: Nginx{
			Console:            "web_console_oauth2:8080",
			Auth:               "auth_service:8001",
			HTTPSPort:          443,
			ServerNames:        []string{"web-console.trading-platform.local", "localhost"},
			TrustedProxySubnet: "172.28.0.0/24",
			Gateway:            netip.MustParseAddr("172.28.0.1"),
		},
	}
}

// with returns the full stack with a change.
func with(change func(*Values)) Values {
	v := full()
	change(&v)
	return v
}

// cases are the stacks whose files are kept as goldens, by the golden's folder.
func cases() map[string]struct {
	service string
	values  Values
} {
	return map[string]struct {
		service string
		values  Values
	}{
		"prometheus":              {"prometheus", full()},
		"prometheus-no-targets":   {"prometheus", with(func(v *Values) { v.Targets = nil })},
		"prometheus-without-loki": {"prometheus", with(func(v *Values) { v.LokiEnabled = false })},
		"loki":                    {"loki_server", full()},
		"promtail":                {"promtail", full()},
		"promtail-other-prefix":   {"promtail", with(func(v *Values) { v.NamePrefix = "desk.2" })},
		"grafana":                 {"grafana", full()},
		"grafana-without-loki":    {"grafana", with(func(v *Values) { v.LokiEnabled = false })},
		"nginx-mtls": {"nginx_mtls", with(func(v *Values) {
			v.Nginx.Console, v.Nginx.Auth, v.Nginx.TrustedProxySubnet = "web_console_mtls:8080", "", ""
		})},
		"nginx-oauth2": {"nginx_oauth2", full()},
		"nginx-oauth2-any-name-report-only-other-port": {"nginx_oauth2", with(func(v *Values) {
			v.Nginx.ServerNames, v.Nginx.CSPReportOnly, v.Nginx.HTTPSPort = nil, true, 10443
		})},
		"grafana-alone": {"grafana", with(func(v *Values) { v.LokiEnabled, v.PrometheusEnabled = false, false })},
	}
}

func TestFilesMatchTheirGoldens(t *testing.T) {
	asIs := map[string]bool{}
	require.NoError(t, fs.WalkDir(embedded, "files", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := embedded.ReadFile(name)
		asIs[string(text)] = true
		return err
	}))
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			files, err := Files(c.service, c.values)
			require.NoError(t, err)
			// A golden of a file that goes as it is would only be a second copy to edit.
			maps.DeleteFunc(files, func(_, text string) bool { return asIs[text] })
			golden := filepath.Join("testdata", "golden", name)
			if *update {
				require.NoError(t, os.RemoveAll(golden))
				write(t, golden, files)
			}
			assert.Equal(t, read(t, golden), files, "go test ./infra -update rewrites the goldens")
		})
	}
}

func TestFilesAreTheSameEachTime(t *testing.T) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			first, err := Files(c.service, c.values)
			require.NoError(t, err)
			for range 20 {
				again, err := Files(c.service, c.values)
				require.NoError(t, err)
				require.Equal(t, first, again)
			}
		})
	}
}

func TestFilesParse(t *testing.T) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			files, err := Files(c.service, c.values)
			require.NoError(t, err)
			require.NotEmpty(t, files)
			for path, text := range files {
				assert.NotContains(t, text, "[[", path)
				var parsed map[string]any
				switch filepath.Ext(path) {
				case ".yml", ".yaml":
					decoder := yaml.NewDecoder(strings.NewReader(text))
					require.NoError(t, decoder.Decode(&parsed), path)
					assert.ErrorIs(t, decoder.Decode(&parsed), io.EOF, "%s is one document", path)
				case ".json":
					decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
					require.NoError(t, decoder.Decode(&parsed), path)
				case ".conf":
				default:
					t.Errorf("%s: no parser for it here", path)
				}
			}
		})
	}
}

func TestFilesLieWhereTheServicesLook(t *testing.T) {
	for service, want := range map[string][]string{
		"prometheus": {
			"/etc/prometheus/prometheus.yml",
			"/etc/prometheus/rules/api.yml",
			"/etc/prometheus/rules/logs.yml",
			"/etc/prometheus/rules/stack.yml",
		},
		"loki_server": {"/etc/loki/loki-config.yml"},
		"promtail":    {"/etc/promtail/promtail-config.yml"},
		"grafana": {
			"/etc/grafana/dashboards/stack-health.json",
			"/etc/grafana/provisioning/dashboards/dashboards.yml",
			"/etc/grafana/provisioning/datasources/datasources.yml",
		},
		"nginx_mtls":   {"/etc/nginx/nginx.conf"},
		"nginx_oauth2": {"/etc/nginx/nginx.conf"},
		"postgres":     nil,
	} {
		t.Run(service, func(t *testing.T) {
			files, err := Files(service, full())
			require.NoError(t, err)
			assert.Equal(t, want, slices.Sorted(maps.Keys(files)))
		})
	}
}

func TestFilesRefuse(t *testing.T) {
	target := func(change func(*Target)) Values {
		return with(func(v *Values) { change(&v.Targets[len(v.Targets)-1]) })
	}
	for name, c := range map[string]struct {
		service string
		values  Values
		want    string
	}{
		"a target without an address": {
			"prometheus", target(func(t *Target) { t.Address = "" }),
			`infra: files of prometheus: scrape target "backtest_worker_high" at "": it needs both a service and an address`,
		},
		"a target without a service": {
			"prometheus", target(func(t *Target) { t.Service = "" }),
			`infra: files of prometheus: scrape target "" at "trading_platform_backtest_worker_high_2:9101": it needs both a service and an address`,
		},
		"replicas that differ": {
			"prometheus", target(func(t *Target) { t.Tier = "api" }),
			"infra: files of prometheus: scrape target backtest_worker_high at trading_platform_backtest_worker_high_2:9101: it differs from the service's first target in more than the address",
		},
		"an interval below the timeout": {
			"prometheus", target(func(t *Target) { t.Interval = 5 * time.Second }),
			"infra: files of prometheus: scrape target backtest_worker_high: its interval 5s is shorter than the scrape timeout, 10s",
		},
		"promtail with no Loki to send to": {
			"promtail", with(func(v *Values) { v.LokiEnabled = false }),
			"infra: files of promtail: it sends to loki_server alone, which is not in the stack: add promtail to `disabled` too",
		},
		"nginx that has nothing to go on": {
			"nginx_oauth2", Values{},
			`infra: files of nginx_oauth2: the address of the web console is "": it must be host:port
the address of auth_service is "": it must be host:port
the HTTPS port is 0: it must be from 1 to 65535`,
		},
		"values that would be configuration": {
			"nginx_mtls", with(func(v *Values) {
				v.Nginx.Console = "evil; return 200:80"
				v.Nginx.ServerNames = []string{"ok.example", "bad; }", "-bad"}
				v.Nginx.TrustedProxySubnet = "everyone"
			}),
			`infra: files of nginx_mtls: the address of the web console is "evil; return 200:80": it must be host:port
the server name "bad; }" is neither a host name nor an address
the server name "-bad" is neither a host name nor an address
TRUSTED_PROXY_SUBNET is "everyone": it must be a subnet, for example 172.28.0.0/24`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			files, err := Files(c.service, c.values)
			assert.Nil(t, files)
			assert.EqualError(t, err, c.want)
		})
	}
}

func TestEveryFaultIsReportedAtOnce(t *testing.T) {
	_, err := Files("prometheus", Values{Targets: []Target{{Service: "a"}, {Address: "b:1"}}})
	var joined interface{ Unwrap() []error }
	require.True(t, errors.As(err, &joined))
	assert.Len(t, joined.Unwrap(), 2)
}

func TestAlertsOnLogsComeWithLoki(t *testing.T) {
	const logs = "/etc/prometheus/rules/logs.yml"
	files, err := Files("prometheus", full())
	require.NoError(t, err)
	assert.Contains(t, files, logs)
	files, err = Files("prometheus", with(func(v *Values) { v.LokiEnabled = false }))
	require.NoError(t, err)
	assert.NotContains(t, files, logs)
}

// write puts files under a folder, by their absolute path.
func write(t *testing.T, folder string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		place := filepath.Join(folder, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(place), 0o755))
		require.NoError(t, os.WriteFile(place, []byte(text), 0o644))
	}
}

// read is the inverse of write.
func read(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return files
	}
	require.NoError(t, filepath.WalkDir(folder, func(place string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(place)
		files[strings.TrimPrefix(place, folder)] = string(text)
		return err
	}))
	return files
}
