package settings_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/distribution/reference"
	"github.com/joho/godotenv"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/fault"
	"trading-platform/settings"
)

// assertFaults asserts that every fault has a place and a fix.
func assertFaults(t *testing.T, err error) {
	t.Helper()
	var list fault.List
	require.ErrorAs(t, err, &list)
	for _, f := range list {
		assert.True(t, strings.HasPrefix(f.Where, settings.Project+":") && f.What != "" && f.Fix != "", "%+v", f)
	}
}

// FuzzStackFile loads a stack file with any content: it is read, or refused with faults.
func FuzzStackFile(f *testing.F) {
	for _, seed := range []string{
		"config:\n  trading-platform:profiles: [dev]\n  trading-platform:env:\n    WEB_CONSOLE_USER: admin\n",
		"config:\n  trading-platform:POSTGRES_PASSWORD:\n    secure: v1:x\n  trading-platform:replicas: {alert_worker: 2}\n",
		"config:\n  trading-platform:serviceEnv: {redis: {A: 1, B: \"\\0\"}}\n  trading-platform:memory: {redis: 1e9}\n",
		"config:\n  trading-platform:subnet: 10.0.0.0/8\n  trading-platform:nginxAddress: 255.255.255.255\n  trading-platform:engineApi: 1.44\n",
		"config:\n  trading-platform:volumes: {pgdata: x}\n  trading-platform:engine: {id: a, host: b}\n  trading-platform:ignoreCompose: [a]\n",
		"config: [1]\n", "encryptionsalt: v1:x\n", "config:\n  ? {a: b}\n  : c\n", "",
	} {
		f.Add(seed)
	}
	project, err := os.ReadFile("../Pulumi.yaml")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "/dev") || strings.Contains(text, "/proc") {
			return // as a dotenv file, a device that never ends
		}
		src, err := settings.FromYAML("dev", t.TempDir(), project, []byte(text))
		if err != nil {
			return
		}
		set, err := settings.Load(src)
		require.NotNil(t, set)
		if err != nil {
			assertFaults(t, err)
		}
	})
}

// FuzzVariable gives a variable any value, as a separate key, in env and in serviceEnv: it is kept exactly, or refused.
func FuzzVariable(f *testing.F) {
	for _, seed := range []string{
		"hunter2", "two\nlines", "a\r\nb", "it's \"quoted\"", `\`, "$HOME ${HOME} $$", "100%41%", "\x00", "\xff\xfe", " blanks ", "[secret]", "true", "1e3", "null", "~",
		"{secure: x}", "é\u2028", "\ufeff", strings.Repeat("x", 1<<20), strings.Repeat("x", 128<<10-len("POSTGRES_PASSWORD")-2), ":", "- a", "# no comment", "!!binary x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if !utf8.ValidString(value) {
			return // Pulumi replaces what is not UTF-8 before a program sees it; a dotenv file's is refused
		}
		const name = "ALPACA_API_SECRET_KEY"
		nested := func(v any) string {
			text, err := json.Marshal(v)
			require.NoError(t, err)
			return string(text)
		}
		src, err := settings.FromProgram("dev", "/clone", environment(map[string]string{
			settings.Project + ":" + name:        value,
			settings.Project + ":REDIS_PASSWORD": value,
			settings.Project + ":env":            nested(map[string]any{"LOG_LEVEL": value, "POSTGRES_PASSWORD": value}),
			settings.Project + ":serviceEnv":     nested(map[string]any{"redis": map[string]any{"MINE": value}}),
		}, nil))
		require.NoError(t, err)
		set, err := settings.Load(src)
		refused := ""
		if err != nil {
			assertFaults(t, err)
			refused = err.Error()
		}
		for key, got := range map[string]string{
			name: set.Variables[name].Text, "LOG_LEVEL": set.Variables["LOG_LEVEL"].Text, "POSTGRES_PASSWORD": set.Variables["POSTGRES_PASSWORD"].Text,
			"REDIS_PASSWORD": set.Variables["REDIS_PASSWORD"].Text, "serviceEnv.redis.MINE": set.ServiceEnv["redis"]["MINE"].Text,
		} {
			if !strings.Contains(refused, settings.Project+":"+key+": ") {
				assert.Equal(t, value, got, key)
			}
		}
	})
}

// FuzzDotenv reads a dotenv file with any content: a value is what the library reads, or refused.
func FuzzDotenv(f *testing.F) {
	for _, seed := range []string{
		"POSTGRES_PASSWORD=hunter2\n", "export LOG_LEVEL='a b' # c\n", "LOG_LEVEL=\"a\\nb\"\n", "POSTGRES_PASSWORD='a\nb'\n", "LOG_LEVEL=$HOME${X}\n", "LOG_LEVEL: DEBUG\n",
		"=\n", "LOG_LEVEL\n", "LOG_LEVEL='", "\x00=\x00", "LOG_LEVEL=\xff", "# no\r\nLOG_LEVEL=1\r\n", "LOG_LEVEL=" + strings.Repeat("x", 200<<10),
	} {
		f.Add(seed)
	}
	file := filepath.Join(f.TempDir(), ".env")
	f.Fuzz(func(t *testing.T, text string) {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		set, err := load(map[string]string{"envFile": file})
		want, parse := godotenv.Unmarshal(text)
		if parse != nil {
			require.Error(t, err)
			assertFaults(t, err)
			assert.Empty(t, set.Variables)
			return
		}
		refused := ""
		if err != nil {
			assertFaults(t, err)
			refused = err.Error()
		}
		for name, v := range set.Variables {
			assert.Equal(t, want[name], v.Text, name)
			if strings.ContainsRune(v.Text, 0) || len(v.Text) > 128<<10 {
				assert.Contains(t, refused, settings.Project+":"+name+": ")
			}
		}
	})
}

// FuzzNames sets an image and a prefix: the engine accepts every name that the settings accept.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{"redis:7", "blue-", "a.b/c", "localhost", "UPPER", "a__b", "a___b", "registry:5000/x@sha256:" + strings.Repeat("a", 64), "", "é", "a b", strings.Repeat("a", 300)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		images, err := json.Marshal(map[string]string{"redis": name})
		require.NoError(t, err)
		set, err := load(map[string]string{"images": string(images), "namePrefix": name})
		refused := ""
		if err != nil {
			assertFaults(t, err)
			refused = err.Error()
		}
		if image := set.Images["redis"]; image != "" && !strings.Contains(refused, settings.Project+":images.redis: ") {
			_, err := reference.ParseNormalizedNamed(image)
			assert.NoError(t, err)
			assert.False(t, strings.ContainsAny(image, " \t\r\n\x00\"'$`;"), "%q", image)
		}
		if !strings.Contains(refused, settings.Project+":namePrefix: ") {
			_, err := reference.ParseNormalizedNamed(strings.ToLower(set.NamePrefix) + "/backtest_worker:local")
			assert.NoError(t, err)
			assert.Regexp(t, `^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`, set.NamePrefix)
		}
	})
}
