package provider

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/moby/client"
)

type volumeArgs struct {
	Name   string  `pulumi:"name" provider:"replaceOnChanges"`
	Labels []label `pulumi:"labels,optional" provider:"replaceOnChanges"`
}

// volumes are docker.Volume. The ID is the volume's name.
var volumes = &kind[volumeArgs, noOutputs]{
	module: "index/volume", name: "Volume",
	create: createVolume, remove: removeVolume,
	// Labels are not compared, because an adopted volume keeps its own.
	read: func(ctx context.Context, c call, id string, _ volumeArgs, _ noOutputs) (noOutputs, error) {
		_, err := c.engine.VolumeInspect(ctx, id, client.VolumeInspectOptions{})
		return noOutputs{}, err
	},
}

// createVolume adopts a volume that exists, with its data, as the engine's own create does.
func createVolume(ctx context.Context, c call, args volumeArgs) (string, noOutputs, error) {
	made, err := c.engine.VolumeCreate(ctx, client.VolumeCreateOptions{Name: args.Name, Labels: labelMap(args.Labels)})
	return made.Volume.Name, noOutputs{}, err
}

// removeVolume removes the volume, or names the containers that still use it.
func removeVolume(ctx context.Context, c call, id string, args volumeArgs) error {
	_, err := c.engine.VolumeRemove(ctx, id, client.VolumeRemoveOptions{})
	if err == nil {
		return nil
	}
	users, listErr := c.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("volume", id)})
	if listErr != nil || len(users.Items) == 0 {
		return err
	}
	var names []string
	for _, user := range users.Items {
		names = append(names, strings.TrimPrefix(strings.Join(user.Names, ","), "/"))
	}
	return fmt.Errorf("volume %s is still used by %s\nFix: `docker rm -f %s`, then run this again",
		args.Name, strings.Join(names, ", "), strings.Join(names, " "))
}
