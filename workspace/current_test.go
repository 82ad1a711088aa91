package workspace

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const cloneVariable = "RENEW_IN_THIS_CLONE"

// TestMain lets a copy of this test's binary act as bin/platform of a clone.
func TestMain(m *testing.M) {
	clone := os.Getenv(cloneVariable)
	if clone == "" {
		os.Exit(m.Run())
	}
	w, err := Open(clone)
	if err == nil {
		err = w.Renew()
	}
	fmt.Println("the old program, current:", err == nil && w.current, "error:", err)
}

// sources writes a clone whose program prints a line.
func sources(t *testing.T, line string) *Workspace {
	t.Helper()
	root := t.TempDir()
	write(t, filepath.Join(root, "go.mod"), "module example\n\ngo 1.26\n")
	write(t, filepath.Join(root, "cmd", "platform", "main.go"), fmt.Sprintf("package main\n\nfunc main() { println(%q) }\n", line))
	write(t, filepath.Join(root, "extra", "extra.go"), "package extra\n")
	w, err := Open(root)
	require.NoError(t, err)
	return w
}

func TestABinaryIsBuiltOnlyAfterAChangeOfItsSources(t *testing.T) {
	w := sources(t, "the new program")
	binary := filepath.Join(w.Root, "bin", "x")
	old := time.Now().Add(-time.Hour)
	touch := func(at time.Time, path ...string) {
		require.NoError(t, os.Chtimes(filepath.Join(append([]string{w.Root}, path...)...), at, at))
	}
	builds := func(want bool, why string) {
		t.Helper()
		built, err := w.build(binary, "./cmd/platform")
		require.NoError(t, err)
		assert.Equal(t, want, built, why)
	}
	builds(true, "there is no binary")
	builds(false, "nothing has changed")
	for _, path := range []string{"README.md", "cmd/platform/main_test.go", "docs/x.go", ".github/x.go", "apps/reference/main.go"} {
		write(t, filepath.Join(w.Root, path), "package main\n")
		touch(time.Now().Add(time.Hour), path)
	}
	touch(old, "cmd", "platform")
	builds(false, "none of these is a source")
	touch(time.Now().Add(time.Minute), "cmd", "platform", "main.go")
	builds(true, "a source has changed")
	builds(false, "a source that is dated in the future is built once")
	require.NoError(t, os.Remove(filepath.Join(w.Root, "extra", "extra.go")))
	touch(time.Now().Add(2*time.Minute), "extra")
	builds(true, "a source was removed")
	write(t, filepath.Join(w.Root, "cmd", "platform", "main.go"), "package main\n\nfunc main() { wrong() }\n")
	touch(time.Now().Add(3*time.Minute), "cmd", "platform", "main.go")
	_, err := w.build(binary, "./cmd/platform")
	require.ErrorContains(t, err, "undefined: wrong")
	assert.FileExists(t, binary, "the last binary stays")
	left, err := filepath.Glob(binary + ".*")
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestAProgramThatIsOlderThanItsCloneRenewsItself(t *testing.T) {
	test, err := os.Executable()
	require.NoError(t, err)
	run := func(w *Workspace, binary string, at time.Time) string {
		text, err := os.ReadFile(test)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(binary), 0o700))
		require.NoError(t, os.WriteFile(binary, text, 0o700))
		require.NoError(t, os.Chtimes(binary, at, at))
		cmd := exec.Command(binary)
		cmd.Env = append(os.Environ(), cloneVariable+"="+w.Root)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err)
		return strings.TrimSpace(string(out))
	}
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	w := sources(t, "the new program")
	own := filepath.Join(w.Root, "bin", "platform")
	assert.Equal(t, "the new program", run(w, own, past))
	assert.Equal(t, "the old program, current: true error: <nil>", run(w, own, future), "it is not older")
	assert.Equal(t, "the old program, current: false error: <nil>", run(w, filepath.Join(t.TempDir(), "platform"), past), "a release, which is not the clone's own")
	write(t, filepath.Join(w.Root, "extra", "wrong.go"), "package")
	write(t, filepath.Join(w.Root, "cmd", "platform", "main.go"), "package main\n\nfunc main() { wrong() }\n")
	assert.Contains(t, run(w, own, past), "undefined: wrong")
}

func TestOnlyThisClonesProgramRunsInThisProcess(t *testing.T) {
	t.Chdir(t.TempDir())
	w := clone(t)
	assert.False(t, w.inProcess("up", nil), "the sources may have changed")
	w.current = true
	assert.True(t, w.inProcess("up", []string{"up", "-s", "dev"}))
	assert.True(t, w.inProcess("preview", []string{"preview"}))
	assert.True(t, w.inProcess("destroy", []string{"destroy"}))
	w.Installed = true
	assert.True(t, w.inProcess("preview", []string{"preview"}))
	assert.False(t, w.inProcess("destroy", []string{"destroy"}), "an old CLI does not have the flag")
	for _, flag := range []string{"-C", "--cwd=/elsewhere", "--cwd", "--client=127.0.0.1:1"} {
		assert.False(t, w.inProcess("up", []string{"up", flag}), flag)
	}
}

func TestTheLastOfTwoVariablesCounts(t *testing.T) {
	getenv := lookup([]string{"A=1", "AB=2", "A=3", "EMPTY="})
	assert.Equal(t, "3", getenv("A"))
	assert.Empty(t, getenv("EMPTY"))
	assert.Empty(t, getenv("B"))
}
