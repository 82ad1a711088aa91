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

// What the official docker plugin says of an image that it did not get, and of a container that it waited for. Of a pull that was
// cut off it gives no cause, and of a container neither its name nor its log.
var (
	pluginPull = regexp.MustCompile(`unable to (?:find or )?pull image ((?:[^\s:/]+:\d+/)?[^\s:]+(?::[\w.-]+)?)([^\n]*)`)
	pluginWait = regexp.MustCompile(`failed to be in healthy state`)
)

// explained runs the CLI in the foreground. Where the official plugin failed, it says what to do, once for each cause.
func (r *run) explained(ctx context.Context, p *plan.Plan, args []string) error {
	if p == nil || p.Provider != settings.Official {
		return r.foreground(ctx, args)
	}
	dir, err := os.MkdirTemp("", "trading-platform-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	log := filepath.Join(dir, "events.json")
	failed := r.foreground(ctx, append(args, "--event-log", log), "PULUMI_DEBUG_COMMANDS=true")
	if events, err := os.ReadFile(log); failed != nil && err == nil {
		r.explain(ctx, p, events)
	}
	return failed
}

// explain reads Pulumi's log of a run's events, which is JSON.
func (r *run) explain(ctx context.Context, p *plan.Plan, events []byte) {
	said := map[string]bool{}
	for _, m := range pluginPull.FindAllSubmatch(bytes.ReplaceAll(events, []byte(`\n`), []byte("\n")), -1) {
		image, cause := string(m[1]), string(m[2])
		if line := "no image could be pulled from " + engine.Registry(image) + ". Fix: " + engine.PullFix(image, cause); !said[line] {
			said[line] = true
			r.say(line)
		}
	}
	if bytes.Contains(events, []byte("no resource plugin 'pulumi-resource-docker' found")) {
		r.say("the official docker plugin is not on this machine. Fix: pulumi plugin install resource docker " + OfficialVersion)
	}
	if !pluginWait.Match(events) {
		return
	}
	for _, s := range p.Services {
		for _, name := range s.Containers {
			found, err := r.engine.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
			if err == nil && condition(found.Container.State) != "healthy" {
				r.say(name + " is " + condition(found.Container.State) + r.lastOutput(ctx, name, found.Container.State) + "\n     Fix: docker logs " + name)
			}
		}
	}
}
