package provider

import (
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
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
)

// orTrue is a flag whose default is true.
func orTrue(flag *bool) bool { return flag == nil || *flag }

const megabyte = 1 << 20

// containerImageKey is the recorded id of the image that the container was made from.
const containerImageKey = "imageId"

type containerType struct{}

func (containerType) computed() []resource.PropertyKey {
	return []resource.PropertyKey{containerImageKey}
}

func (containerType) validate(args containerArgs) []plugin.CheckFailure {
	_, failures := containerSpec(args)
	fail := func(property resource.PropertyKey, format string, a ...any) {
		failures = append(failures, plugin.CheckFailure{Property: property, Reason: fmt.Sprintf(format, a...)})
	}
	if args.Rm {
		fail("rm", "rm must be false: a container that removes itself leaves nothing to manage")
	}
	for i, u := range args.Uploads {
		if _, err := u.bytes(); err != nil {
			fail(resource.PropertyKey(fmt.Sprintf("uploads[%d].contentBase64", i)), "uploads: %s: contentBase64 is not base64", u.File)
		}
		if _, err := u.mode(); err != nil {
			fail(resource.PropertyKey(fmt.Sprintf("uploads[%d].permissions", i)), "uploads: %s: %v", u.File, err)
		}
	}
	switch args.Restart {
	case "", "no", "on-failure", "always", "unless-stopped":
	default:
		fail("restart", "restart %q must be no, on-failure, always or unless-stopped", args.Restart)
	}
	return failures
}

// mustReplace: an engine sets a memory limit on a live container, but cannot take it away.
func (containerType) mustReplace(olds, news containerArgs) []string {
	var names []string
	if olds.Memory != 0 && news.Memory == 0 {
		names = append(names, "memory")
	}
	if olds.MemorySwap != 0 && news.MemorySwap == 0 {
		names = append(names, "memorySwap")
	}
	return names
}

// create makes, fills, connects and starts the container and, where wait is set,
// stays until it is healthy. A container that fails before it has run is removed; one
// that ran and failed stays for inspection, and the state says so.
func (t containerType) create(ctx context.Context, c call, args containerArgs) (resource.ID, outputs, error) {
	spec, _ := containerSpec(args)
	if err := checkStartInterval(ctx, c, args); err != nil {
		return "", nil, err
	}
	spec.Config.Labels = withHash(args.Labels, spec, args.NetworksAdvanced, args.Uploads)
	made, err := c.engine.ContainerCreate(ctx, spec)
	if cerrdefs.IsConflict(err) {
		id, out, takeErr := t.takeOver(ctx, c, args, spec.Config.Labels[hashLabel])
		if id != "" || takeErr != nil {
			return id, out, takeErr
		}
		made, err = c.engine.ContainerCreate(ctx, spec)
	}
	if err != nil {
		return "", nil, createError(err, args)
	}
	id := made.ID
	abandon := func(err error) (resource.ID, outputs, error) {
		// The run may have been cancelled; what it half made must go all the same, empty unnamed volumes too.
		_, removeErr := c.engine.ContainerRemove(context.WithoutCancel(ctx), id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if removeErr != nil && !cerrdefs.IsNotFound(removeErr) {
			err = errors.Join(err, fmt.Errorf("its container stays behind until the next `pulumi up`: %w", removeErr))
		}
		return "", nil, fmt.Errorf("container %s: %w", args.Name, err)
	}
	found, err := t.prepare(ctx, c, args, id)
	if err != nil {
		return abandon(err)
	}
	out := outputs{containerImageKey: resource.NewProperty(found.Image)}
	if !orTrue(args.Start) {
		return resource.ID(id), out, nil
	}
	watch := newWatch(ctx, c, args, id)
	defer watch.close()
	if _, err := c.engine.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		// Only an engine that says that the container never ran lets it be removed by force:
		// a database may be writing its first files.
		found, lookErr := c.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if lookErr != nil || found.Container.State.Status != container.StateCreated {
			return resource.ID(id), out, watch.unfinished("may not have started: " + err.Error())
		}
		return abandon(startError(err))
	}
	return resource.ID(id), out, watch.wait(ctx)
}

// takeOver deals with the container that has the wanted name: an orphan, which this
// stack created and its state does not know, because a run was killed or the state was
// lost. One that is exactly what is wanted is brought up, and its id returned; another
// is removed, and the id is empty.
func (t containerType) takeOver(
	ctx context.Context, c call, args containerArgs, hash string,
) (resource.ID, outputs, error) {
	result, err := c.engine.ContainerInspect(ctx, args.Name, client.ContainerInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("container %s: %w", args.Name, err)
	}
	found := result.Container
	if !isOurs(found.Config.Labels, args.Labels) {
		return "", nil, createError(cerrdefs.ErrConflict, args)
	}
	image, err := c.engine.ImageInspect(ctx, args.Image)
	if err != nil {
		return "", nil, createError(err, args)
	}
	c.id = resource.ID(found.ID)
	detached := func(a attachment) bool { return found.NetworkSettings.Networks[a.Name] == nil }
	if found.Config.Labels[hashLabel] == hash && found.Image == image.ID &&
		found.State.Status != container.StateCreated && // cut before its uploads, perhaps
		!unhealthy(found.State) &&
		!slices.ContainsFunc(args.NetworksAdvanced, detached) {
		c.recorded = outputs{
			containerImageKey: resource.NewProperty(found.Image),
			driftKey:          resource.NewProperty(resource.PropertyMap{"health": resource.NewProperty("taken over")}),
		}
		out, err := t.update(ctx, c, args)
		if failed := new(initError); err == nil || errors.As(err, &failed) {
			c.run.takenOver.Store(c.id, c.progress.urn)
			return c.id, out, err
		}
	}
	return "", nil, t.remove(ctx, c, args)
}

