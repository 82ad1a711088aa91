//go:build live

package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/joho/godotenv"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/settings"
)

// onlyApps disables every service of the stack dev but the databases and these.
func onlyApps(names ...string) map[string]any {
	names = append(names, "postgres", "redis")
	return map[string]any{"profiles": []string{"dev"}, "disabled": slices.DeleteFunc(catalog.ServiceNames(), func(name string) bool {
		return slices.Contains(names, name)
	})}
}

// localFile writes the clone's platform.local.yaml.
func (l *live) localFile(text string) {
	l.t.Helper()
	require.NoError(l.t, os.WriteFile(filepath.Join(l.dir, catalog.LocalFile), []byte(text), 0o600))
}

// TestDailyLoop adds a step that runs once to a stack, and runs one of its apps on this host.
func TestDailyLoop(t *testing.T) {
	t.Parallel()
	l := newLive(t, prepareClone(t), onlyApps("signal_service", "orchestrator", "execution_gateway"))
	t.Cleanup(func() { _ = os.Remove(filepath.Join(l.dir, catalog.LocalFile)) }) // before its `down`, which is registered earlier
	host := l.url(8001, "/health")

	refused := l.platform("hand-over signal_service")
	require.Error(t, refused.err)
	assert.Contains(t, refused.out, l.prefix+"_signal_service of stack "+l.name+" does not exist. Fix: make up STACK="+l.name)
	assert.Contains(t, l.platform("hand-over signal_servce").out, "did you mean signal_service?")
	l.localFile("services:\n  schema:\n    image: x:1\n    onze: true\n")
	assert.Contains(t, l.platform("plan").out, catalog.LocalFile+":4: no key \"onze\"; did you mean once?")

	step := func(command string) {
		l.localFile(fmt.Sprintf(`services:
  schema:
    image: %s
    once: true
    after: [postgres]
    command: [sh, -c, %q]
    env: [{name: DATABASE_URL, value: "${database_url}"}]
  signal_service: {after: [postgres, redis, schema]}
`, references["postgres"], command))
	}
	const count = `psql -qX "$DATABASE_URL" -c "create table if not exists runs(at timestamptz default now()); insert into runs default values"`
	runs := func() string { return l.sql("select count(*) from runs") }

	t.Run("a step that fails stops what starts after it", func(t *testing.T) {
		l := &live{stack: l.in(t), env: l.env}
		step("echo no such migration; exit 3")
		failed := l.platform("up")
		require.Error(t, failed.err)
		assert.Contains(t, failed.out, l.prefix+"_schema exited with code 3")
		assert.Contains(t, failed.out, "no such migration", "its output")
		assert.NotContains(t, l.names(), "signal_service")
		assert.Regexp(t, `schema +\S+_schema +stopped`, l.platform("status").out)
	})
	t.Run("one that succeeds runs once", func(t *testing.T) {
		l := &live{stack: l.in(t), env: l.env}
		step(count)
		l.must("up")
		assert.Equal(t, "1", runs())
		assert.Regexp(t, `schema +\S+_schema +completed +Exited \(0\)`, l.must("status").out)
		assert.Contains(t, l.must("doctor").out, "No problems found")
		assert.Contains(t, l.must("plan").out, "schema (local)")
		assert.NotContains(t, l.platform("plan", settings.TrackedOnly+"=true").out, "schema")
		assert.Contains(t, l.must("plan -o compose").out, "condition: service_completed_successfully")
		assert.Contains(t, l.must("up").out, "nothing to change")
		before := l.ids()
		l.must("preview -- --expect-no-changes")
		l.must("refresh")
		l.must("up -- --expect-no-changes")
		assert.Empty(t, l.replaced(before))
		l.must("restart redis")
		assert.Equal(t, "1", runs())
		step(count + "; true")
		l.must("up")
		assert.Equal(t, []string{"schema"}, l.replaced(before), "another command runs, and replaces nothing else")
		assert.Equal(t, "2", runs())
	})
	t.Run("an app on this host", func(t *testing.T) {
		l := &live{stack: l.in(t), env: l.env}
		file := filepath.Join(t.TempDir(), ".env")
		before := l.ids()
		start := l.appOnHost("signal_service")
		said := l.must("hand-over signal_service --env-file " + file).out
		assert.Contains(t, said, fmt.Sprintf("start signal_service on this host, at port %d of all addresses", 8001+l.offset))
		assert.Equal(t, []string{"signal_service"}, l.replaced(before))
		info, err := os.Stat(file)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode())
		env, err := godotenv.Read(file)
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("redis://127.0.0.1:%d/0", 6379+l.offset), env["REDIS_URL"])

		orchestrator := func(want int) {
			t.Helper()
			require.Eventually(t, func() bool {
				answer, err := http.Get(l.url(8003, "/health"))
				if err != nil {
					return false
				}
				defer answer.Body.Close()
				return answer.StatusCode == want
			}, time.Minute, 100*time.Millisecond, "the orchestrator, which asks signal_service for its health")
		}
		orchestrator(http.StatusServiceUnavailable)
		app := start(env)
		orchestrator(http.StatusOK)
		assert.Contains(t, l.platform("status").out, fmt.Sprintf("on this host, port %d: platform take-back signal_service", 8001+l.offset))
		handed := l.ids()
		l.must("up")
		assert.Empty(t, l.replaced(handed), "an up of the rest keeps it")
		orchestrator(http.StatusOK)

		taken := l.platform("take-back signal_service")
		require.Error(t, taken.err)
		assert.Contains(t, taken.out, "of signal_service: taken by a program on this host")
		require.NoError(t, app.Process.Signal(syscall.SIGTERM))
		_ = app.Wait()
		l.must("take-back signal_service")
		assert.Equal(t, []string{"signal_service"}, l.replaced(handed))
		orchestrator(http.StatusOK)
		answer, err := http.Get(host)
		require.NoError(t, err)
		answer.Body.Close()
		assert.Equal(t, http.StatusOK, answer.StatusCode)
		handed = l.ids()
		l.must("up")
		assert.Empty(t, l.replaced(handed))
		assert.Equal(t, "2", runs(), "the step has not run again")
	})
}

