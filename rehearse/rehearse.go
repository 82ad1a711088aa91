// Package rehearse proves what a change does to a stack, before it is merged: it brings the base revision's stack up under names, ports
// and a subnet of its own, puts data and traffic on it, applies the change by a real up, takes it back by another, and compares what it
// measured with what the plans predict.
package rehearse

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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	engines "trading-platform/engine"
	"trading-platform/review"
	"trading-platform/settings"
	"trading-platform/stack"
	"trading-platform/workspace"
)

// Options say what is rehearsed.
type Options struct {
	Workspace *workspace.Workspace
	Stack     string
	Base      string // the git revision that the change is applied to
	Seed      string // a file of `platform backup` with the data; empty for the project's own seed
	Engine    *client.Client
	Here      engines.Ref
	Say       func(string)
}

// rehearsal is the state of one run.
type rehearsal struct {
	Options
	id, commit string
	own        *workspace.Workspace // its own backend
	base, head *side
}

// side is one of the two revisions.
type side struct {
	*review.Revision
	binary string
	config settings.Source // of the tracked stack file
	place  map[string]any  // the settings that differ between the sides
	plan   *review.Snapshot
}

// Run rehearses the change from the base to the checkout as it is. It leaves nothing behind, unless it is killed; then the next run
// removes what is left.
func Run(ctx context.Context, o Options) (report review.Report, err error) {
	if err := sweep(ctx, o.Engine, o.Say); err != nil {
		return report, err
	}
	id, lock, err := claim()
	if err != nil {
		return report, err
	}
	defer func() {
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
		defer cancel()
		if ctx.Err() != nil {
			err = errors.New("interrupted: the rehearsal and its stack are removed")
		}
		err = errors.Join(err, remove(cleaning, o.Engine, id), lock.Unlock())
	}()
	r := &rehearsal{Options: o, id: id, own: &workspace.Workspace{Backend: "file://" + filepath.Join(folder(id), "state")}}
	if err := r.checkOut(ctx); err != nil {
		return report, err
	}
	if err := r.configure(); err != nil {
		return report, err
	}
	done := &review.Rehearsal{Stack: r.Stack, Seed: cmp.Or(r.Seed, "the project's own seed")}
	if done.Up, err = r.firstUp(ctx); err != nil {
		return report, err
	}
	var forward, back review.Stack
	if done.Forward, forward, err = r.apply(ctx, r.base, r.head); err != nil {
		return report, err
	}
	if done.Back, back, err = r.apply(ctx, r.head, r.base); err != nil {
		return report, err
	}
	done.Judge(forward, back)
	return review.Report{Version: review.Version, Base: r.base.Name, Head: r.head.Name, Stacks: []review.Stack{forward}, Rehearsal: done}, nil
}

// checkOut writes both revisions into folders of their own, and builds their platform commands.
func (r *rehearsal) checkOut(ctx context.Context) error {
	var build errgroup.Group
	defer func() { _ = build.Wait() }()
	for name, ref := range map[string]string{"base": r.Base, "head": review.Here} {
		dir := filepath.Join(folder(r.id), name)
		revision, commit, err := review.CheckOut(ctx, r.Workspace.Root, ref, dir)
		if err != nil {
			return err
		}
		s := &side{Revision: revision, binary: filepath.Join(revision.Root, "bin", "platform")}
		revision.Env = review.Isolated(folder(r.id))
		if s.config, err = settings.FromFiles(r.Stack, revision.Root, filepath.Join(revision.Root, "Pulumi."+r.Stack+".yaml")); err != nil {
			return fmt.Errorf("%s: %w", revision.Name, err)
		}
		if name == "base" {
			r.base, r.commit = s, commit
		} else {
			r.head = s
		}
		r.Say("building " + revision.Name)
		build.Go(func() error { return revision.Build(ctx, s.binary) })
	}
	return build.Wait()
}

