package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	"github.com/pulumi/pulumi-go-provider/infer"
)

const megabyte = 1 << 20

const (
	// failedKey is the output that says why a container was created and then failed to start.
	// The next up replaces such a container.
	failedKey = "failed"
	// driftKey is the output that lists what a read found wrong, each with a short description. The next up starts the
	// container and waits until it is healthy. An engine cannot change the other properties of a container.
	driftKey = "drift"
)

// containerState is what the state records of a container besides its inputs.
type containerState struct {
	Failed *string           `pulumi:"failed,optional"`
	Drift  map[string]string `pulumi:"drift,optional"`
}

// initError says that the container exists but failed to start.
type initError struct {
	reason string
	// summary is recorded in the state; unlike reason it contains nothing that a container printed.
	summary string
	// resumable failures, such as a cancelled wait, are continued and cause no replacement.
	resumable bool
}

func (e *initError) Error() string { return e.reason }

// Unwrap makes infer record the resource.
func (e *initError) Unwrap() error { return infer.ResourceInitFailedError{Reasons: []string{e.reason}} }

// outcome is the state after a create or an update.
func outcome(err error) containerState {
	var failed *initError
	switch {
	case !errors.As(err, &failed):
		return containerState{}
	case failed.resumable:
		return containerState{Drift: map[string]string{"health": failed.summary}}
	}
	return containerState{Failed: &failed.summary}
}

// containers are docker.Container. The ID is the engine's container ID.
var containers = &kind[containerArgs, containerState]{
	module: "index/container", name: "Container",
	check: checkContainer,
	create: func(ctx context.Context, c call, args containerArgs) (string, containerState, error) {
		id, err := createContainer(ctx, c, args)
		return id, outcome(err), err
	},
	read: readContainer,
	update: func(ctx context.Context, c call, id string, args containerArgs, recorded containerState) (containerState, error) {
		_, pending := recorded.Drift["health"]
		err := updateContainer(ctx, c, id, args, pending)
		if cerrdefs.IsNotFound(err) {
			err = fmt.Errorf("%w\nFix: `pulumi refresh`, then `pulumi up` creates it again", err)
		}
		return outcome(err), err
	},
	remove: removeContainer,
}

func checkContainer(_ context.Context, args *containerArgs) []string {
	_, faults := containerSpec(*args)
	if args.Wait == args.Attach {
		faults = append(faults, "either wait or attach must be true: the offline docker provider waits until a container is healthy, or has ended")
	}
	for _, u := range args.Uploads {
		if _, err := u.mode(); err != nil {
			faults = append(faults, fmt.Sprintf("uploads: %s: %v", u.File, err))
		}
	}
	if !slices.Contains([]string{"", "no", "on-failure", "always", "unless-stopped"}, args.Restart) {
		faults = append(faults, fmt.Sprintf("restart %q must be no, on-failure, always or unless-stopped", args.Restart))
	}
	return faults
}

