package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	engines "trading-platform/engine"
	"trading-platform/observe"
	"trading-platform/plan"
	"trading-platform/preflight"
	"trading-platform/settings"
	"trading-platform/timing"
)

// Up brings a stack up. When it returns nil, every service is healthy.
func (w *Workspace) Up(ctx context.Context, stack string, args []string, say func(string)) error {
	return w.prepared(ctx, stack, []string{"up", "--yes", "--skip-preview"}, args, say)
}

// Down takes a stack down; its volumes stay.
func (w *Workspace) Down(ctx context.Context, stack string, args []string, say func(string)) error {
	return w.prepared(ctx, stack, []string{"destroy", "--yes", "--skip-preview"}, args, say)
}

// Preview shows what an up would change.
func (w *Workspace) Preview(ctx context.Context, stack string, args []string, say func(string)) error {
	return w.prepared(ctx, stack, []string{"preview", "--diff"}, args, say)
}

// Refresh records in the state what changed outside of Pulumi.
func (w *Workspace) Refresh(ctx context.Context, stack string, args []string, say func(string)) error {
	return w.prepared(ctx, stack, []string{"refresh", "--yes", "--skip-preview"}, args, say)
}

func (w *Workspace) prepared(ctx context.Context, stack string, command, args []string, say func(string)) error {
	if w.Timing != "" {
		w.recorder = &timing.Recorder{}
	}
	w.recorder.Step("preparing the stack")
	r, err := w.prepare(ctx, stack, InitOptions{}, say)
	if err != nil {
		return err
	}
	defer func() { _ = r.engine.Close() }()
	r.plain = len(args) == 0
	args = slices.Concat(command, args, []string{"-s", stack})
	if w.recorder == nil {
		return r.runPulumi(ctx, args[0], args)
	}
	w.recorder.Watch(ctx, r.engine, stack)
	args, traces := r.traced(ctx, args)
	return errors.Join(r.runPulumi(ctx, args[0], args), r.writeTiming(traces))
}

// traced adds the flag with which the CLI traces its processes. CLIs from before 2026 do not have it.
func (r *run) traced(ctx context.Context, args []string) (with []string, path string) {
	if r.runCLI(ctx, nil, "version", "--otel-traces=") != nil {
		return args, ""
	}
	path = filepath.Join(r.Timing, "pulumi.json")
	return append(args, "--otel-traces=file://"+path), path
}

// writeTiming writes the report of the run that has just ended, also if it has failed.
func (r *run) writeTiming(traces string) error {
	p, err := r.plan(r.stack)
	if err != nil || p == nil {
		return err
	}
	report := r.recorder.Report(p)
	if traces != "" {
		if report.Processes, err = timing.ReadTraces(traces); err != nil {
			return err
		}
	}
	for name, write := range map[string]func(io.Writer) error{"report.txt": report.Text, "trace.json": report.Chrome, "timing.svg": report.Picture} {
		var text bytes.Buffer
		if err := errors.Join(write(&text), os.WriteFile(filepath.Join(r.Timing, name), text.Bytes(), 0o600)); err != nil {
			return err
		}
	}
	r.say("where the time went: report.txt, timing.svg and trace.json, which https://ui.perfetto.dev shows, in " + r.Timing)
	return report.Text(os.Stdout)
}

// unlockedWindow is how long an object that is not in the state may belong to an active
// run whose lock is not on this machine.
const unlockedWindow = 15 * time.Minute

// engineCommands maps the commands of the CLI that use the engine, and their aliases, to what they do.
var engineCommands = map[string]string{
	"up": "up", "update": "up", "preview": "preview", "pre": "preview", "refresh": "refresh",
	"destroy": "destroy", "down": "destroy", "dn": "destroy",
}

