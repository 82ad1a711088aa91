package settings_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"trading-platform/settings"
)

func environment(config map[string]string, secret []string) func(string) string {
	text, _ := json.Marshal(config)
	keys, _ := json.Marshal(secret)
	return func(name string) string {
		switch name {
		case "PULUMI_CONFIG":
			return string(text)
		case "PULUMI_CONFIG_SECRET_KEYS":
			return string(keys)
		}
		return ""
	}
}

func TestFromProgram(t *testing.T) {
	src, err := settings.FromProgram("dev", "/clone", environment(map[string]string{
		"trading-platform:profiles": `["dev"]`, "trading-platform:POSTGRES_PASSWORD": "hunter2",
		"docker:host": "ssh://elsewhere", "pulumi:tags": "{}",
	}, []string{"trading-platform:POSTGRES_PASSWORD"}))
	require.NoError(t, err)
	assert.Equal(t, settings.Source{
		Stack: "dev", Root: "/clone",
		Config: map[string]string{"profiles": `["dev"]`, "POSTGRES_PASSWORD": "hunter2", "docker:host": "ssh://elsewhere"},
		Secret: map[string]bool{"POSTGRES_PASSWORD": true},
	}, src)
}

func TestFromProgramOutsideOfPulumi(t *testing.T) {
	src, err := settings.FromProgram("dev", "/clone", func(string) string { return "" })
	require.NoError(t, err)
	assert.Empty(t, src.Config)
}

func TestFromProgramMalformed(t *testing.T) {
	for _, variable := range []string{"PULUMI_CONFIG", "PULUMI_CONFIG_SECRET_KEYS"} {
		_, err := settings.FromProgram("dev", "/clone", func(name string) string {
			if name == variable {
				return "{"
			}
			return ""
		})
		assert.ErrorContains(t, err, "reading "+variable+":")
	}
}

// FromProgram and FromYAML must read the same settings. The config is what Pulumi passes
// to a program for this file.
func TestFromYAMLAgreesWithFromProgram(t *testing.T) {
	stackFile := []byte(`
encryptionsalt: v1:abc
config:
  docker:host: unix:///var/run/docker.sock
  trading-platform:profiles: [dev, workers]
  trading-platform:portOffset: 1000
  trading-platform:retainVolumes: false
  trading-platform:engineApi: "1.41"
  trading-platform:namePrefix:
  trading-platform:images:
    postgres: postgres:15
  trading-platform:env:
    LOG_LEVEL: DEBUG
    DRY_RUN: true
  trading-platform:replicas:
    alert_worker: 2
  trading-platform:serviceEnv:
    signal_service: {EXTRA: 1}
`)
	fromYAML, err := settings.FromYAML("dev", "/clone", nil, stackFile)
	require.NoError(t, err)
	fromProgram, err := settings.FromProgram("dev", "/clone", environment(map[string]string{
		"trading-platform:profiles": `["dev","workers"]`, "trading-platform:portOffset": "1000", "trading-platform:retainVolumes": "false",
		"trading-platform:engineApi": "1.41", "trading-platform:namePrefix": "", "trading-platform:images": `{"postgres":"postgres:15"}`,
		"trading-platform:env": `{"DRY_RUN":true,"LOG_LEVEL":"DEBUG"}`, "trading-platform:replicas": `{"alert_worker":2}`,
		"trading-platform:serviceEnv": `{"signal_service":{"EXTRA":1}}`, "docker:host": "unix:///var/run/docker.sock",
	}, nil))
	require.NoError(t, err)
	assert.Equal(t, fromProgram.Config, fromYAML.Config)
	a, err := settings.Load(fromYAML)
	require.NoError(t, err)
	b, err := settings.Load(fromProgram)
	require.NoError(t, err)
	assert.Equal(t, b, a)
}

func TestFromYAMLHidesWhatIsEncrypted(t *testing.T) {
	src, err := settings.FromYAML("dev", "/clone", nil, []byte(`
config:
  trading-platform:POSTGRES_PASSWORD: {secure: AAABBB}
  trading-platform:env:
    LOG_LEVEL: DEBUG
    WEB_CONSOLE_PASSWORD: {secure: AAACCC}
  trading-platform:serviceEnv:
    redis:
      EXTRA: {secure: AAADDD}
`))
	require.NoError(t, err)
	s, err := settings.Load(src)
	require.NoError(t, err)
	assert.Equal(t, settings.Value{Text: "[secret]", Secret: true}, s.Variables["POSTGRES_PASSWORD"])
	assert.Equal(t, settings.Value{Text: "[secret]", Secret: true}, s.Variables["WEB_CONSOLE_PASSWORD"])
	assert.Equal(t, settings.Value{Text: "DEBUG", Secret: true}, s.Variables["LOG_LEVEL"], "as in a program, where the whole map is a secret")
	assert.Equal(t, settings.Value{Text: "[secret]", Secret: true}, s.ServiceEnv["redis"]["EXTRA"])
}

