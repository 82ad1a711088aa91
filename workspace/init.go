package workspace

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/renameio/v2/maybe"
	"github.com/moby/moby/client"

	"trading-platform/airgap"
	engines "trading-platform/engine"
	"trading-platform/observe"
	"trading-platform/settings"
)

// OfficialVersion is the version of the docker plugin that the SDK in go.mod requests.
const OfficialVersion = "4.11.2"

// Init sets up what a stack needs on this machine, and reports what it did through say.
// It keeps what exists already, and earlier decisions. moveEngine moves a stack from the
// engine that it runs on to the one that docker connects to now; its volumes stay on the old one.
func (w *Workspace) Init(ctx context.Context, stack string, moveEngine bool, say func(string)) error {
	r, err := w.prepare(ctx, stack, moveEngine, say)
	if err != nil {
		return err
	}
	return r.engine.Close()
}

// run is the state that the steps of one command on one stack share.
type run struct {
	*Workspace
	stack      string
	engine     *client.Client
	here       engines.Ref
	file       stackFile      // the stack's own file
	state      *observe.State // nil until the stack exists
	say        func(string)
	moveEngine bool
	plain      bool // the command has no argument from the user

	registry func() bool    // whether a registry answers, asked once
	ahead    sync.WaitGroup // of prepareImages
}

// prepare does what Init does, and returns the state of the run.
func (w *Workspace) prepare(ctx context.Context, stack string, moveEngine bool, say func(string)) (*run, error) {
	if !exists(w.ConfigFile(stack)) {
		return nil, fmt.Errorf("there is no stack file Pulumi.%s.yaml. Fix: name one of the stacks %s, or copy the file of one of them",
			stack, strings.Join(w.Stacks(), ", "))
	}
	engine, here, err := w.connect(ctx, stack)
	if err != nil {
		return nil, err
	}
	r := &run{Workspace: w, stack: stack, engine: engine, here: here, say: say, moveEngine: moveEngine}
	r.registry = sync.OnceValue(func() bool { return registryAnswers(ctx, engine) })
	if w.Pulumi == "" {
		defer r.prepareImages(ctx)()
	}
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return w.EnsurePulumi(ctx, say) },
		r.choosePlace, r.readState, r.ensurePassphrase, r.ensureStack, r.recordEngine, r.chooseSettings, r.makeCerts, r.takeOver, r.makeSecrets,
	} {
		if err := step(ctx); err != nil {
			_ = engine.Close()
			return nil, err
		}
	}
	return r, nil
}

// ensureStack creates the stack, or merges the edits of the tracked file into its own, and reads that.
func (r *run) ensureStack(ctx context.Context) (err error) {
	if r.state != nil && exists(r.StackFile(r.stack)) {
		err = r.MergeTracked(r.stack)
	} else {
		err = r.makeStack(ctx)
	}
	if err != nil {
		return err
	}
	r.state = cmp.Or(r.state, &observe.State{})
	if err := r.restrictState(); err != nil {
		return err
	}
	r.file, err = r.load(r.stack)
	return err
}

// Stacks returns the names of the stacks that have a file in the clone.
func (w *Workspace) Stacks() (names []string) {
	files, _ := filepath.Glob(w.trackedFile("*"))
	for _, f := range files {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "Pulumi."), ".yaml"))
	}
	return names
}

// EnsurePulumi builds the Pulumi CLI if the machine has none.
func (w *Workspace) EnsurePulumi(ctx context.Context, say func(string)) error {
	if w.Installed {
		return nil
	}
	if w.Pulumi == "" {
		say("there is no pulumi on PATH: building it from source, once")
	}
	if err := w.buildTool(ctx, "pulumi"); err != nil {
		return err
	}
	w.Pulumi, w.Installed = w.findPulumi()
	if w.current { // then the program runs in this process, and needs no language host
		return nil
	}
	return w.buildTool(ctx, "pulumi-language-go")
}

// buildTool builds a program of Pulumi's.
func (w *Workspace) buildTool(ctx context.Context, tool string) error {
	build := exec.CommandContext(ctx, filepath.Join(w.Root, "tools", "build"), tool)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building %s failed: %w. Fix: correct what is reported above, or install pulumi: https://www.pulumi.com/docs/install", tool, err)
	}
	return nil
}