// Exec runs a pulumi command with the user's arguments, with this machine's state and
// passphrase and the stack's own file. A command that uses the engine runs as in Up; any
// other replaces this process.
func (w *Workspace) Exec(ctx context.Context, args []string, say func(string)) error {
	if w.Pulumi == "" {
		return errors.New("there is no pulumi here yet. Fix: make init")
	}
	if !w.Installed {
		if err := w.buildTool(ctx, "pulumi-language-go"); err != nil {
			return err
		}
	}
	stack := StackOf(args)
	if stack == "" {
		stack = w.Selected(ctx)
	}
	if stack != "" {
		if err := w.MergeTracked(stack); err != nil {
			return err
		}
	}
	i := slices.IndexFunc(args, func(a string) bool { return engineCommands[a] != "" })
	help := slices.Contains(args, "--help") || slices.Contains(args, "-h")
	if i < 0 || stack == "" || help || !exists(w.StackFile(stack)) {
		return replaceProcess(w.Pulumi, append([]string{"pulumi"}, w.PulumiArgs(stack, args)...), w.Environ())
	}
	r, err := w.attach(ctx, stack, say)
	if err != nil {
		return err
	}
	defer func() { _ = r.engine.Close() }()
	return r.runPulumi(ctx, engineCommands[args[i]], args)
}

// Engine opens and identifies the engine that a stack runs on.
func (w *Workspace) Engine(ctx context.Context, stack string) (*client.Client, engines.Ref, error) {
	engine, here, err := w.connect(ctx, stack)
	if err != nil {
		return nil, here, err
	}
	file, err := w.load(stack)
	if errors.Is(err, os.ErrNotExist) {
		return engine, here, nil // created with plain pulumi, so that no own file has recorded an engine
	}
	if err == nil {
		err = preflight.SameEngine(stack, recorded(file, &observe.State{}), here)
	}
	if err != nil {
		return nil, here, errors.Join(err, engine.Close())
	}
	return engine, here, nil
}

// connect opens the engine that a stack's file names, or the one that the docker command would use.
func (w *Workspace) connect(ctx context.Context, stack string) (*client.Client, engines.Ref, error) {
	src, err := settings.FromFiles(stack, w.Root, w.ConfigFile(stack))
	if err != nil {
		return nil, engines.Ref{}, err
	}
	return preflight.Connect(ctx, src.Docker())
}

// attach opens a stack that Init has set up before.
func (w *Workspace) attach(ctx context.Context, stack string, say func(string)) (*run, error) {
	engine, here, err := w.Engine(ctx, stack)
	if err != nil {
		return nil, err
	}
	r := &run{Workspace: w, stack: stack, engine: engine, here: here, say: say}
	if err = r.repairState(); err == nil {
		var export []byte
		if export, err = r.export(ctx); err == nil {
			r.state, err = observe.ReadState(export)
		}
	}
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return r, nil
}

// runPulumi runs a command of the CLI, and what the CLI cannot do itself: before it, it
// corrects differences between the engine and the state; after an up, it waits until
// every service is healthy.
func (r *run) runPulumi(ctx context.Context, command string, args []string) error {
	r.recorder.Step("comparing the engine with the state")
	p, wrong, err := r.resolve(r.stack)
	if err != nil {
		return err
	}
	inputs := ""
	if command != "preview" {
		if err := r.clearLock(); err != nil {
			return err
		}
		if err := r.clearPending(ctx); err != nil {
			return err
		}
	}
	if p != nil && command != "refresh" { // if p is nil, the Pulumi program reports what is wrong with the settings
		found, err := observe.Compare(ctx, r.engine, p, r.state)
		if err != nil {
			return err
		}
		if r.plain && command != "destroy" && wrong == nil { // the program reports what is wrong
			if inputs = r.inputs(p); r.recorder == nil && r.unchanged(ctx, p, found, inputs) {
				r.reportUnchanged(p, command)
				return nil
			}
		}
		for _, name := range found.MovedImages {
			r.say("image " + name + " is another one now than when its containers were made")
		}
		if len(found.MovedImages) > 0 && command != "destroy" {
			args = append(args, "--refresh")
		}
		if command == "preview" {
			if down := found.Down(); len(down) > 0 {
				r.say("not shown below: up starts what is not running: " + strings.Join(down, ", "))
			}
		} else if err := r.converge(ctx, p, found, command == "up"); err != nil {
			return err
		} else if len(found.Missing)+len(found.MissingVolumes) > 0 {
			args = append(args, "--refresh")
		}
	}
	if command == "destroy" && r.plain && p != nil && r.local() != "" { // elsewhere, another run can have the state locked
		defer r.stopAhead(ctx, p)()
	}
	if err := r.explained(ctx, p, command, r.PulumiArgs(r.stack, args)); err != nil {
		r.say(r.remedy(ctx, command))
		return err
	}
	if command != "up" || p == nil {
		return nil
	}
	record := ""
	if inputs != "" {
		if record, err = r.record(inputs); err != nil {
			return err
		}
	}
	r.recorder.Step("checking health")
	if err := r.awaitHealthy(ctx, p); err != nil {
		return err
	}
	r.sayAddresses(p)
	return r.recordUp(inputs, record)
}

