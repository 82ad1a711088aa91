package program

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/fault"
	"trading-platform/observe"
	"trading-platform/plan"
)

// checkRunning returns an error if containers of the state are not running on the
// engine. Pulumi compares with its state, and with the engine only in a refresh, so that
// a plain `pulumi up` would succeed without a change. `platform up` has started such
// containers before it runs Pulumi, and says so by observe.ComparedVariable.
func checkRunning(ctx *pulumi.Context, host Host, engine client.APIClient, root string, p *plan.Plan, last outputs) error {
	if host.Getenv(observe.ComparedVariable) != "" {
		return nil
	}
	running := client.Filters{}.Add("status", "running", "restarting")
	if all, err := observe.All(ctx.Context(), engine, p.Stack, last.Containers, running); all || err != nil {
		return err
	}
	export, err := host.Export(ctx.Context(), root, fmt.Sprintf("%s/%s/%s", ctx.Organization(), ctx.Project(), ctx.Stack()))
	if err != nil {
		return err
	}
	state, err := observe.ReadState(export)
	if err != nil {
		return err
	}
	found, err := observe.Compare(ctx.Context(), engine, p, state)
	if err != nil {
		return err
	}
	down := found.Down()
	if len(down) == 0 {
		return nil // a refresh has removed them from the state
	}
	f := fault.Fault{
		Where: "stack " + p.Stack,
		What:  "these run according to the state, but not on the engine: " + strings.Join(down, ", "),
		Fix:   "make up STACK=" + p.Stack + "; or, with pulumi alone: pulumi refresh -s " + p.Stack + ", then pulumi up -s " + p.Stack,
	}
	if ctx.DryRun() {
		return ctx.Log.Warn(f.What+". `make up STACK="+p.Stack+"` starts them again, which this preview does not show.", nil)
	}
	return fault.List{f}
}

// Export runs `pulumi stack export`, and returns what it prints.
func Export(ctx context.Context, root, stack string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "pulumi", "stack", "export", "-s", stack)
	cmd.Dir = root
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return nil, fmt.Errorf("reading the state of stack %s: %w\n%s", stack, err, failed.Stderr)
	}
	return out, err
}
