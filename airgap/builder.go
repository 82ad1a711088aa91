package airgap

import (
	"bytes"
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

const (
	// partAge is how long a part stays in the cache after its last use.
	partAge = 7 * 24 * time.Hour
	// longestRun is how old a temporary folder can be before its run must have been killed.
	longestRun = 24 * time.Hour
	// beat is the interval of progress messages in a long step.
	beat = 10 * time.Second
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
	removeOld(cache, "making-*", longestRun)
	removeOld(cache, "*", partAge)
	scratch, err := os.MkdirTemp(cache, "making-")
	return &builder{root: root, cache: cache, scratch: scratch, progress: progress}, err
}

func removeOld(folder, pattern string, age time.Duration) {
	found, _ := filepath.Glob(filepath.Join(folder, pattern))
	for _, path := range found {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > age {
			_ = os.RemoveAll(path) // a failure leaves old parts in the cache and does no harm
		}
	}
}

func (b *builder) close() {
	_ = os.RemoveAll(b.scratch) // there is nothing to do about a failure here
}

func (b *builder) basePath(r recipe) string { return filepath.Join(b.cache, "base-"+r.base+".tar") }

func (b *builder) programPath(p *program) string {
	return filepath.Join(b.cache, p.name()+"-"+p.hash)
}

// prepare puts what the recipes need into the cache. It makes the base layer and the programs in parallel, because the
// base layer waits for the network and the disk, and the programs for the processors.
func (b *builder) prepare(ctx context.Context, recipes []recipe) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.makeBase(ctx, recipes[0]) })
	group.Go(func() error { // one after the other, so that a package which two programs import is compiled once
		for _, r := range recipes {
			if r.Program != nil {
				if err := b.compile(ctx, r.Program); err != nil {
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
	err := b.part(b.basePath(r), "making the shared Debian 12 file system", "about 1 minute", func(out string) error {
		return run(ctx, exec.CommandContext(ctx, filepath.Join(b.root, "airgap", "base", "build.sh"), out))
	})
	if err != nil {
		return fmt.Errorf("the shared Debian file system could not be made (it needs http://deb.debian.org, and Debian or Ubuntu on this machine; on other systems, set `images` to images of your own): %w", err)
	}
	return nil
}

// compile builds a program.
func (b *builder) compile(ctx context.Context, p *program) error {
	err := b.part(b.programPath(p), "compiling "+p.name(), "up to 6 minutes", func(out string) error {
		if _, err := exec.LookPath("go"); err != nil {
			return err
		}
		command := exec.CommandContext(ctx, filepath.Join(b.root, "tools", "compile"), filepath.Join(b.root, filepath.FromSlash(p.Module)), out,
			"-trimpath", "-ldflags", "-s -w "+p.LDFlags, p.Package)
		command.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+runtime.GOARCH, "GOWORK=off", "GOFLAGS=")
		return run(ctx, command)
	})
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("compiling %s: there is no go on PATH. Fix: install Go: https://go.dev/dl/", p.name())
	case err != nil:
		return fmt.Errorf("compiling %s failed (if a download failed, set GOPROXY to a module proxy that this machine can reach): %w", p.name(), err)
	}
	return nil
}

// part marks a part of the cache as just used, and builds it if it is missing. expected is how long that should take.
func (b *builder) part(path, what, expected string, build func(out string) error) error {
	now := time.Now()
	if os.Chtimes(path, now, now) == nil {
		return nil
	}
	made := filepath.Join(b.scratch, filepath.Base(path))
	if err := b.step(what, ", once ("+expected+")", func() error { return build(made) }); err != nil {
		return err
	}
	return os.Rename(made, path)
}

// step does something that may take long, and reports progress.
func (b *builder) step(what, remark string, do func() error) error {
	b.say(what + remark)
	started := time.Now()
	elapsed := func() string { return time.Since(started).Round(time.Second).String() }
	done := make(chan error, 1)
	go func() { done <- do() }()
	ticker := time.NewTicker(beat)
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
	if b.progress != nil {
		b.mutex.Lock()
		defer b.mutex.Unlock()
		b.progress(line)
	}
}

// run runs a command made with ctx; its error ends with the command's last lines. A stopped command is interrupted, so that it
// can clean up.
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
