package provider

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	"github.com/pulumi/pulumi-go-provider/infer"
)

// orTrue returns the value of a flag whose default is true.
func orTrue(flag *bool) bool { return flag == nil || *flag }

const megabyte = 1 << 20

const (
	// failedKey is the output that says why a container was created and then failed to start.
	// The next up replaces such a container.
	failedKey = "failed"
	// driftKey is the output that lists the differences that a read found, each with a short description.
	driftKey = "drift"
)

// ContainerState is what the state records of a container.
type ContainerState struct {
	ContainerArgs
	// ImageID is the id of the image that the container was made from.
	ImageID string            `pulumi:"imageId,optional"`
	Failed  *string           `pulumi:"failed,optional"`
	Drift   map[string]string `pulumi:"drift,optional"`
}

// note records an initError.
func (s *ContainerState) note(err error) {
	var failed *initError
	switch {
	case !errors.As(err, &failed):
	case failed.resumable:
		s.Drift = map[string]string{"health": failed.summary}
	default:
		s.Failed = &failed.summary
	}
}

// Container implements docker.Container. Its id is the engine's container id.
type Container struct{}

// Annotate names the official provider's type.
func (*Container) Annotate(a infer.Annotator) { a.SetToken("index/container", "Container") }

// Check reports what the engine would refuse.
func (*Container) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[ContainerArgs], error) {
	return check(ctx, req, containerFaults)
}

func containerFaults(args ContainerArgs) []string {
	_, faults := containerSpec(args)
	fault := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	if args.Rm {
		fault("rm must be false: a container that removes itself leaves nothing to manage")
	}
	for _, u := range args.Uploads {
		if _, err := u.bytes(); err != nil {
			fault("uploads: %s: contentBase64 is not base64", u.File)
		}
		if _, err := u.mode(); err != nil {
			fault("uploads: %s: %v", u.File, err)
		}
	}
	switch args.Restart {
	case "", "no", "on-failure", "always", "unless-stopped":
	default:
		fault("restart %q must be no, on-failure, always or unless-stopped", args.Restart)
	}
	return faults
}

// Create creates the container, uploads its files, connects it to its networks and starts it. If wait is
// set, Create waits until it is healthy. A container that fails before it has run is removed; one that ran
// and failed is kept for inspection, and the state records it.
func (*Container) Create(
	ctx context.Context, req infer.CreateRequest[ContainerArgs],
) (infer.CreateResponse[ContainerState], error) {
	state := ContainerState{ContainerArgs: req.Inputs}
	id, err := createContainer(ctx, callOf(ctx), &state)
	state.note(err)
	return infer.CreateResponse[ContainerState]{ID: id, Output: state}, err
}

