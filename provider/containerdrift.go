package provider

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// liveDrift are the kinds of drift that a start and a wait correct; every other
// kind needs a new container.
var liveDrift = []string{"running", "health"}

// containerDrift names what differs from what was created. It never contains a value, because an
// environment holds secrets.
func containerDrift(recorded ContainerState, args ContainerArgs, found container.InspectResponse) map[string]string {
	drift := map[string]string{}
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
		drift["envs"] = "differ: " + strings.Join(envs, ", ")
	}
	if len(labels) > 0 {
		drift["labels"] = "differ: " + strings.Join(labels, ", ")
	}
	if recorded.ImageID != "" && recorded.ImageID != found.Image {
		drift["image"] = "the container runs " + found.Image
	}
	state := found.State
	if orTrue(args.Start) && orTrue(args.MustRun) {
		switch {
		case state.Paused:
			drift["running"] = "paused"
		case !state.Running && !state.Restarting:
			drift["running"] = fmt.Sprintf("%s, exit code %d", state.Status, state.ExitCode)
		}
	}
	if pending, ok := recorded.Drift["health"]; ok &&
		(state.Health == nil || state.Health.Status != container.Healthy) {
		drift["health"] = pending
	}
	if len(drift) == 0 {
		return nil
	}
	return drift
}
