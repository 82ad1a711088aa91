package workspace

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/engine/enginetest"
	"trading-platform/settings"
)

// worktree makes the folders and files by which git knows a linked worktree, and returns both folders.
func worktree(t *testing.T, name string) (root, gitDir string) {
	t.Helper()
	main := t.TempDir()
	root, gitDir = filepath.Join(t.TempDir(), name), filepath.Join(main, ".git", "worktrees", name)
	write(t, filepath.Join(gitDir, "commondir"), "../..\n")
	write(t, filepath.Join(gitDir, "gitdir"), filepath.Join(root, ".git")+"\n")
	write(t, filepath.Join(root, ".git"), "gitdir: "+gitDir+"\n")
	return root, gitDir
}

func TestOnlyALinkedWorktreeHasAStateOfItsOwn(t *testing.T) {
	bare(t)
	backend := os.Getenv("PULUMI_BACKEND_URL")
	open := func(root string) *Workspace {
		w, err := Open(root)
		require.NoError(t, err)
		return w
	}
	main := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(main, ".git"), 0o700))
	submodule := t.TempDir()
	write(t, filepath.Join(submodule, ".git"), "gitdir: ../.git/modules/x\n")
	for name, root := range map[string]string{"a clone": main, "a submodule": submodule, "no repository": t.TempDir()} {
		w := open(root)
		assert.Empty(t, w.Worktree, name)
		assert.Equal(t, backend, w.Backend, name)
	}

	root, gitDir := worktree(t, "Feature X")
	w := open(root)
	assert.Equal(t, gitDir, w.Worktree)
	assert.Regexp(t, "^"+backend+`/.pulumi/trading-platform/worktrees/feature-x-[0-9a-f]{4}$`, w.Backend)
	environ := strings.Join(w.Environ(), "\n")
	assert.Contains(t, environ, "PULUMI_BACKEND_URL="+w.Backend+"\n")
	t.Setenv(AsMainVariable, "1")
	assert.Equal(t, backend, open(root).Backend)
	t.Setenv(AsMainVariable, "")
	t.Setenv("PULUMI_BACKEND_URL", w.Backend) // as its child processes have it
	assert.Equal(t, w.Backend, open(root).Backend)
	t.Setenv("PULUMI_BACKEND_URL", "s3://states")
	assert.Regexp(t, "^file://"+os.Getenv("PULUMI_HOME")+"/trading-platform/worktrees/feature-x-", open(root).Backend)
	other, _ := worktree(t, "Feature X")
	assert.NotEqual(t, w.worktreeName(), open(other).worktreeName(), "of another repository")

	require.NoError(t, os.WriteFile(filepath.Join(root, ".git"), []byte("gitdir: "+gitDir+"/../../worktrees/Feature X\n"), 0o600))
	assert.NotEmpty(t, open(root).Worktree, "a path that is not clean")
}

func TestNamesOfWorktreesAreNamesOnTheEngine(t *testing.T) {
	for _, name := range []string{"plain", "_under_", "ÜBER/straße", "日本", strings.Repeat("long-", 20), "a..b"} {
		w := &Workspace{Worktree: "/main/.git/worktrees/" + name}
		prefix := settings.DefaultPrefix + "-" + w.worktreeName()
		_, err := settings.Load(settings.Source{Stack: "dev", Config: map[string]string{"namePrefix": prefix}})
		assert.NoError(t, err, name)
	}
}

