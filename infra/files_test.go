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

// full is a stack with everything: services with both scrape intervals, and one with another metrics path.
func full() Values {
	return Values{
		Service:    "test",
		NamePrefix: "trading_platform",
		URLs:       map[string]string{"prometheus": "http://prometheus:9090", "loki_server": "http://loki_server:3100"},
		Targets: []Target{
			{Service: "prometheus", Port: 9090, Path: "/metrics", Tier: "observability", Component: "metrics"},
			{Service: "loki_server", Port: 3100, Path: "/metrics", Tier: "observability", Component: "logs"},
			{Service: "execution_gateway", Port: 8002, Path: "/metrics", Tier: "api", Component: "trading", Interval: 10 * time.Second},
			{Service: "web_console_dev", Port: 8080, Path: "/internal/metrics", Tier: "web", Component: "console"},
			{Service: "alert_worker", Port: 9100, Path: "/metrics", Tier: "workers", Component: "alerts", Replicas: true},
		},
		Replicas: map[string]int{"prometheus": 1, "alert_worker": 3},
		Nginx: Nginx{
			Upstreams:      map[string]string{"web_console_ng": "web_console_oauth2:8080", "auth_service": "auth_service:8001"},
			HTTPSPort:      443,
			ServerNames:    []string{"web-console.trading-platform.local", "localhost"},
			TrustedProxies: netip.MustParsePrefix("172.28.0.0/24"),
			Gateway:        netip.MustParseAddr("172.28.0.1"),
		},
	}
}

// without returns the full stack without some services.
func without(services ...string) Values {
	return with(func(v *Values) {
		for _, name := range services {
			delete(v.URLs, name)
		}
	})
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
		"prometheus":            {"prometheus", full()},
		"prometheus-no-targets": {"prometheus", with(func(v *Values) { v.Targets = nil })},
		"loki":                  {"loki_server", full()},
		"promtail":              {"promtail", full()},
		"promtail-other-prefix": {"promtail", with(func(v *Values) { v.NamePrefix = "desk.2" })},
		"grafana":               {"grafana", full()},
		"grafana-without-loki":  {"grafana", without("loki_server")},
		"nginx-mtls": {"nginx", with(func(v *Values) {
			v.Service, v.Nginx.ClientCerts = "nginx_mtls", true
			v.Nginx.Upstreams, v.Nginx.TrustedProxies = map[string]string{"web_console_ng": "web_console_mtls:8080"}, netip.Prefix{}
		})},
		"nginx-oauth2": {"nginx", with(func(v *Values) { v.Service = "nginx_oauth2" })},
		"nginx-oauth2-any-name-report-only-other-port": {"nginx", with(func(v *Values) {
			v.Service, v.Nginx.ServerNames, v.Nginx.CSPReportOnly, v.Nginx.HTTPSPort = "nginx_oauth2", nil, true, 10443
		})},
		"node_exporter": {"node_exporter", full()},
		"alertmanager":  {"alertmanager", full()},
		"grafana-alone": {"grafana", without("loki_server", "prometheus")},
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
			// A golden of a file that is not a template would only be a second copy to edit.
			// A dashboard without the panels of a data source is looked at in grafana_test.go.
			maps.DeleteFunc(files, func(path, text string) bool { return asIs[text] || strings.HasPrefix(path, dashboards) })
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
				case ".conf", ".prom":
				default:
					t.Errorf("%s: no parser for it here", path)
				}
			}
		})
	}
}

func TestFilesAreWhereTheServicesReadThem(t *testing.T) {
	for service, want := range map[string][]string{
		"prometheus": {
			"/etc/prometheus/prometheus.yml",
			"/etc/prometheus/rules/api.yml",
			"/etc/prometheus/rules/databases.yml",
			"/etc/prometheus/rules/logs.yml",
			"/etc/prometheus/rules/stack.yml",
		},
		"loki_server": {"/etc/loki/loki-config.yml"},
		"promtail":    {"/etc/promtail/promtail-config.yml"},
		"grafana": {
			"/etc/grafana/dashboards/host.json",
			"/etc/grafana/dashboards/jobs.json",
			"/etc/grafana/dashboards/logs.json",
			"/etc/grafana/dashboards/nginx.json",
			"/etc/grafana/dashboards/postgres.json",
			"/etc/grafana/dashboards/redis.json",
			"/etc/grafana/dashboards/requests.json",
			"/etc/grafana/dashboards/stack-health.json",
			"/etc/grafana/provisioning/dashboards/dashboards.yml",
			"/etc/grafana/provisioning/datasources/datasources.yml",
		},
		"nginx":         {"/etc/nginx/nginx.conf"},
		"node_exporter": {"/etc/node_exporter/stack.prom"},
		"alertmanager":  {"/etc/alertmanager/alertmanager.yml"},
	} {
		t.Run(service, func(t *testing.T) {
			files, err := Files(service, full())
			require.NoError(t, err)
			assert.Equal(t, want, slices.Sorted(maps.Keys(files)))
		})
	}
}

// A service that is not in the stack must not be named in a file of another.
func TestATemplateThatNamesAMissingServiceFails(t *testing.T) {
	_, err := Files("promtail", without("loki_server"))
	require.ErrorContains(t, err, "infra: files of test: ")
	assert.ErrorContains(t, err, "loki_server")
	_, err = Files("nginx", with(func(v *Values) { v.Nginx.Upstreams = nil }))
	require.ErrorContains(t, err, "web_console_ng")
}

// write writes files below a folder, by their absolute path.
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