// checkStartInterval: an older engine would drop the setting without a word.
func checkStartInterval(ctx context.Context, c call, args containerArgs) error {
	if args.Healthcheck == nil || args.Healthcheck.StartInterval.value() == 0 {
		return nil
	}
	if _, err := c.engine.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return fmt.Errorf("container %s: %w", args.Name, err)
	}
	if version := c.engine.ClientVersion(); versions.LessThan(version, "1.44") {
		return fmt.Errorf("container %s: healthcheck.startInterval needs Docker Engine 25 (API 1.44), this engine speaks API %s: "+
			"leave it out, or run `platform init` again so that the stack knows its engine", args.Name, version)
	}
	return nil
}

func createError(err error, args containerArgs) error {
	switch {
	case cerrdefs.IsConflict(err):
		return fmt.Errorf("container %s: the name is taken by a container that is not this stack's\n"+
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

// prepare does what must be done before the first start, and looks at the result.
func (containerType) prepare(
	ctx context.Context, c call, args containerArgs, id string,
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
	// The image may bring a probe of its own, so this is known only here.
	probe := found.Container.Config.Healthcheck
	if args.Wait && (probe == nil || len(probe.Test) == 0 || probe.Test[0] == "NONE") {
		return container.InspectResponse{}, errors.New("wait is set, but neither the service nor its image has a healthcheck")
	}
	return found.Container, nil
}

func (containerType) read(ctx context.Context, c call, args containerArgs) (outputs, error) {
	found, err := c.engine.ContainerInspect(ctx, string(c.id), client.ContainerInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", args.Name, err)
	}
	out := outputs{containerImageKey: c.recorded[containerImageKey]}
	if failed, ok := c.recorded[failedKey]; ok {
		out[failedKey] = failed
	}
	if drift := containerDrift(c, args, found.Container); len(drift) > 0 {
		out[driftKey] = resource.NewProperty(drift)
	}
	return out, nil
}

// update changes what a live container lets change, starts it when it has stopped and
// takes up a wait that was cancelled.
func (t containerType) update(ctx context.Context, c call, args containerArgs) (outputs, error) {
	out := outputs{containerImageKey: c.recorded[containerImageKey]}
	id, old := string(c.id), arguments[containerArgs](c.recorded)
	if old.Restart != args.Restart || old.Memory != args.Memory || old.MemorySwap != args.MemorySwap {
		policy := args.Restart
		if policy == "" {
			policy = string(container.RestartPolicyDisabled)
		}
		_, err := c.engine.ContainerUpdate(ctx, id, client.ContainerUpdateOptions{
			Resources:     &container.Resources{Memory: args.Memory * megabyte, MemorySwap: swapBytes(args.MemorySwap)},
			RestartPolicy: &container.RestartPolicy{Name: container.RestartPolicyMode(policy)},
		})
		if err != nil {
			return out, fmt.Errorf("container %s: %w", args.Name, goneHint(err))
		}
	}
	found, err := c.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return out, fmt.Errorf("container %s: %w", args.Name, goneHint(err))
	}
	state := found.Container.State
	running := state.Running || state.Restarting
	_, pending := objectOf(c.recorded[driftKey])["health"]
	if !orTrue(args.Start) || (running && !state.Paused && !pending) || (!running && !orTrue(args.MustRun)) {
		return out, nil
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
		return out, fmt.Errorf("container %s: %w", args.Name, startError(err))
	}
	return out, watch.wait(ctx)
}

func goneHint(err error) error {
	if cerrdefs.IsNotFound(err) {
		return fmt.Errorf("%w\nFix: `pulumi refresh`, then `pulumi up` makes it again", err)
	}
	return err
}

// remove stops the container with its grace time before it takes it away.
func (containerType) remove(ctx context.Context, c call, args containerArgs) error {
	id := string(c.id)
	grace := "its own stop timeout"
	if args.DestroyGraceSeconds != nil {
		grace = fmt.Sprintf("up to %ds", *args.DestroyGraceSeconds)
	}
	c.progress.status("stopping %s, %s", args.Name, grace)
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
		return awaitRemoval(ctx, c, args, err)
	}
	return fmt.Errorf("container %s: removing it: %w", args.Name, err)
}

// removalLimit is how long another's removal of the same container may take.
const removalLimit = 30 * time.Second

// awaitRemoval: somebody else is removing the container right now.
func awaitRemoval(ctx context.Context, c call, args containerArgs, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, removalLimit)
	defer cancel()
	for {
		if _, err := c.engine.ContainerInspect(ctx, string(c.id), client.ContainerInspectOptions{}); cerrdefs.IsNotFound(err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("container %s: removing it: %w", args.Name, cause)
		case <-time.After(pollEvery):
		}
	}
}
