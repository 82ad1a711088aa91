package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"trading-platform/observe"
	"trading-platform/plan"
	"trading-platform/preflight"
	"trading-platform/settings"
)

// Up brings a stack up: when it returns nil, every service is healthy now.
func (w *Workspace) Up(ctx context.Context, stack string, args []string, say func(string)) error {
	return w.prepared(ctx, stack, append([]string{"up", "--yes", "--skip-preview"}, args...), say)
}

// Down takes a stack down; its volumes stay.
func (w *Workspace) Down(ctx context.Context, stack string, args []string, say func(string)) error {
	return w.prepared(ctx, stack, append([]string{"destroy", "--yes", "--skip-preview"}, args...), say)
}

// Preview shows what an up would change.
func (w *Workspace) Preview(ctx context.Context, stack string, args []string, say func(string)) error {
	return w.prepared(ctx, stack, append([]string{"preview", "--diff"}, args...), say)
}

// Reread takes over into the state what happened outside of Pulumi.
func (w *Workspace) Reread(ctx context.Context, stack string, args []string, say func(string)) error {
	return w.prepared(ctx, stack, append([]string{"refresh", "--yes", "--skip-preview"}, args...), say)
}

func (w *Workspace) prepared(ctx context.Context, stack string, args []string, say func(string)) error {
	r, err := w.prepare(ctx, stack, InitOptions{}, say)
	if err != nil {
		return err
	}
	defer func() { _ = r.engine.Close() }()
	return r.act(ctx, args[0], append(args, "-s", stack))
}

// lockless is for how long something that the state does not know may belong to a run
// whose lock is not on this machine.
const lockless = 15 * time.Minute

// acting are the commands of the CLI that act on the engine, by what they do.
var acting = map[string]string{
	"up": "up", "update": "up", "preview": "preview", "pre": "preview", "refresh": "refresh",
	"destroy": "destroy", "down": "destroy", "dn": "destroy",
}

// Exec runs a pulumi command as it was typed, with this machine's state, passphrase
// and the stack's own file. One that acts on the engine is seen to as in Up; any
// other takes the place of this process.
func (w *Workspace) Exec(ctx context.Context, args []string, say func(string)) error {
	if w.Pulumi == "" {
		return errors.New("there is no pulumi here yet. Fix: make init")
	}
	stack := StackOf(args)
	if stack == "" {
		stack = w.Selected(ctx)
	}
	if stack != "" {
		if err := w.Refresh(stack); err != nil {
			return err
		}
	}
	i := slices.IndexFunc(args, func(a string) bool { return acting[a] != "" })
	help := slices.Contains(args, "--help") || slices.Contains(args, "-h")
	if i < 0 || stack == "" || help || !exists(w.StackFile(stack)) {
		return replaceProcess(w.Pulumi, append([]string{"pulumi"}, w.PulumiArgs(stack, args)...), w.Environ())
	}
	r, err := w.attach(ctx, stack, say)
	if err != nil {
		return err
	}
	defer func() { _ = r.engine.Close() }()
	return r.act(ctx, acting[args[i]], args)
}

// Engine opens the engine that a stack lives on.
func (w *Workspace) Engine(ctx context.Context, stack string) (*client.Client, error) {
	engine, here, err := preflight.Connect(ctx)
	if err != nil {
		return nil, err
	}
	file, err := w.load(stack)
	if errors.Is(err, os.ErrNotExist) {
		return engine, nil // made by plain pulumi, which has no file of its own to remember it in
	}
	if err == nil {
		err = preflight.SameEngine(stack, recorded(file, &observe.State{}), here)
	}
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return engine, nil
}

// attach opens a stack that Init has seen to before.
func (w *Workspace) attach(ctx context.Context, stack string, say func(string)) (*run, error) {
	engine, err := w.Engine(ctx, stack)
	if err != nil {
		return nil, err
	}
	r := &run{Workspace: w, stack: stack, engine: engine, say: say}
	if err = r.repairState(); err == nil {
		var export []byte
		if export, err = w.output(ctx, "stack", "export", "-s", stack); err == nil {
			r.state, err = observe.ReadState(export)
		}
	}
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return r, nil
}

