package provider

import (
	"context"
	"fmt"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi-go-provider/infer"
)

// VolumeArgs are docker.Volume's inputs.
type VolumeArgs struct {
	Name       string            `pulumi:"name" provider:"replaceOnChanges"`
	Driver     string            `pulumi:"driver,optional" provider:"replaceOnChanges"`
	DriverOpts map[string]string `pulumi:"driverOpts,optional" provider:"replaceOnChanges"`
	Labels     []label           `pulumi:"labels,optional" provider:"replaceOnChanges"`
}

// VolumeState is what the state records of a volume. The engine chooses the driver if
// none was given.
type VolumeState struct {
	VolumeArgs
	Mountpoint string `pulumi:"mountpoint,optional"`
}

func volumeState(args VolumeArgs, found volume.Volume) VolumeState {
	args.Driver = found.Driver
	return VolumeState{args, found.Mountpoint}
}

// Volume implements docker.Volume. Its id is the volume's name.
type Volume struct{}

// Annotate names the official provider's type.
func (*Volume) Annotate(a infer.Annotator) { a.SetToken("index/volume", "Volume") }

// Check compares the inputs with the schema.
func (*Volume) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[VolumeArgs], error) {
	return check(ctx, req, func(VolumeArgs) []string { return nil })
}

// Create adopts a volume that exists, with its data, as the engine's own create does.
func (*Volume) Create(
	ctx context.Context, req infer.CreateRequest[VolumeArgs],
) (infer.CreateResponse[VolumeState], error) {
	args := req.Inputs
	made, err := callOf(ctx).engine.VolumeCreate(ctx, client.VolumeCreateOptions{
		Name: args.Name, Driver: args.Driver, DriverOpts: args.DriverOpts, Labels: labelMap(args.Labels),
	})
	if err != nil {
		return infer.CreateResponse[VolumeState]{}, fmt.Errorf("volume %s: %w", args.Name, err)
	}
	return infer.CreateResponse[VolumeState]{ID: made.Volume.Name, Output: volumeState(args, made.Volume)}, nil
}

// Read does not compare labels and options, because an adopted volume keeps its own.
func (*Volume) Read(
	ctx context.Context, req infer.ReadRequest[VolumeArgs, VolumeState],
) (infer.ReadResponse[VolumeArgs, VolumeState], error) {
	found, err := callOf(ctx).engine.VolumeInspect(ctx, req.ID, client.VolumeInspectOptions{})
	if err != nil {
		return infer.ReadResponse[VolumeArgs, VolumeState]{}, unlessGone(err, "volume", req.State.Name)
	}
	req.State = volumeState(req.Inputs, found.Volume)
	return infer.ReadResponse[VolumeArgs, VolumeState](req), nil
}

// Delete removes the volume, or names the containers that still use it.
func (*Volume) Delete(ctx context.Context, req infer.DeleteRequest[VolumeState]) (infer.DeleteResponse, error) {
	e, name := callOf(ctx).engine, req.State.Name
	_, err := e.VolumeRemove(ctx, req.ID, client.VolumeRemoveOptions{})
	if err == nil || cerrdefs.IsNotFound(err) {
		return infer.DeleteResponse{}, nil
	}
	users, listErr := e.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: client.Filters{}.Add("volume", req.ID),
	})
	if listErr != nil || len(users.Items) == 0 {
		return infer.DeleteResponse{}, fmt.Errorf("volume %s: %w", name, err)
	}
	var names []string
	for _, user := range users.Items {
		names = append(names, strings.TrimPrefix(strings.Join(user.Names, ","), "/"))
	}
	return infer.DeleteResponse{}, fmt.Errorf("volume %s is still used by %s\nFix: `docker rm -f %s`, then run this again",
		name, strings.Join(names, ", "), strings.Join(names, " "))
}
