package workspace

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/renameio/v2/maybe"
	"github.com/moby/moby/client"
	"go.yaml.in/yaml/v3"

	engines "trading-platform/engine"
	"trading-platform/fault"
	"trading-platform/observe"
	"trading-platform/plan"
	"trading-platform/preflight"
	"trading-platform/settings"
	stacks "trading-platform/stack"
)

// OfficialVersion is the version of the docker plugin that the SDK in go.mod requests.
const OfficialVersion = "4.11.2"

// InitOptions are the options of Init.
type InitOptions struct {
	// MoveEngine moves a stack from the engine that it runs on to the one that docker
	// connects to now. Its volumes stay on the old engine.
	MoveEngine bool
}

// Init sets up what a stack needs on this machine, and reports what it did through say.
// It keeps what exists already, and earlier decisions.
func (w *Workspace) Init(ctx context.Context, stack string, options InitOptions, say func(string)) error {
	r, err := w.prepare(ctx, stack, options, say)
	if err != nil {
		return err
	}
	return r.engine.Close()
}

// run is the state that the steps of one command on one stack share.
type run struct {
	*Workspace
	stack  string
	engine *client.Client
	here   engines.Ref
	state  *observe.State
	say    func(string)
	plain  bool // the command is Up, Down, Preview or Refresh, without a flag from the user

	registry func() bool     // whether a registry answers, asked once
	ahead    <-chan struct{} // closed when prepareImages has ended
}

// prepare does what Init does, and returns the state of the run.
func (w *Workspace) prepare(ctx context.Context, stack string, options InitOptions, say func(string)) (*run, error) {
	if !exists(w.trackedFile(stack)) && !exists(w.StackFile(stack)) {
		return nil, fmt.Errorf("there is no stack file Pulumi.%s.yaml. Fix: name one of the stacks %s, or copy the file of one of them",
			stack, strings.Join(w.Stacks(), ", "))
	}
	engine, here, err := w.connect(ctx, stack)
	if err != nil {
		return nil, err
	}
	r := &run{Workspace: w, stack: stack, engine: engine, here: here, say: say}
	if err := r.init(ctx, options); err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return r, nil
}

func (r *run) init(ctx context.Context, options InitOptions) error {
	r.registry = sync.OnceValue(func() bool { return registryAnswers(ctx, r.engine) })
	defer r.prepareImages(ctx)()
	if err := r.EnsurePulumi(ctx, r.say); err != nil {
		return err
	}
	if err := r.repairState(); err != nil {
		return err
	}
	export, exportErr := r.export(ctx)
	if exportErr != nil && !strings.Contains(exportErr.Error(), "no stack named") {
		return exportErr
	}
	fresh := !exists(r.passphraseFile())
	if err := r.ensurePassphrase(r.stack, exportErr == nil); err != nil {
		return err
	}
	if fresh && exists(r.passphraseFile()) {
		r.say("created a passphrase for the secrets in the state: " + r.passphraseFile())
	}
	if exportErr == nil && exists(r.StackFile(r.stack)) {
		if err := r.MergeTracked(r.stack); err != nil {
			return err
		}
	} else if err := r.makeStack(ctx); err != nil {
		return err
	}
	if err := r.restrictState(); err != nil {
		return err
	}
	var err error
	if exportErr != nil {
		r.state = &observe.State{}
	} else if r.state, err = observe.ReadState(export); err != nil {
		return err
	}
	file, err := r.load(r.stack)
	if err != nil {
		return err
	}
	if err := r.recordEngine(ctx, file, options); err != nil {
		return err
	}
	if err := r.chooseSettings(ctx, file); err != nil {
		return err
	}
	if err := r.makeCerts(r.stack, file, r.say); err != nil {
		return err
	}
	if err := r.takeOver(ctx, file); err != nil {
		return err
	}
	more, err := r.publicPasswords(ctx)
	if err != nil {
		return err
	}
	return r.makeSecrets(ctx, r.stack, more, r.say)
}

// recordEngine records the engine that the stack runs on, and the identity that
// distinguishes the stack there. It refuses another engine. chooseSettings saves the file.
func (r *run) recordEngine(ctx context.Context, f stackFile, options InitOptions) error {
	home := recorded(f, r.state)
	if options.MoveEngine && home.ID != r.here.ID {
		if err := r.leaveEngine(ctx, home); err != nil {
			return err
		}
	} else if err := preflight.SameEngine(r.stack, home, r.here); err != nil {
		return err
	}
	engine := map[string]any{"id": r.here.ID, "host": r.here.Host}
	if r.here.Certs != "" {
		engine["certs"] = r.here.Certs
	}
	f.set("engine", engine)
	if f.get("identity") == nil {
		identity, _ := r.state.Outputs["identity"].(string)
		f.set("identity", cmp.Or(identity, stacks.DefaultIdentity(r.Backend, "organization", r.stack)))
	}
	return nil
}

// recorded returns the engine that a stack runs on, from its settings or its last outputs.
func recorded(f stackFile, state *observe.State) engines.Ref {
	for _, value := range []any{f.get("engine"), state.Outputs["engine"]} {
		engine, _ := value.(map[string]any)
		id, _ := engine["id"].(string)
		host, _ := engine["host"].(string)
		certs, _ := engine["certs"].(string)
		if id != "" {
			return engines.Ref{ID: id, Host: host, Certs: certs}
		}
	}
	return engines.Ref{}
}

