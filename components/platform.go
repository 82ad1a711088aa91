// Package components creates the Pulumi resources that a plan describes. All decisions
// are made in package plan.
package components

import (
	"fmt"

	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/catalog"
	"trading-platform/plan"
)

// Platform is the whole stack: networks, volumes, images, and services grouped by tier.
type Platform struct {
	pulumi.ResourceState

	// Outputs are also the stack's. They are: urls, by service, the URL that users open; containers, the names on the
	// engine, in the order in which they start; networks and volumes, the names on the engine by those in the catalog.
	Outputs pulumi.Map
}

// PlatformArgs are the arguments of NewPlatform, and of the components for all services: NewNetworks, NewVolumes and NewImages.
type PlatformArgs struct {
	Plan *plan.Plan // required
	// BuildPlatform is the platform to build images for: the engine's own, such as linux/arm64. Required.
	BuildPlatform string
}

// NewPlatform creates the resources of a plan. The docker provider is passed as an option,
// and the child resources inherit it.
func NewPlatform(ctx *pulumi.Context, name string, args *PlatformArgs, opts ...pulumi.ResourceOption) (*Platform, error) {
	if args == nil || args.Plan == nil || args.BuildPlatform == "" {
		return nil, fmt.Errorf("platform %s needs a plan and the platform that images are built for", name)
	}
	p := &Platform{}
	if err := ctx.RegisterComponentResource("trading-platform:components:Platform", name, p, opts...); err != nil {
		return nil, err
	}
	under := pulumi.Parent(p)
	networks, err := NewNetworks(ctx, name+"-networks", args, under)
	if err != nil {
		return nil, err
	}
	volumes, err := NewVolumes(ctx, name+"-volumes", args, under)
	if err != nil {
		return nil, err
	}
	images, err := NewImages(ctx, name+"-images", args, under)
	if err != nil {
		return nil, err
	}

	tiers := map[catalog.Tier]*Tier{}
	// By service. Resources depend on containers, or services of a Swarm, and never on components, because the Go SDK can lose a dependency on a component.
	containers := map[string][]pulumi.Resource{}
	steps := map[string][]*docker.Container{} // those that run once
	var names pulumi.StringArray
	for _, s := range args.Plan.Services {
		if tiers[s.Tier] == nil {
			if tiers[s.Tier], err = NewTier(ctx, name+"-"+string(s.Tier), under); err != nil {
				return nil, err
			}
		}
		var after []pulumi.Resource
		var before []*docker.Container
		for _, needed := range s.After {
			after = append(after, containers[needed]...)
			before = append(before, steps[needed]...)
		}
		made, err := NewService(ctx, name+"-"+s.Name, &ServiceArgs{
			Plan: args.Plan, Service: s, Networks: networks, Volumes: volumes, ImageID: images.IDs[s.Image.Key()], After: after, Steps: before,
		}, pulumi.Parent(tiers[s.Tier]))
		if err != nil {
			return nil, err
		}
		containers[s.Name] = made.Resources
		names = append(names, made.Containers...)
		if s.Once {
			steps[s.Name] = made.Steps
		}
	}
	p.Outputs = pulumi.Map{
		"urls":       pulumi.ToStringMap(args.Plan.URLs()).ToStringMapOutput(),
		"containers": names.ToStringArrayOutput(),
		"networks":   networks.Names.ToStringMapOutput(),
		"volumes":    volumes.Names.ToStringMapOutput(),
	}
	return p, ctx.RegisterResourceOutputs(p, p.Outputs)
}

// Tier groups the services of one tier, so that the tree that Pulumi prints reads like the architecture.
type Tier struct{ pulumi.ResourceState }

// NewTier creates an empty group. Its services have it as their parent.
func NewTier(ctx *pulumi.Context, name string, opts ...pulumi.ResourceOption) (*Tier, error) {
	t := &Tier{}
	if err := ctx.RegisterComponentResource("trading-platform:components:Tier", name, t, opts...); err != nil {
		return nil, err
	}
	return t, ctx.RegisterResourceOutputs(t, pulumi.Map{})
}
