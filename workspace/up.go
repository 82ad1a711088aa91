package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/cmdutil"
	"golang.org/x/sync/errgroup"

	"trading-platform/observe"
	"trading-platform/plan"
	"trading-platform/settings"
	"trading-platform/timing"
)

// commands are the commands of Run, each as a command of the CLI with its flags.
var commands = map[string][]string{
	"up":      {"up", "--yes", "--skip-preview"},
	"down":    {"destroy", "--yes", "--skip-preview"},
	"preview": {"preview", "--diff"},
	"refresh": {"refresh", "--yes", "--skip-preview"},
}

// Run does what Init does, and then one of four commands: up brings a stack up, and every service is healthy when it
// returns nil; down takes it down, and its volumes stay; preview shows what an up would change; refresh records in the
// state what changed outside of Pulumi. args are further arguments for the CLI.
func (w *Workspace) Run(ctx context.Context, command, stack string, args []string, say func(string)) error {
	if w.Timing != "" {
		w.recorder = &timing.Recorder{}
	}
	w.recorder.Step("preparing the stack")
	r, err := w.prepare(ctx, stack, false, say)
	if err != nil {
		return err
	}
	defer func() { _ = r.engine.Close() }()
	r.plain = len(args) == 0
	args = slices.Concat(commands[command], args, []string{"-s", stack})
	if w.recorder == nil {
		return r.runPulumi(ctx, args[0], args)
	}
	return r.timed(ctx, args)
}

// engineCommands maps the commands of the CLI that use the engine, and their aliases, to what they do.
var engineCommands = map[string]string{
	"up": "up", "update": "up", "preview": "preview", "pre": "preview", "refresh": "refresh",
	"destroy": "destroy", "down": "destroy", "dn": "destroy",
}

// Exec runs a pulumi command with the user's arguments, with this machine's state and
// passphrase and the stack's own file. A command that uses the engine runs as in Run; any
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
	stack := stackOf(args)
	if stack == "" {
		stack = w.selected(ctx)
	}
	i := slices.IndexFunc(args, func(a string) bool { return engineCommands[a] != "" })
	help := slices.Contains(args, "--help") || slices.Contains(args, "-h")
	if i < 0 || stack == "" || help || !exists(w.StackFile(stack)) {
		if err := w.MergeTracked(stack); err != nil {
			return err
		}
		return replaceProcess(w.Pulumi, append([]string{"pulumi"}, w.pulumiArgs(stack, args)...), w.Environ())
	}
	r, err := w.prepare(ctx, stack, false, say)
	if err != nil {
		return err
	}
	defer func() { _ = r.engine.Close() }()
	return r.runPulumi(ctx, engineCommands[args[i]], args)
}

