//go:build live

// Package preview tests what a pull request shows, in clones of the checkout as it
// is: the plan's difference for branches that a person might make, the preview of
// all stacks, and the workflow's own shell steps. It needs git and an engine.
package preview

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What all tests share, made once by TestMain.
var (
	root     string // the checkout
	origin   string // a repository with one commit: the checkout as it is, edits included
	platform string // the checkout's command, compiled
)

func TestMain(m *testing.M) {
	// The workflow's `gh` is this very program under that name.
	if filepath.Base(os.Args[0]) == "gh" {
		os.Exit(standInGitHub(os.Args[1:]))
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	var err error
	if root, err = filepath.Abs("../.."); err != nil {
		return 0, err
	}
	temp, err := os.MkdirTemp("", "platform-test-preview-*")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	origin, platform = filepath.Join(temp, "origin"), filepath.Join(temp, "platform")
	if err := snapshot(); err != nil {
		return 0, err
	}
	for _, step := range [][]string{
		{"go", "build", "-buildvcs=false", "-o", platform, "./cmd/platform"},
		{"tools/build", "pulumi"},
		{"tools/build", "pulumi-language-go"},
		{"tools/build", "actionlint"},
	} {
		cmd := exec.Command(step[0], step[1:]...)
		if strings.HasPrefix(step[0], "tools/") {
			cmd.Path, cmd.Err = filepath.Join(root, step[0]), nil
		}
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%s: %w\n%s", strings.Join(step, " "), err, out)
		}
	}
	return m.Run(), nil
}

// snapshot makes origin: every file that git tracks, or would, as it is now.
func snapshot() error {
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		from, to := filepath.Join(root, name), filepath.Join(origin, name)
		info, err := os.Stat(from)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		text, err := os.ReadFile(from)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755)); err != nil {
			return err
		}
		if err := os.WriteFile(to, text, info.Mode().Perm()); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "--all"}, {"commit", "-q", "-m", "As it is"}} {
		if out, err := gitCommand(origin, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}

// gitCommand is git with an author, and without what the user has set.
func gitCommand(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("git", append([]string{"-c", "user.name=Tester", "-c", "user.email=tester@example.com"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	return cmd
}

// clone is a clone of origin for one test.
type clone struct {
	t   *testing.T
	dir string
}

func newClone(t *testing.T) *clone {
	t.Helper()
	c := &clone{t, filepath.Join(t.TempDir(), "clone")}
	out, err := gitCommand(origin, "clone", "-q", origin, c.dir).CombinedOutput()
	require.NoError(t, err, string(out))
	return c
}

func (c *clone) git(args ...string) string {
	c.t.Helper()
	out, err := gitCommand(c.dir, args...).CombinedOutput()
	require.NoError(c.t, err, "git %v\n%s", args, out)
	return string(out)
}

// replace edits a file: old must stand in it once.
func (c *clone) replace(file, before, after string) {
	c.t.Helper()
	path := filepath.Join(c.dir, file)
	text, err := os.ReadFile(path)
	require.NoError(c.t, err)
	require.Equal(c.t, 1, strings.Count(string(text), before), "%q in %s", before, file)
	require.NoError(c.t, os.WriteFile(path, []byte(strings.Replace(string(text), before, after, 1)), 0o600))
}

// add appends to a file, or makes it.
func (c *clone) add(file, text string) {
	c.t.Helper()
	f, err := os.OpenFile(filepath.Join(c.dir, file), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(c.t, err)
	_, err = f.WriteString(text)
	require.NoError(c.t, errors.Join(err, f.Close()))
}

func (c *clone) commit(message string) {
	c.git("commit", "-q", "--all", "--allow-empty", "-m", message)
}

// run is the platform command in the clone; it gives what it printed and its exit code.
func (c *clone) run(env []string, args ...string) (out, said string, code int) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), platform, args...)
	cmd.Dir, cmd.Env = c.dir, append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		require.NoError(c.t, err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}
