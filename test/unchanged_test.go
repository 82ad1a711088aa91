//go:build live

package test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An up or a preview does not run pulumi when everything is as the last up left it, and runs it after any difference.
func TestNothingToChange(t *testing.T) {
	t.Parallel()
	l := newLive(t, prepareClone(t), nil)
	const nothing = "nothing to change"
	run := func(command string) string {
		t.Helper()
		said := l.platform(command)
		require.NoError(t, said.err, said.out)
		return said.out
	}
	settled := func(after string) {
		t.Helper()
		before := l.ids()
		for _, command := range []string{"up", "preview"} {
			assert.Contains(t, run(command), nothing, "%s after %s", command, after)
		}
		assert.Empty(t, l.replaced(before))
	}
	moved := func(line string) string { return testImage(t, "redis", references["redis"], line) }
	dotenv := filepath.Join(t.TempDir(), ".env")
	require.NoError(t, os.WriteFile(dotenv, []byte("POSTGRES_DB=first\n"), 0o600))
	l.configure(map[string]any{"images": merged(images(), "redis", moved("LABEL version=1")), "envFile": dotenv})
	assert.NotContains(t, run("preview"), nothing, "of a stack that is not up")
	assert.NotContains(t, run("up"), nothing)
	settled("the first up")
	assert.Contains(t, run("up -- --diff"), "unchanged", "a user's flag is for pulumi")
	assert.NotContains(t, run("up"), nothing, "what an up with flags covered is not known")
	settled("an up without flags")

	ctx := context.Background()
	for _, difference := range []struct {
		name     string
		make     func()
		replaced []string
	}{
		{"a variable in the stack's file", func() {
			l.configure(map[string]any{"serviceEnv": map[string]any{"redis": map[string]any{"LOG_LEVEL": "DEBUG"}}})
		}, []string{"redis"}},
		{"a variable in the dotenv file", func() { require.NoError(t, os.WriteFile(dotenv, []byte("POSTGRES_DB=other\n"), 0o600)) }, []string{"postgres"}},
		{"a file of the project", func() {
			path := filepath.Join(l.dir, "catalog", "base.go")
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			edited := strings.Replace(string(text), "redis-cli ping | grep -q PONG", "redis-cli -p 6379 ping | grep -q PONG", 1)
			require.NotEqual(t, edited, string(text))
			require.NoError(t, os.WriteFile(path, []byte(edited), 0o600))
		}, []string{"redis"}},
		{"another image of the same name", func() { moved("LABEL version=2") }, []string{"redis"}},
		{"a container that was stopped", func() {
			_, err := engine.ContainerStop(ctx, l.prefix+"_redis", client.ContainerStopOptions{})
			require.NoError(t, err)
		}, nil},
		{"a container that was removed", func() {
			_, err := engine.ContainerRemove(ctx, l.prefix+"_redis", client.ContainerRemoveOptions{Force: true})
			require.NoError(t, err)
		}, []string{"redis"}},
		{"a state that another command has written", func() { run("refresh") }, nil},
	} {
		before := l.ids()
		difference.make()
		assert.NotContains(t, run("preview"), nothing, "preview after %s", difference.name)
		up := run("up")
		assert.NotContains(t, up, nothing, "up after %s", difference.name)
		assert.ElementsMatch(t, difference.replaced, l.replaced(before), "replaced by up after %s:\n%s", difference.name, up)
		settled(difference.name)
	}
}
