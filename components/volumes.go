package components

import (
	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/plan"
)

// Volumes is the stack's named volumes.
type Volumes struct {
	pulumi.ResourceState

	Names pulumi.StringMap // by catalog name
}

// VolumesArgs says which volumes.
type VolumesArgs struct {
	Volumes []plan.Volume
	Labels  []plan.Label // of each that is made; one that is adopted keeps its own
	Retain  bool         // leave the volumes on the engine when they leave the stack
}

// NewVolumes makes the volumes, or adopts those that exist, with their data.
func NewVolumes(ctx *pulumi.Context, name string, args *VolumesArgs, opts ...pulumi.ResourceOption) (*Volumes, error) {
	v := &Volumes{Names: pulumi.StringMap{}}
	if err := ctx.RegisterComponentResource("trading-platform:components:Volumes", name, v, opts...); err != nil {
		return nil, err
	}
	for _, volume := range args.Volumes {
		// None of Compose's labels: `docker compose down -v` would delete the volume.
		labels := docker.VolumeLabelArray{
			docker.VolumeLabelArgs{Label: pulumi.String(plan.VolumeLabel), Value: pulumi.String(volume.Key)},
		}
		for _, l := range args.Labels {
			labels = append(labels, docker.VolumeLabelArgs{Label: pulumi.String(l.Name), Value: pulumi.String(l.Value)})
		}
		made, err := docker.NewVolume(ctx, name+"-"+volume.Key, &docker.VolumeArgs{Name: pulumi.String(volume.Name), Labels: labels},
			pulumi.Parent(v),
			pulumi.RetainOnDelete(args.Retain),
			// Any of these would replace an adopted volume, and its data with it.
			pulumi.IgnoreChanges([]string{"labels", "driver", "driverOpts"}))
		if err != nil {
			return nil, err
		}
		v.Names[volume.Key] = made.Name
	}
	return v, ctx.RegisterResourceOutputs(v, pulumi.Map{"names": v.Names})
}