// createContainer creates the container, uploads its files, connects it to its networks, starts it, and waits until it
// is healthy or has ended. A container that fails before it has run is removed; one that ran and failed is kept for inspection, and
// the state records it.
func createContainer(ctx context.Context, c call, args containerArgs) (string, error) {
	if h := args.Healthcheck; h != nil && h.StartInterval.value() != 0 {
		// Older engines would silently ignore it. The client agreed on a version with the engine at its first request.
		if version := c.engine.ClientVersion(); versions.LessThan(version, "1.44") {
			return "", fmt.Errorf("healthcheck.startInterval needs Docker Engine 25 (API 1.44), this engine speaks API %s: "+
				"leave it out, or run `platform init` again so that the stack knows its engine", version)
		}
	}
	spec, _ := containerSpec(args)
	hash := specHash(spec, args.NetworksAdvanced, args.Uploads)
	spec.Config.Labels[hashLabel] = hash
	made, err := c.engine.ContainerCreate(ctx, spec)
	if cerrdefs.IsConflict(err) {
		id, takeErr := takeOver(ctx, c, args, hash)
		if id != "" || takeErr != nil {
			return id, takeErr
		}
		made, err = c.engine.ContainerCreate(ctx, spec)
	}
	if err != nil {
		return "", createError(err, args.Name)
	}
	id := made.ID
	abandon := func(err error) (string, error) {
		// Even if the run has been cancelled, the incomplete container and its empty unnamed volumes must be removed.
		_, removeErr := c.engine.ContainerRemove(context.WithoutCancel(ctx), id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if removeErr != nil && !cerrdefs.IsNotFound(removeErr) {
			err = errors.Join(err, fmt.Errorf("its container remains until the next `pulumi up`: %w", removeErr))
		}
		return "", err
	}
	if err := prepare(ctx, c, args, id); err != nil {
		return abandon(err)
	}
	watch := newWatch(ctx, c, args, id)
	defer watch.stop()
	if _, err := c.engine.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		// The container is removed by force only if the engine says that it never ran:
		// otherwise a database may be writing its first files.
		found, lookErr := c.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if lookErr != nil || found.Container.State.Status != container.StateCreated {
			return id, watch.unfinished("may not have started: " + err.Error())
		}
		return abandon(startError(err))
	}
	return id, watch.wait(ctx)
}

// takeOver handles an existing container of the wanted name. It may be an orphan, which this
// stack created and its state does not know, because a run was killed or the state was
// lost. An orphan that matches the specification exactly is started, and its id is returned; any other
// is removed, and the id is empty.
func takeOver(ctx context.Context, c call, args containerArgs, hash string) (string, error) {
	result, err := c.engine.ContainerInspect(ctx, args.Name, client.ContainerInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	found := result.Container
	if !isOurs(found.Config.Labels, labelMap(args.Labels)) {
		return "", createError(cerrdefs.ErrConflict, args.Name)
	}
	image, err := c.engine.ImageInspect(ctx, args.Image)
	if err != nil {
		return "", createError(err, args.Name)
	}
	detached := func(a attachment) bool { return found.NetworkSettings.Networks[a.Name] == nil }
	if found.Config.Labels[hashLabel] == hash && found.Image == image.ID &&
		found.State.Status != container.StateCreated && // the run may have been killed before the uploads
		!unhealthy(found.State) &&
		!slices.ContainsFunc(args.NetworksAdvanced, detached) {
		err := updateContainer(ctx, c, found.ID, args, true)
		if err == nil || errors.As(err, new(*initError)) {
			c.takenOver.Store(found.ID, c.urn)
			return found.ID, err
		}
	}
	if err := removeContainer(ctx, c, found.ID, args); !cerrdefs.IsNotFound(err) {
		return "", err
	}
	return "", nil
}

func createError(err error, name string) error {
	switch {
	case cerrdefs.IsConflict(err):
		return fmt.Errorf("container %s: the name is used by a container that does not belong to this stack\n"+
			"Fix: `docker rm -f %[1]s` removes it (volumes stay), or give this stack another namePrefix", name)
	case cerrdefs.IsNotFound(err):
		return fmt.Errorf("%w\nFix: `pulumi refresh` finds images that were removed from the engine, then `pulumi up` gets them again", err)
	}
	return err
}

func startError(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "port is already allocated"), strings.Contains(text, "address already in use"):
		return fmt.Errorf("%w\nFix: `docker ps` or `ss -ltnp` shows who has the port; stop it, or set `portOffset`", err)
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		return fmt.Errorf("%w\nFix: the image does not have that command; check the service's command and image", err)
	}
	return err
}

// prepare does what must be done before the first start.
func prepare(ctx context.Context, c call, args containerArgs, id string) error {
	for _, a := range args.NetworksAdvanced[min(1, len(args.NetworksAdvanced)):] {
		settings, _ := a.settings()
		options := client.NetworkConnectOptions{Container: id, EndpointConfig: settings}
		if _, err := c.engine.NetworkConnect(ctx, a.Name, options); err != nil {
			return fmt.Errorf("network %s: %w", a.Name, err)
		}
	}
	if err := uploadFiles(ctx, c.engine, id, args.Uploads); err != nil {
		return err
	}
	found, err := c.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	if args.Attach {
		return nil
	}
	// The image may have a healthcheck of its own, so this is known only here.
	probe := found.Container.Config.Healthcheck
	if probe == nil || len(probe.Test) == 0 || probe.Test[0] == "NONE" {
		return errors.New("wait is set, but neither the service nor its image has a healthcheck")
	}
	return nil
}