// remedy returns what to do after a command has failed. Pulumi has already printed the cause.
func (r *run) remedy(ctx context.Context, command string) string {
	target := command
	if command == "destroy" {
		target = "down"
	}
	again := "make " + target + " STACK=" + r.stack
	if ctx.Err() != nil {
		return "interrupted. Fix: run `" + again + "` to continue"
	}
	if r.wrongPassphrase(ctx) {
		return "the passphrase is not the one that stack " + r.stack + " was made with. Fix: set PULUMI_CONFIG_PASSPHRASE or " +
			"PULUMI_CONFIG_PASSPHRASE_FILE to that one, or unset both to use " + r.passphraseFile()
	}
	return command + " did not finish. Fix: correct what is reported above, then run `" + again + "` to continue"
}

// wrongPassphrase reports whether the CLI refuses the passphrase. Only a command that encrypts checks it.
func (r *run) wrongPassphrase(ctx context.Context) bool {
	file, err := readFile(r.StackFile(r.stack))
	if err != nil {
		return false
	}
	temp := strings.TrimSuffix(r.StackFile(r.stack), ".yaml") + ".probe.yaml"
	defer func() { _ = os.Remove(temp) }()
	if writeFile(temp, file) != nil {
		return false
	}
	var failed *cliError
	err = r.runCLI(ctx, nil, "config", "set", "-s", r.stack, "--config-file", temp, "--secret", "probe", "none")
	return errors.As(err, &failed) && strings.Contains(failed.stderr, "incorrect passphrase")
}

