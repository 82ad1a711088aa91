// Command bench compares this program with Docker Compose, and with a program that makes the
// necessary engine calls only, on the same stack. Everything that it creates on the engine begins with
// the name of the run, bench-<number>, which no other run has.
package main

import (
	"context"
	"encoding/gob"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/mod/semver"

	"trading-platform/bench/composecli"
	"trading-platform/catalog"
	"trading-platform/compose"
	"trading-platform/plan"
	"trading-platform/settings"
	"trading-platform/stack"
	"trading-platform/workspace"
)

var (
	stackName  = flag.String("stack", "dev", "the stack, of which a copy is made with its own names, ports and subnet")
	sideNames  = flag.String("sides", "ours,v5.6.0-old,v5.6.0,v2.40.3-old,floor", "ours, floor, or a version of Compose; -old for the probe timings of the old stack")
	rounds     = flag.Int("rounds", 5, "rounds after the warm-up round")
	steadyOf   = flag.String("steady", "ours,v5.6.0-old", "sides whose running stack is watched as well, for its CPU and for when it notices a failure")
	service    = flag.String("service", "signal_service", "the service whose variable is changed")
	ofImage    = flag.String("image", "prometheus", "the service whose image is changed; not one that the reference app plays")
	replicas   = flag.Int("replicas", 0, "run -stack workers with so many backtest_worker_high, and only up, preview and down, without a warm-up")
	portOffset = flag.Int("port-offset", 17000, "added to each host port")
	subnet     = flag.String("subnet", "10.213.0.0/24", "of the network with fixed addresses")
	out        = flag.String("o", "docs/performance", "where <o>.md, <o>.svg and <o>.txt are written")
)

// The steps of a round, in this order.
var steps = []string{"cold up", "up, nothing to do", "preview", "one variable changed", "one image changed", "down"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	run := bench
	if len(os.Args) == 4 && os.Args[1] == "floor" {
		run = func(ctx context.Context) error { return runFloor(ctx, os.Args[2], os.Args[3]) }
	}
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// side is one way to run the stack.
type side struct {
	name, prefix string
	up, preview  []string // command lines
	down         []string
	file         string // what Compose or the floor reads; empty for ours
	old          bool   // with the probe timings of the old stack
	containers   int    // how many the stack has
}

type harness struct {
	root, dir string // the clone, and a temporary folder with Pulumi's state
	run       string // the name of the run, that of its folder
	engine    *client.Client
	env       []string
	images    [2]string // references to the image of *ofImage, and to another one
}

func bench(ctx context.Context) (err error) {
	flag.Parse()
	first := 0
	if *replicas > 0 {
		steps, first, *stackName, *steadyOf = []string{"cold up", "up, nothing to do", "preview", "down"}, 1, "workers", ""
	}
	h := &harness{}
	if h.root, err = os.Getwd(); err != nil {
		return err
	}
	if h.engine, err = client.New(client.FromEnv); err != nil {
		return err
	}
	if h.dir, err = os.MkdirTemp("", "bench-*"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(h.dir) }()
	h.run = filepath.Base(h.dir)
	if err := adopt(); err != nil {
		return err
	}
	if err := h.prepare(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.untag(context.WithoutCancel(ctx))) }()
	var sides []*side
	for _, name := range strings.Split(*sideNames, ",") {
		s, err := h.side(ctx, name)
		if err != nil {
			return err
		}
		sides = append(sides, s)
		defer func() { err = errors.Join(err, h.sweep(context.WithoutCancel(ctx), s)) }()
	}
	r := newReport(sides)
	for round := first; round <= *rounds; round++ {
		for _, s := range sides {
			if err := h.round(ctx, s, round, r); err != nil {
				return fmt.Errorf("%s, round %d: %w", s.name, round, err)
			}
		}
		if err := r.write(*out); err != nil {
			return err
		}
	}
	return nil
}

// prepare creates a copy of the stack in a state of its own, with everything that `platform up` builds once.
func (h *harness) prepare(ctx context.Context) error {
	h.env = append(os.Environ(), "PULUMI_HOME="+filepath.Join(h.dir, "home"), "PULUMI_BACKEND_URL=file://"+h.dir, workspace.AsMainVariable+"=1")
	if err := h.platform(ctx, "init", "-s", *stackName); err != nil {
		return err
	}
	p, err := h.plan(h.prefix("ours"), nil)
	if err != nil {
		return err
	}
	s, ok := p.Lookup(*ofImage)
	if !ok || s.Image.Reference == "" {
		return fmt.Errorf("stack %s has no service %s with an image of its own. Fix: name another with -image", *stackName, *ofImage)
	}
	// The second image differs in a label only.
	made, err := h.engine.ContainerCreate(ctx, client.ContainerCreateOptions{Name: h.run + "-image", Config: &container.Config{Image: s.Image.Reference}})
	if err != nil {
		return err
	}
	image, err := h.engine.ContainerCommit(ctx, made.ID, client.ContainerCommitOptions{Changes: []string{"LABEL bench=other"}})
	_, removeErr := h.engine.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{RemoveVolumes: true})
	if err = errors.Join(err, removeErr); err != nil {
		return err
	}
	for i, source := range []string{s.Image.Reference, image.ID} {
		h.images[i] = fmt.Sprintf("%s/%s:%d", h.run, *ofImage, i)
		if _, err := h.engine.ImageTag(ctx, client.ImageTagOptions{Source: source, Target: h.images[i]}); err != nil {
			return err
		}
	}
	config := map[string]string{"namePrefix": h.prefix("ours"), "portOffset": strconv.Itoa(*portOffset), "subnet": *subnet, "ignoreCompose[0]": "*"}
	if *replicas > 0 {
		config["replicas.backtest_worker_high"] = strconv.Itoa(*replicas)
	}
	for key, value := range config {
		if err := h.config(ctx, "set", key, value); err != nil {
			return err
		}
	}
	return nil
}

