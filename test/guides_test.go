//go:build live

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFromCompose runs every command that README gives in the place of one of Compose's, in README's order.
func TestFromCompose(t *testing.T) {
	t.Parallel()
	l := newLive(t, prepareClone(t), nil)
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	_, table, found := strings.Cut(string(text), "## From Docker Compose\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| `docker compose [^`]*` \\| (.*) \\|$").FindAllStringSubmatch(table, -1)
	require.Greater(t, len(rows), 10)
	for _, row := range rows {
		for _, command := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			l.types(strings.Replace(command[1], " -f ", " ", 1)) // a follower of logs has no end of its own
			if command[1] == "make up" {
				l.fill()
			}
		}
	}
	assert.Empty(t, l.containers())
	assert.Empty(t, l.volumes(), "what purge is for")
}

// TestGuides runs the code blocks of the guides, in their order, each guide on a dev stack of its own with rows in its databases.
func TestGuides(t *testing.T) {
	t.Parallel()
	clone := prepareClone(t)
	for page, check := range map[string]func(*testing.T, *live){
		"from-compose.md": func(t *testing.T, l *live) {
			assert.Empty(t, l.containers())
		},
		"run-it-for-others.md": func(t *testing.T, l *live) {
			assert.Equal(t, l.rows, l.contents())
			l.converges()
		},
	} {
		t.Run(page, func(t *testing.T) {
			l := newLive(t, clone, map[string]any{
				"profiles": []string{"dev"}, "disabled": []string{"grafana"},
				"env": map[string]any{"WEB_CONSOLE_USER": "admin", "WEB_CONSOLE_PASSWORD": "admin"}, // as in Pulumi.dev.yaml
			})
			runIn(t, clone, nil, "sh", "-ec", "git init -q && git add -A && git add -f "+filepath.Base(l.file())+" && git -c user.name=test -c user.email=test@example.org commit -qm base")
			text, err := os.ReadFile(filepath.Join(root, "docs/guides", page))
			require.NoError(t, err)
			up := l.platform("up")
			require.NoError(t, up.err, up.out)
			l.fill()
			blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1)
			require.NotEmpty(t, blocks)
			for _, block := range blocks {
				for line := range strings.Lines(block[1]) {
					l.types(strings.TrimSpace(line))
				}
			}
			check(t, l)
		})
	}
}

// types runs a line of the documentation as a person does, on the stack of the test in the place of dev.
func (l *live) types(line string) {
	l.t.Helper()
	line = strings.ReplaceAll(line, " -s dev", " -s "+l.name)
	if !strings.Contains(line, " -s ") {
		line = regexp.MustCompile("bin/platform [a-z]+").ReplaceAllString(line, "$0 -s "+l.name)
	}
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir, cmd.Env = l.dir, slices.Concat(l.env, []string{"STACK=" + l.name})
	out, err := cmd.CombinedOutput()
	require.NoError(l.t, err, "%s\n%s", line, out)
}
