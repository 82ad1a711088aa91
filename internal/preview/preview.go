// Package preview previews stacks for real, with Pulumi and a docker provider,
// without a trace: state, settings, secrets and certificates are made up for the
// occasion and gone afterwards. What this machine's own stacks are plays no part.
package preview

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"trading-platform/internal/workspace"
	"trading-platform/preflight"
	"trading-platform/settings"
)

// Result is one stack's preview.
type Result struct {
	Stack  string
	Output string        // all that pulumi printed
	Took   time.Duration // of the preview, without what is made ready for it
	Err    error         // nil when the stack could come up
}

// count finds how many resources a preview would create.
var count = regexp.MustCompile(`\+ ([0-9]+) to create`)

// String gives the result in a line; a failed one with all that pulumi printed.
func (r Result) String() string {
	if r.Err != nil {
		return fmt.Sprintf("%s: %v\n%s", r.Stack, r.Err, r.Output)
	}
	resources := "nothing"
	if found := count.FindStringSubmatch(r.Output); found != nil {
		resources = found[1] + " resources"
	}
	return fmt.Sprintf("%s: would create %s (%.1fs)", r.Stack, resources, r.Took.Seconds())
}

// rehearsal is what the previews of one run share.
type rehearsal struct {
	w        *workspace.Workspace
	dir      string // all of it lies here
	program  string // the compiled program
	provider string
	api      string // the engine's
	compose  []any  // the Compose projects with volumes, which are none of the previews' business
	env      []string
}

// All previews every stack that has a file in the clone, several at a time, and
// hands each result to done as it comes. It needs an engine, and changes nothing
// on it. The error is for what keeps all of them from being previewed.
func All(ctx context.Context, w *workspace.Workspace, say func(string), done func(Result)) error {
	dir, err := os.MkdirTemp("", "platform-preview-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r := &rehearsal{w: w, dir: dir}
	if err := r.prepare(ctx, say); err != nil {
		return err
	}
	// Ports are looked for in one place, so that no two stacks find the same.
	offsets := offsets{}
	for _, stack := range w.Stacks() {
		if err := r.configure(stack, offsets); err != nil {
			return fmt.Errorf("stack %s: %w", stack, err)
		}
	}
	results := make(chan Result)
	go func() {
		group := errgroup.Group{}
		group.SetLimit(max(2, runtime.NumCPU()))
		for _, stack := range w.Stacks() {
			group.Go(func() error { results <- r.preview(ctx, stack); return nil })
		}
		_ = group.Wait()
		close(results)
	}()
	for result := range results {
		done(result)
	}
	return ctx.Err()
}

// prepare makes what all stacks need: the compiled program, a provider, and a
// home and a backend for Pulumi that hold nothing.
func (r *rehearsal) prepare(ctx context.Context, say func(string)) error {
	engine, _, err := preflight.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }()
	ping, err := engine.Ping(ctx, client.PingOptions{})
	if err != nil {
		return err
	}
	r.api = ping.APIVersion
	volumes, err := engine.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return err
	}
	for _, v := range volumes.Items {
		if project := v.Labels["com.docker.compose.project"]; project != "" {
			r.compose = append(r.compose, project)
		}
	}
	if err := r.w.EnsurePulumi(ctx, say); err != nil {
		return err
	}
	home := filepath.Join(r.dir, "home")
	for _, made := range []string{home, filepath.Join(r.dir, "state"), filepath.Join(r.dir, "project")} {
		if err := os.Mkdir(made, 0o700); err != nil {
			return err
		}
	}
	r.env = append(withoutPulumi(os.Environ()),
		"PULUMI_HOME="+home,
		"PULUMI_BACKEND_URL=file://"+filepath.Join(r.dir, "state"),
		"PULUMI_CONFIG_PASSPHRASE="+workspace.Random(),
		"PULUMI_SKIP_UPDATE_CHECK=true",
		"PATH="+filepath.Dir(r.w.Pulumi)+string(os.PathListSeparator)+os.Getenv("PATH"))
	r.program = filepath.Join(r.dir, "program")
	// Without the stamp of version control, which asks git for its state.
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", r.program, ".")
	build.Dir = r.w.Root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the program: %w\n%s", err, out)
	}
	if err := r.install(ctx, say); err != nil {
		return err
	}
	return r.writeProject()
}