// makeStack creates the stack and its own file. `pulumi stack init` writes the stack's
// salt into the project's folder, so it runs in a temporary one.
func (r *run) makeStack(ctx context.Context) error {
	temp, err := os.MkdirTemp("", "trading-platform-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	own, scratch := r.StackFile(r.stack), filepath.Join(temp, "Pulumi."+r.stack+".yaml")
	first, err := readFile(own)
	tracked, err2 := r.tracked(r.stack)
	if first == nil {
		first = tracked
	}
	err = errors.Join(err, err2, copyFile(filepath.Join(r.Root, "Pulumi.yaml"), filepath.Join(temp, "Pulumi.yaml")), writeFile(scratch, first))
	if err != nil {
		return err
	}
	err = r.runCLI(ctx, nil, "-C", temp, "stack", "init", r.stack, "--no-select")
	if err != nil && strings.Contains(err.Error(), "already exists") {
		// The stack was created with plain pulumi. Its salt is in the state, and reading the config writes it to the file.
		cmd := r.command(ctx, "-C", temp, "config", "-s", r.stack)
		cmd.Env = append(cmd.Env, "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER=true")
		_, err = outputOf(cmd)
	}
	if err != nil {
		return err
	}
	r.say("stack " + r.stack + ": its own settings and secrets are in " + own)
	if !exists(own) && tracked != nil {
		if err := writeFile(r.lastTracked(r.stack), tracked); err != nil {
			return err
		}
	}
	if err := copyFile(scratch, own); err != nil {
		return err
	}
	return r.MergeTracked(r.stack)
}

// copyFile copies a file to one that only its owner can read.
func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(to, text)
}

// chooseSettings decides, once, which provider and which images the stack uses, and
// installs them. It also records the engine's API version once: changing it replaces
// every container, which is the user's decision.
func (r *run) chooseSettings(ctx context.Context) error {
	ping, err := r.engine.Ping(ctx, client.PingOptions{})
	if err != nil {
		return err
	}
	if known := r.file.get("engineApi"); known == nil {
		r.file.set("engineApi", ping.APIVersion)
	} else if known != ping.APIVersion {
		r.say(fmt.Sprintf("the engine speaks API %s, and stack %s is set up for %v. To use the newer one, which replaces every container: %s",
			ping.APIVersion, r.stack, known, settings.SetCommand(r.stack, "engineApi", "'"+ping.APIVersion+"'")))
	}
	first := r.file.get("provider") == nil
	if first {
		r.file.set("provider", r.ChooseProvider(ctx, r.say))
	}
	if r.file.get("provider") == settings.Offline {
		if err := r.installProvider(); err != nil {
			return err
		}
	}
	if first && !r.registry() || r.file.airgapped() {
		if err := r.useAirgap(); err != nil {
			return err
		}
	}
	// In an interrupted run every request fails, and decisions based on that must not be saved.
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.save(r.stack, r.file); err != nil {
		return err
	}
	r.ahead.Wait()
	return airgap.Build(ctx, r.engine, r.Root, r.airgapImages(isAirgap), r.say)
}

// ChooseProvider chooses the official plugin if the user's own Pulumi can install it.
func (w *Workspace) ChooseProvider(ctx context.Context, say func(string)) string {
	if !w.Installed {
		say("provider: offline, because this machine has no Pulumi of its own")
		return settings.Offline
	}
	if err := w.runCLI(ctx, nil, "plugin", "install", "resource", "docker", OfficialVersion); err != nil {
		say("provider: offline, because the official docker plugin cannot be downloaded here")
		return settings.Offline
	}
	say("provider: official, the docker plugin " + OfficialVersion)
	return settings.Official
}

// offlineBinary is the path of the clone's own offline plugin. It is not in bin itself, which `platform env` puts on PATH, because
// Pulumi uses a plugin on PATH for any version.
func (w *Workspace) offlineBinary() string {
	return filepath.Join(w.Root, "bin", "offline", "pulumi-resource-docker")
}

// plugin is the path of an installed version of the docker plugin.
func (w *Workspace) plugin(version string) string {
	return filepath.Join(w.Home, "plugins", "resource-docker-v"+version, "pulumi-resource-docker")
}

// installProvider builds the offline plugin, and installs it if it differs from the installed one.
func (r *run) installProvider() error {
	binary := r.offlineBinary()
	if err := r.BuildProvider(binary, settings.OfflineVersion); err != nil {
		return err
	}
	built, err := os.Stat(binary)
	if err != nil {
		return err
	}
	installed := r.plugin(settings.OfflineVersion)
	if there, err := os.Stat(installed); err == nil && there.Size() == built.Size() && there.ModTime().Equal(built.ModTime()) {
		return nil
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	if there, _ := os.ReadFile(installed); !bytes.Equal(content, there) {
		r.say("installing the offline docker provider " + settings.OfflineVersion)
		if err := replacePlugin(installed, content); err != nil {
			return err
		}
	}
	return os.Chtimes(installed, built.ModTime(), built.ModTime())
}

// replacePlugin replaces a plugin's binary atomically. `pulumi plugin install --reinstall` removes
// it first, and a run of another stack at that moment would find none.
func replacePlugin(path string, binary []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	return maybe.WriteFile(path, binary, 0o755)
}

// BuildProvider compiles the offline plugin, with the version that it reports, if it is not up to date.
func (w *Workspace) BuildProvider(binary, version string) error {
	_, err := w.build(binary, "./cmd/pulumi-resource-docker", "-ldflags", "-s -w -X trading-platform/provider.Version="+version)
	return err
}
