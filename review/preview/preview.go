// Command preview previews every stack that has a file in the clone, as if it did
// not exist yet. `platform preview-all` compiles and runs it: with Pulumi's Automation API
// and SDK it is twice as large as everything else in that command.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi/sdk/v3/go/auto"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optpreview"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"golang.org/x/sync/errgroup"

	"trading-platform/certs"
	"trading-platform/engine"
	"trading-platform/preflight"
	"trading-platform/program"
	"trading-platform/settings"
	"trading-platform/stack"
	"trading-platform/workspace"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, slices.Contains(os.Args, "-v"))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "platform: "+err.Error())
		os.Exit(1)
	}
}

// previews is what the previews of one run share.
type previews struct {
	w             *workspace.Workspace
	dir           string // everything that is made for the run
	pulumi        auto.PulumiCommand
	provider, api string // the docker provider, the engine's API
}

// run previews the stacks of the clone in the current folder, several at a time. It needs
// an engine, and changes nothing on it: state, settings, secrets and certificates are
// created for the run and deleted after it. This machine's own stacks are ignored.
func run(ctx context.Context, verbose bool) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	p := &previews{}
	if p.w, err = workspace.Open(root); err != nil {
		return err
	}
	if p.dir, err = os.MkdirTemp("", "platform-preview-*"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(p.dir) }()
	if err := p.setUp(ctx); err != nil {
		return err
	}
	stacks := p.w.Stacks()
	failed := make([]error, len(stacks))
	var group errgroup.Group
	group.SetLimit(max(2, runtime.NumCPU()))
	for i, stack := range stacks {
		group.Go(func() error {
			started := time.Now()
			result, err := p.preview(ctx, stack)
			if err != nil {
				failed[i] = fmt.Errorf("the preview of %s failed: %w", stack, err)
				return nil
			}
			text := fmt.Sprintf("%s: would create %d resources (%.1fs)\n", stack, result.ChangeSummary[apitype.OpCreate], time.Since(started).Seconds())
			if verbose {
				text = result.StdOut + "\n" + text
			}
			fmt.Print(text) // at once, because other previews print too
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil { // all of them were interrupted
		return ctx.Err()
	}
	return errors.Join(failed...)
}

// setUp asks the engine for its API, and creates a home and a backend for Pulumi that contain only a provider.
func (p *previews) setUp(ctx context.Context) error {
	docker, _, err := preflight.Connect(ctx, settings.Docker{})
	if err != nil {
		return err
	}
	ping, err := docker.Ping(ctx, client.PingOptions{})
	if err := errors.Join(err, docker.Close()); err != nil {
		return err
	}
	say := func(text string) { fmt.Fprintln(os.Stderr, "platform: "+text) }
	if err := errors.Join(p.w.EnsurePulumi(ctx, say), ctx.Err()); err != nil {
		return err
	}
	p.api, p.provider = ping.APIVersion, p.w.ChooseProvider(ctx, say)
	// The Automation API passes the environment of this process on to the CLI, which it finds by PATH. The variables of the
	// user's own Pulumi must not have an effect.
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "PULUMI_") {
			_ = os.Unsetenv(name)
		}
	}
	home, state := filepath.Join(p.dir, "home"), filepath.Join(p.dir, "state")
	err = errors.Join(
		os.Setenv(settings.TrackedOnly, "true"), os.Setenv("PULUMI_HOME", home), os.Setenv("PULUMI_BACKEND_URL", "file://"+state),
		os.Setenv("PULUMI_CONFIG_PASSPHRASE", workspace.RandomSecret()), os.Setenv("PULUMI_SKIP_UPDATE_CHECK", "true"),
		os.Setenv("PATH", filepath.Dir(p.w.Pulumi)+string(os.PathListSeparator)+os.Getenv("PATH")),
		os.Mkdir(home, 0o700), os.Mkdir(state, 0o700))
	if err != nil {
		return err
	}
	if p.pulumi, err = auto.NewPulumiCommand(&auto.PulumiCommandOptions{SkipVersionCheck: true}); err != nil {
		return err
	}
	plugins := filepath.Join(home, "plugins")
	if p.provider == settings.Official {
		return os.Symlink(filepath.Join(p.w.Home, "plugins"), plugins)
	}
	binary := filepath.Join(plugins, "resource-docker-v"+settings.OfflineVersion, "pulumi-resource-docker")
	return errors.Join(os.Setenv("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "true"), p.w.BuildProvider(binary, settings.OfflineVersion))
}

// configure returns a stack's config: the tracked one without what belongs to a machine or
// a user, and with secrets and certificates of its own.
func (p *previews) configure(name string) (settings.Source, error) {
	src, err := settings.FromFiles(name, p.w.Root, filepath.Join(p.w.Root, "Pulumi."+name+".yaml"))
	if err != nil {
		return src, err
	}
	for key, value := range src.Config {
		if value == "" || value == settings.Hidden || key == "envFile" || key == "volumes" {
			delete(src.Config, key)
		}
	}
	clear(src.Secret)
	src.Config["namePrefix"], src.Config["provider"], src.Config["engineApi"] = "platform_preview_"+name, p.provider, p.api
	resolved, set, err := stack.Resolve(src)
	if resolved == nil { // otherwise the program reports what is wrong
		return src, err
	}
	for _, variable := range resolved.Unset {
		src.Config[variable.Name] = strings.TrimRight(workspace.RandomSecret(), "=")
	}
	if stack.NeedsCerts(set) {
		src.Config["certsDir"] = filepath.Join(p.dir, "certs", name)
		_, err = certs.Ensure(src.Config["certsDir"], certs.Options{Stack: name, Names: set.ServerNames(), Clients: []string{"preview"}})
		return src, err
	}
	return src, nil
}

// preview creates the stack in the run's own backend and previews it. The Pulumi program runs in this process.
func (p *previews) preview(ctx context.Context, stack string) (result auto.PreviewResult, err error) {
	src, err := p.configure(stack)
	if err != nil {
		return result, err
	}
	settled := map[string]string{}
	for key, value := range src.Config {
		settled[settings.Project+":"+key] = value
	}
	text, err := json.Marshal(settled)
	dir := filepath.Join(p.dir, "stacks", stack)
	if err := errors.Join(err, os.MkdirAll(dir, 0o700)); err != nil {
		return result, err
	}
	run := func(ctx *pulumi.Context) error {
		getenv := func(name string) string {
			if name == pulumi.EnvConfig { // which Pulumi sets only for a program in a process of its own
				return string(text)
			}
			return os.Getenv(name)
		}
		// A running stack with the same ports does not matter for a preview, so the program must not check the machine.
		unchecked := func(context.Context, settings.Docker) (*client.Client, engine.Ref, error) {
			return nil, engine.Ref{}, errors.New("this preview does not check the machine")
		}
		return program.Run(ctx, program.Host{Root: p.w.Root, Getenv: getenv, Engine: unchecked, Export: program.Export})
	}
	made, err := auto.NewStackInlineSource(ctx, stack, settings.Project, run, auto.WorkDir(dir), auto.Pulumi(p.pulumi))
	if err != nil {
		return result, err
	}
	// Never with a refresh: even in a preview the official plugin then removes stopped containers.
	return made.Preview(ctx, optpreview.Color("never"))
}
