package workspace

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/engine/enginetest"
	"trading-platform/observe"
	"trading-platform/settings"
)

// bare removes the variables by which the machine's own Pulumi would be found.
func bare(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE", "PULUMI_STACK",
		"PULUMI_SKIP_UPDATE_CHECK", "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION",
	} {
		t.Setenv(name, "") // so that it is put back
		require.NoError(t, os.Unsetenv(name))
	}
	t.Setenv("PULUMI_HOME", t.TempDir())
	t.Setenv("PULUMI_BACKEND_URL", "file://"+t.TempDir())
	t.Setenv("PATH", t.TempDir())
}

// clone opens an empty clone on a machine without Pulumi.
func clone(t *testing.T) *Workspace {
	t.Helper()
	bare(t)
	w, err := Open(t.TempDir())
	require.NoError(t, err)
	return w
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// executable writes a script named pulumi into a folder.
func executable(t *testing.T, dir, script string) string {
	t.Helper()
	path := filepath.Join(dir, "pulumi")
	write(t, path, "#!/bin/sh\n"+script)
	require.NoError(t, os.Chmod(path, 0o700))
	return path
}

func TestBackend(t *testing.T) {
	for name, test := range map[string]struct {
		environment, credentials, want string
	}{
		"Pulumi's own place":           {"", "", "file://~"},
		"where the user is logged in":  {"", `{"current":"s3://states"}`, "s3://states"},
		"as the environment says":      {"file:///states", `{"current":"s3://states"}`, "file:///states"},
		"credentials that say nothing": {"", `{}`, "file://~"},
		"credentials that are none":    {"", `{`, "file://~"},
	} {
		t.Run(name, func(t *testing.T) {
			bare(t)
			t.Setenv("PULUMI_BACKEND_URL", test.environment)
			if test.credentials != "" {
				write(t, filepath.Join(os.Getenv("PULUMI_HOME"), "credentials.json"), test.credentials)
			}
			w, err := Open(t.TempDir())
			require.NoError(t, err)
			assert.Equal(t, test.want, w.Backend)
		})
	}
}

func TestFindPulumi(t *testing.T) {
	bare(t)
	root := t.TempDir()
	open := func(path ...string) *Workspace {
		t.Setenv("PATH", strings.Join(path, string(os.PathListSeparator)))
		w, err := Open(root)
		require.NoError(t, err)
		return w
	}
	w := open(t.TempDir())
	assert.Empty(t, w.Pulumi, "none yet")
	assert.False(t, w.Installed)

	built := executable(t, filepath.Join(root, "tools", "bin"), "")
	shim := executable(t, filepath.Join(root, "bin", "shim"), "")
	w = open(filepath.Dir(shim), filepath.Dir(built))
	assert.Equal(t, built, w.Pulumi, "never our own shim, which would run itself")
	assert.False(t, w.Installed)

	own := executable(t, t.TempDir(), "")
	w = open(filepath.Dir(shim), filepath.Dir(built), filepath.Dir(own))
	assert.Equal(t, own, w.Pulumi)
	assert.True(t, w.Installed)
}

func TestBackendsHaveSeparateFiles(t *testing.T) {
	w := clone(t)
	w.Backend = "file:///states"
	assert.Equal(t, "/states/.pulumi/trading-platform/file-states/Pulumi.dev.yaml", w.StackFile("dev"), "beside the state, whatever PULUMI_HOME says")
	w.Backend = "s3://states?region=x"
	assert.Equal(t, filepath.Join(w.Home, "trading-platform", "s3-states-region-x", "Pulumi.dev.yaml"), w.StackFile("dev"))
	assert.Equal(t, filepath.Join(w.Home, "trading-platform", "s3-states-region-x", "certs", "dev"), w.CertsDir("dev"))
}

func TestConfigFile(t *testing.T) {
	w := clone(t)
	assert.Equal(t, filepath.Join(w.Root, "Pulumi.dev.yaml"), w.ConfigFile("dev"))
	write(t, w.StackFile("dev"), "")
	assert.Equal(t, w.StackFile("dev"), w.ConfigFile("dev"))
}

func TestStacks(t *testing.T) {
	w := clone(t)
	for _, name := range []string{"Pulumi.yaml", "Pulumi.dev.yaml", "Pulumi.base.yaml", "other.yaml"} {
		write(t, filepath.Join(w.Root, name), "")
	}
	assert.Equal(t, []string{"base", "dev"}, w.Stacks())
}

func TestPassphrase(t *testing.T) {
	for name, test := range map[string]struct {
		backend     string
		environment map[string]string
		made        bool
	}{
		"for local state":                     {"file://" + t.TempDir(), nil, true},
		"for state in a bucket":               {"s3://states", nil, true},
		"not where the backend keeps secrets": {"https://api.pulumi.com", nil, false},
		"not where the user has one":          {"file://" + t.TempDir(), map[string]string{"PULUMI_CONFIG_PASSPHRASE": "mine"}, false},
		"not where the user wants none":       {"file://" + t.TempDir(), map[string]string{"PULUMI_CONFIG_PASSPHRASE": ""}, false},
		"not where the user has a file":       {"file://" + t.TempDir(), map[string]string{"PULUMI_CONFIG_PASSPHRASE_FILE": "/mine"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := clone(t)
			w.Backend = test.backend
			for key, value := range test.environment {
				t.Setenv(key, value)
			}
			r := &run{Workspace: w, stack: "dev", say: func(string) {}}
			require.NoError(t, r.ensurePassphrase(t.Context()))
			if !test.made {
				assert.NoFileExists(t, w.passphraseFile())
				return
			}
			info, err := os.Stat(w.passphraseFile())
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
			folder, err := os.Stat(filepath.Dir(w.passphraseFile()))
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o700), folder.Mode().Perm())
			first := read(t, w.passphraseFile())
			r.state = &observe.State{}
			require.NoError(t, r.ensurePassphrase(t.Context()), "it is there")
			assert.Equal(t, first, read(t, w.passphraseFile()), "another would lock the state")
		})
	}
}