// prefix is the first part of the names of a side's containers, networks and volumes.
func (h *harness) prefix(side string) string {
	return h.run + "-" + strings.ReplaceAll(side, ".", "_")
}

func (h *harness) platform(ctx context.Context, args ...string) error {
	_, err := measure(h.command(ctx, append([]string{filepath.Join(h.root, "bin", "platform")}, args...)))
	return err
}

// config changes a setting of our stack.
func (h *harness) config(ctx context.Context, verb, key string, value ...string) error {
	return h.platform(ctx, append([]string{"pulumi", "config", verb, "-s", *stackName, "--path", settings.Project + ":" + key}, value...)...)
}

func (h *harness) command(ctx context.Context, line []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir, cmd.Env = h.root, h.env
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	return cmd
}

// plan resolves the stack with names of its own. change alters its settings.
func (h *harness) plan(prefix string, change func(map[string]string)) (*plan.Plan, error) {
	w := &workspace.Workspace{Root: h.root, Home: filepath.Join(h.dir, "home"), Backend: "file://" + h.dir}
	src, err := w.Source(*stackName)
	if err != nil {
		return nil, err
	}
	src.Config["namePrefix"], src.Config["identity"] = prefix, prefix
	if change != nil {
		change(src.Config)
	}
	p, _, err := stack.Resolve(src)
	return p, err
}

// side returns the side of this name. A version of Compose is built if this machine does not have it yet.
func (h *harness) side(ctx context.Context, name string) (*side, error) {
	version, old := strings.CutSuffix(name, "-old")
	s := &side{name: name, prefix: h.prefix(name), old: old, file: filepath.Join(h.dir, name)}
	switch {
	case name == "ours":
		p := filepath.Join(h.root, "bin", "platform")
		s.file, s.up, s.preview, s.down = "", []string{p, "up", "-s", *stackName}, []string{p, "preview", "-s", *stackName}, []string{p, "down", "-s", *stackName}
	case name == "floor":
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		s.up, s.preview, s.down = []string{self, "floor", "up", s.file}, []string{self, "floor", "preview", s.file}, []string{self, "floor", "down", s.file}
	case semver.IsValid(version):
		c, err := composecli.Binary(ctx, version)
		if err != nil {
			return nil, err
		}
		line := func(words ...string) []string {
			return append([]string{c, "--progress", "quiet", "-f", s.file}, words...)
		}
		s.up, s.preview, s.down = line("up", "-d", "--wait"), line("--dry-run", "up", "-d"), line("down")
	default:
		return nil, fmt.Errorf("%s is neither ours, nor floor, nor a version of Compose such as v5.6.0", name)
	}
	return s, nil
}

// set gives the service its variable or takes it away, and chooses between the two images.
func (h *harness) set(ctx context.Context, s *side, changed bool, image int) error {
	key := "serviceEnv." + *service + ".LOG_LEVEL"
	if err := h.config(ctx, "set", "images."+*ofImage, h.images[image]); err != nil {
		return err
	}
	p, err := h.plan(s.prefix, func(config map[string]string) {
		delete(config, "serviceEnv")
		if changed {
			config["serviceEnv"] = `{"` + *service + `":{"LOG_LEVEL":"DEBUG"}}`
		}
		if s.old { // without the wrapper for engines that have no start interval
			config["engineApi"] = "1.44"
		}
	})
	if err != nil {
		return err
	}
	s.containers = len(p.Containers())
	for i := range p.Services {
		if s.old {
			p.Services[i].Probe = oldProbe(p.Services[i])
		}
	}
	switch {
	case s.file == "" && changed:
		return h.config(ctx, "set", key, "DEBUG")
	case s.file == "":
		return h.config(ctx, "rm", key)
	}
	f, err := os.Create(s.file)
	if err != nil {
		return err
	}
	defer f.Close()
	if s.name == "floor" {
		return gob.NewEncoder(f).Encode(p)
	}
	return compose.Write(p, f)
}

