// Package components creates the Pulumi resources that a plan describes. All decisions
// are made in package plan.
package components

import (
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/catalog"
	"trading-platform/plan"
)

// Platform is the whole stack: networks, volumes, images, and services grouped by tier.
type Platform struct {
	pulumi.ResourceState

	URLs       pulumi.StringMapOutput   // by service, the URL that users open
	Containers pulumi.StringArrayOutput // names on the engine, in the order in which they start
	Networks   pulumi.StringMapOutput   // by catalog name, the name on the engine
	Volumes    pulumi.StringMapOutput   // by catalog name, the name on the engine
}

// PlatformArgs are the arguments of NewPlatform.
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
	networks, err := NewNetworks(ctx, name+"-networks", &NetworksArgs{Plan: args.Plan}, under)
	if err != nil {
		return nil, err
	}
	volumes, err := NewVolumes(ctx, name+"-volumes", &VolumesArgs{Plan: args.Plan}, under)
	if err != nil {
		return nil, err
	}
	images, err := NewImages(ctx, name+"-images", &ImagesArgs{Services: args.Plan.Services, Platform: args.BuildPlatform}, under)
	if err != nil {
		return nil, err
	}

	tiers := map[catalog.Tier]*Tier{}
	services := map[string]*Service{}
	var containers pulumi.StringArray
	for _, s := range args.Plan.Services {
		if tiers[s.Tier] == nil {
			if tiers[s.Tier], err = NewTier(ctx, name+"-"+string(s.Tier), under); err != nil {
				return nil, err
			}
		}
		services[s.Name], err = NewService(ctx, name+"-"+s.Name, &ServiceArgs{
			Plan: args.Plan, Service: s,
			Networks: networks, Volumes: volumes, ImageID: images.IDs[s.Name],
			After: containersOf(services, s.After),
		}, pulumi.Parent(tiers[s.Tier]))
		if err != nil {
			return nil, err
		}
		for _, c := range services[s.Name].Containers {
			containers = append(containers, c.Name)
		}
	}

	p.URLs = pulumi.ToStringMap(args.Plan.URLs()).ToStringMapOutput()
	p.Containers = containers.ToStringArrayOutput()
	p.Networks = networks.Names.ToStringMapOutput()
	p.Volumes = volumes.Names.ToStringMapOutput()
	return p, ctx.RegisterResourceOutputs(p, p.Outputs())
}

// Outputs returns the platform's outputs, which are also the stack's.
func (p *Platform) Outputs() pulumi.Map {
	return pulumi.Map{
		"urls":       p.URLs,
		"containers": p.Containers,
		"networks":   p.Networks,
		"volumes":    p.Volumes,
	}
}

// containersOf returns the containers of the named services. Resources depend on these
// and never on their components, because the Go SDK can lose a dependency on a component.
func containersOf(services map[string]*Service, names []string) []pulumi.Resource {
	var all []pulumi.Resource
	for _, name := range names {
		for _, c := range services[name].Containers {
			all = append(all, c)
		}
	}
	return all
}