func createContainer(ctx context.Context, c call, state *ContainerState) (string, error) {
	args := state.ContainerArgs
	spec, _ := containerSpec(args)
	if err := checkStartInterval(c, args); err != nil {
		return "", err
	}
	spec.Config.Labels = withHash(args.Labels, spec, args.NetworksAdvanced, args.Uploads)
	made, err := c.engine.ContainerCreate(ctx, spec)
	if cerrdefs.IsConflict(err) {
		id, takeErr := takeOver(ctx, c, state, spec.Config.Labels[hashLabel])
		if id != "" || takeErr != nil {
			return id, takeErr
		}
		made, err = c.engine.ContainerCreate(ctx, spec)
	}
	if err != nil {
		return "", createError(err, args)
	}
	id := made.ID
	abandon := func(err error) (string, error) {
		// Even if the run has been cancelled, the incomplete container and its empty unnamed volumes must be removed.
		_, removeErr := c.engine.ContainerRemove(context.WithoutCancel(ctx), id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if removeErr != nil && !cerrdefs.IsNotFound(removeErr) {
			err = errors.Join(err, fmt.Errorf("its container remains until the next `pulumi up`: %w", removeErr))
		}
		return "", fmt.Errorf("container %s: %w", args.Name, err)
	}
	found, err := prepare(ctx, c, args, id)
	if err != nil {
		return abandon(err)
	}
	state.ImageID = found.Image
	if !orTrue(args.Start) {
		return id, nil
	}
	watch := newWatch(ctx, c, args, id)
	defer watch.close()
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
func takeOver(ctx context.Context, c call, state *ContainerState, hash string) (string, error) {
	args := state.ContainerArgs
	result, err := c.engine.ContainerInspect(ctx, args.Name, client.ContainerInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("container %s: %w", args.Name, err)
	}
	found := result.Container
	if !isOurs(found.Config.Labels, args.Labels) {
		return "", createError(cerrdefs.ErrConflict, args)
	}
	image, err := c.engine.ImageInspect(ctx, args.Image)
	if err != nil {
		return "", createError(err, args)
	}
	detached := func(a attachment) bool { return found.NetworkSettings.Networks[a.Name] == nil }
	if found.Config.Labels[hashLabel] == hash && found.Image == image.ID &&
		found.State.Status != container.StateCreated && // the run may have been killed before the uploads
		!unhealthy(found.State) &&
		!slices.ContainsFunc(args.NetworksAdvanced, detached) {
		orphan := ContainerState{Drift: map[string]string{"health": "taken over"}}
		err := updateContainer(ctx, c, found.ID, orphan, args)
		if err == nil || errors.As(err, new(*initError)) {
			state.ImageID = found.Image
			c.takenOver.Store(found.ID, c.urn)
			return found.ID, err
		}
	}
	return "", removeContainer(ctx, c, found.ID, args)
}

// checkStartInterval refuses the setting on older engines, which would silently ignore it.
func checkStartInterval(c call, args ContainerArgs) error {
	if args.Healthcheck == nil || args.Healthcheck.StartInterval.value() == 0 {
		return nil
	}
	// The client agreed on a version with the engine at its first request, which was begin's.
	if version := c.engine.ClientVersion(); versions.LessThan(version, "1.44") {
		return fmt.Errorf("container %s: healthcheck.startInterval needs Docker Engine 25 (API 1.44), this engine speaks API %s: "+
			"leave it out, or run `platform init` again so that the stack knows its engine", args.Name, version)
	}
	return nil
}

func createError(err error, args ContainerArgs) error {
	switch {
	case cerrdefs.IsConflict(err):
		return fmt.Errorf("container %s: the name is used by a container that does not belong to this stack\n"+
			"Fix: `docker rm -f %[1]s` removes it (volumes stay), or give this stack another namePrefix", args.Name)
	case cerrdefs.IsNotFound(err):
		return fmt.Errorf("container %s: %w\nFix: `pulumi refresh` finds images that were removed from the engine, "+
			"then `pulumi up` gets them again", args.Name, err)
	}
	return fmt.Errorf("container %s: %w", args.Name, err)
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

// prepare does what must be done before the first start, and inspects the result.
func prepare(
	ctx context.Context, c call, args ContainerArgs, id string,
) (container.InspectResponse, error) {
	for i, a := range args.NetworksAdvanced {
		if i == 0 {
			continue
		}
		settings, _ := a.settings()
		if _, err := c.engine.NetworkConnect(ctx, a.Name, client.NetworkConnectOptions{
			Container: id, EndpointConfig: settings,
		}); err != nil {
			return container.InspectResponse{}, fmt.Errorf("network %s: %w", a.Name, err)
		}
	}
	if err := uploadFiles(ctx, c.engine, id, args.Uploads); err != nil {
		return container.InspectResponse{}, err
	}
	found, err := c.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return container.InspectResponse{}, err
	}
	// The image may have a healthcheck of its own, so this is known only here.
	probe := found.Container.Config.Healthcheck
	if args.Wait && (probe == nil || len(probe.Test) == 0 || probe.Test[0] == "NONE") {
		return container.InspectResponse{}, errors.New("wait is set, but neither the service nor its image has a healthcheck")
	}
	return found.Container, nil
}

// Read records how the container differs from what was created.
func (*Container) Read(
	ctx context.Context, req infer.ReadRequest[ContainerArgs, ContainerState],
) (infer.ReadResponse[ContainerArgs, ContainerState], error) {
	found, err := callOf(ctx).engine.ContainerInspect(ctx, req.ID, client.ContainerInspectOptions{})
	if err != nil {
		return infer.ReadResponse[ContainerArgs, ContainerState]{}, unlessGone(err, "container", req.State.Name)
	}
	req.State.Drift = containerDrift(req.State, req.Inputs, found.Container)
	return infer.ReadResponse[ContainerArgs, ContainerState](req), nil
}

// Update changes the settings that a running container allows to change, starts the container if it has
// stopped, and continues a wait that was cancelled.
func (*Container) Update(
	ctx context.Context, req infer.UpdateRequest[ContainerArgs, ContainerState],
) (infer.UpdateResponse[ContainerState], error) {
	state := ContainerState{ContainerArgs: req.Inputs, ImageID: req.State.ImageID}
	err := updateContainer(ctx, callOf(ctx), req.ID, req.State, req.Inputs)
	state.note(err)
	return infer.UpdateResponse[ContainerState]{Output: state}, err
}

func updateContainer(ctx context.Context, c call, id string, old ContainerState, args ContainerArgs) error {
	resources := args.resources()
	if old.Restart != args.Restart || !reflect.DeepEqual(old.resources(), resources) {
		policy := args.Restart
		if policy == "" {
			policy = string(container.RestartPolicyDisabled)
		}
		_, err := c.engine.ContainerUpdate(ctx, id, client.ContainerUpdateOptions{
			Resources:     &resources,
			RestartPolicy: &container.RestartPolicy{Name: container.RestartPolicyMode(policy)},
		})
		if err != nil {
			return fmt.Errorf("container %s: %w", args.Name, goneHint(err))
		}
	}
	found, err := c.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return fmt.Errorf("container %s: %w", args.Name, goneHint(err))
	}
	state := found.Container.State
	running := state.Running || state.Restarting
	_, pending := old.Drift["health"]
	if !orTrue(args.Start) || (running && !state.Paused && !pending) || (!running && !orTrue(args.MustRun)) {
		return nil
	}
	watch := newWatch(ctx, c, args, id)
	defer watch.close()
	switch {
	case state.Paused:
		_, err = c.engine.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{})
	case !running:
		_, err = c.engine.ContainerStart(ctx, id, client.ContainerStartOptions{})
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", args.Name, startError(err))
	}
	return watch.wait(ctx)
}