// configure writes the stack's own file: a place of its own, and what `platform init` has decided for the stack on this machine. It has
// none of this machine's secrets, and no volume that exists. A variable that init would ask for gets a random value.
func (r *rehearsal) configure() error {
	subnet, err1 := freeSubnet()
	moved, err2 := freeSubnet()
	here, err3 := r.Workspace.Source(r.Stack)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	offset := freeOffset()
	before, _ := strconv.Atoi(r.base.config.Config["portOffset"]) // the plan says what is wrong with one
	after, _ := strconv.Atoi(r.head.config.Config["portOffset"])
	r.base.place = map[string]any{"namePrefix": r.id, "subnet": subnet, "portOffset": offset}
	r.head.place = map[string]any{"namePrefix": r.id, "subnet": subnet, "portOffset": offset + after - before}
	for key, value := range map[string]string{"namePrefix": r.id + "_head", "subnet": moved} {
		if r.base.config.Config[key] != r.head.config.Config[key] { // what the change moves is moved here too
			r.head.place[key] = value
		}
	}
	config := map[string]any{}
	set := func(key string, value any) { config[settings.Project+":"+key] = value }
	set("identity", r.id)
	set("bindAddress", "127.0.0.1")
	set("ignoreCompose", []string{"*"})
	set("dockerRoot", cmp.Or(r.Here.Root, here.Config["dockerRoot"]))
	if r.Workspace.ConfigFile(r.Stack) == r.Workspace.StackFile(r.Stack) { // which init has written
		for _, key := range []string{"provider", "images", "disabled"} {
			var value any = here.Config[key]
			_ = json.Unmarshal([]byte(here.Config[key]), &value) // a text that is no JSON stays as it is
			set(key, value)
		}
	}
	for _, s := range []*side{r.base, r.head} {
		volumes := map[string]string{}
		_ = json.Unmarshal([]byte(s.config.Config["volumes"]), &volumes)
		for key := range volumes {
			volumes[key] = "" // it does not count
		}
		if len(volumes) > 0 {
			set("volumes", volumes)
		}
		if p, _, _ := stack.Resolve(s.config); p != nil {
			for _, v := range p.Unset {
				if v.Ask {
					set(v.Name, strings.TrimRight(workspace.RandomSecret(), "="))
				}
			}
		}
	}
	for _, key := range []string{"docker:host", "docker:certPath"} {
		if value := here.Config[key]; value != "" {
			config[key] = value
		}
	}
	text, err := yaml.Marshal(map[string]any{"config": config})
	file := r.own.StackFile(r.Stack)
	err = errors.Join(err, os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, text, 0o600))
	installed, _ := filepath.Glob(filepath.Join(r.Workspace.Home, "plugins", "resource-docker-v*")) // the pattern is valid
	for _, plugin := range installed {
		link := filepath.Join(folder(r.id), "home", "plugins", filepath.Base(plugin))
		if !strings.HasSuffix(plugin, settings.OfflineVersion) { // of which each revision installs its own
			err = errors.Join(err, os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink(plugin, link))
		}
	}
	return err
}

// enter makes the settings those of a side, and has its code print the plan.
func (r *rehearsal) enter(ctx context.Context, s *side) (err error) {
	for key, value := range s.place {
		if err := r.own.SetConfig(r.Stack, key, value); err != nil {
			return err
		}
	}
	s.plan, err = s.Plan(ctx, s.binary, r.Stack)
	return err
}

// firstUp brings the base revision's stack up, with data in it, and returns how many seconds that took.
func (r *rehearsal) firstUp(ctx context.Context) (seconds float64, err error) {
	if err := r.enter(ctx, r.base); err != nil {
		return 0, err
	}
	r.Say("bringing up " + r.base.Name + " as " + r.id)
	command := []string{"up"}
	if r.Seed != "" {
		file, err := filepath.Abs(r.Seed)
		if err != nil {
			return 0, err
		}
		command = []string{"restore", file}
	}
	seconds, failed, err := r.platform(ctx, r.base, command...)
	switch {
	case err != nil || r.Seed != "" && failed == "":
		return seconds, err
	case failed != "":
		return 0, fmt.Errorf("the stack of %s does not come up, so nothing can be rehearsed on it:\n%s", r.base.Name, failed)
	}
	return seconds, r.seed(ctx)
}

// outputEnd is how many lines of a failed command a report shows.
const outputEnd = 25

// platform runs a command of a side's platform on the stack. If the command fails, it returns the end of what it printed.
func (r *rehearsal) platform(ctx context.Context, s *side, command ...string) (seconds float64, failed string, err error) {
	cmd := exec.CommandContext(ctx, s.binary, append(command, "-s", r.Stack)...)
	var out bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.Root, s.Env, &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	started := time.Now()
	err = cmd.Run()
	seconds = time.Since(started).Seconds()
	if ended := (*exec.ExitError)(nil); ctx.Err() == nil && errors.As(err, &ended) {
		lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(out.String(), s.Root+string(os.PathSeparator), "")), "\n")
		return seconds, strings.Join(lines[max(0, len(lines)-outputEnd):], "\n"), nil
	}
	return seconds, "", err
}