// With a new passphrase the user could not decrypt a state that was encrypted with another.
func TestAPassphraseThatIsElsewhere(t *testing.T) {
	w := clone(t)
	err := (&run{Workspace: w, stack: "dev", state: &observe.State{}}).ensurePassphrase(t.Context())
	require.ErrorContains(t, err, "stack dev: its state in "+w.Backend+" is encrypted, and the passphrase is not in "+w.passphraseFile())
	require.ErrorContains(t, err, "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE")
	assert.NoFileExists(t, w.passphraseFile())
}

func TestLocks(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	ended := exec.Command("true")
	require.NoError(t, ended.Run())
	for name, test := range map[string]struct {
		content string
		cleared bool
		refused string
	}{
		"of a process that is gone":      {fmt.Sprintf(`{"pid":%d,"username":"me","hostname":%q,"timestamp":"2026-01-02T03:04:05Z"}`, ended.Process.Pid, host), true, ""},
		"of one whose number is another": {fmt.Sprintf(`{"pid":%d,"username":"me","hostname":%q,"timestamp":"2026-01-02T03:04:05Z"}`, os.Getpid(), host), true, ""},
		"on another host":                {`{"pid":77,"username":"you","hostname":"elsewhere","timestamp":"2026-01-02T03:04:05Z"}`, false, "process 77 of you on elsewhere, since "},
		"that was just being written":    {"", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := clone(t)
			t.Setenv("PATH", "/usr/bin:/bin") // for ps
			file := filepath.Join(w.local("locks", "organization", settings.Project, "dev"), "a.json")
			write(t, file, test.content)
			said := ""
			err := (&run{Workspace: w, stack: "dev", say: func(line string) { said += line }}).clearLock()
			if test.refused != "" {
				require.ErrorContains(t, err, test.refused)
				assert.FileExists(t, file)
				return
			}
			require.NoError(t, err)
			assert.NoFileExists(t, file)
			assert.Contains(t, said, "cleared the lock of a run that was killed")
		})
	}
}

func TestADamagedState(t *testing.T) {
	for name, test := range map[string]struct{ state, copied, want, said string }{
		"whole":                           {`{"version": 3}`, `{"version": 2}`, `{"version": 3}`, ""},
		"cut short":                       {`{"versi`, `{"version": 2}`, `{"version": 2}`, "Pulumi's last copy takes its place"},
		"cut short, and the copy as well": {`{"versi`, `{"v`, "", "is rebuilt from the engine"},
		"emptied, and there is no copy":   {"", "", "", "is rebuilt from the engine"},
	} {
		t.Run(name, func(t *testing.T) {
			w := clone(t)
			file := w.local("stacks", settings.Project, "dev.json")
			write(t, file, test.state)
			if test.copied != "" {
				write(t, file+".bak", test.copied)
			}
			said := ""
			require.NoError(t, (&run{Workspace: w, stack: "dev", say: func(line string) { said += line }}).repairState())
			assert.Contains(t, said, test.said)
			if test.want == "" {
				assert.NoFileExists(t, file)
			} else {
				assert.Equal(t, test.want, read(t, file))
			}
			aside, err := filepath.Glob(file + ".damaged-*")
			require.NoError(t, err)
			assert.Len(t, aside, map[bool]int{true: 1}[test.said != ""], "nothing is thrown away")
		})
	}
}