// runPulumi runs a command of the CLI, and what the CLI cannot do itself: before it, it
// corrects differences between the engine and the state; after an up, it waits until
// every service is healthy.
func (r *run) runPulumi(ctx context.Context, command string, args []string) error {
	r.recorder.Step("comparing the engine with the state")
	p, _, wrong := r.Resolve(r.stack) // the Pulumi program reports what is wrong
	if command != "preview" {
		if err := r.clearLock(); err != nil {
			return err
		}
		if err := r.clearPending(ctx); err != nil {
			return err
		}
	}
	inputs := ""
	if r.plain && wrong == nil && (command == "up" || command == "preview") {
		inputs = r.inputs(p)
	}
	if p != nil && command != "refresh" {
		found, err := observe.Compare(ctx, r.engine, p, r.state)
		if err != nil {
			return err
		}
		if r.recorder == nil && r.unchanged(ctx, p, found, inputs) {
			r.reportUnchanged(p, command)
			return nil
		}
		refresh, err := r.converge(ctx, p, found, command)
		if err != nil {
			return err
		}
		if refresh {
			args = append(args, "--refresh")
		}
	}
	if command == "destroy" && r.plain && p != nil && r.local() != "" { // elsewhere, another run can have the state locked
		defer r.stopAhead(ctx, p)()
	}
	if err := r.explained(ctx, p, command, r.pulumiArgs(r.stack, args)); err != nil {
		r.say(r.remedy(ctx, command))
		return err
	}
	if command != "up" || p == nil {
		return nil
	}
	record := r.record(inputs)
	r.recorder.Step("checking health")
	if err := r.awaitHealthy(ctx, p); err != nil {
		return err
	}
	if r.Worktree != "" {
		r.sayURLs(p)
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
	switch {
	case ctx.Err() != nil:
		return "interrupted. Fix: run `" + again + "` to continue"
	case r.wrongPassphrase(ctx):
		return "the passphrase is not the one that stack " + r.stack + " was made with. Fix: set PULUMI_CONFIG_PASSPHRASE or " +
			"PULUMI_CONFIG_PASSPHRASE_FILE to that one, or unset both to use " + r.passphraseFile()
	}
	return command + " did not finish. Fix: correct what is reported above, then run `" + again + "` to continue"
}

// wrongPassphrase reports whether the CLI refuses the passphrase. Only a command that encrypts checks it. It gets a copy of the
// stack's file to write to.
func (r *run) wrongPassphrase(ctx context.Context) bool {
	probe := strings.TrimSuffix(r.StackFile(r.stack), ".yaml") + ".probe.yaml"
	defer func() { _ = os.Remove(probe) }()
	if copyFile(r.StackFile(r.stack), probe) != nil {
		return false
	}
	err := r.runCLI(ctx, nil, "config", "set", "-s", r.stack, "--config-file", probe, "--secret", "probe", "none")
	return err != nil && strings.Contains(err.Error(), "incorrect passphrase")
}

// unlockedWindow is how long an object that is not in the state may belong to an active
// run whose lock is not on this machine.
const unlockedWindow = 15 * time.Minute

// converge corrects differences between the engine and the state: it starts containers
// that Pulumi assumes to be running, and removes containers and networks that are not in
// the state. It does not touch volumes, so no data is lost. A preview only reports them.
// refresh says that the state has to be refreshed as well.
func (r *run) converge(ctx context.Context, p *plan.Plan, found *observe.Findings, command string) (refresh bool, err error) {
	up := command == "up"
	for _, name := range found.MovedImages {
		r.say("image " + name + " is another one now than when its containers were made")
	}
	refresh = len(found.MovedImages) > 0 && command != "destroy"
	if command == "preview" {
		if down := found.Down(); len(down) > 0 {
			r.say("not shown below: up starts what is not running: " + strings.Join(down, ", "))
		}
		return refresh, nil
	}
	for _, name := range found.MissingVolumes {
		r.say("volume " + name + " is gone from the engine, and its data with it")
	}
	for _, name := range found.Missing {
		r.say(name + " is gone from the engine")
	}
	// An operator can change a service of a Swarm, of which only a refresh tells.
	refresh = refresh || len(found.Missing)+len(found.MissingVolumes) > 0 || up && p.OnSwarm()
	for _, c := range found.Paused {
		r.say(observe.Name(c) + " is paused: unpausing it")
		if _, err := r.engine.ContainerUnpause(ctx, c.ID, client.ContainerUnpauseOptions{}); err != nil {
			return false, fmt.Errorf("container %s: %w", observe.Name(c), err)
		}
	}
	if up {
		for _, c := range found.Stopped {
			name := observe.Name(c)
			if s, _ := p.Lookup(c.Labels["com.docker.compose.service"]); s.Once { // the state of the official plugin has its exit code
				r.say(name + " has failed: it is created again")
				if err := r.removeContainer(ctx, p, c.ID, name); err != nil {
					return false, err
				}
				refresh = true
				continue
			}
			r.say(name + " is stopped: starting it")
			if _, err := r.engine.ContainerStart(ctx, c.ID, client.ContainerStartOptions{}); err != nil {
				// For example because its network was removed. It has no data, and is created again.
				r.say(name + " cannot be started, and is created again: " + err.Error())
				if err := r.removeContainer(ctx, p, c.ID, name); err != nil {
					return false, err
				}
				refresh = true
			}
		}
	}
	// leftBehind reports whether an object that is not in the state has to be removed. The offline provider adopts a
	// container or network that is exactly as planned; the official one fails because the name is in use. If locks of
	// runs on other machines cannot be seen, a new object may belong to such a run.
	leftBehind := func(what, name string, made time.Time) bool {
		if up && p.Provider == settings.Offline && p.Has(name) {
			return false
		}
		if r.local() == "" && time.Since(made) < unlockedWindow {
			r.say(what + name + " is not in the state and is new: it is kept, because another run may have created it")
			return false
		}
		r.say(what + name + " was left behind by an interrupted run: removing it")
		return true
	}
	group, removing := errgroup.WithContext(ctx)
	for _, c := range found.Containers {
		if name := observe.Name(c); leftBehind("", name, time.Unix(c.Created, 0)) {
			group.Go(func() error { return r.removeContainer(removing, p, c.ID, name) })
		}
	}
	if err := group.Wait(); err != nil {
		return false, err
	}
	for _, s := range found.Services {
		if leftBehind("service ", s.Spec.Name, s.CreatedAt) {
			if _, err := r.engine.ServiceRemove(ctx, s.ID, client.ServiceRemoveOptions{}); err != nil {
				return false, fmt.Errorf("service %s: %w. Fix: docker service rm %[1]s", s.Spec.Name, err)
			}
		}
	}
	for _, n := range found.Networks {
		if leftBehind("network ", n.Name, n.Created) {
			if _, err := r.engine.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}); err != nil {
				return false, fmt.Errorf("network %s: %w. Fix: remove the containers that `docker network inspect %s` shows", n.Name, err, n.Name)
			}
		}
	}
	return refresh, nil
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
	var stopping sync.WaitGroup
	stopping.Go(func() {
		for ctx.Err() == nil && len(r.lockFiles()) == 0 {
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
	})
	return func() { cancel(); stopping.Wait() }
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
	terminal := isTerminal()
	if !terminal { // then signals to this process's group must not reach the CLI
		cmdutil.RegisterProcessGroup(cmd)
	}
	cmd.Cancel = func() error {
		if terminal && strings.Contains(context.Cause(ctx).Error(), os.Interrupt.String()) {
			return nil
		}
		return cmdutil.Interrupt(cmd.Process.Pid)
	}
	return cmd.Run()
}

// Targets returns the arguments with which an up changes nothing but services, and the images that they are built from.
func Targets(services []plan.Service) (args []string) {
	add := func(resource string) { args = append(args, "--target", "**::platform-"+resource) }
	for _, s := range services {
		for _, c := range s.Containers {
			add(s.Name + strings.TrimPrefix(c, s.Containers[0]))
		}
		add("images-" + s.Image.Key())
		if s.Image.Build != nil {
			for _, b := range s.Image.Build.Contexts {
				add("images-" + b.Name)
			}
		}
	}
	return append(args, "--suppress-outputs")
}
