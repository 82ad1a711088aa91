package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	engines "trading-platform/engine"
	"trading-platform/engine/enginetest"
	"trading-platform/fault"
	"trading-platform/operate"
	"trading-platform/plan"
)

// count returns the number of services in some profiles; the empty one is the base.
func count(profiles ...string) int {
	n := 0
	for _, s := range catalog.Services() {
		if slices.Contains(profiles, s.Profile) {
			n++
		}
	}
	return n
}

// tempClone makes a clone that holds what the command reads, on a machine without
// Pulumi or an engine, and changes into it.
func tempClone(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join("..", "..", "Pulumi*.yaml"))
	require.NoError(t, err)
	require.Len(t, files, 8, "the project and its seven stacks")
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(f)), text, 0o600))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "apps", "reference"), 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "apps", "reference", "Dockerfile"), nil, 0o600))
	t.Setenv("PULUMI_STACK", "")
	t.Setenv("PULUMI_BACKEND_URL", "file://"+t.TempDir())
	t.Setenv("PULUMI_HOME", t.TempDir())
	t.Setenv("PATH", t.TempDir())
	t.Setenv("DOCKER_HOST", "unix:///nonexistent")
	t.Chdir(dir)
	return dir
}

// platform runs the command, and returns its output.
func platform(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := root()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(context.Background())
	return out.String(), err
}

func TestPlan(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string // the beginning of the output
	}{
		"dev goes without saying": {nil, fmt.Sprintf("Stack dev: %d services, profiles: dev\n", count("", "dev"))},
		"base":                    {[]string{"-s", "base"}, fmt.Sprintf("Stack base: %d services, profiles: —\n", count(""))},
		"workers":                 {[]string{"--stack", "workers"}, fmt.Sprintf("Stack workers: %d services, profiles: workers\n", count("", "workers"))},
		"a graph":                 {[]string{"-s", "base", "-o", "mermaid"}, "graph LR\n  postgres\n"},
		"for machines":            {[]string{"-s", "base", "-o", "json"}, "{\n  \"stack\": \"base\",\n"},
		"a Compose file":          {[]string{"-s", "base", "-o", "compose"}, "name: trading_platform\nservices:\n"},
	} {
		t.Run(name, func(t *testing.T) {
			tempClone(t)
			out, err := platform(t, append([]string{"plan"}, test.args...)...)
			require.NoError(t, err)
			assert.Equal(t, test.want, out[:min(len(out), len(test.want))])
			if strings.Contains(name, "machines") {
				assert.True(t, json.Valid([]byte(out)))
			}
		})
	}
}

func TestPlanFromAFolderOfTheClone(t *testing.T) {
	dir := tempClone(t)
	t.Chdir(filepath.Join(dir, "apps", "reference"))
	out, err := platform(t, "plan", "-s", "base")
	require.NoError(t, err)
	assert.Contains(t, out, fmt.Sprintf("Stack base: %d services", count("")))
}

func TestPlanChangesNothing(t *testing.T) {
	dir := tempClone(t)
	before := list(t, dir)
	_, err := platform(t, "plan")
	require.NoError(t, err)
	assert.Equal(t, before, list(t, dir))
	assert.Empty(t, list(t, os.Getenv("PULUMI_HOME")))
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if path != dir {
			out = append(out, path)
		}
		return err
	}))
	return out
}

// A stack with faults has a plan as well, and the faults are printed after it.
func TestPlanWithFaults(t *testing.T) {
	tempClone(t)
	out, err := platform(t, "plan", "-s", "manual")
	assert.Contains(t, out, fmt.Sprintf("Stack manual: %d services", count("", "manual")))
	require.ErrorContains(t, err, "trading-platform:WEB_CONSOLE_PASSWORD: required by web_console, but not set")
	require.ErrorContains(t, err, "Fix: platform init -s manual generates one, or: pulumi config set -s manual --secret WEB_CONSOLE_PASSWORD")
	assert.True(t, strings.HasPrefix(err.Error(), "2 things are wrong"), err.Error())
}

func TestPlanChecksTheRules(t *testing.T) {
	dir := tempClone(t)
	_, err := platform(t, "plan", "-s", "base", "--check")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Pulumi.base.yaml"), []byte("config:\n  trading-platform:images: {redis: \"redis:latest\"}\n"), 0o600))
	_, err = platform(t, "plan", "-s", "base")
	require.NoError(t, err)
	out, err := platform(t, "plan", "-s", "base", "--check")
	assert.Contains(t, out, "Stack base:")
	require.EqualError(t, err, `One thing is wrong, and nothing was changed:
  1. policy pinned-image: service redis runs image redis:latest, which can be another one tomorrow
     Fix: give the image a version as its tag in catalog/base.go, or write there why not: Exceptions: map[Rule]string{"pinned-image": "<reason>"}`)
}

