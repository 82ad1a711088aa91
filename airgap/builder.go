package airgap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// builder builds the slow parts of images: the base layer and the programs. A part is kept in the cache
// under a name with its hash. It is built in a temporary folder beside the cache and renamed, so that it appears complete.
type builder struct {
	root     string
	cache    string
	scratch  string
	mutex    sync.Mutex
	progress func(string)
}

// newBuilder creates the folders; close removes the temporary one.
func newBuilder(root string, progress func(string)) (*builder, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("no cache folder (%w). Fix: set HOME or XDG_CACHE_HOME", err)
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	cache := filepath.Join(user, "trading-platform", "airgap")
	if err := os.MkdirAll(cache, 0o750); err != nil {
		return nil, err
	}
	parts, _ := filepath.Glob(filepath.Join(cache, "*"))
	for _, part := range parts {
		if info, err := os.Stat(part); err == nil && time.Since(info.ModTime()) > 7*24*time.Hour {
			_ = os.RemoveAll(part) // not used for a week; a failure does no harm
		}
	}
	scratch, err := os.MkdirTemp(cache, "making-")
	return &builder{root: root, cache: cache, scratch: scratch, progress: progress}, err
}

func (b *builder) close() { _ = os.RemoveAll(b.scratch) } // there is nothing to do about a failure here

func (b *builder) basePath(r recipe) string { return filepath.Join(b.cache, "base-"+r.base+".tar") }

func (b *builder) programPath(p *program) string { return filepath.Join(b.cache, p.name()+"-"+p.Hash) }

// prepare puts what the recipes need into the cache. It makes the base layer and the programs in parallel, because the
// base layer waits for the network and the disk, and the programs for the processors.
func (b *builder) prepare(ctx context.Context, recipes []recipe) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.makeBase(ctx, recipes[0]) })
	group.Go(func() error {
		for _, r := range recipes {
			if r.Program != nil {
				if err := b.compile(ctx, r.Program.Module, recipes); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return group.Wait()
}

// makeBase builds the root file system that all images share.
func (b *builder) makeBase(ctx context.Context, r recipe) error {
	if used(b.basePath(r)) {
		return nil
	}
	made := filepath.Join(b.scratch, "base.tar")
	err := b.step("making the shared Debian 12 file system", ", once (about 1 minute)", func() error {
		return run(ctx, exec.CommandContext(ctx, filepath.Join(b.root, "airgap", "base", "build.sh"), made))
	})
	if err != nil {
		return fmt.Errorf("the shared Debian file system could not be made (it needs http://deb.debian.org, and Debian or Ubuntu on this machine; "+
			"on other systems, set `images` to images of your own): %w", err)
	}
	return os.Rename(made, b.basePath(r))
}

// compile builds the recipes' programs of one module with one command, so that a package which two of them import is compiled
// once, and they are linked at the same time.
func (b *builder) compile(ctx context.Context, module string, recipes []recipe) error {
	var missing []*program
	var packages, names []string
	for _, r := range recipes {
		if p := r.Program; p != nil && p.Module == module && !used(b.programPath(p)) {
			missing, packages, names = append(missing, p), append(packages, p.Package), append(names, p.name())
		}
	}
	if len(missing) == 0 {
		return nil
	}
	what, made := "compiling "+strings.Join(names, ", "), filepath.Join(b.scratch, "programs")
	if _, err := exec.LookPath("go"); err != nil {
		return errors.New(what + ": there is no go on PATH. Fix: install Go: https://go.dev/dl/")
	}
	err := b.step(what, ", once (up to 6 minutes)", func() error {
		arguments := append([]string{filepath.Join(b.root, module), made + "/", "-ldflags", "-s -w " + missing[0].LDFlags}, packages...)
		command := exec.CommandContext(ctx, filepath.Join(b.root, "tools", "compile"), arguments...)
		command.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+runtime.GOARCH, "GOWORK=off", "GOFLAGS=")
		return run(ctx, command)
	})
	if err != nil {
		return fmt.Errorf("%s failed (if a download failed, set GOPROXY to a module proxy that this machine can reach): %w", what, err)
	}
	for _, p := range missing {
		err = errors.Join(err, os.Rename(filepath.Join(made, p.name()), b.programPath(p)))
	}
	return err
}

// used marks a part of the cache as just used, and reports whether it exists.
func used(path string) bool {
	now := time.Now()
	return os.Chtimes(path, now, now) == nil
}

// step does something that may take long, and reports progress.
func (b *builder) step(what, remark string, do func() error) error {
	b.say(what + remark)
	started := time.Now()
	elapsed := func() string { return time.Since(started).Round(time.Second).String() }
	done := make(chan error, 1)
	go func() { done <- do() }()
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			b.say(what + ": " + elapsed())
		case err := <-done:
			if err == nil {
				b.say(what + ": done in " + elapsed())
			}
			return err
		}
	}
}

func (b *builder) say(line string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.progress(line)
}

// run runs a command made with ctx; its error ends with the command's last lines. A stopped command is interrupted, so that it
// can clean up.
func run(ctx context.Context, command *exec.Cmd) error {
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 30 * time.Second
	output, err := command.CombinedOutput()
	if err == nil || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	return fmt.Errorf("%w:\n%s", err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
}
