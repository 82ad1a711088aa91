package workspace

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"

	"github.com/moby/moby/client"

	"trading-platform/engine"
	"trading-platform/plan"
	"trading-platform/settings"
)

// pluginPull matches the official docker plugin's error for an image that it could not pull. The plugin gives no cause for a pull
// that was interrupted. Of a container that did not become healthy, it gives neither the name nor the log.
var pluginPull = regexp.MustCompile(`unable to (?:find or )?pull image ((?:[^\s:/]+:\d+/)?[^\s:]+(?::[\w.-]+)?)([^\n]*)`)

// explained runs the CLI in the foreground. If the official plugin fails, it prints what to do, once for each cause.
func (r *run) explained(ctx context.Context, p *plan.Plan, command string, args []string) error {
	if p == nil || p.Provider != settings.Official {
		return r.foreground(ctx, command, args, r.checkpoints(p)...)
	}
	dir, err := os.MkdirTemp("", "trading-platform-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	log := filepath.Join(dir, "events.json")
	failed := r.foreground(ctx, command, append(args, "--event-log", log), "PULUMI_DEBUG_COMMANDS=true")
	if events, err := os.ReadFile(log); failed != nil && err == nil {
		r.explain(ctx, p, events)
	}
	return failed
}

// largeStack is the number of containers above which the CLI saves the state once, at its end.
const largeStack = 50

// checkpoints returns the variable that makes the CLI save the state of a large stack at its end only, and not before and
// after each step, which for 200 containers takes three quarters of an up. If the CLI is killed, the next up adopts what is on the
// engine by its labels, as after the loss of the state. Only the offline provider adopts, and only local state is saved this way.
func (r *run) checkpoints(p *plan.Plan) []string {
	if p == nil || r.local() == "" || len(p.Containers()) <= largeStack {
		return nil
	}
	return []string{"PULUMI_SKIP_CHECKPOINTS=true"}
}

// explain finds known errors in Pulumi's event log of a run, which is JSON.
func (r *run) explain(ctx context.Context, p *plan.Plan, events []byte) {
	printed := map[string]bool{}
	for _, m := range pluginPull.FindAllSubmatch(bytes.ReplaceAll(events, []byte(`\n`), []byte("\n")), -1) {
		image, cause := string(m[1]), string(m[2])
		line := "no image could be pulled from " + engine.Registry(image) + ". Fix: " + engine.PullFix(image, cause)
		if !printed[line] {
			r.say(line)
		}
		printed[line] = true
	}
	if bytes.Contains(events, []byte("no resource plugin 'pulumi-resource-docker' found")) {
		r.say("the official docker plugin is not on this machine. Fix: pulumi plugin install resource docker " + OfficialVersion)
	}
	if !bytes.Contains(events, []byte("failed to be in healthy state")) && !bytes.Contains(events, []byte("ended with exit code")) {
		return
	}
	for _, name := range p.Containers() {
		found, err := r.engine.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
		if state := found.Container.State; err == nil && condition(state) != "healthy" && (state.Running || state.ExitCode != 0) {
			r.say(name + " is " + condition(state) + r.lastOutput(ctx, name, state) + "\n     Fix: docker logs " + name)
		}
	}
}
