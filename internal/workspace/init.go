package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/moby/moby/client"
	"go.yaml.in/yaml/v3"

	"trading-platform/preflight"
	"trading-platform/settings"
)

// OfficialVersion is the docker plugin that the SDK in go.mod asks for.
const OfficialVersion = "4.11.2"

// Init puts in place what a stack needs on this machine, and says what it did.
// What is there already is left as it is; choices once made are kept.
func (w *Workspace) Init(ctx context.Context, stack string, say func(string)) error {
	if !exists(w.trackedFile(stack)) && !exists(w.StackFile(stack)) {
		return fmt.Errorf("no stack file Pulumi.%s.yaml; stacks here: %s (a new one is a copy of one of them)",
			stack, strings.Join(w.Stacks(), ", "))
	}
	engine, err := preflight.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }()
	if err := w.EnsurePulumi(ctx, say); err != nil {
		return err
	}
	if made, err := w.ensurePassphrase(); err != nil {
		return err
	} else if made {
		say("made a passphrase for the secrets in the state: " + w.passphraseFile())
	}
	if err := w.ensureStack(ctx, stack, say); err != nil {
		return err
	}
	file, err := w.load(stack)
	if err != nil {
		return err
	}
	if err := w.choose(ctx, engine, stack, file, say); err != nil {
		return err
	}
	if err := w.makeCerts(stack, file, say); err != nil {
		return err
	}
	return w.makeSecrets(ctx, stack, say)
}

// Stacks lists the stacks that have a file in the clone.
func (w *Workspace) Stacks() []string {
	files, _ := filepath.Glob(filepath.Join(w.Root, "Pulumi.*.yaml"))
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "Pulumi."), ".yaml"))
	}
	return names
}

// EnsurePulumi builds the CLI and its language host where the machine has none.
func (w *Workspace) EnsurePulumi(ctx context.Context, say func(string)) error {
	if w.Pulumi != "" && w.Own {
		return nil
	}
	if w.Pulumi == "" {
		say("no pulumi on PATH: building one from source, once")
	}
	build := exec.CommandContext(ctx, filepath.Join(w.Root, "tools", "build"), "pulumi")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building pulumi failed: %w; see above, or install it: https://www.pulumi.com/docs/install", err)
	}
	w.Pulumi, w.Own = w.findPulumi()
	return nil
}

