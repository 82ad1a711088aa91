// Package program is the Pulumi program: it reads the settings, resolves the plan,
// checks whether the plan can run on the engine, and only then registers resources.
package program

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/components"
	engines "trading-platform/engine"
	"trading-platform/fault"
	"trading-platform/plan"
	"trading-platform/preflight"
	"trading-platform/settings"
	"trading-platform/stack"
)

// Host holds the parts of the program's environment that tests replace.
type Host struct {
	// Root is the project's folder, used if Pulumi does not pass it; empty for the current folder.
	Root   string
	Getenv func(string) string
	// Engine opens the engine for the preflight. The program ignores its error, because
	// the provider reports the cause in more detail.
	Engine func(context.Context, settings.Docker) (*client.Client, engines.Ref, error)
	// Export returns the stack's state as `pulumi stack export` prints it.
	Export func(ctx context.Context, root, stack string) ([]byte, error)
}

// Run is the Pulumi program.
func Run(ctx *pulumi.Context, host Host) error {
	// An old language host does not pass the root folder, but runs the program in it.
	root, err := filepath.Abs(cmp.Or(ctx.RootDirectory(), host.Root, "."))
	if err != nil {
		return err
	}
	src, err := settings.FromProgram(ctx.Stack(), root, host.Getenv)
	if err != nil {
		return err
	}
	last, err := lastOutputs(ctx)
	if err != nil {
		return err
	}
	if src.Config["identity"] == "" {
		home, err := stack.Home()
		if err != nil {
			return err
		}
		src.Config["identity"] = stack.DefaultIdentity(stack.Backend(home), ctx.Organization(), ctx.Stack())
	}
	var faults fault.List
	p, set, err := stack.Resolve(src)
	if err := faults.Gather(err); err != nil {
		return err
	}
	if err := faults.Gather(errors.Join(checkProvider(last, set), checkOrchestrator(last, set))); err != nil {
		return err
	}
	p.Node = last.Node
	home := set.Engine
	if home == (engines.Ref{}) {
		home = last.Engine
	}
	buildPlatform := "linux/" + runtime.GOARCH
	engine, here, err := host.Engine(ctx.Context(), set.Docker)
	if err == nil {
		defer func() { _ = engine.Close() }()
		if err := faults.Gather(preflight.SameEngine(ctx.Stack(), home, here)); err != nil {
			return err
		}
		home, p.Node = here, here.Node
		// The engine can run on another machine. Its answer takes tens of milliseconds, so only a build asks.
		if builds := slices.ContainsFunc(p.Services, func(s plan.Service) bool { return s.Image.Build != nil }); builds {
			if v, err := engine.ServerVersion(ctx.Context(), client.ServerVersionOptions{}); err == nil && v.Arch != "" {
				buildPlatform = "linux/" + v.Arch
			}
		}
		if err := faults.Gather(preflight.Check(ctx.Context(), engine, here, p, set, last.Volumes)); err != nil {
			return errors.Join(faults.Err(), err)
		}
		if err := faults.Gather(checkRunning(ctx, host, engine, root, p, last)); err != nil {
			return errors.Join(faults.Err(), err)
		}
	} else if home.Host == "" {
		if home, err = engines.Find(set.Docker.Host, set.Docker.CertPath); err != nil {
			return err
		}
	}
	if err := faults.Err(); err != nil {
		return err
	}
	if ctx.DryRun() {
		return register(ctx, p, home, buildPlatform)
	}
	if engine != nil {
		made, err := preflight.MakeFolders(here, p, host.Getenv)
		if err == nil && len(made) > 0 {
			err = ctx.Log.Info("created missing folders of the checkout: "+strings.Join(made, ", "), nil)
		}
		if err != nil {
			return err
		}
	}
	for _, open := range p.Open {
		if err := ctx.Log.Warn(open, nil); err != nil {
			return err
		}
	}
	return register(ctx, p, home, buildPlatform)
}