func TestRehearseRefusesAFormatBeforeItBegins(t *testing.T) {
	tempClone(t)
	_, err := platform(t, "rehearse", "-o", "mermaid")
	require.EqualError(t, err, "-o must be text, markdown, json or junit, not mermaid")
}

func TestPlanShowsNoSecret(t *testing.T) {
	dir := tempClone(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Pulumi.mine.yaml"), []byte("config: {trading-platform:POSTGRES_PASSWORD: c4n4ry}"), 0o600))
	for _, format := range []string{"text", "json", "mermaid", "compose"} {
		out, err := platform(t, "plan", "-s", "mine", "-o", format)
		require.NoError(t, err)
		assert.NotContains(t, out, "c4n4ry", format)
	}
}

func TestInvalidArguments(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"an unknown stack":         {[]string{"plan", "-s", "prod"}, "Pulumi.prod.yaml. Fix: write it, or name another stack with -s"},
		"an unknown format":        {[]string{"plan", "-o", "yaml"}, "-o must be text, json, mermaid or compose, not yaml"},
		"an unknown command":       {[]string{"deploy"}, `unknown command "deploy" for "platform"`},
		"an argument too many":     {[]string{"plan", "dev"}, `unknown command "dev" for "platform plan"`},
		"init of an unknown one":   {[]string{"init", "-s", "prod"}, "there is no stack file Pulumi.prod.yaml. Fix: name one of the stacks base, dev, manual, mtls, oauth2, observability, workers"},
		"pulumi without one":       {[]string{"pulumi", "up"}, "there is no pulumi here yet. Fix: make init"},
		"doctor of an unknown one": {[]string{"doctor", "-s", "prod"}, "Pulumi.prod.yaml. Fix: write it"},
		"status of an unknown one": {[]string{"status", "-s", "prod"}, "Pulumi.prod.yaml. Fix: write it"},
		"all without a diff":       {[]string{"plan", "--all"}, "--all needs --diff"},
	} {
		t.Run(name, func(t *testing.T) {
			tempClone(t)
			_, err := platform(t, test.args...)
			assert.ErrorContains(t, err, test.want)
		})
	}
}

func TestOutsideOfAClone(t *testing.T) {
	tempClone(t)
	dir := t.TempDir()
	t.Chdir(dir)
	for _, args := range [][]string{{"plan"}, {"init"}, {"doctor"}, {"status"}, {"env"}, {"pulumi", "up"}} {
		_, err := platform(t, args...)
		require.ErrorContains(t, err, "no Pulumi.yaml in ", args)
		require.ErrorContains(t, err, "or above it. Fix: run this command in a clone of the project")
	}
}

func TestDoctor(t *testing.T) {
	t.Run("nothing in the way, from wherever in the clone", func(t *testing.T) {
		dir := tempClone(t)
		stack := "config: {trading-platform:profiles: [dev], trading-platform:portOffset: 17400, trading-platform:env: {WEB_CONSOLE_USER: a, WEB_CONSOLE_PASSWORD: b}}"
		require.NoError(t, os.WriteFile(filepath.Join(dir, "Pulumi.mine.yaml"), []byte(stack), 0o600))
		t.Setenv("DOCKER_HOST", (&enginetest.Engine{}).Start(t))
		t.Chdir(filepath.Join(dir, "apps"))
		out, err := platform(t, "doctor", "-s", "mine")
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("No problems found for stack mine (%d services).\n", count("", "dev")), out)
	})
	t.Run("faults of the settings, the plan and the engine together", func(t *testing.T) {
		dir := tempClone(t)
		stack := "config: {trading-platform:profiles: [manual], trading-platform:portOffset: 17400, trading-platform:prefix: x}"
		require.NoError(t, os.WriteFile(filepath.Join(dir, "Pulumi.mine.yaml"), []byte(stack), 0o600))
		e := &enginetest.Engine{Containers: []container.Summary{{ID: "x", Names: []string{"/trading_platform_redis"}}}}
		t.Setenv("DOCKER_HOST", e.Start(t))
		out, err := platform(t, "doctor", "-s", "mine")
		assert.Empty(t, out)
		var faults fault.List
		require.ErrorAs(t, err, &faults)
		var where []string
		for _, f := range faults {
			where = append(where, f.Where)
		}
		assert.Equal(t, []string{
			"trading-platform:prefix", "trading-platform:WEB_CONSOLE_PASSWORD", "trading-platform:WEB_CONSOLE_USER", "container trading_platform_redis",
		}, where)
	})
	t.Run("an engine that does not answer is one of them", func(t *testing.T) {
		tempClone(t)
		_, err := platform(t, "doctor", "-s", "manual")
		require.ErrorContains(t, err, "3 things are wrong")
		require.ErrorContains(t, err, "Docker engine: does not answer: ")
		require.ErrorContains(t, err, "Fix: start Docker")
	})
}

