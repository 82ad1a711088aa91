package provider

import (
	"context"
	"fmt"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
)

// volumeArgs are docker.Volume's inputs. An id is the volume's name.
type volumeArgs struct {
	Name       string            `json:"name"       rule:"required"`
	Driver     string            `json:"driver"`
	DriverOpts map[string]string `json:"driverOpts"`
	Labels     []label           `json:"labels"     rule:"set"`
}

type volumeType struct{}

func (volumeType) computed() []resource.PropertyKey {
	return []resource.PropertyKey{"driver", "mountpoint"}
}

func (volumeType) validate(volumeArgs) []plugin.CheckFailure { return nil }

// create adopts a volume that exists, with its data: the engine's own create does so.
func (t volumeType) create(ctx context.Context, c call, args volumeArgs) (resource.ID, outputs, error) {
	made, err := c.engine.VolumeCreate(ctx, client.VolumeCreateOptions{
		Name: args.Name, Driver: args.Driver, DriverOpts: args.DriverOpts, Labels: labelMap(args.Labels),
	})
	if err != nil {
		return "", nil, fmt.Errorf("volume %s: %w", args.Name, err)
	}
	return resource.ID(made.Volume.Name), volumeOutputs(made.Volume.Driver, made.Volume.Mountpoint), nil
}

func volumeOutputs(driver, mountpoint string) outputs {
	return outputs{"driver": resource.NewProperty(driver), "mountpoint": resource.NewProperty(mountpoint)}
}

// read takes labels and options as they are: an adopted volume keeps its own.
func (volumeType) read(ctx context.Context, c call, args volumeArgs) (outputs, error) {
	found, err := c.engine.VolumeInspect(ctx, string(c.id), client.VolumeInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", args.Name, err)
	}
	return volumeOutputs(found.Volume.Driver, found.Volume.Mountpoint), nil
}

// update has nothing to do: every property of a volume is fixed when it is made.
func (t volumeType) update(ctx context.Context, c call, args volumeArgs) (outputs, error) {
	return t.read(ctx, c, args)
}

func (volumeType) remove(ctx context.Context, c call, args volumeArgs) error {
	_, err := c.engine.VolumeRemove(ctx, string(c.id), client.VolumeRemoveOptions{})
	if err == nil || cerrdefs.IsNotFound(err) {
		return nil
	}
	users, listErr := c.engine.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: client.Filters{}.Add("volume", string(c.id)),
	})
	if listErr != nil || len(users.Items) == 0 {
		return fmt.Errorf("volume %s: %w", args.Name, err)
	}
	var names []string
	for _, user := range users.Items {
		names = append(names, strings.TrimPrefix(strings.Join(user.Names, ","), "/"))
	}
	return fmt.Errorf("volume %s is still used by %s\nFix: `docker rm -f %s`, then run this again",
		args.Name, strings.Join(names, ", "), strings.Join(names, " "))
}
