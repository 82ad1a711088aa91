package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// noSources are the folders of a clone that no program of it is built from.
var noSources = []string{"apps", "bin", "docs", "test", "tools"}

// newestSource returns the time at which a source of the clone's programs was last changed,
// added or removed. A folder's own time changes when one of its files is removed.
func newestSource(root string) (newest time.Time, err error) {
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error { //nolint:gosec // the user's own clone
		if err != nil || path == root { // the time of the root changes when bin is made
			return err
		}
		name, top := entry.Name(), filepath.Dir(path) == root
		switch {
		case entry.IsDir() && top && (slices.Contains(noSources, name) || strings.HasPrefix(name, ".")):
			return fs.SkipDir
		case !entry.IsDir() && (strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".md")):
			return nil
		}
		info, err := entry.Info()
		if err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
		return err
	})
	return newest, err
}

// BuildFlags are the flags of the Makefile and of tools/compile, so that a package is compiled once for all programs.
const BuildFlags = "-trimpath -gcflags=all=-dwarf=false"

// build compiles a package of the clone, unless no source is newer than the binary. Asking
// Go's tool whether it is up to date takes 0.2 s.
func (w *Workspace) build(binary, pkg string, flags ...string) (built bool, err error) {
	newest, err := newestSource(w.Root)
	if err != nil {
		return false, err
	}
	if info, err := os.Stat(binary); err == nil && !info.ModTime().Before(newest) { //nolint:gosec // the user's own clone
		return false, nil
	}
	made := fmt.Sprintf("%s.%d", binary, os.Getpid()) // another run can use or build the binary at the same time
	args := slices.Concat([]string{"build"}, strings.Fields(BuildFlags), flags, []string{"-o", made, pkg})
	cmd := exec.Command("go", args...)                                                              //nolint:gosec // the user's own clone
	cmd.Dir, cmd.Env = w.Root, append(os.Environ(), "CGO_ENABLED=0", "GOGC=off", "GOMEMLIMIT=1GiB") // as in the Makefile
	if out, err := cmd.CombinedOutput(); err != nil {
		return false, fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	// A source can be dated in the future, or be saved during the build; then it must be newer.
	return true, errors.Join(os.Chtimes(made, newest, newest), os.Rename(made, binary)) //nolint:gosec // the user's own clone
}

// Renew makes sure that the clone's bin/platform runs from the clone's present sources: if
// one has changed, it builds the binary again and replaces this process by it. A platform
// from elsewhere, such as a release, is left as it is, and `pulumi` then builds the program.
func (w *Workspace) Renew() error {
	own := filepath.Join(w.Root, "bin", "platform")
	running, err := os.Executable()
	if err != nil {
		return err
	}
	there, err1 := os.Stat(own)    //nolint:gosec // the user's own clone
	this, err2 := os.Stat(running) // it fails if the binary was replaced while it runs
	if err1 != nil || err2 != nil || !os.SameFile(there, this) {
		return nil //nolint:nilerr // it is not the clone's own
	}
	built, err := w.build(own, "./cmd/platform", "-ldflags", "-s -w")
	if err != nil {
		return err
	}
	if built {
		return replaceProcess(own, os.Args, os.Environ())
	}
	w.current = true
	return nil
}
