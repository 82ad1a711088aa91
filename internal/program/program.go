// Package program is what `pulumi` runs: it reads the settings, resolves the plan,
// looks whether the engine can take it, and only then registers anything.
package program

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/components"
	"trading-platform/internal/fault"
	"trading-platform/internal/stack"
	"trading-platform/plan"
	"trading-platform/preflight"
	"trading-platform/settings"
)

// Host is what the program needs from around it.
type Host struct {
	Getenv func(string) string
	// Engine opens the engine for the preflight. Its error is not the program's:
	// the provider will say better what is wrong, or is talking to another engine.
	Engine func(context.Context) (*client.Client, error)
}

// Run is the Pulumi program.
func Run(ctx *pulumi.Context, host Host) error {
	root := ctx.RootDirectory()
	if root == "" { // an old language host does not say; it runs the program in the project's folder
		root = "."
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	src, err := settings.FromProgram(ctx.Stack(), root, host.Getenv)
	if err != nil {
		return err
	}
	var faults fault.List
	p, set, err := stack.Resolve(src)
	if err := faults.Gather(err); err != nil {
		return err
	}
	if err := faults.Gather(sameProvider(ctx, set)); err != nil {
		return err
	}
	if engine, err := host.Engine(ctx.Context()); err == nil {
		defer func() { _ = engine.Close() }()
		if err := faults.Gather(preflight.Check(ctx.Context(), engine, p, set)); err != nil {
			return errors.Join(faults.Err(), err)
		}
	}
	if err := faults.Err(); err != nil {
		return err
	}
	return standUp(ctx, p)
}

// standUp registers the platform under the provider that the stack is made with.
func standUp(ctx *pulumi.Context, p *plan.Plan) error {
	var version []pulumi.ResourceOption
	if p.Provider == settings.Offline {
		version = append(version, pulumi.Version(settings.OfflineVersion))
	}
	provider, err := docker.NewProvider(ctx, "docker", &docker.ProviderArgs{}, version...)
	if err != nil {
		return err
	}
	platform, err := components.NewPlatform(ctx, "platform", &components.PlatformArgs{Plan: p}, pulumi.Provider(provider))
	if err != nil {
		return err
	}
	for name, output := range platform.Outputs() {
		ctx.Export(name, output)
	}
	ctx.Export(providerOutput, pulumi.String(p.Provider))
	return nil
}

// providerOutput is the stack output that remembers what the stack was made with.
const providerOutput = "provider"

// sameProvider refuses to run a stack with a provider other than the one that made
// it: neither can read the other's state. The stack's own last outputs tell.
func sameProvider(ctx *pulumi.Context, set *settings.Settings) error {
	args := struct {
		Name string `pulumi:"name"`
	}{fmt.Sprintf("%s/%s/%s", ctx.Organization(), ctx.Project(), ctx.Stack())}
	var last struct {
		Outputs map[string]any `pulumi:"outputs"`
	}
	// A local backend writes the stack's file as the run goes on, and reads it half written when we ask just then.
	err := ctx.Invoke("pulumi:pulumi:readStackOutputs", args, &last)
	for try := 0; err != nil && try < 10; try++ {
		time.Sleep(100 * time.Millisecond)
		err = ctx.Invoke("pulumi:pulumi:readStackOutputs", args, &last)
	}
	if err != nil {
		return fmt.Errorf("reading the stack's own last outputs: %w", err)
	}
	made, ok := last.Outputs[providerOutput].(string)
	if !ok || made == set.Provider {
		return nil
	}
	return fault.List{{
		Where: settings.Project + ":provider",
		What:  fmt.Sprintf("the stack was made with the %s docker provider, and cannot go on with the %s one", made, set.Provider),
		Mend: fmt.Sprintf("go back: %s; or move over, keeping the data: %s && pulumi destroy -s %s && %s && pulumi up -s %s",
			settings.Set(set.Stack, "provider", made), settings.Set(set.Stack, "provider", made), set.Stack,
			settings.Set(set.Stack, "provider", set.Provider), set.Stack),
	}}
}