func TestStatus(t *testing.T) {
	running := func(name, status string) container.Summary {
		return container.Summary{ID: name, Names: []string{"/trading_platform_" + name}, State: "running", Status: status}
	}
	all := []container.Summary{
		running("postgres", "Up 1 minute (healthy)"), running("redis", "Up 1 minute (healthy)"), running("prometheus", "Up 1 minute (healthy)"),
		running("loki_server", "Up 1 minute (healthy)"), running("promtail", "Up 1 minute (healthy)"), running("grafana", "Up 1 minute (healthy)"),
	}
	healthy := map[string]string{
		"postgres": "healthy", "redis": "healthy", "prometheus": "healthy", "loki_server": "healthy", "promtail": "healthy", "grafana": "healthy",
	}
	t.Run("all healthy", func(t *testing.T) {
		tempClone(t)
		t.Setenv("DOCKER_HOST", (&enginetest.Engine{Containers: all, Health: healthy}).Start(t))
		out, err := platform(t, "status", "-s", "base")
		require.NoError(t, err)
		assert.Equal(t, `SERVICE      CONTAINER                     HEALTH   STATE                  URL
postgres     trading_platform_postgres     healthy  Up 1 minute (healthy)  postgresql://127.0.0.1:5433
redis        trading_platform_redis        healthy  Up 1 minute (healthy)  redis://127.0.0.1:6379
prometheus   trading_platform_prometheus   healthy  Up 1 minute (healthy)  http://127.0.0.1:9090
loki_server  trading_platform_loki_server  healthy  Up 1 minute (healthy)  http://127.0.0.1:3100
promtail     trading_platform_promtail     healthy  Up 1 minute (healthy)  
grafana      trading_platform_grafana      healthy  Up 1 minute (healthy)  http://127.0.0.1:3000
`, out)
	})
	t.Run("what is not", func(t *testing.T) {
		tempClone(t)
		some := append([]container.Summary{}, all[:5]...)
		some[1].State, some[1].Status = "exited", "Exited (1) 2 seconds ago"
		e := &enginetest.Engine{Containers: some, Health: map[string]string{
			"postgres": "healthy", "redis": "healthy", "prometheus": "unhealthy", "loki_server": "starting",
		}}
		t.Setenv("DOCKER_HOST", e.Start(t))
		out, err := platform(t, "status", "-s", "base")
		var code exitCode
		require.ErrorAs(t, err, &code)
		assert.Equal(t, exitCode(1), code)
		health := map[string]string{}
		for _, line := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
			health[strings.Fields(line)[0]] = strings.Fields(line)[2]
		}
		assert.Equal(t, map[string]string{
			"postgres": "healthy", "redis": "stopped", "prometheus": "unhealthy", "loki_server": "starting", "promtail": "none", "grafana": "missing",
		}, health)
		assert.Contains(t, out, "missing    run: make up STACK=")
	})
	t.Run("no engine", func(t *testing.T) {
		tempClone(t)
		_, err := platform(t, "status", "-s", "base")
		require.ErrorContains(t, err, "Docker engine: does not answer: ")
	})
}

func TestEnv(t *testing.T) {
	path := os.Getenv("PATH")
	dir := tempClone(t)
	out, err := platform(t, "env")
	require.NoError(t, err)
	assert.Equal(t, "export PATH="+dir+"/bin/shim:"+dir+"/bin:\"$PATH\"\n", out)

	// The shim passes its arguments on unchanged.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bin", "platform"), []byte("#!/bin/sh\nfor a in \"$@\"; do echo \"<$a>\"; done\n"), 0o700))
	t.Setenv("PATH", path)
	got, err := exec.Command(filepath.Join(dir, "bin", "shim", "pulumi"), "config", "set", "a b", "c\"d").Output()
	require.NoError(t, err)
	assert.Equal(t, "<pulumi>\n<config>\n<set>\n<a b>\n<c\"d>\n", string(got))
}