// ensureStack makes the stack and its own file. `pulumi stack init` writes the
// stack's salt into the project's folder, so it runs in an empty one.
func (w *Workspace) ensureStack(ctx context.Context, stack string, say func(string)) error {
	if exists(w.StackFile(stack)) {
		if err := w.run(ctx, nil, "stack", "export", "-s", stack); err == nil {
			return w.Refresh(stack)
		}
	}
	temp, err := os.MkdirTemp("", "trading-platform-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	project, err := os.ReadFile(filepath.Join(w.Root, "Pulumi.yaml"))
	if err != nil {
		return err
	}
	tracked, err := readFile(w.trackedFile(stack))
	if err != nil {
		return err
	}
	own, err := readFile(w.StackFile(stack))
	if err != nil {
		return err
	}
	from := tracked
	if own != nil {
		from = own
	}
	scratch := filepath.Join(temp, "Pulumi."+stack+".yaml")
	if err := errors.Join(writeFile(filepath.Join(temp, "Pulumi.yaml"), project), writeFile(scratch, from)); err != nil {
		return err
	}
	err = w.run(ctx, nil, "-C", temp, "stack", "init", stack, "--no-select")
	var failed *cliError
	if errors.As(err, &failed) && strings.Contains(failed.complaint, "already exists") {
		// Made by plain pulumi: its salt is in the state, and asking for the config writes it down.
		cmd := w.command(ctx, "-C", temp, "config", "-s", stack)
		cmd.Env = append(cmd.Env, "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER=true")
		if out, runErr := cmd.CombinedOutput(); runErr != nil {
			err = fmt.Errorf("reading the config of stack %s: %w\n%s", stack, runErr, out)
		} else {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	made, err := os.ReadFile(scratch)
	if err != nil {
		return err
	}
	say("stack " + stack + ": its own settings and secrets lie in " + w.StackFile(stack))
	if own != nil { // and what the tracked file has gained since then comes over
		return errors.Join(writeFile(w.StackFile(stack), made), w.Refresh(stack))
	}
	return errors.Join(writeFile(w.lastTracked(stack), tracked), writeFile(w.StackFile(stack), made))
}

// stackFile is a stack's own file, taken apart.
type stackFile map[string]any

func (w *Workspace) load(stack string) (stackFile, error) {
	text, err := os.ReadFile(w.StackFile(stack))
	if err != nil {
		return nil, err
	}
	// Not into a stackFile: the library would make the maps inside of that type as well.
	f := map[string]any{}
	err = yaml.Unmarshal(text, &f)
	return f, err
}

func (w *Workspace) save(stack string, f stackFile) error {
	text, err := yaml.Marshal(f)
	if err != nil {
		return err
	}
	return writeFile(w.StackFile(stack), text)
}

// config gives the file's config map.
func (f stackFile) config() map[string]any {
	c, ok := f["config"].(map[string]any)
	if !ok {
		c = map[string]any{}
		f["config"] = c
	}
	return c
}

func (f stackFile) get(key string) any        { return f.config()[settings.Project+":"+key] }
func (f stackFile) set(key string, value any) { f.config()[settings.Project+":"+key] = value }

// choose settles, once, which provider and which images the stack is made with,
// and puts them in place. It writes the engine's API version down each time.
func (w *Workspace) choose(ctx context.Context, engine *client.Client, stack string, f stackFile, say func(string)) error {
	ping, err := engine.Ping(ctx, client.PingOptions{})
	if err != nil {
		return err
	}
	f.set("engineApi", ping.APIVersion)
	first := f.get("provider") == nil
	if first {
		f.set("provider", w.chooseProvider(ctx, say))
	}
	if f.get("provider") == settings.Offline {
		if err := w.installProvider(ctx, say); err != nil {
			return err
		}
	}
	if first && !registryAnswers(ctx, engine) || f.airgapped() {
		if err := w.useAirgap(stack, f, say); err != nil {
			return err
		}
	}
	// To an interrupted run nothing answers, and what it chose for that would be kept.
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.save(stack, f); err != nil {
		return err
	}
	return w.makeImages(ctx, engine, stack, say)
}

// chooseProvider takes the official plugin where a user's own Pulumi can have it.
func (w *Workspace) chooseProvider(ctx context.Context, say func(string)) string {
	if !w.Own {
		say("provider: offline, because this machine brought no Pulumi of its own")
		return settings.Offline
	}
	if err := w.run(ctx, nil, "plugin", "install", "resource", "docker", OfficialVersion); err != nil {
		say("provider: offline, because the official docker plugin cannot be downloaded here")
		return settings.Offline
	}
	say("provider: official, the docker plugin " + OfficialVersion)
	return settings.Official
}

// installProvider builds our plugin and gives it to Pulumi, when it is another than the one there.
func (w *Workspace) installProvider(ctx context.Context, say func(string)) error {
	// Not in bin itself, which `platform env` puts on PATH: Pulumi takes a plugin from there for any version.
	binary := filepath.Join(w.Root, "bin", "offline", "pulumi-resource-docker")
	if err := w.BuildProvider(ctx, binary, settings.OfflineVersion); err != nil {
		return err
	}
	built, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	installed, _ := os.ReadFile(filepath.Join(w.Home, "plugins", "resource-docker-v"+settings.OfflineVersion, "pulumi-resource-docker"))
	if bytes.Equal(built, installed) {
		return nil
	}
	say("installing the offline docker provider " + settings.OfflineVersion)
	return w.run(ctx, nil, "plugin", "install", "resource", "docker", settings.OfflineVersion, "--file", binary, "--reinstall")
}

// BuildProvider compiles our plugin, which says that it is of the given version.
func (w *Workspace) BuildProvider(ctx context.Context, binary, version string) error {
	build := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w -X trading-platform/internal/dockerprovider.Version="+version, "-o", binary, "./cmd/pulumi-resource-docker")
	build.Dir = w.Root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the offline docker provider: %w\n%s", err, out)
	}
	return nil
}
