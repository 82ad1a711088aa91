package test

import (
	"maps"
	"os/exec"
	"strings"
	"testing"
	"time"

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
		assert.Equal(c, want, s.sql(statement))
	}, time.Minute, 200*time.Millisecond, statement)
}

// merged is a map with one more entry.
func merged(m map[string]any, key string, value any) map[string]any {
	m = maps.Clone(m)
	m[key] = value
	return m
}

// testImage makes an image of a base and a line of Dockerfile, for one test.
func testImage(t *testing.T, name, base, line string) string {
	t.Helper()
	tag := "tptest/" + name + ":" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	build := exec.Command("docker", "build", "-q", "-t", tag, "-")
	build.Stdin = strings.NewReader("FROM " + base + "\n" + line + "\n")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", tag).Run() })
	return tag
}

// cloneOfCheckout copies the files that git tracks, as they are in the work tree.
func cloneOfCheckout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	copyAll := exec.Command("sh", "-c", `git ls-files -z | xargs -0 tar -cf - | tar -xf - -C "$0"`, dir)
	copyAll.Dir = root
	out, err := copyAll.CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}