// register registers the provider that the stack uses, and the platform with it.
func register(ctx *pulumi.Context, p *plan.Plan, engine engines.Ref, buildPlatform string) error {
	// The address is set explicitly, so that it is in the state: destroy does not run the
	// program, and must use the same engine even if DOCKER_HOST has changed.
	args := &docker.ProviderArgs{Host: pulumi.String(engine.Host)}
	if flags := engines.SSHFlags(); strings.HasPrefix(engine.Host, "ssh://") && p.Provider == settings.Official && flags != nil {
		args.SshOpts = pulumi.ToStringArray(flags)
	}
	if engine.Certs != "" {
		args.CertPath = pulumi.String(engine.Certs)
	}
	var version []pulumi.ResourceOption
	if p.Provider == settings.Offline {
		version = append(version, pulumi.Version(settings.OfflineVersion))
	} else if found := logins(p); len(found) > 0 {
		args.RegistryAuth = found
	}
	provider, err := docker.NewProvider(ctx, "docker", args, version...)
	if err != nil {
		return err
	}
	platform, err := components.NewPlatform(ctx, "platform", &components.PlatformArgs{Plan: p, BuildPlatform: buildPlatform}, pulumi.Provider(provider))
	if err != nil {
		return err
	}
	for name, output := range platform.Outputs {
		ctx.Export(name, output)
	}
	ctx.Export("provider", pulumi.String(p.Provider))
	ctx.Export("identity", pulumi.String(p.Identity))
	if p.OnSwarm() {
		ctx.Export("node", pulumi.String(p.Node))
	}
	ctx.Export("engine", pulumi.ToStringMap(map[string]string{"id": engine.ID, "host": engine.Host}))
	return nil
}

// logins returns, for each registry of a plan's images, the file in which `docker login` stores the password. The
// official plugin does not look there itself. The state has only the file's path, and no password.
func logins(p *plan.Plan) docker.ProviderRegistryAuthArray {
	file, err := config.Load(engines.ConfigDir())
	if err != nil {
		return nil // the registry reports that it needs a login
	}
	var found docker.ProviderRegistryAuthArray
	seen := map[string]bool{}
	for _, s := range p.Services {
		named, err := reference.ParseNormalizedNamed(s.Image.Reference)
		if err != nil || s.Image.Build != nil || seen[reference.Domain(named)] {
			continue
		}
		registry := reference.Domain(named)
		seen[registry] = true
		if login, err := file.GetAuthConfig(registry); err == nil && login.Username != "" {
			found = append(found, docker.ProviderRegistryAuthArgs{Address: pulumi.String(registry), ConfigFile: pulumi.String(file.GetFilename())})
		}
	}
	return found
}

// outputs are those outputs of the stack's last run that the next run needs.
type outputs struct {
	Provider   string
	Engine     engines.Ref
	Node       string            // of the Swarm, if the stack runs on one
	Containers []string          // names
	Volumes    map[string]string // names on the engine, by name in the catalog
}

// lastOutputs reads the outputs of the stack's last run; a new stack has none.
func lastOutputs(ctx *pulumi.Context) (last outputs, err error) {
	args := struct {
		Name string `pulumi:"name"`
	}{fmt.Sprintf("%s/%s/%s", ctx.Organization(), ctx.Project(), ctx.Stack())}
	var read struct {
		Outputs map[string]any `pulumi:"outputs"`
	}
	// A local backend writes the stack's file during the run, and a read at that moment can fail.
	for range 10 {
		if err = ctx.Invoke("pulumi:pulumi:readStackOutputs", args, &read); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	var text []byte
	if err == nil {
		text, err = json.Marshal(read.Outputs)
	}
	if err == nil {
		err = json.Unmarshal(text, &last)
	}
	if err != nil {
		return last, fmt.Errorf("reading the stack's own last outputs: %w", err)
	}
	return last, nil
}

// checkProvider returns an error if the stack was made with another provider. Neither
// provider can read the other's state.
func checkProvider(last outputs, set *settings.Settings) error {
	if last.Provider == "" || last.Provider == set.Provider {
		return nil
	}
	return fault.List{{
		Where: settings.Project + ":provider",
		What:  fmt.Sprintf("the stack was made with the %s docker provider, and cannot be used with the %s one", last.Provider, set.Provider),
		Fix: fmt.Sprintf("keep that provider: %s; or change it and keep the data: %s && pulumi destroy -s %s && %s && pulumi up -s %s",
			settings.SetCommand(set.Stack, "provider", last.Provider), settings.SetCommand(set.Stack, "provider", last.Provider), set.Stack,
			settings.SetCommand(set.Stack, "provider", set.Provider), set.Stack),
	}}
}

// checkOrchestrator returns an error if the stack is up on one engine and is to run on a Swarm, or the other way round. Pulumi
// would create the new before it deletes the old, and two servers would run on the same data.
func checkOrchestrator(last outputs, set *settings.Settings) error {
	is := settings.OneEngine
	switch {
	case last.Node != "":
		is = settings.Swarm
	case len(last.Containers) == 0:
		return nil // it is down
	}
	if is == set.Orchestrator {
		return nil
	}
	return fault.List{{
		Where: settings.Project + ":orchestrator",
		What:  "is " + set.Orchestrator + ", and the stack is up on: " + is,
		Fix: "take it down first: " + settings.SetCommand(set.Stack, "orchestrator", is) + " && platform down -s " + set.Stack + " && " +
			settings.SetCommand(set.Stack, "orchestrator", set.Orchestrator) + "; its data stays",
	}}
}