func TestRandomSecret(t *testing.T) {
	a, err := base64.StdEncoding.DecodeString(RandomSecret())
	require.NoError(t, err)
	assert.Len(t, a, 32, "a key for AES-256")
	first := RandomSecret()
	assert.NotEqual(t, first, RandomSecret())
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	require.NoError(t, writeFile(path, []byte("one")))
	require.NoError(t, os.Chmod(path, 0o644))
	require.NoError(t, writeFile(path, []byte("two")))
	assert.Equal(t, "two", read(t, path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, left, 1, "nothing half written is left")
	assert.Error(t, writeFile(filepath.Join(path, "under-a-file"), nil))
}

func TestStackOf(t *testing.T) {
	for args, want := range map[string]string{
		"up -s dev":            "dev",
		"up -s=dev":            "dev",
		"up -sdev":             "dev",
		"up --stack dev":       "dev",
		"up --stack=dev --yes": "dev",
		"--stack dev up":       "dev",
		"up":                   "from-environment",
		"up -s":                "from-environment",
		"up --skip-preview":    "from-environment",
	} {
		t.Run(args, func(t *testing.T) {
			t.Setenv("PULUMI_STACK", "from-environment")
			assert.Equal(t, want, stackOf(strings.Fields(args)))
		})
	}
}

func TestPulumiArgs(t *testing.T) {
	w := clone(t)
	write(t, w.StackFile("dev"), "")
	own := "--config-file " + w.StackFile("dev")
	for name, test := range map[string]struct{ stack, args, want string }{
		"up":                             {"dev", "up -s dev", "up " + own + " -s dev"},
		"flags before":                   {"dev", "-s dev --non-interactive preview --diff", "-s dev --non-interactive preview " + own + " --diff"},
		"config set":                     {"dev", "config set -s dev a b", "config " + own + " set -s dev a b"},
		"refresh":                        {"dev", "refresh", "refresh " + own},
		"destroy":                        {"dev", "destroy", "destroy " + own},
		"a command that takes no file":   {"dev", "stack output -s dev", "stack output -s dev"},
		"stack import":                   {"dev", "stack import -s dev --file a.json", "stack import -s dev --file a.json"},
		"a file of the user's":           {"dev", "up --config-file mine", "up --config-file mine"},
		"a file of the user's, with a =": {"dev", "up --config-file=mine", "up --config-file=mine"},
		"no stack":                       {"", "up", "up"},
		"a stack without a file":         {"prod", "up -s prod", "up -s prod"},
		"no arguments":                   {"dev", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			args := strings.Fields(test.args)
			assert.Equal(t, strings.Fields(test.want), append([]string{}, w.pulumiArgs(test.stack, args)...))
			assert.Equal(t, strings.Fields(test.args), append([]string{}, args...), "the caller's stay theirs")
		})
	}
}

func TestEnviron(t *testing.T) {
	environ := func(w *Workspace) map[string]string {
		out := map[string]string{}
		for _, e := range w.Environ() {
			name, value, _ := strings.Cut(e, "=")
			_, twice := out[name]
			assert.False(t, twice, "%s stands twice, and which counts is up to the program", name)
			out[name] = value
		}
		return out
	}
	t.Run("on a machine that brought no Pulumi", func(t *testing.T) {
		w := clone(t)
		w.Pulumi = "/tools/bin/pulumi"
		got := environ(w)
		assert.Equal(t, w.Backend, got["PULUMI_BACKEND_URL"])
		assert.Equal(t, w.passphraseFile(), got["PULUMI_CONFIG_PASSPHRASE_FILE"])
		assert.Equal(t, "true", got["PULUMI_SKIP_UPDATE_CHECK"])
		assert.Equal(t, "true", got["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"])
		assert.Equal(t, "/tools/bin:"+os.Getenv("PATH"), got["PATH"], "the language host lies beside the CLI")
	})
	t.Run("what the user has set stays", func(t *testing.T) {
		w := clone(t)
		w.Pulumi, w.Installed = "/usr/bin/pulumi", true
		t.Setenv("PULUMI_BACKEND_URL", "s3://mine")
		t.Setenv("PULUMI_CONFIG_PASSPHRASE", "")
		got := environ(w)
		assert.Equal(t, "s3://mine", got["PULUMI_BACKEND_URL"])
		assert.NotContains(t, got, "PULUMI_CONFIG_PASSPHRASE_FILE")
		assert.NotContains(t, got, "PULUMI_SKIP_UPDATE_CHECK")
	})
	t.Run("a backend that keeps secrets needs no passphrase", func(t *testing.T) {
		w := clone(t)
		w.Backend = "https://api.pulumi.com"
		assert.NotContains(t, environ(w), "PULUMI_CONFIG_PASSPHRASE_FILE")
	})
}

