package infra

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"text/template"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// Promtail comes from no package of Debian, so that this file plays the few of its stages and rules that are used. The
// live tests, where Promtail itself runs, look for the same labels in Loki.

type stage struct {
	Match *struct {
		Selector string
		Stages   []stage
	}
	JSON     *struct{ Expressions map[string]string }
	Regex    *struct{ Expression string }
	Template *struct{ Source, Template string }
	Labels   map[string]any
}

type relabelling struct {
	SourceLabels []string `yaml:"source_labels"`
	Regex        string
	TargetLabel  string `yaml:"target_label"`
}

type promtailConfig struct {
	ScrapeConfigs []struct {
		DockerSDConfigs []struct {
			RefreshInterval string `yaml:"refresh_interval"`
			Filters         []struct {
				Name   string
				Values []string
			}
		} `yaml:"docker_sd_configs"`
		RelabelConfigs []relabelling `yaml:"relabel_configs"`
		PipelineStages []stage       `yaml:"pipeline_stages"`
	} `yaml:"scrape_configs"`
}

func promtail(t *testing.T, prefix string) promtailConfig {
	t.Helper()
	files, err := Files("promtail", with(func(v *Values) { v.NamePrefix = prefix }))
	require.NoError(t, err)
	var config promtailConfig
	require.NoError(t, yaml.Unmarshal([]byte(files["/etc/promtail/promtail-config.yml"]), &config))
	require.Len(t, config.ScrapeConfigs, 1)
	return config
}

// level plays the stages on a line.
func level(t *testing.T, line string) string {
	t.Helper()
	extracted := map[string]string{}
	var play func([]stage)
	play = func(stages []stage) {
		for _, s := range stages {
			switch {
			case s.Match != nil:
				_, filter, ok := strings.Cut(s.Match.Selector, `} `)
				require.True(t, ok)
				var pattern string
				require.NoError(t, json.Unmarshal([]byte(filter[3:]), &pattern))
				if regexp.MustCompile(pattern).MatchString(line) == (filter[:2] == "|~") {
					play(s.Match.Stages)
				}
			case s.JSON != nil:
				var fields map[string]any
				if json.Unmarshal([]byte(line), &fields) == nil {
					for name, field := range s.JSON.Expressions {
						if text, ok := fields[field].(string); ok {
							extracted[name] = text
						}
					}
				}
			case s.Regex != nil:
				pattern := regexp.MustCompile(s.Regex.Expression)
				if found := pattern.FindStringSubmatch(line); found != nil {
					extracted["level"] = found[pattern.SubexpIndex("level")]
				}
			case s.Template != nil:
				parsed, err := template.New("").Funcs(template.FuncMap{"ToLower": strings.ToLower}).Parse(s.Template.Template)
				require.NoError(t, err)
				var out bytes.Buffer
				require.NoError(t, parsed.Execute(&out, map[string]string{"Value": extracted[s.Template.Source]}))
				extracted[s.Template.Source] = out.String()
			case s.Labels != nil:
				assert.Equal(t, map[string]any{"level": nil}, s.Labels, "a trace id as a label would make a stream a request")
			}
		}
	}
	play(promtail(t, "trading_platform").ScrapeConfigs[0].PipelineStages)
	return extracted["level"]
}

func TestPromtailFindsTheLevel(t *testing.T) {
	for line, want := range map[string]string{
		`{"timestamp":"2026-05-01T10:00:00Z","level":"INFO","message":"level=error said someone"}`: "info",
		`{"level":"WARN","message":"x"}`: "warning",
		`{"level":"critical"}`:           "critical",
		`{"level":"banana"}`:             "",
		`{"message":"level=error"}`:      "",
		`ts=2026-05-01T10:00:00Z caller=main.go:1 level=info msg="prometheus 2"`:           "info",
		`time=2026-05-01T10:00:00Z level=WARN source=main.go:1 msg="prometheus 3"`:         "warning",
		`level=error ts=2026-05-01T10:00:00Z caller=x.go:1 msg="loki"`:                     "error",
		`logger=sqlstore t=2026-05-01T10:00:00Z level=debug msg="grafana"`:                 "debug",
		`2026-05-01 10:00:00.000 UTC [27] LOG:  database system is ready`:                  "info",
		`2026-05-01 10:00:00.000 UTC [27] FATAL:  password authentication failed`:          "error",
		`2026-05-01 10:00:00.000 UTC [27] PANIC:  could not write`:                         "critical",
		`2026-05-01 10:00:00.000 UTC [27] trader@trader ERROR:  relation "x" is not there`: "error",
		`2026-05-01 10:00:00.000 UTC [27] DEBUG2:  checkpoint`:                             "debug",
		`2026/05/01 10:00:00 [warn] 29#29: *1 an upstream response is buffered`:            "warning",
		`2026/05/01 10:00:00 [emerg] 1#1: host not found`:                                  "critical",
		`1:M 01 May 2026 10:00:00.000 * Ready to accept connections`:                       "info",
		`1:M 01 May 2026 10:00:00.000 # WARNING overcommit_memory is set to 0`:             "warning",
		`1:C 01 May 2026 10:00:00.000 - DB saved on disk`:                                  "debug",
		`Traceback (most recent call last):`:                                               "",
		``:                                                                                 "",
	} {
		t.Run(line, func(t *testing.T) {
			assert.Equal(t, want, level(t, line))
		})
	}
}

func TestPromtailNamesTheService(t *testing.T) {
	for name, c := range map[string]struct {
		prefix, container, label, want string
	}{
		"by the container's name":       {"trading_platform", "trading_platform_redis", "", "redis"},
		"a replica, by Compose's label": {"trading_platform", "trading_platform_backtest_worker_high_2", "backtest_worker_high", "backtest_worker_high"},
		"a prefix with a dot":           {"desk.2", "desk.2_redis", "", "redis"},
		"a dot is a dot":                {"desk.2", "deskx2_redis", "", ""},
		"another prefix":                {"desk", "trading_platform_redis", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			meta := map[string]string{
				"__meta_docker_container_name":                             "/" + c.container,
				"__meta_docker_container_label_com_docker_compose_service": c.label,
				"__meta_docker_container_label_com_docker_compose_project": c.prefix,
			}
			labels := map[string]string{}
			for _, r := range promtail(t, c.prefix).ScrapeConfigs[0].RelabelConfigs {
				require.Len(t, r.SourceLabels, 1)
				value, ok := meta[r.SourceLabels[0]]
				require.True(t, ok, r.SourceLabels[0])
				if r.Regex == "" {
					r.Regex = "(.*)"
				}
				if found := regexp.MustCompile("^(?:" + r.Regex + ")$").FindStringSubmatch(value); found != nil {
					labels[r.TargetLabel] = found[1]
				}
			}
			assert.Equal(t, c.want, labels["service"])
			delete(labels, "service")
			assert.Equal(t, map[string]string{"container": c.container, "compose_project": c.prefix, "compose_service": c.label}, labels)
		})
	}
}

func TestPromtailReadsThisStackAlone(t *testing.T) {
	found := promtail(t, "desk").ScrapeConfigs[0].DockerSDConfigs
	require.Len(t, found, 1)
	assert.Equal(t, "5s", found[0].RefreshInterval)
	require.Len(t, found[0].Filters, 1)
	assert.Equal(t, "label", found[0].Filters[0].Name)
	assert.Equal(t, []string{"com.docker.compose.project=desk"}, found[0].Filters[0].Values)
}
