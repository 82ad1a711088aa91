package airgap

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// kept is how many versions of a part stay in the cache: clones on a few branches do not take turns at rebuilding.
const kept = 3

// beat is how often a step that takes long says so.
const beat = 10 * time.Second

// workshop makes the parts of images on this machine. A part lies in the cache under a name with its hash, and appears
// there complete: it is made in a temporary folder of the same file system and renamed.
type workshop struct {
	root     string
	cache    string
	scratch  string
	progress func(string)
}

// openWorkshop makes the folders; close removes the temporary one.
func openWorkshop(root string, progress func(string)) (*workshop, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("air-gap images: no cache folder (%w); set HOME or XDG_CACHE_HOME", err)
	}
	root, err = filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	cache := filepath.Join(user, "trading-platform", "airgap")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("air-gap images: %w", err)
	}
	removeStale(cache)
	scratch, err := os.MkdirTemp(cache, "making-")
	if err != nil {
		return nil, fmt.Errorf("air-gap images: %w", err)
	}
	return &workshop{root: root, cache: cache, scratch: scratch, progress: progress}, nil
}

// removeStale removes what a killed run could not; a day is longer than any run.
func removeStale(cache string) {
	folders, _ := filepath.Glob(filepath.Join(cache, "making-*"))
	for _, folder := range folders {
		if info, err := os.Stat(folder); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(folder)
		}
	}
}

func (w *workshop) close() {
	_ = os.RemoveAll(w.scratch) // nothing that can be fixed from here
}

func (w *workshop) basePath(recipe recipe) string {
	return filepath.Join(w.cache, "base-"+recipe.base+".tar")
}

func (w *workshop) programPath(program *program) string {
	return filepath.Join(w.cache, program.name+"-"+program.hash)
}

// prepare puts what the recipes need into the cache: the base layer and the programs, side by side, since one waits for
// the network and the disk and the other for the processors.
func (w *workshop) prepare(ctx context.Context, recipes []recipe) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	jobs := map[string]func() error{
		"base": func() error { return w.makeBase(ctx, recipes[0]) },
	}
	modules := map[string][]*program{}
	for _, recipe := range recipes {
		if recipe.program != nil && !exists(w.programPath(recipe.program)) {
			modules[recipe.program.module] = append(modules[recipe.program.module], recipe.program)
		}
	}
	for module, programs := range modules {
		jobs[module] = func() error { return w.compile(ctx, module, programs) }
	}

	var group sync.WaitGroup
	var mutex sync.Mutex
	var first error
	for _, job := range jobs {
		group.Go(func() {
			if err := job(); err != nil {
				mutex.Lock()
				defer mutex.Unlock()
				if first == nil { // the others were stopped for its sake
					first = err
				}
				cancel()
			}
		})
	}
	group.Wait()
	if first != nil {
		return first
	}
	for _, recipe := range recipes {
		w.used(w.basePath(recipe))
		if recipe.program != nil {
			w.used(w.programPath(recipe.program))
		}
	}
	return nil
}

// used marks a part as just used and removes all but the latest of the same name.
func (w *workshop) used(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now)
	name, _, _ := strings.Cut(filepath.Base(path), "-")
	parts, _ := filepath.Glob(filepath.Join(w.cache, name+"-*"))
	lastUse := func(part string) int64 {
		info, err := os.Stat(part)
		if err != nil {
			return 0 // gone already
		}
		return info.ModTime().UnixNano()
	}
	slices.SortFunc(parts, func(a, b string) int { return cmp.Compare(lastUse(b), lastUse(a)) })
	for _, old := range parts[min(kept, len(parts)):] {
		_ = os.Remove(old) // room saved, or room not saved: the images are made either way
	}
}

// makeBase makes the root file system that all images share.
func (w *workshop) makeBase(ctx context.Context, recipe recipe) error {
	if exists(w.basePath(recipe)) {
		return nil
	}
	made := filepath.Join(w.scratch, "base.tar")
	command := exec.CommandContext(ctx, filepath.Join(w.root, "airgap", "base", "build.sh"), made)
	err := w.step("making the shared Debian 12 file system", "about 1 minute", func() error { return run(ctx, command) })
	if err != nil {
		return fmt.Errorf("air-gap images: the shared Debian file system could not be made (it needs http://deb.debian.org, and Debian or Ubuntu on this machine; elsewhere give images of your own in the setting `images`): %w", err)
	}
	return os.Rename(made, w.basePath(recipe))
}

// compile builds programs of one module, in one go so that they share the compiling of what both import.
func (w *workshop) compile(ctx context.Context, module string, programs []*program) error {
	folder := filepath.Join(w.scratch, filepath.Base(module))
	if err := os.Mkdir(folder, 0o755); err != nil {
		return err
	}
	names := make([]string, len(programs))
	arguments := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w " + programs[0].ldflags, "-o", folder + string(filepath.Separator)}
	for i, program := range programs {
		names[i] = program.name
		arguments = append(arguments, program.pkg)
	}
	what := strings.Join(names, " and ")
	command := exec.CommandContext(ctx, "go", arguments...)
	command.Dir = filepath.Join(w.root, filepath.FromSlash(module))
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH, "GOWORK=off", "GOFLAGS=")

	expected := "under 1 minute"
	if module == "airgap/logging" {
		expected = "2 to 6 minutes"
	}
	err := w.step("compiling "+what, expected, func() error { return run(ctx, command) })
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("air-gap images: compiling %s: no go on PATH; install Go: https://go.dev/dl/", what)
	case err != nil:
		return fmt.Errorf("air-gap images: compiling %s failed (when a download did, set GOPROXY to a module proxy that this machine reaches): %w", what, err)
	}
	for _, program := range programs {
		if err := os.Rename(filepath.Join(folder, program.name), w.programPath(program)); err != nil {
			return err
		}
	}
	return nil
}

// step does something that may take long, and says that it goes on. expected is how long it should take, empty when that
// is not worth a word.
func (w *workshop) step(what, expected string, do func() error) error {
	if expected != "" {
		expected = ", once (" + expected + ")"
	}
	w.progress(what + expected)
	started := time.Now()
	elapsed := func() time.Duration { return time.Since(started).Round(time.Second) }

	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(beat)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				w.progress(fmt.Sprintf("%s: %s", what, elapsed()))
			case <-stop:
				return
			}
		}
	}()
	err := do()
	close(stop)
	<-stopped
	if err == nil {
		w.progress(fmt.Sprintf("%s: done in %s", what, elapsed()))
	}
	return err
}

// run runs a command made with ctx; its error ends with the command's last lines. A stopped one is interrupted, so that it
// tidies up.
func run(ctx context.Context, command *exec.Cmd) error {
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 30 * time.Second
	err := command.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	lines := strings.Split(strings.TrimSpace(output.String()), "\n")
	return fmt.Errorf("%w:\n%s", err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