func TestInitOfAnUnknownStack(t *testing.T) {
	w := clone(t)
	write(t, filepath.Join(w.Root, "Pulumi.dev.yaml"), "")
	write(t, filepath.Join(w.Root, "Pulumi.base.yaml"), "")
	err := w.Init(context.Background(), "prod", false, func(string) {})
	require.EqualError(t, err, "there is no stack file Pulumi.prod.yaml. Fix: name one of the stacks base, dev, or copy the file of one of them")
}

func TestInitWithoutAnEngine(t *testing.T) {
	w := clone(t)
	write(t, filepath.Join(w.Root, "Pulumi.yaml"), "")
	write(t, filepath.Join(w.Root, "Pulumi.dev.yaml"), "")
	t.Setenv("DOCKER_HOST", "unix:///nonexistent")
	err := w.Init(context.Background(), "dev", false, func(string) {})
	require.ErrorContains(t, err, "Docker engine: does not answer: ")
	entries, err := os.ReadDir(w.Home)
	require.NoError(t, err)
	assert.Empty(t, entries, "nothing was put in place")
}

func TestInitWithAPulumiThatFails(t *testing.T) {
	w := clone(t)
	write(t, filepath.Join(w.Root, "Pulumi.yaml"), "name: trading-platform")
	write(t, filepath.Join(w.Root, "Pulumi.dev.yaml"), "")
	t.Setenv("DOCKER_HOST", (&enginetest.Engine{}).Start(t))
	w.Pulumi, w.Installed = executable(t, t.TempDir(), "echo 'the backend is away' >&2\nexit 3"), true
	err := w.Init(context.Background(), "dev", false, func(string) {})
	require.ErrorContains(t, err, "stack export -s dev: exit status 3\nthe backend is away")
}

func TestAStackFileThatIsEmptyCanBeSet(t *testing.T) {
	w := clone(t)
	write(t, w.StackFile("dev"), "")
	f, err := w.load("dev")
	require.NoError(t, err)
	assert.Nil(t, f.get("provider"))
	f.set("provider", "offline")
	require.NoError(t, w.save("dev", f))
	assert.YAMLEq(t, "config: {trading-platform:provider: offline}", read(t, w.StackFile("dev")))
}

func TestAirgapIsRemembered(t *testing.T) {
	for name, test := range map[string]struct {
		file string
		want bool
	}{
		"no images":       {"config: {}", false},
		"a registry's":    {"config: {trading-platform:images: {postgres: postgres:15}}", false},
		"air-gap images":  {"config: {trading-platform:images: {redis: redis:7, postgres: trading-platform-airgap/postgres:15-abc}}", true},
		"what is no name": {"config: {trading-platform:images: {postgres: 15}}", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := clone(t)
			write(t, w.StackFile("dev"), test.file)
			f, err := w.load("dev")
			require.NoError(t, err)
			assert.Equal(t, test.want, f.airgapped())
		})
	}
}

// The user's own image takes the place of an air-gap image, also that of the reference app.
func TestAirgapKeepsTheUsersImages(t *testing.T) {
	for given, kept := range map[string]bool{"registry.example/app:1": true, "trading-platform-airgap/reference:old": false} {
		w := clone(t)
		write(t, w.StackFile("dev"), "config: {trading-platform:images: {reference: '"+given+"', redis: '"+given+"'}}")
		f, err := w.load("dev")
		require.NoError(t, err)
		root, err := filepath.Abs("..")
		require.NoError(t, err)
		w.Root = root
		r := &run{Workspace: w, stack: "dev", file: f, say: func(string) {}}
		require.NoError(t, r.useAirgap())
		images := f.get("images").(map[string]any)
		for _, name := range []string{"reference", "redis"} {
			assert.Equal(t, kept, images[name] == given, "%s: %v", name, images[name])
		}
		assert.True(t, isAirgap(images["postgres"]))
	}
}