func TestAWorktreeHasAPlaceOfItsOwn(t *testing.T) {
	i := newInit(t, "")
	tracked := read(t, i.w.trackedFile("base"))
	root, _ := worktree(t, "second")
	for _, name := range []string{"Pulumi.yaml", "airgap", "apps"} {
		require.NoError(t, os.Symlink(filepath.Join(i.w.Root, name), filepath.Join(root, name)))
	}
	write(t, filepath.Join(root, "Pulumi.base.yaml"), tracked)
	pulumi := i.w.Pulumi
	w, err := Open(root)
	require.NoError(t, err)
	i.w = w
	i.w.Pulumi, i.w.Installed = pulumi, true

	prefix := "trading_platform-" + w.worktreeName()
	src, err := w.Source("base")
	require.NoError(t, err)
	assert.Equal(t, prefix, src.Config["namePrefix"], "its own names already before its first init, so that status does not show another checkout's")

	require.NoError(t, i.run(t, "base", &enginetest.Engine{Registry: true}))
	assert.Contains(t, i.text(), "this is a worktree, so its stacks have names, ports and a subnet of their own: "+prefix+", ")
	src, err = w.Source("base")
	require.NoError(t, err)
	offset, subnet := src.Config["portOffset"], src.Config["subnet"]
	assert.Regexp(t, `^[12]\d{2}00$`, offset)
	assert.Regexp(t, `^10\.\d+\.\d+\.0/24$`, subnet)
	assert.Equal(t, `["*"]`, src.Config["ignoreCompose"])
	require.NoError(t, i.run(t, "base", &enginetest.Engine{Registry: true}))
	assert.NotContains(t, i.text(), "this is a worktree", "chosen once")

	all, err := w.Worktrees()
	require.NoError(t, err)
	require.Len(t, all, 1)
	assert.Equal(t, subnet, all[0].Subnet)
	assert.Equal(t, offset, strconv.Itoa(all[0].PortOffset))
	assert.Equal(t, root, all[0].Root)
	assert.True(t, all[0].Owns([]string{src.Config["identity"]}))
	assert.False(t, all[0].Owns([]string{src.Config["identity"], "other"}))
	assert.False(t, all[0].Owns([]string{""}), "an object of an earlier version")

	t.Run("what the stack's file says wins", func(t *testing.T) {
		write(t, filepath.Join(root, "Pulumi.base.yaml"), tracked+"  trading-platform:namePrefix: mine\n  trading-platform:portOffset: 5\n")
		require.NoError(t, i.run(t, "base", &enginetest.Engine{Registry: true}))
		src, err := w.Source("base")
		require.NoError(t, err)
		assert.Equal(t, "mine", src.Config["namePrefix"])
		assert.Equal(t, "5", src.Config["portOffset"])
		assert.Equal(t, subnet, src.Config["subnet"])
		write(t, filepath.Join(root, "Pulumi.base.yaml"), tracked)
		require.NoError(t, i.run(t, "base", &enginetest.Engine{Registry: true}))
		src, err = w.Source("base")
		require.NoError(t, err)
		assert.Equal(t, prefix, src.Config["namePrefix"])
		assert.Equal(t, offset, src.Config["portOffset"])
	})
	t.Run("another worktree takes another place", func(t *testing.T) {
		t.Setenv("PULUMI_CONFIG_PASSPHRASE", "the fake CLI knows the stack already")
		require.NoError(t, os.Rename(all[0].State, filepath.Join(w.worktreesDir(), "another")))
		require.NoError(t, i.run(t, "base", &enginetest.Engine{Registry: true}))
		src, err := w.Source("base")
		require.NoError(t, err)
		assert.NotEqual(t, offset, src.Config["portOffset"])
		assert.NotEqual(t, subnet, src.Config["subnet"])
		assert.Equal(t, prefix, src.Config["namePrefix"])
	})
}

func TestGone(t *testing.T) {
	bare(t)
	root, gitDir := worktree(t, "second")
	w, err := Open(root)
	require.NoError(t, err)
	gone := func() bool {
		t.Helper()
		all, err := w.Worktrees()
		require.NoError(t, err)
		require.Len(t, all, 1)
		return all[0].Gone()
	}
	file := filepath.Join(w.worktreesDir(), "x", worktreeFile)
	write(t, file, fmt.Sprintf(`{"Root":%q,"Git":%q}`, root, gitDir))
	assert.False(t, gone(), "it is there")
	moved := root + "-moved"
	require.NoError(t, os.Rename(root, moved))
	write(t, filepath.Join(gitDir, "gitdir"), filepath.Join(moved, ".git")+"\n")
	assert.False(t, gone(), "it was moved")
	require.NoError(t, os.RemoveAll(moved))
	assert.True(t, gone(), "removed by hand")
	write(t, filepath.Join(gitDir, "locked"), "on a disk that is away")
	assert.False(t, gone())
	require.NoError(t, os.RemoveAll(gitDir))
	assert.True(t, gone(), "removed by git")
	require.NoError(t, os.RemoveAll(filepath.Dir(filepath.Dir(gitDir))))
	assert.False(t, gone(), "the repository is away as well, so nobody knows")

	write(t, file, "{")
	_, err = w.Worktrees()
	assert.ErrorContains(t, err, "Fix: delete this file")
}
