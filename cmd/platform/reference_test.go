package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/workspace"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var write = flag.Bool("write", false, "write docs/commands.md and docs/settings.md anew")

// The references in docs are written from what they describe.
func TestReference(t *testing.T) {
	for page, text := range map[string]string{"commands.md": commands(), "settings.md": allSettings(t)} {
		path := filepath.Join("..", "..", "docs", page)
		text = "<!-- written by go generate ./cmd/platform -->\n" + text
		if *write {
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		}
		file, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, text, string(file), "docs/%s is outdated. Fix: go generate ./cmd/platform", page)
	}
}

// commands is every command of platform, with its flags.
func commands() string {
	var b strings.Builder
	b.WriteString("# The commands of platform\n")
	for _, cmd := range root().Commands() {
		if cmd.IsAvailableCommand() {
			cmd.InitDefaultHelpFlag()
			fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n```\n%s\n\n%s```\n", cmd.CommandPath(), cmp.Or(strings.TrimSuffix(cmd.Long, "."), cmd.Short), cmd.UseLine(), cmd.LocalFlags().FlagUsages())
		}
	}
	return b.String()
}

// allSettings is every setting of a stack, from the project file's descriptions.
func allSettings(t *testing.T) string {
	t.Helper()
	project, err := workspace.LoadProject(filepath.Join("..", "..", "Pulumi.yaml"))
	require.NoError(t, err)
	var b strings.Builder
	b.WriteString("# The settings of a stack\n\nKeys of `Pulumi.<stack>.yaml`, under `config`, with the prefix `trading-platform:`.\n\n| setting | default | what it is |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(project.Config)) {
		setting := project.Config[name]
		value, err := json.Marshal(setting.Default)
		require.NoError(t, err)
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", name, value, strings.ReplaceAll(setting.Description, "|", `\|`))
	}
	return b.String()
}