// secretsOf runs makeSecrets with a fake CLI that records its input, and returns that and the messages.
func secretsOf(t *testing.T, config string) (told, said string) {
	t.Helper()
	w := clone(t)
	project, err := os.ReadFile("../Pulumi.yaml")
	require.NoError(t, err)
	write(t, filepath.Join(w.Root, "Pulumi.yaml"), string(project))
	write(t, w.StackFile("oauth2"), config)
	log := filepath.Join(t.TempDir(), "log")
	w.Pulumi = executable(t, t.TempDir(), `read -r value; echo "$@ <- $value" >> `+log)
	stdin, err := os.Open(w.StackFile("oauth2")) // nobody to ask
	require.NoError(t, err)
	terminal := os.Stdin
	os.Stdin = stdin
	t.Cleanup(func() { os.Stdin = terminal; _ = stdin.Close() })
	var lines []string
	engine, err := client.New(client.WithHost((&enginetest.Engine{}).Start(t)))
	require.NoError(t, err)
	r := &run{Workspace: w, stack: "oauth2", engine: engine, say: func(line string) { lines = append(lines, line) }}
	require.NoError(t, r.makeSecrets(t.Context()))
	if exists(log) {
		told = read(t, log)
	}
	return told, strings.Join(lines, "\n")
}

func TestSecretsAreGenerated(t *testing.T) {
	told, said := secretsOf(t, "config: {trading-platform:profiles: [oauth2]}")
	values := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(told), "\n") {
		command, value, _ := strings.Cut(line, " <- ")
		words := strings.Fields(command)
		assert.Equal(t, []string{"config", "set", "-s", "oauth2", "--config-file"}, words[:5])
		assert.Equal(t, "--secret", words[6])
		values[words[7]] = value
	}
	assert.Equal(t, "admin", values["WEB_CONSOLE_USER"])
	for _, name := range []string{"POSTGRES_PASSWORD", "GF_SECURITY_ADMIN_PASSWORD", "WEB_CONSOLE_PASSWORD"} {
		assert.Regexp(t, "^[A-Za-z0-9_-]{32}$", values[name], "%s fits a URL and a shell", name)
	}
	key, err := base64.StdEncoding.DecodeString(values["SESSION_ENCRYPTION_KEY"])
	require.NoError(t, err)
	assert.Len(t, key, 32)
	for _, value := range []string{values["POSTGRES_PASSWORD"], values["SESSION_ENCRYPTION_KEY"]} {
		assert.NotContains(t, said, value)
	}
	assert.Contains(t, said, "generated secrets of stack oauth2: ")
	assert.Contains(t, said, "you still have to set: "+settings.SetSecretCommand("oauth2", "AUTH0_CLIENT_SECRET"))
	assert.Contains(t, said, "you still have to set: "+settings.SetCommand("oauth2", "AUTH0_DOMAIN", "<value>"))
}

func TestNoSecretIsGeneratedIfNoneIsMissing(t *testing.T) {
	told, said := secretsOf(t, "config: {trading-platform:profiles: []}")
	assert.Empty(t, told)
	assert.Empty(t, said)
}

func TestLocalStateIsReadFromItsFile(t *testing.T) {
	w := clone(t)
	w.Pulumi = executable(t, t.TempDir(), "echo from the CLI\n")
	r := &run{Workspace: w, stack: "dev"}
	export := func() string {
		t.Helper()
		text, err := r.export(t.Context())
		require.NoError(t, err)
		return strings.TrimSpace(string(text))
	}
	file := w.local("stacks", settings.Project, "dev.json")
	assert.Equal(t, "from the CLI", export(), "there is no file")
	write(t, file, `{"version":3,"checkpoint":{"stack":"dev","latest":{"resources":[]}}}`)
	assert.JSONEq(t, `{"version":3,"deployment":{"resources":[]}}`, export())
	write(t, file, `{"version":3,"checkpoint":{"stack":"dev"}}`)
	assert.Equal(t, "from the CLI", export(), "a stack that was never up")
	write(t, file+".gz", "compressed")
	write(t, file, `{"version":3,"checkpoint":{"latest":{"resources":[]}}}`)
	assert.Equal(t, "from the CLI", export(), "Pulumi compresses the state, and the file is an old one")
}
