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
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi/sdk/v3/go/auto"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optpreview"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/config"
	pulumiworkspace "github.com/pulumi/pulumi/sdk/v3/go/common/workspace"
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
	w, err := workspace.Open(root)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "platform-preview-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	docker, _, err := preflight.Connect(ctx, settings.Docker{})
	if err != nil {
		return err
	}
	ping, err := docker.Ping(ctx, client.PingOptions{})
	if err := errors.Join(err, docker.Close()); err != nil {
		return err
	}
	p := &previews{w: w, dir: dir, api: ping.APIVersion}
	if err := errors.Join(w.EnsurePulumi(ctx, say), ctx.Err()); err != nil {
		return err
	}
	if err := p.setUp(ctx); err != nil {
		return err
	}
	var group errgroup.Group
	var one sync.Mutex
	var failed []string
	group.SetLimit(max(2, runtime.NumCPU()))
	for _, stack := range w.Stacks() {
		group.Go(func() error {
			started := time.Now()
			result, err := p.preview(ctx, stack)
			one.Lock()
			defer one.Unlock()
			if ctx.Err() != nil {
				return nil // all of them were interrupted
			}
			if err != nil {
				failed = append(failed, stack)
				fmt.Printf("%s: %v\n", stack, err)
				return nil
			}
			if verbose {
				fmt.Println(result.StdOut)
			}
			fmt.Printf("%s: would create %d resources (%.1fs)\n", stack, result.ChangeSummary[apitype.OpCreate], time.Since(started).Seconds())
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() == nil && len(failed) > 0 {
		return errors.New("the preview failed for: " + strings.Join(failed, ", "))
	}
	return ctx.Err()
}

func say(text string) { fmt.Fprintln(os.Stderr, "platform: "+text) }

// setUp creates a home and a backend for Pulumi that contain only a provider.
func (p *previews) setUp(ctx context.Context) error {
	p.provider = p.w.ChooseProvider(ctx, say)
	// The Automation API passes the environment of this process on to the CLI. The variables of the
	// user's own Pulumi must not have an effect.
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "PULUMI_") {
			_ = os.Unsetenv(name)
		}
	}
	home, state, bin := filepath.Join(p.dir, "home"), filepath.Join(p.dir, "state"), filepath.Join(p.dir, "cli", "bin")
	err := errors.Join(
		os.Setenv("PULUMI_HOME", home), os.Setenv("PULUMI_BACKEND_URL", "file://"+state),
		os.Setenv("PULUMI_CONFIG_PASSPHRASE", workspace.RandomSecret()), os.Setenv("PULUMI_SKIP_UPDATE_CHECK", "true"),
		os.Mkdir(home, 0o700), os.Mkdir(state, 0o700), os.MkdirAll(bin, 0o700),
		os.Symlink(p.w.Pulumi, filepath.Join(bin, "pulumi"))) // the only layout in which the API accepts a CLI by its path
	if err != nil {
		return err
	}
	if p.pulumi, err = auto.NewPulumiCommand(&auto.PulumiCommandOptions{Root: filepath.Dir(bin), SkipVersionCheck: true}); err != nil {
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
	if resolved == nil {
		return src, err
	} // otherwise the program reports what is wrong
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

// noPreflight skips the program's check whether this machine can run the stack, because a
// running stack with the same ports does not matter for a preview.
func noPreflight(context.Context, settings.Docker) (*client.Client, engine.Ref, error) {
	return nil, engine.Ref{}, errors.New("this preview does not check the machine")
}

// preview creates the stack in the run's own backend and previews it. The Pulumi program runs in this process.
func (p *previews) preview(ctx context.Context, stack string) (result auto.PreviewResult, err error) {
	src, err := p.configure(stack)
	if err != nil {
		return result, err
	}
	file, handed := config.Map{}, map[string]string{}
	for key, value := range src.Config {
		handed[settings.Project+":"+key] = value
		if file[config.MustMakeKey(settings.Project, key)] = config.NewValue(value); strings.ContainsAny(value[:1], "[{") {
			file[config.MustMakeKey(settings.Project, key)] = config.NewObjectValue(value)
		}
	}
	text, err := json.Marshal(handed)
	project, loadErr := pulumiworkspace.LoadProject(filepath.Join(p.w.Root, "Pulumi.yaml"))
	dir := filepath.Join(p.dir, "stacks", stack)
	err = errors.Join(err, loadErr, os.MkdirAll(dir, 0o700),
		os.Symlink(filepath.Join(p.w.Root, "apps"), filepath.Join(dir, "apps"))) // where the provider looks for the reference app
	if err != nil {
		return result, err
	}
	run := func(ctx *pulumi.Context) error {
		getenv := func(name string) string {
			if name == "PULUMI_CONFIG" { // which Pulumi sets only for a program in a process of its own
				return string(text)
			}
			return os.Getenv(name)
		}
		return program.Run(ctx, program.Host{Root: p.w.Root, Getenv: getenv, Engine: noPreflight, Export: program.Export})
	}
	made, err := auto.NewStackInlineSource(ctx, stack, settings.Project, run, auto.Project(*project), auto.WorkDir(dir), auto.Pulumi(p.pulumi),
		auto.Stacks(map[string]pulumiworkspace.ProjectStack{stack: {Config: file}}))
	if err != nil {
		return result, err
	}
	// Never with a refresh: even in a preview the official plugin then removes stopped containers.
	return made.Preview(ctx, optpreview.Color("never"))
}