// readContainer finds out whether the container runs, and whether one that a cancelled run waited for is healthy now.
func readContainer(ctx context.Context, c call, id string, args containerArgs, state containerState) (containerState, error) {
	found, err := c.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return state, err
	}
	drift := map[string]string{}
	now := found.Container.State
	switch {
	case args.ended(now):
		return containerState{Failed: state.Failed}, nil
	case now.Paused:
		drift["running"] = "paused"
	case !now.Running && !now.Restarting:
		drift["running"] = fmt.Sprintf("%s, exit code %d", now.Status, now.ExitCode)
	}
	if pending, ok := state.Drift["health"]; ok && (now.Health == nil || now.Health.Status != container.Healthy) {
		drift["health"] = pending
	}
	if len(drift) == 0 {
		drift = nil // or the state would contain an empty map
	}
	return containerState{Failed: state.Failed, Drift: drift}, nil
}

// ended reports whether a container that runs to its end has done so successfully.
func (args containerArgs) ended(state *container.State) bool {
	return args.Attach && state.Status == container.StateExited && state.ExitCode == 0
}

// updateContainer changes the settings that a running container allows to change, starts the container if it has
// stopped, and waits until it is healthy if that is pending.
func updateContainer(ctx context.Context, c call, id string, args containerArgs, pending bool) error {
	found, err := c.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	policy := container.RestartPolicyMode(cmp.Or(args.Restart, string(container.RestartPolicyDisabled)))
	wanted, has := args.resources(), found.Container.HostConfig
	if has.RestartPolicy.Name != policy ||
		has.Memory != wanted.Memory || has.MemorySwap != wanted.MemorySwap || has.CPUShares != wanted.CPUShares {
		_, err := c.engine.ContainerUpdate(ctx, id, client.ContainerUpdateOptions{
			Resources: &wanted, RestartPolicy: &container.RestartPolicy{Name: policy},
		})
		if err != nil {
			return err
		}
	}
	state := found.Container.State
	running := state.Running || state.Restarting
	if args.ended(state) {
		return nil
	}
	if running && !state.Paused && !pending {
		return nil
	}
	watch := newWatch(ctx, c, args, id)
	defer watch.stop()
	switch {
	case state.Paused:
		_, err = c.engine.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{})
	case !running:
		_, err = c.engine.ContainerStart(ctx, id, client.ContainerStartOptions{})
	}
	if err != nil {
		return startError(err)
	}
	return watch.wait(ctx)
}

// removalLimit is how long the removal of the container by another client may take.
const removalLimit = 30 * time.Second

// removeContainer stops the container with its grace time and removes it.
func removeContainer(ctx context.Context, c call, id string, args containerArgs) error {
	grace := "its own stop timeout"
	if args.DestroyGraceSeconds != nil {
		grace = fmt.Sprintf("up to %ds", *args.DestroyGraceSeconds)
	}
	c.log.InfoStatusf("stopping %s, %s", args.Name, grace)
	if _, err := c.engine.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: args.DestroyGraceSeconds}); err != nil {
		return fmt.Errorf("stopping it: %w", err)
	}
	_, err := c.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{
		Force: true, RemoveVolumes: args.RemoveVolumes == nil || *args.RemoveVolumes,
	})
	if cerrdefs.IsConflict(err) { // another client removes it
		ctx, cancel := context.WithTimeout(ctx, removalLimit)
		defer cancel()
		removal := c.engine.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
		select {
		case <-removal.Result:
			return nil
		case waitErr := <-removal.Error:
			if cerrdefs.IsNotFound(waitErr) {
				return nil
			}
		}
	}
	if err != nil {
		return fmt.Errorf("removing it: %w", err)
	}
	return nil
}
