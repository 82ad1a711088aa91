//go:build live

package test

import (
	"context"
	"maps"
	"os/exec"
	"strings"
	"testing"
	"time"

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

// health gives a container's health; empty when there is none.
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