// TestMain lets tests run this program as a separate process, which commands that replace
// or end their process need.
func TestMain(m *testing.M) {
	if os.Getenv("PLATFORM_TEST_RUN") != "" {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

// process runs the program as a process, and returns its output and its exit code.
func process(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "PLATFORM_TEST_RUN=1")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil {
		require.ErrorAs(t, err, &exit)
	}
	return out.String(), said.String(), cmd.ProcessState.ExitCode()
}

func TestExitCodes(t *testing.T) {
	tempClone(t)
	t.Run("good", func(t *testing.T) {
		stdout, stderr, code := process(t, "plan", "-s", "base", "-o", "mermaid")
		assert.Zero(t, code, stderr)
		assert.Contains(t, stdout, "graph LR")
		assert.Empty(t, stderr)
	})
	t.Run("an error is said once, without the usage", func(t *testing.T) {
		stdout, stderr, code := process(t, "plan", "-s", "prod")
		assert.Equal(t, 1, code)
		assert.Empty(t, stdout)
		assert.Regexp(t, `^platform: stack prod has no file .*/Pulumi\.prod\.yaml\. Fix: write it, or name another stack with -s\n$`, stderr)
	})
	t.Run("a stack that is not healthy needs no message", func(t *testing.T) {
		t.Setenv("DOCKER_HOST", (&enginetest.Engine{}).Start(t))
		stdout, stderr, code := process(t, "status", "-s", "base")
		assert.Equal(t, 1, code)
		assert.Contains(t, stdout, "missing")
		assert.Empty(t, stderr)
	})
	t.Run("an error of pulumi's during init is said", func(t *testing.T) {
		t.Setenv("DOCKER_HOST", (&enginetest.Engine{}).Start(t))
		bin := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(bin, "pulumi"), []byte("#!/bin/sh\necho 'the backend is away' >&2\nexit 3\n"), 0o700))
		t.Setenv("PATH", bin)
		_, stderr, code := process(t, "init", "-s", "base")
		assert.Equal(t, 1, code)
		assert.Contains(t, stderr, "the backend is away")
	})
	assert.Equal(t, "exit code 3", exitCode(3).Error())
}

// The process is replaced by pulumi, after the stack's own file is updated.
func TestPulumi(t *testing.T) {
	dir := tempClone(t)
	bin := t.TempDir()
	script := "#!/bin/sh\necho \"args: $*\"\necho \"backend: $PULUMI_BACKEND_URL\"\necho \"passphrase: $PULUMI_CONFIG_PASSPHRASE_FILE\"\necho \"path: $PATH\"\nexit 42\n"
	require.NoError(t, os.WriteFile(filepath.Join(bin, "pulumi"), []byte(script), 0o700))
	t.Setenv("PATH", bin)
	states := t.TempDir()
	t.Setenv("PULUMI_BACKEND_URL", "file://"+states)
	home := filepath.Join(states, ".pulumi", "trading-platform")
	w, err := here()
	require.NoError(t, err)
	own := w.StackFile("base")
	require.NoError(t, os.MkdirAll(filepath.Dir(own), 0o700))
	require.NoError(t, os.WriteFile(own, []byte("encryptionsalt: v1:x\n"), 0o600))

	stdout, stderr, code := process(t, "pulumi", "config", "-s", "base", "--json")
	assert.Equal(t, 42, code, stderr)
	assert.Equal(t, "args: config --config-file "+own+" -s base --json\n"+
		"backend: file://"+states+"\n"+
		"passphrase: "+filepath.Join(home, "passphrase")+"\n"+
		"path: "+bin+":"+bin+"\n", stdout)
	text, err := os.ReadFile(own)
	require.NoError(t, err)
	assert.YAMLEq(t, "encryptionsalt: v1:x\nconfig: {trading-platform:profiles: []}", string(text), "the tracked file's values came over")
	assert.NoFileExists(t, filepath.Join(dir, "Pulumi.base.yaml.tracked"))

	stdout, _, _ = process(t, "pulumi", "stack", "ls")
	assert.Contains(t, stdout, "args: stack ls\n", "what names no stack goes as it is")
}

func TestOnASwarm(t *testing.T) {
	dir := tempClone(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Pulumi.far.yaml"), []byte("config: {trading-platform:orchestrator: swarm}"), 0o600))
	for _, command := range []string{"logs", "restart redis", "stop redis", "start redis", "upgrade", "forward", "watch", "snapshot save x"} {
		name, _, _ := strings.Cut(strings.TrimSuffix(command, " x"), " redis")
		require.Contains(t, notOnSwarm, name)
		_, err := platform(t, append(strings.Fields(command), "-s", "far")...)
		require.ErrorContains(t, err, "stack far runs on a Swarm, and platform "+name+" does not work there: ")
		require.ErrorContains(t, err, ". Fix: ")
	}
	assert.Len(t, notOnSwarm, 10, "snapshot restore and fork set the stack up first")

	p := &plan.Plan{NamePrefix: "x", Services: []plan.Service{{Name: "redis", Containers: []string{"x_redis.1.abc"}}}}
	found, err := operate.Select(nil, engines.Ref{}, p, []string{"redis"})
	require.NoError(t, err)
	assert.Equal(t, "x_redis.1.abc", found.Containers[0].Name, "Swarm chooses the names of containers")
}
