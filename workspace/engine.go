package workspace

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/moby/client"

	engines "trading-platform/engine"
	"trading-platform/fault"
	"trading-platform/observe"
	"trading-platform/plan"
	"trading-platform/preflight"
	"trading-platform/settings"
	stacks "trading-platform/stack"
)

// Engine opens and identifies the engine that a stack runs on.
func (w *Workspace) Engine(ctx context.Context, stack string) (*client.Client, engines.Ref, error) {
	engine, here, err := w.connect(ctx, stack)
	if err != nil {
		return nil, here, err
	}
	file, err := w.load(stack)
	if err == nil {
		err = preflight.SameEngine(stack, recorded(file, &observe.State{}), here)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) { // a stack that was created with plain pulumi has no file of its own
		_ = engine.Close()
		return nil, here, err
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

// recordEngine records the engine that the stack runs on, and the identity that
// distinguishes the stack there. It refuses another engine. chooseSettings saves the file.
func (r *run) recordEngine(ctx context.Context) error {
	home := recorded(r.file, r.state)
	if r.moveEngine && home.ID != r.here.ID {
		if err := r.leaveEngine(ctx, home); err != nil {
			return err
		}
	} else if err := preflight.SameEngine(r.stack, home, r.here); err != nil {
		return err
	}
	engine := map[string]any{"id": r.here.ID, "host": r.here.Host}
	if r.here.Certs != "" {
		engine["certs"] = r.here.Certs
	}
	r.file.set("engine", engine)
	if r.file.get("identity") == nil {
		identity, _ := r.state.Outputs["identity"].(string)
		r.file.set("identity", cmp.Or(identity, stacks.DefaultIdentity(r.Backend, "organization", r.stack)))
	}
	return nil
}

// recorded returns the engine that a stack runs on, from its settings or its last outputs.
func recorded(f stackFile, state *observe.State) (home engines.Ref) {
	for _, value := range []any{state.Outputs["engine"], f.get("engine")} {
		if text, err := json.Marshal(value); err == nil {
			_ = json.Unmarshal(text, &home) // the program reports what is wrong with the setting
		}
	}
	return home
}

// leaveEngine empties the state of a stack that moves to another engine. If the old engine
// still answers and has containers of the stack, the stack must be taken down there first.
func (r *run) leaveEngine(ctx context.Context, home engines.Ref) error {
	if old, there, err := preflight.Connect(ctx, settings.Docker{Host: home.Host, CertPath: home.Certs}); err == nil {
		defer func() { _ = old.Close() }()
		left, err := old.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", plan.StackLabel+"="+r.stack)})
		if there.ID == home.ID && (err != nil || len(left.Items) > 0) {
			return fault.List{{
				Where: "stack " + r.stack, What: fmt.Sprintf("has %d containers on the engine at %s", len(left.Items), home),
				Fix: fmt.Sprintf("take it down there: set docker:host of the stack, or DOCKER_HOST, to %s, and run: platform down -s %s; then run this command again", home.Host, r.stack),
			}}
		}
	}
	if err := r.runCLI(ctx, strings.NewReader(`{"version": 3, "deployment": {}}`), "stack", "import", "-s", r.stack, "--force"); err != nil {
		return err
	}
	r.state = &observe.State{}
	r.say(fmt.Sprintf("moved stack %s to the engine at %s; its volumes stay on %s", r.stack, r.here, home))
	return nil
}