// leaveEngine empties the state of a stack that moves to another engine. If the old engine
// still answers and has containers of the stack, the stack must be taken down there first.
func (r *run) leaveEngine(ctx context.Context, home engines.Ref) error {
	if old, there, err := preflight.Connect(ctx, settings.Docker{Host: home.Host, CertPath: home.Certs}); err == nil {
		defer func() { _ = old.Close() }()
		if there.ID == home.ID {
			left, err := old.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", plan.StackLabel+"="+r.stack)})
			if err != nil || len(left.Items) > 0 {
				return fault.List{{
					Where: "stack " + r.stack, What: fmt.Sprintf("has %d containers on the engine at %s", len(left.Items), home),
					Fix: fmt.Sprintf("take it down there: set docker:host of the stack, or DOCKER_HOST, to %s, and run: platform down -s %s; then run this command again", home.Host, r.stack),
				}}
			}
		}
	}
	empty, err := json.Marshal(map[string]any{"version": 3, "deployment": map[string]any{}})
	if err != nil {
		return err
	}
	if err := r.runCLI(ctx, bytes.NewReader(empty), "stack", "import", "-s", r.stack, "--force"); err != nil {
		return err
	}
	r.state = &observe.State{}
	r.say(fmt.Sprintf("moved stack %s to the engine at %s; its volumes stay on %s", r.stack, r.here, home))
	return nil
}

// Stacks returns the names of the stacks that have a file in the clone.
func (w *Workspace) Stacks() []string {
	files, _ := filepath.Glob(filepath.Join(w.Root, "Pulumi.*.yaml"))
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "Pulumi."), ".yaml"))
	}
	return names
}

// EnsurePulumi builds the Pulumi CLI if the machine has none.
func (w *Workspace) EnsurePulumi(ctx context.Context, say func(string)) error {
	if w.Pulumi != "" && w.Installed {
		return nil
	}
	if w.Pulumi == "" {
		say("there is no pulumi on PATH: building it from source, once")
	}
	if err := w.buildTool(ctx, "pulumi"); err != nil {
		return err
	}
	w.Pulumi, w.Installed = w.findPulumi()
	if !w.current {
		return w.buildTool(ctx, "pulumi-language-go")
	}
	return nil
}

// buildTool builds a program of Pulumi's. The language host is needed only where the program does not run in this process.
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
	w, stack := r.Workspace, r.stack
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
	err = w.runCLI(ctx, nil, "-C", temp, "stack", "init", stack, "--no-select")
	var failed *cliError
	if errors.As(err, &failed) && strings.Contains(failed.stderr, "already exists") {
		// The stack was created with plain pulumi. Its salt is in the state, and reading the config writes it to the file.
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
	r.say("stack " + stack + ": its own settings and secrets are in " + w.StackFile(stack))
	if own != nil { // then merge what has changed in the tracked file since
		return errors.Join(writeFile(w.StackFile(stack), made), w.MergeTracked(stack))
	}
	return errors.Join(writeFile(w.lastTracked(stack), tracked), writeFile(w.StackFile(stack), made))
}

// stackFile is the decoded content of a stack's own file.
type stackFile map[string]any

func (w *Workspace) load(stack string) (stackFile, error) {
	text, err := os.ReadFile(w.StackFile(stack))
	if err != nil {
		return nil, err
	}
	// Decoded into a plain map, because the library would give nested maps the type stackFile as well.
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

// config returns the file's config map.
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

// chooseSettings decides, once, which provider and which images the stack uses, and
// installs them. It also records the engine's API version once: changing it replaces
// every container, which is the user's decision.
func (r *run) chooseSettings(ctx context.Context, f stackFile) error {
	ping, err := r.engine.Ping(ctx, client.PingOptions{})
	if err != nil {
		return err
	}
	if known := f.get("engineApi"); known == nil {
		f.set("engineApi", ping.APIVersion)
	} else if known != ping.APIVersion {
		r.say(fmt.Sprintf("the engine speaks API %s, and stack %s is set up for %v. To use the newer one, which replaces every container: %s",
			ping.APIVersion, r.stack, known, settings.SetCommand(r.stack, "engineApi", "'"+ping.APIVersion+"'")))
	}
	first := f.get("provider") == nil
	if first {
		f.set("provider", r.ChooseProvider(ctx, r.say))
	}
	if f.get("provider") == settings.Offline {
		if err := r.installProvider(r.say); err != nil {
			return err
		}
	}
	if first && !r.registry() || f.airgapped() {
		if err := r.useAirgap(r.stack, f, r.say); err != nil {
			return err
		}
	}
	// In an interrupted run every request fails, and decisions based on that must not be saved.
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.save(r.stack, f); err != nil {
		return err
	}
	<-r.ahead
	return r.makeImages(ctx)
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

// installProvider builds the offline plugin, and installs it if it differs from the installed one.
func (w *Workspace) installProvider(say func(string)) error {
	binary := w.offlineBinary()
	if err := w.BuildProvider(binary, settings.OfflineVersion); err != nil {
		return err
	}
	installed := filepath.Join(w.Home, "plugins", "resource-docker-v"+settings.OfflineVersion, "pulumi-resource-docker")
	built, err := os.Stat(binary)
	if err != nil {
		return err
	}
	if there, err := os.Stat(installed); err == nil && there.Size() == built.Size() && there.ModTime().Equal(built.ModTime()) {
		return nil
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	if there, _ := os.ReadFile(installed); !bytes.Equal(content, there) {
		say("installing the offline docker provider " + settings.OfflineVersion)
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