// act runs a command of the CLI between what it cannot do itself: before it, the
// engine is made to agree with the state; after an up, every service is healthy.
func (r *run) act(ctx context.Context, command string, args []string) error {
	p, err := r.plan(r.stack)
	if err != nil {
		return err
	}
	if command != "preview" {
		if err := r.clearLock(); err != nil {
			return err
		}
		if err := r.clearPending(ctx); err != nil {
			return err
		}
	}
	if p != nil && command != "refresh" { // else Pulumi's program says what is wrong with the settings
		found, err := observe.Look(ctx, r.engine, p, r.state)
		if err != nil {
			return err
		}
		if command == "preview" {
			if down := found.Down(); len(down) > 0 {
				r.say("not shown below: up brings back what does not run: " + strings.Join(down, ", "))
			}
		} else if err := r.converge(ctx, p, found, command == "up"); err != nil {
			return err
		} else if len(found.Missing)+len(found.MissingVolumes) > 0 {
			args = append(args, "--refresh")
		}
	}
	if err := r.explained(ctx, p, r.PulumiArgs(r.stack, args)); err != nil {
		r.say(r.next(ctx, command))
		return err
	}
	if command != "up" || p == nil {
		return nil
	}
	return r.awaitHealthy(ctx, p)
}

// next says what to do after a command that Pulumi has told the failure of.
func (r *run) next(ctx context.Context, command string) string {
	target := command
	if command == "destroy" {
		target = "down"
	}
	again := "make " + target + " STACK=" + r.stack
	if ctx.Err() != nil {
		return "interrupted. Fix: `" + again + "` goes on from here"
	}
	if r.wrongPassphrase(ctx) {
		return "the passphrase is not the one that stack " + r.stack + " was made with. Fix: set PULUMI_CONFIG_PASSPHRASE or " +
			"PULUMI_CONFIG_PASSPHRASE_FILE as then, or unset both to use " + r.passphraseFile()
	}
	return command + " did not finish. Fix: see to what is said above, then `" + again + "` goes on from here"
}

// wrongPassphrase tells whether the CLI refuses the passphrase. Only what encrypts asks for it.
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
	return errors.As(err, &failed) && strings.Contains(failed.complaint, "incorrect passphrase")
}

// converge brings the engine closer to the state: containers that an up takes for
// running run again, and what the state does not know of is taken away. None of
// that holds data: volumes are left alone.
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
				// As when its network is gone. It holds no data, and is made anew.
				r.say(observe.Name(c) + " cannot be started, and is made anew: " + err.Error())
				if err := r.removeContainer(ctx, p, c.ID, observe.Name(c)); err != nil {
					return err
				}
				found.Missing = append(found.Missing, observe.Name(c))
			}
		}
	}
	// The offline provider takes over what is exactly as wanted. The official one
	// stumbles over the name.
	wanted := func(name string) bool { return up && p.Provider == settings.Offline && p.Has(name) }
	// Where the lock of a run elsewhere cannot be seen, what is new may be that run's.
	foreign := func(name string, made time.Time) bool {
		fresh := r.local() == "" && time.Since(made) < lockless
		if fresh {
			r.say(name + " is not in the state and was made just now: left alone, since another run may be at it")
		}
		return fresh
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range found.Containers {
		if name := observe.Name(c); !wanted(name) && !foreign(name, time.Unix(c.Created, 0)) {
			r.say(name + " was left behind by a run that was cut short: removing it")
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
		r.say("network " + n.Name + " was left behind by a run that was cut short: removing it")
		if _, err := r.engine.NetworkRemove(context.WithoutCancel(ctx), n.ID, client.NetworkRemoveOptions{}); err != nil {
			return fmt.Errorf("network %s: %w. Fix: `docker network inspect %s` shows who uses it", n.Name, err, n.Name)
		}
	}
	return nil
}

// removeContainer stops a container with its service's grace time and removes it.
// Only unnamed volumes go with it.
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

// foreground runs the CLI for the user to see. At a terminal Ctrl-C reaches the CLI
// by itself, and a second one would have it drop its state; in all other cases the
// signal is passed on, and it ends in good order.
func (w *Workspace) foreground(ctx context.Context, args []string, env ...string) error {
	cmd := exec.CommandContext(ctx, w.Pulumi, args...)
	cmd.Env = slices.Concat(w.Environ(), []string{observe.Done + "=true"}, env)
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