// oldProbe gives a probe the timing that the service had in the Compose file that this program replaces. There
// the consoles, Prometheus, Grafana and Promtail had no probe at all.
func oldProbe(s plan.Service) plan.Probe {
	timing := func(interval, timeout, start time.Duration, retries int) plan.Probe {
		return plan.Probe{
			Test: s.Probe.Test, Interval: plan.Duration{Duration: interval}, Timeout: plan.Duration{Duration: timeout},
			StartPeriod: plan.Duration{Duration: start}, Retries: retries,
		}
	}
	switch {
	case s.Name == "postgres", s.Name == "redis", s.Name == "loki_server", s.Name == "auth_service":
		return timing(10*time.Second, 5*time.Second, 0, 5)
	case s.Tier == catalog.API:
		return timing(30*time.Second, 10*time.Second, 40*time.Second, 3)
	case s.Tier == catalog.Workers: // of their image, with the engine's default timing
		return timing(30*time.Second, 30*time.Second, 0, 3)
	}
	p := timing(30*time.Second, 30*time.Second, 0, 3)
	p.Test = nil
	return p
}

// round runs all steps of a side once, from nothing to nothing. Round 0, the warm-up, is only up and down, and is not measured.
func (h *harness) round(ctx context.Context, s *side, round int, r *report) error {
	if err := errors.Join(h.sweep(ctx, s), h.set(ctx, s, false, 0)); err != nil {
		return err
	}
	var before map[string]string
	for i, step := range steps {
		if round == 0 && i > 0 && i < len(steps)-1 {
			continue // warm enough
		}
		line, replaced := s.up, 0
		var err error
		switch step {
		case "preview":
			line = s.preview
		case "one variable changed":
			replaced, err = 1, h.set(ctx, s, true, 0)
		case "one image changed":
			replaced, err = 1, h.set(ctx, s, true, 1)
		case "down":
			if round == *rounds && strings.Contains(","+*steadyOf+",", ","+s.name+",") {
				err = h.watch(ctx, s, r)
			}
			line = s.down
		}
		if err != nil {
			return err
		}
		c, err := measure(h.command(ctx, line))
		if err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		fmt.Fprintf(os.Stderr, "round %d  %-12s %-20s %6.1f s  %5.1f s CPU\n", round, s.name, step, c.seconds, c.cpu)
		if round > 0 {
			r.add(s.name, step, c)
		}
		if before, err = h.check(ctx, s, step, before, replaced); err != nil {
			return fmt.Errorf("after %s: %w", step, err)
		}
	}
	return h.sweep(ctx, s)
}

// check makes sure that a step did what it is measured for. It returns the ids of the containers by name.
func (h *harness) check(ctx context.Context, s *side, step string, before map[string]string, replaced int) (map[string]string, error) {
	all, err := containersOf(ctx, h.engine, s.prefix)
	if err != nil {
		return nil, err
	}
	ids, differ, want := map[string]string{}, 0, s.containers
	for _, c := range all {
		ids[c.Names[0]] = c.ID
		if before[c.Names[0]] != c.ID {
			differ++
		}
		if strings.Contains(c.Status, "unhealthy") {
			fmt.Fprintf(os.Stderr, "after %s: %s is %s, so this machine is too busy to measure anything\n", step, c.Names[0], c.Status)
		}
	}
	if step == "down" {
		want, before = 0, nil
	}
	switch {
	case len(ids) != want:
		return nil, fmt.Errorf("there are %d containers instead of %d", len(ids), want)
	case before != nil && differ != replaced:
		return nil, fmt.Errorf("%d containers were replaced instead of %d", differ, replaced)
	}
	return ids, nil
}

// watch measures what the running stack costs, and when it notices a failure.
func (h *harness) watch(ctx context.Context, s *side, r *report) error {
	time.Sleep(20 * time.Second) // so that the services have settled
	inside, around, err := steady(ctx, h.engine, s.prefix)
	if err != nil {
		return err
	}
	failed, hung, err := noticed(ctx, h.engine, s.prefix, *service)
	r.watched[s.name] = running{inside, around, failed, hung}
	return err
}

// untag removes both references, and with the second one its image.
func (h *harness) untag(ctx context.Context) error {
	var errs []error
	for _, name := range h.images {
		if _, err := h.engine.ImageRemove(ctx, name, client.ImageRemoveOptions{}); !cerrdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func containersOf(ctx context.Context, engine *client.Client, prefix string) ([]container.Summary, error) {
	list, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("name", "^/"+prefix+"_")})
	return list.Items, err
}

// sweep removes what a side has left on the engine, volumes included.
func (h *harness) sweep(ctx context.Context, s *side) error {
	all, err := containersOf(ctx, h.engine, s.prefix)
	errs := []error{err}
	for _, c := range all {
		_, err := h.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		errs = append(errs, err)
	}
	named := client.Filters{}.Add("name", "^"+s.prefix+"_")
	networks, err := h.engine.NetworkList(ctx, client.NetworkListOptions{Filters: named})
	errs = append(errs, err)
	for _, n := range networks.Items {
		_, err := h.engine.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
		errs = append(errs, err)
	}
	volumes, err := h.engine.VolumeList(ctx, client.VolumeListOptions{Filters: named})
	errs = append(errs, err)
	for _, v := range volumes.Items {
		_, err := h.engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
