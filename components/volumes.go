package components

import (
	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// Volumes are the stack's named volumes.
type Volumes struct {
	pulumi.ResourceState

	Names pulumi.StringMap // names on the engine, by name in the catalog
}

// NewVolumes creates the volumes, or adopts existing ones with their data.
func NewVolumes(ctx *pulumi.Context, name string, args *PlatformArgs, opts ...pulumi.ResourceOption) (*Volumes, error) {
	v := &Volumes{Names: pulumi.StringMap{}}
	if err := ctx.RegisterComponentResource("trading-platform:components:Volumes", name, v, opts...); err != nil {
		return nil, err
	}
	for _, volume := range args.Plan.Volumes {
		made, err := docker.NewVolume(ctx, name+"-"+volume.Key, &docker.VolumeArgs{
			Name: pulumi.String(volume.Name),
			Labels: docker.VolumeLabelArray(labels(args.Plan.VolumeLabels(volume), func(l docker.ContainerLabelArgs) docker.VolumeLabelInput {
				return docker.VolumeLabelArgs(l)
			})),
		},
			pulumi.Parent(v),
			pulumi.RetainOnDelete(args.Plan.RetainVolumes),
			// An adopted volume keeps its own. A difference in one of these would replace it and delete its data.
			pulumi.IgnoreChanges([]string{"labels", "driver", "driverOpts"}))
		if err != nil {
			return nil, err
		}
		v.Names[volume.Key] = made.Name
	}
	return v, ctx.RegisterResourceOutputs(v, pulumi.Map{"names": v.Names})
}
