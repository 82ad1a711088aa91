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

// Debian has no package of Promtail, so this file imitates the few of its stages and rules that are used. The live tests
// run Promtail itself and check the same labels in Loki.

type stage struct {
	Match *struct {
		Selector, Action string
		Stages           []stage
	}
	JSON     *struct{ Expressions map[string]string }
	Regex    *struct{ Expression string }
	Template *struct{ Source, Template string }
	Output   *struct{ Source string }
	Labels   map[string]any
}

type promtailConfig struct {
	ScrapeConfigs []struct {
		StaticConfigs []struct{ Labels map[string]string } `yaml:"static_configs"`
		Stages        []stage                              `yaml:"pipeline_stages"`
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

// logged is a line of a container's log as the engine writes it to its file.
func logged(t *testing.T, line, container, project, service string) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"log": line + "\n", "stream": "stdout", "time": "2026-05-01T10:00:00.123456789Z",
		"attrs": map[string]string{"tag": container, "com.docker.compose.project": project, "com.docker.compose.service": service},
	})
	require.NoError(t, err)
	return string(text)
}

// play runs the stages of a stack's Promtail on a line of a file. It returns the line that is sent and its labels, or no
// labels if the line is dropped.
func play(t *testing.T, prefix, line string) (sent string, labels map[string]string) {
	t.Helper()
	extracted := map[string]string{}
	labels = map[string]string{}
	dropped := false
	var stages func([]stage)
	stages = func(all []stage) {
		for _, s := range all {
			switch {
			case s.Match != nil && s.Match.Action == "drop":
				dropped = dropped || s.Match.Selector == `{compose_project!="`+prefix+`"}` && labels["compose_project"] != prefix
			case s.Match != nil:
				_, filter, ok := strings.Cut(s.Match.Selector, `} `)
				require.True(t, ok)
				var pattern string
				require.NoError(t, json.Unmarshal([]byte(filter[3:]), &pattern))
				if regexp.MustCompile(pattern).MatchString(line) == (filter[:2] == "|~") {
					stages(s.Match.Stages)
				}
			case s.JSON != nil:
				var fields map[string]any
				if json.Unmarshal([]byte(line), &fields) != nil {
					continue
				}
				for name, path := range s.JSON.Expressions {
					from := fields
					if inner, ok := strings.CutPrefix(path, "attrs."); ok {
						from, _ = fields["attrs"].(map[string]any)
						path = strings.Trim(inner, `"`)
					}
					if text, ok := from[path].(string); ok {
						extracted[name] = text
					}
				}
			case s.Regex != nil:
				pattern := regexp.MustCompile(s.Regex.Expression)
				if found := pattern.FindStringSubmatch(line); found != nil {
					extracted["level"] = found[pattern.SubexpIndex("level")]
				}
			case s.Template != nil:
				parsed, err := template.New("").Funcs(template.FuncMap{"ToLower": strings.ToLower, "TrimSuffix": strings.TrimSuffix}).Parse(s.Template.Template)
				require.NoError(t, err)
				var out bytes.Buffer
				require.NoError(t, parsed.Execute(&out, map[string]string{"Value": extracted[s.Template.Source]}))
				extracted[s.Template.Source] = out.String()
			case s.Output != nil:
				line = extracted[s.Output.Source]
			case s.Labels != nil:
				for name, from := range s.Labels {
					source, ok := from.(string)
					if !ok {
						source = name
					}
					if extracted[source] != "" {
						labels[name] = extracted[source]
					}
				}
			}
		}
	}
	stages(promtail(t, prefix).ScrapeConfigs[0].Stages)
	if dropped {
		return "", nil
	}
	return line, labels
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
			sent, labels := play(t, "trading_platform", logged(t, line, "trading_platform_x", "trading_platform", "x"))
			assert.Equal(t, line, sent, "the line alone, without what the engine writes round it")
			assert.Equal(t, want, labels["level"])
		})
	}
}

func TestPromtailNamesTheContainer(t *testing.T) {
	for name, c := range map[string]struct{ prefix, container, service string }{
		"a service's":         {"trading_platform", "trading_platform_redis", "redis"},
		"a replica's":         {"trading_platform", "trading_platform_backtest_worker_high_2", "backtest_worker_high"},
		"a prefix with a dot": {"desk.2", "desk.2_redis", "redis"},
	} {
		t.Run(name, func(t *testing.T) {
			_, labels := play(t, c.prefix, logged(t, "hello", c.container, c.prefix, c.service))
			assert.Equal(t, map[string]string{"container": c.container, "compose_project": c.prefix, "compose_service": c.service, "service": c.service},
				labels, "a trace id as a label would make a stream a request")
		})
	}
}

func TestPromtailReadsOnlyThisStack(t *testing.T) {
	assert.Equal(t, "/var/lib/docker/containers/*/*-json.log", promtail(t, "desk").ScrapeConfigs[0].StaticConfigs[0].Labels["__path__"])
	for name, line := range map[string]string{
		"another stack's":  logged(t, "hello", "blue_redis", "blue", "redis"),
		"nobody's":         `{"log":"hello\n","stream":"stdout","time":"2026-05-01T10:00:00Z"}`,
		"not the engine's": "hello",
	} {
		t.Run(name, func(t *testing.T) {
			_, labels := play(t, "desk", line)
			assert.Nil(t, labels)
		})
	}
}