// appOnHost builds the reference app, and returns what runs it on this host in the place of a service's container, with its variables.
func (l *live) appOnHost(service string) func(env map[string]string) *exec.Cmd {
	l.t.Helper()
	dir := l.t.TempDir()
	binary, contract := filepath.Join(dir, "reference"), filepath.Join(dir, "contract.json")
	runIn(l.t, filepath.Join(root, "apps", "reference"), nil, "go", "build", "-o", binary, ".")
	text, err := json.Marshal(map[string]any{"name": service, "role": "api", "health": fmt.Sprintf("http://%s:%d/health", service, 8001+l.offset)})
	require.NoError(l.t, err)
	require.NoError(l.t, os.WriteFile(contract, text, 0o600))
	return func(env map[string]string) *exec.Cmd {
		cmd := exec.Command(binary, "serve")
		cmd.Env = []string{"CONTRACT=" + contract}
		for name, value := range env {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		log := &lockedBuffer{}
		cmd.Stdout, cmd.Stderr = log, log
		require.NoError(l.t, cmd.Start())
		l.t.Cleanup(func() {
			_ = cmd.Process.Kill()
			if l.t.Failed() {
				l.t.Log(log)
			}
		})
		return cmd
	}
}

// TestWatch saves files of a checkout that a build needs, that are only copied, and that break a build.
func TestWatch(t *testing.T) {
	t.Parallel()
	checkout := newCheckout(t)
	l := newLive(t, prepareClone(t), with(onlyApps("model_registry"), map[string]any{"sourceDir": checkout.dir}))
	t.Cleanup(func() { _ = os.Remove(filepath.Join(l.dir, catalog.LocalFile)) })
	l.localFile("services:\n  model_registry:\n    sync: [{from: apps/model_registry/web, to: /app/web}]\n")
	require.NoError(t, os.Mkdir(checkout.path("apps/model_registry/web"), 0o755))
	l.must("up")
	untouched := l.ids()

	r := l.start("watch")
	t.Cleanup(r.killAll)
	said := func(want string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(r.out.String(), want) }, limit, 50*time.Millisecond, "%q is not in:\n%s", want, r.out)
	}
	said("watching " + checkout.dir)
	updates := 0
	// updated waits for the end of the next update.
	updated := func() {
		t.Helper()
		updates++
		require.Eventually(t, func() bool { return strings.Count(r.out.String(), "updated and healthy after") >= updates }, limit, 20*time.Millisecond, "%s", r.out)
	}
	version := 1
	// save saves a file of the app, and waits until its container runs with it and is healthy.
	save := func() {
		t.Helper()
		version++
		old, began := l.ids()["model_registry"], time.Now()
		checkout.write("apps/model_registry/version", fmt.Sprintln(version))
		for l.health("model_registry") != "healthy" || l.inspect("model_registry").ID == old {
			require.Less(t, time.Since(began), limit, "%s", r.out)
			time.Sleep(20 * time.Millisecond)
		}
		assert.Equal(t, strconv.Itoa(version), l.exec("model_registry", "cat", "/app/version"))
	}
	save()
	updated()
	assert.Equal(t, []string{"model_registry"}, l.replaced(untouched))

	kept := l.ids()
	checkout.write("apps/model_registry/web/index.html", "a page")
	said("copied apps/model_registry/web into model_registry")
	assert.Equal(t, "a page", l.exec("model_registry", "cat", "/app/web/index.html"))
	checkout.write("apps/orchestrator/version", "2\n") // of an app that the stack has not
	good := checkout.read("apps/model_registry/Dockerfile")
	checkout.write("apps/model_registry/Dockerfile", good+"RUN echo no module named alpha >&2 && exit 7\n")
	said("A failed build leaves the container as it was")
	said("no module named alpha")
	assert.Empty(t, l.replaced(kept))
	assert.Equal(t, "healthy", l.health("model_registry"))
	checkout.write("apps/model_registry/Dockerfile", good)
	updated()

	require.NoError(t, r.cmd.Process.Signal(syscall.SIGINT))
	ended := l.wait(r)
	require.NoError(t, ended.err, ended.out)
}
