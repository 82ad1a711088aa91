package components

import (
	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/plan"
)

// Volumes are the stack's named volumes.
type Volumes struct {
	pulumi.ResourceState

	Names pulumi.StringMap // names on the engine, by name in the catalog
}

// VolumesArgs are the arguments of NewVolumes.
type VolumesArgs struct {
	Plan *plan.Plan
}

// NewVolumes creates the volumes, or adopts existing ones with their data.
func NewVolumes(ctx *pulumi.Context, name string, args *VolumesArgs, opts ...pulumi.ResourceOption) (*Volumes, error) {
	v := &Volumes{Names: pulumi.StringMap{}}
	if err := ctx.RegisterComponentResource("trading-platform:components:Volumes", name, v, opts...); err != nil {
		return nil, err
	}
	for _, volume := range args.Plan.Volumes {
		var labels docker.VolumeLabelArray // an existing volume keeps its own
		for _, l := range args.Plan.VolumeLabels(volume) {
			labels = append(labels, docker.VolumeLabelArgs{Label: pulumi.String(l.Name), Value: pulumi.String(l.Value)})
		}
		made, err := docker.NewVolume(ctx, name+"-"+volume.Key, &docker.VolumeArgs{Name: pulumi.String(volume.Name), Labels: labels},
			pulumi.Parent(v),
			pulumi.RetainOnDelete(args.Plan.RetainVolumes),
			// A difference in one of these would replace an adopted volume and delete its data.
			pulumi.IgnoreChanges([]string{"labels", "driver", "driverOpts"}))
		if err != nil {
			return nil, err
		}
		v.Names[volume.Key] = made.Name
	}
	return v, ctx.RegisterResourceOutputs(v, pulumi.Map{"names": v.Names})
}