// converge corrects differences between the engine and the state: it starts containers
// that Pulumi assumes to be running, and removes containers and networks that are not in
// the state. It does not touch volumes, so no data is lost.
func (r *run) converge(ctx context.Context, p *plan.Plan, found *observe.Findings, up bool) error {
	for _, name := range found.MissingVolumes {
		r.say("volume " + name + " is gone from the engine, and its data with it")
	}
	for _, name := range found.Missing {
		r.say(name + " is gone from the engine")
	}
	for _, c := range found.Paused {
		r.say(observe.Name(c) + " is paused: unpausing it")
		if _, err := r.engine.ContainerUnpause(ctx, c.ID, client.ContainerUnpauseOptions{}); err != nil {
			return fmt.Errorf("container %s: %w", observe.Name(c), err)
		}
	}
	if up {
		for _, c := range found.Stopped {
			r.say(observe.Name(c) + " is stopped: starting it")
			if _, err := r.engine.ContainerStart(ctx, c.ID, client.ContainerStartOptions{}); err != nil {
				// For example because its network was removed. It has no data, and is created again.
				r.say(observe.Name(c) + " cannot be started, and is created again: " + err.Error())
				if err := r.removeContainer(ctx, p, c.ID, observe.Name(c)); err != nil {
					return err
				}
				found.Missing = append(found.Missing, observe.Name(c))
			}
		}
	}
	// The offline provider adopts a container or network that is exactly as planned. The
	// official one fails because the name is in use.
	wanted := func(name string) bool { return up && p.Provider == settings.Offline && p.Has(name) }
	// If locks of runs on other machines cannot be seen, a new object may belong to such a run.
	foreign := func(name string, made time.Time) bool {
		fresh := r.local() == "" && time.Since(made) < unlockedWindow
		if fresh {
			r.say(name + " is not in the state and is new: it is kept, because another run may have created it")
		}
		return fresh
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range found.Containers {
		if name := observe.Name(c); !wanted(name) && !foreign(name, time.Unix(c.Created, 0)) {
			r.say(name + " was left behind by an interrupted run: removing it")
			group.Go(func() error { return r.removeContainer(ctx, p, c.ID, name) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, n := range found.Networks {
		if wanted(n.Name) || foreign("network "+n.Name, n.Created) {
			continue
		}
		r.say("network " + n.Name + " was left behind by an interrupted run: removing it")
		if _, err := r.engine.NetworkRemove(context.WithoutCancel(ctx), n.ID, client.NetworkRemoveOptions{}); err != nil {
			return fmt.Errorf("network %s: %w. Fix: remove the containers that `docker network inspect %s` shows", n.Name, err, n.Name)
		}
	}
	return nil
}

// removeContainer stops a container with its service's grace period and removes it,
// together with its anonymous volumes.
func (r *run) removeContainer(ctx context.Context, p *plan.Plan, id, name string) error {
	grace := 10
	for _, s := range p.Services {
		if slices.Contains(s.Containers, name) {
			grace = int(s.Grace.Seconds())
		}
	}
	_, err := r.engine.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &grace})
	if err == nil {
		_, err = r.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}
	if err != nil {
		return fmt.Errorf("container %s: %w. Fix: docker rm -f %s", name, err, name)
	}
	return nil
}

// stopAhead stops the containers of the state, each when those that depend on it have stopped. It begins when the CLI has accepted
// the passphrase and has locked the state. Pulumi's first delete comes a second later, and it deletes in waves, of which each is
// as slow as its slowest. What does not stop is left to Pulumi. wait ends it.
func (r *run) stopAhead(ctx context.Context, p *plan.Plan) (wait func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if locks, _ := filepath.Glob(filepath.Join(r.lockFolder(), "*.json")); len(locks) > 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		_ = p.Backwards(func(s plan.Service) error {
			grace := int(s.Grace.Seconds())
			var replicas sync.WaitGroup
			for _, c := range r.state.Containers {
				if slices.Contains(s.Containers, c.Name) && ctx.Err() == nil {
					replicas.Go(func() { _, _ = r.engine.ContainerStop(ctx, c.ID, client.ContainerStopOptions{Timeout: &grace}) })
				}
			}
			replicas.Wait()
			return nil
		})
	}()
	return func() { cancel(); <-done }
}

// foreground runs the CLI with this process's standard streams. At a terminal the CLI
// receives Ctrl-C itself, and a second interrupt would make it lose its state; in all
// other cases the signal is passed on, and the CLI shuts down.
func (r *run) foreground(ctx context.Context, command string, args []string, env ...string) error {
	r.recorder.Step("starting pulumi")
	environ := slices.Concat(r.Environ(), []string{observe.ComparedVariable + "=true"}, env)
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	if r.inProcess(command, args) {
		if err := os.Chdir(r.Root); err != nil { // where the plan's relative paths, such as apps/reference, start
			return err
		}
		address, stop, err := r.serveProgram(environ)
		if err != nil {
			return err
		}
		defer stop()
		args = append(args, "--client="+address)
	}
	cmd := exec.CommandContext(ctx, r.Pulumi, args...)
	cmd.Env, cmd.Dir = environ, dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	terminal := term.IsTerminal(int(os.Stdin.Fd()))
	if !terminal {
		ownGroup(cmd)
	}
	cmd.Cancel = func() error {
		if terminal && strings.Contains(context.Cause(ctx).Error(), os.Interrupt.String()) {
			return nil
		}
		return interrupt(cmd.Process)
	}
	return cmd.Run()
}
