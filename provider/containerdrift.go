package provider

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// liveDrift are the kinds of drift that a start and a wait put right; every other
// kind takes a new container.
var liveDrift = map[resource.PropertyKey]struct{}{"running": {}, "health": {}}

// containerDrift names what differs from what was made, and never a value of it: an
// environment holds secrets.
func containerDrift(c call, args containerArgs, found container.InspectResponse) resource.PropertyMap {
	drift := resource.PropertyMap{}
	var envs, labels []string
	for _, env := range args.Envs {
		if !slices.Contains(found.Config.Env, env) {
			name, _, _ := strings.Cut(env, "=")
			envs = append(envs, name)
		}
	}
	for _, l := range args.Labels {
		if value, ok := found.Config.Labels[l.Label]; !ok || value != l.Value {
			labels = append(labels, l.Label)
		}
	}
	if len(envs) > 0 {
		drift["envs"] = resource.NewProperty("differ: " + strings.Join(envs, ", "))
	}
	if len(labels) > 0 {
		drift["labels"] = resource.NewProperty("differ: " + strings.Join(labels, ", "))
	}
	if recorded := c.recordedText(containerImageKey); recorded != "" && recorded != found.Image {
		drift["image"] = resource.NewProperty("the container runs " + found.Image)
	}
	state := found.State
	if orTrue(args.Start) && orTrue(args.MustRun) {
		switch {
		case state.Paused:
			drift["running"] = resource.NewProperty("paused")
		case !state.Running && !state.Restarting:
			drift["running"] = resource.NewProperty(fmt.Sprintf("%s, exit code %d", state.Status, state.ExitCode))
		}
	}
	if pending, ok := objectOf(c.recorded[driftKey])["health"]; ok &&
		(state.Health == nil || state.Health.Status != container.Healthy) {
		drift["health"] = pending
	}
	return drift
}