func goneHint(err error) error {
	if cerrdefs.IsNotFound(err) {
		return fmt.Errorf("%w\nFix: `pulumi refresh`, then `pulumi up` creates it again", err)
	}
	return err
}

// Delete stops the container with its grace time and removes it.
func (*Container) Delete(ctx context.Context, req infer.DeleteRequest[ContainerState]) (infer.DeleteResponse, error) {
	return infer.DeleteResponse{}, removeContainer(ctx, callOf(ctx), req.ID, req.State.ContainerArgs)
}

func removeContainer(ctx context.Context, c call, id string, args ContainerArgs) error {
	grace := "its own stop timeout"
	if args.DestroyGraceSeconds != nil {
		grace = fmt.Sprintf("up to %ds", *args.DestroyGraceSeconds)
	}
	c.status("stopping %s, %s", args.Name, grace)
	_, err := c.engine.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: args.DestroyGraceSeconds})
	if err != nil && !cerrdefs.IsNotFound(err) {
		return fmt.Errorf("container %s: stopping it: %w", args.Name, err)
	}
	_, err = c.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{
		Force: true, RemoveVolumes: orTrue(args.RemoveVolumes),
	})
	switch {
	case err == nil || cerrdefs.IsNotFound(err):
		return nil
	case cerrdefs.IsConflict(err):
		return awaitRemoval(ctx, c, id, args, err)
	}
	return fmt.Errorf("container %s: removing it: %w", args.Name, err)
}

// removalLimit is how long the removal of the container by another client may take.
const removalLimit = 30 * time.Second

// awaitRemoval waits while another client removes the container.
func awaitRemoval(ctx context.Context, c call, id string, args ContainerArgs, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, removalLimit)
	defer cancel()
	for {
		if _, err := c.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{}); cerrdefs.IsNotFound(err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("container %s: removing it: %w", args.Name, cause)
		case <-time.After(pollEvery):
		}
	}
}
