//go:build live

package test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestImagesByName shows that people see an image's name, and that another image under
// the same name replaces exactly the containers that run it.
func TestImagesByName(t *testing.T) {
	t.Parallel()
	s := newStack(t, "base", databases)
	redis := testImage(t, "byname", references["redis"], "LABEL edition=first")
	s.configure(map[string]any{"images": merged(images(), "redis", redis)})
	s.up()
	s.unchanged("right after up")
	out, err := exec.Command("docker", "ps", "--format", "{{.Names}} {{.Image}}", "--filter", "name="+s.prefix+"_").CombinedOutput()
	require.NoError(t, err, string(out))
	assert.ElementsMatch(t, []string{s.prefix + "_postgres " + references["postgres"], s.prefix + "_redis " + redis},
		strings.Split(strings.TrimSpace(string(out)), "\n"), "docker ps")

	before := s.ids()
	require.Equal(t, redis, testImage(t, "byname", references["redis"], "LABEL edition=second"))
	s.refresh()
	s.up()
	assert.Equal(t, []string{"redis"}, s.replaced(before))
	assert.Equal(t, "second", s.inspect("redis").Config.Labels["edition"])
	s.unchanged("after the replacement")
}