func TestFromYAMLMalformed(t *testing.T) {
	_, err := settings.FromYAML("dev", "/clone", []byte("config: ["), nil)
	assert.ErrorContains(t, err, "Pulumi.yaml: yaml:")
	_, err = settings.FromYAML("dev", "/clone", nil, []byte("config: ["))
	assert.ErrorContains(t, err, "Pulumi.dev.yaml: yaml:")
}

func TestFromFiles(t *testing.T) {
	root := t.TempDir()
	_, err := settings.FromFiles("dev", root, filepath.Join(root, "Pulumi.dev.yaml"))
	require.ErrorContains(t, err, "Pulumi.yaml")

	require.NoError(t, os.WriteFile(filepath.Join(root, "Pulumi.yaml"), []byte("config: {portOffset: {default: 5}, namePrefix: {default: a}}"), 0o600))
	file := filepath.Join(root, "Pulumi.dev.yaml")
	_, err = settings.FromFiles("dev", root, file)
	require.EqualError(t, err, "stack dev has no file "+file+". Fix: write it, or name another stack with -s")

	require.NoError(t, os.WriteFile(file, []byte("config: {trading-platform:namePrefix: b}"), 0o600))
	src, err := settings.FromFiles("dev", root, file)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"portOffset": "5", "namePrefix": "b"}, src.Config, "the stack's over the project's defaults")
}

func project(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../Pulumi.yaml")
	require.NoError(t, err)
	return text
}

func TestTheProjectsDefaultsAreTheProgramsOwn(t *testing.T) {
	load := func(project []byte) *settings.Settings {
		src, err := settings.FromYAML("empty", "/clone", project, nil)
		require.NoError(t, err)
		s, err := settings.Load(src)
		require.NoError(t, err)
		return s
	}
	assert.Equal(t, withoutEmpty(load(nil)), withoutEmpty(load(project(t))))
}

// withoutEmpty makes an empty list or map of a setting the same as none.
func withoutEmpty(s *settings.Settings) *settings.Settings {
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); (f.Kind() == reflect.Map || f.Kind() == reflect.Slice) && f.Len() == 0 {
			f.SetZero()
		}
	}
	return s
}

// The schema and Load must have the same keys: Load would refuse a key that only the
// schema has, and a key that only Load has would not be documented.
func TestTheProjectDescribesEverySetting(t *testing.T) {
	var schema struct {
		Name   string
		Config map[string]map[string]any
	}
	require.NoError(t, yaml.Unmarshal(project(t), &schema))
	assert.Equal(t, settings.Project, schema.Name)
	var keys []string
	for key, k := range schema.Config {
		keys = append(keys, key)
		assert.NotEmpty(t, k["description"], key)
		assert.Contains(t, k, "default", "%s: without one the CLI itself refuses, before the program can list every fault", key)
		assert.NotContains(t, k, "type", "%s: with one the CLI itself refuses", key)
	}
	assert.ElementsMatch(t, []string{
		"profiles", "namePrefix", "bindAddress", "portOffset", "subnet", "nginxAddress", "images", "sourceDir", "envFile", "env",
		"serviceEnv", "replicas", "volumes", "disabled", "expose", "handOver", "retainVolumes", "engineApi", "certsDir", "provider", "identity", "engine", "ignoreCompose", "memory", "dockerRoot",
		"orchestrator", "sharedVolumes", "registry",
	}, keys)
	// Every setting is a field of Settings, except two that only contain variables. Docker is the settings of another namespace.
	fields := reflect.TypeFor[settings.Settings]().NumField() - len([]string{"Stack", "Variables", "Docker"}) + len([]string{"env", "envFile"})
	assert.Len(t, keys, fields)
}

func TestEveryStackFileLoads(t *testing.T) {
	for stack, profiles := range map[string][]string{
		"base": nil, "dev": {"dev"}, "workers": {"workers"}, "mtls": {"mtls"}, "oauth2": {"oauth2"}, "manual": {"manual"},
	} {
		t.Run(stack, func(t *testing.T) {
			src, err := settings.FromFiles(stack, "..", filepath.Join("..", "Pulumi."+stack+".yaml"))
			require.NoError(t, err)
			s, err := settings.Load(src)
			require.NoError(t, err)
			assert.Equal(t, profiles, withoutEmpty(s).Profiles)
		})
	}
}
