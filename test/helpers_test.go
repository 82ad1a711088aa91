//go:build live || official

package test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trading-platform/catalog/catalogtest"
	"trading-platform/certs"
	"trading-platform/settings"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// in is the stack for a subtest, whose failure then is that subtest's.
func (s *stack) in(t *testing.T) *stack {
	one := *s
	one.t = t
	return &one
}

// eventually waits, a minute at most, until a statement in the stack's database answers what is wanted.
func (s *stack) eventually(want, statement string) {
	s.t.Helper()
	require.EventuallyWithT(s.t, func(c *assert.CollectT) {
		got, err := s.trySQL(statement)
		assert.NoError(c, err)
		assert.Equal(c, want, got)
	}, time.Minute, 200*time.Millisecond, statement)
}

// merged is a map with one more entry.
func merged(m map[string]any, key string, value any) map[string]any {
	m = maps.Clone(m)
	m[key] = value
	return m
}

// testImage makes an image of a base and a line of Dockerfile, for one test.
func testImage(t testing.TB, name, base, line string) string {
	t.Helper()
	tag := runID + "/" + name + ":" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	t.Cleanup(func() { _, _ = docker("rmi", "-f", tag) })
	buildImage(t, tag, "FROM "+base+"\n"+line+"\n")
	return tag
}

// buildImage builds a Dockerfile that needs no files.
func buildImage(t testing.TB, tag, dockerfile string) {
	t.Helper()
	build := exec.Command("docker", "build", "-q", "-t", tag, "-")
	build.Stdin = strings.NewReader(dockerfile)
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
}

// clone makes the stack's folder a clone of the checkout, with the stack's place committed in its tracked file.
func (s *stack) clone() {
	s.t.Helper()
	runIn(s.t, root, nil, "git", "clone", "-q", root, s.dir)
	s.configure(s.place())
	runIn(s.t, s.dir, nil, "git", "-c", "user.name=Tester", "-c", "user.email=tester@example.com", "commit", "-qam", "The place of this test")
}

// makeDown is a person's last command, and removes what it leaves: the volumes.
func (s *stack) makeDown(env []string) {
	down := exec.Command("make", "down", "STACK="+s.name)
	down.Dir, down.Env = s.dir, env
	out, err := down.CombinedOutput()
	assert.NoError(s.t, err, string(out))
	assert.Empty(s.t, s.names())
	s.sweep()
}

// health returns a container's health; empty when there is none.
func (s *stack) health(service string) string {
	c, err := s.engine.ContainerInspect(context.Background(), s.prefix+"_"+service, client.ContainerInspectOptions{})
	if err != nil || !c.Container.State.Running || c.Container.State.Health == nil {
		return ""
	}
	return string(c.Container.State.Health.Status)
}

// cloneOfCheckout copies the files that git tracks, as they are in the work tree.
func cloneOfCheckout(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	copyAll := exec.Command("sh", "-c", `git ls-files -z | xargs -0 tar -cf - | tar -xf - -C "$0"`, dir)
	copyAll.Dir = root
	out, err := copyAll.CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}

// databases is the smallest stack: what a test of one behaviour needs of the base.
var databases = map[string]any{"disabled": catalogtest.BaseWithout("postgres", "redis")}

// secrets are what `platform init` makes up for a secured stack.
var secrets = func() map[string]any {
	values := map[string]any{}
	for name, value := range catalogtest.Required(map[string]string{
		"POSTGRES_PASSWORD": "only-in-this-test", "GF_SECURITY_ADMIN_PASSWORD": "only-in-this-test",
		"WEB_CONSOLE_USER": "admin", "WEB_CONSOLE_PASSWORD": "only-in-this-test",
	}) {
		values[name] = value
	}
	return values
}()

// with is a map with another laid over it.
func with(m, over map[string]any) map[string]any {
	m = maps.Clone(m)
	maps.Copy(m, over)
	return m
}

// makeCerts makes a folder of certificates as `platform certs` does.
func makeCerts(t testing.TB, now time.Time, clients ...string) string {
	t.Helper()
	dir := t.TempDir()
	ensureCerts(t, dir, now, clients...)
	return dir
}

func ensureCerts(t testing.TB, dir string, now time.Time, clients ...string) {
	t.Helper()
	_, err := certs.Ensure(dir, certs.Options{
		Stack: "test", Names: []string{settings.PublicHost, "localhost", "127.0.0.1"}, Clients: clients, Now: now,
	})
	require.NoError(t, err)
}

// runIn runs a command that must succeed, and gives what it printed.
func runIn(t testing.TB, dir string, env []string, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, env
	// The command is looked for where the environment says.
	for _, e := range env {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			for _, d := range filepath.SplitList(path) {
				if _, err := os.Stat(filepath.Join(d, command[0])); err == nil {
					cmd.Path, cmd.Err = filepath.Join(d, command[0]), nil
				}
			}
		}
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s\n%s", strings.Join(command, " "), out)
	return string(out)
}

// assertAllHealthy asserts that the stack consists of these services, all healthy.
func assertAllHealthy(t *testing.T, s *stack, services ...string) {
	t.Helper()
	require.NotEmpty(t, services)
	assert.ElementsMatch(t, services, s.names())
	for _, name := range services {
		assert.Equal(t, "healthy", s.health(name), name)
	}
}

// assertHealthy asserts that the stack consists of the containers of its plan, all healthy.
func assertHealthy(t *testing.T, s *stack) {
	t.Helper()
	assertAllHealthy(t, s, s.services()...)
}