// withoutPulumi leaves out what an environment says of the user's own Pulumi.
func withoutPulumi(environ []string) []string {
	var env []string
	for _, e := range environ {
		if !strings.HasPrefix(e, "PULUMI_") && !strings.HasPrefix(e, "PATH=") {
			env = append(env, e)
		}
	}
	return env
}

// install gives this run's Pulumi the provider that `platform init` would choose:
// the official plugin where a user's own Pulumi has it or can have it, out of the
// user's cache of plugins; else ours, as the clone has it.
func (r *rehearsal) install(ctx context.Context, say func(string)) error {
	if r.w.Own {
		plugins := filepath.Join(r.w.Home, "plugins")
		link := filepath.Join(r.dir, "home", "plugins")
		if err := errors.Join(os.MkdirAll(plugins, 0o700), os.Symlink(plugins, link)); err != nil {
			return err
		}
		if _, err := r.pulumi(ctx, "plugin", "install", "resource", "docker", workspace.OfficialVersion); err == nil {
			say("provider: official, the docker plugin " + workspace.OfficialVersion)
			r.provider = settings.Official
			return nil
		}
		if err := os.Remove(link); err != nil { // the link alone
			return err
		}
		_ = os.Remove(plugins) // if it was made just now, it is empty
	}
	say("provider: offline " + settings.OfflineVersion)
	r.provider = settings.Offline
	r.env = append(r.env, "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION=true")
	binary := filepath.Join(r.dir, "pulumi-resource-docker")
	if err := r.w.BuildProvider(ctx, binary, settings.OfflineVersion); err != nil {
		return err
	}
	out, err := r.pulumi(ctx, "plugin", "install", "resource", "docker", settings.OfflineVersion, "--file", binary)
	if err != nil {
		return fmt.Errorf("installing the offline docker provider: %w\n%s", err, out)
	}
	return nil
}

// starter is a Go program that becomes the compiled one.
const starter = `package main

import (
	"os"
	"syscall"
)

func main() { panic(syscall.Exec(%q, os.Args, os.Environ())) }
`

// writeProject writes a project that is the clone's, with a program of a few lines
// that starts the compiled one. Run in the clone itself, Pulumi would link the
// program anew for each stack, and list all of its Go modules, which may write to
// go.sum. Its option `binary` is not for us: the language host that tools/build
// makes does not know it.
func (r *rehearsal) writeProject() error {
	project, err := os.ReadFile(filepath.Join(r.w.Root, "Pulumi.yaml"))
	if err != nil {
		return err
	}
	in := func(name string) string { return filepath.Join(r.dir, "project", name) }
	return errors.Join(
		os.WriteFile(in("Pulumi.yaml"), project, 0o600),
		os.WriteFile(in("go.mod"), []byte("module preview\n"), 0o600),
		os.WriteFile(in("main.go"), fmt.Appendf(nil, starter, r.program), 0o600),
		os.Symlink(filepath.Join(r.w.Root, "apps"), in("apps")), // where the program looks for the reference app
	)
}

// preview makes a stack, gives it secrets, and previews it.
func (r *rehearsal) preview(ctx context.Context, stack string) Result {
	result := Result{Stack: stack}
	if result.Output, result.Err = r.pulumi(ctx, "stack", "init", stack, "--no-select"); result.Err != nil {
		return result
	}
	if result.Output, result.Err = r.makeSecrets(ctx, stack); result.Err != nil {
		return result
	}
	started := time.Now()
	// Never --refresh: even in a preview the official plugin then removes stopped containers.
	result.Output, result.Err = r.pulumi(ctx, "preview", "-s", stack, "--non-interactive", "--color", "never")
	result.Took = time.Since(started)
	return result
}

// pulumi runs the CLI in the project, and gives all it printed.
func (r *rehearsal) pulumi(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, r.w.Pulumi, args...)
	cmd.Dir, cmd.Env = filepath.Join(r.dir, "project"), r.env
	// Interrupted, it takes its program and provider along.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("pulumi %s: %w", args[0], err)
	}
	return out.String(), nil
}
