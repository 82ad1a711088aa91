//go:build live

package tools

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/settings"
)

// It compiles both programs, which takes a minute or two from nothing.
func TestAReleaseForThisMachine(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	dist := t.TempDir()
	run := func(env []string, command string, args ...string) string {
		t.Helper()
		cmd := exec.Command(command, args...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s %v\n%s", command, args, out)
		return string(out)
	}
	target := runtime.GOOS + "-" + runtime.GOARCH
	platform, plugin := "platform-vunreleased-"+target, "pulumi-resource-docker-v"+settings.OfflineVersion+"-"+target
	run([]string{"DIST=" + dist}, filepath.Join(root, "tools", "release"), "unreleased", strings.Replace(target, "-", "/", 1))

	files, err := os.ReadDir(dist)
	require.NoError(t, err)
	var names []string
	for _, file := range files {
		names = append(names, file.Name())
	}
	assert.ElementsMatch(t, []string{
		platform + ".tar.gz", platform + ".cdx.json", plugin + ".tar.gz", plugin + ".cdx.json", "checksums.txt", "notes.md",
	}, names)
	run(nil, "sh", "-c", `cd "$1" && sha256sum --check --strict checksums.txt && [ "$(wc -l <checksums.txt)" = 4 ]`, "sh", dist)
	notes, err := os.ReadFile(filepath.Join(dist, "notes.md"))
	require.NoError(t, err)
	assert.Contains(t, string(notes), "### Added")
	assert.NotContains(t, string(notes), "Unreleased", "the heading is the release's title")

	run(nil, "tar", "-xzf", filepath.Join(dist, platform+".tar.gz"), "-C", dist, "LICENSE", "platform")
	assert.Regexp(t, `^platform version \S+\n$`, run(nil, filepath.Join(dist, "platform"), "--version"))

	// Pulumi takes the archive as it is.
	home := t.TempDir()
	run(nil, filepath.Join(root, "tools", "build"), "pulumi")
	run([]string{"PULUMI_HOME=" + home, "PULUMI_SKIP_UPDATE_CHECK=true"}, filepath.Join(root, "tools", "bin", "pulumi"),
		"plugin", "install", "resource", "docker", settings.OfflineVersion, "--file", filepath.Join(dist, plugin+".tar.gz"))
	program, err := os.ReadFile(filepath.Join(home, "plugins", "resource-docker-v"+settings.OfflineVersion, "pulumi-resource-docker"))
	require.NoError(t, err)
	assert.Contains(t, string(program), settings.OfflineVersion, "the version that the stacks ask for, which the linker puts in")

	for _, name := range []string{platform, plugin} {
		text, err := os.ReadFile(filepath.Join(dist, name+".cdx.json"))
		require.NoError(t, err)
		var parts struct {
			BomFormat  string
			Components []struct{ Name, Version string }
		}
		require.NoError(t, json.Unmarshal(text, &parts))
		assert.Equal(t, "CycloneDX", parts.BomFormat)
		var modules []string
		for _, c := range parts.Components {
			if assert.NotEmpty(t, c.Version, c.Name) {
				modules = append(modules, c.Name)
			}
		}
		assert.Contains(t, modules, "github.com/moby/moby/client", name)
	}
}
