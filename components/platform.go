// Package components carries a plan out with Pulumi's docker resources. It
// decides nothing: what runs, and how, stands in the plan.
package components

import (
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/catalog"
	"trading-platform/plan"
)

// Platform is the whole stack: networks, volumes, images, and the services tier by tier.
type Platform struct {
	pulumi.ResourceState

	URLs       pulumi.StringMapOutput   // by service, how a person opens it
	Containers pulumi.StringArrayOutput // names on the engine, in the order in which they start
	Networks   pulumi.StringMapOutput   // by catalog name, the name on the engine
	Volumes    pulumi.StringMapOutput   // by catalog name, the name on the engine
}

// PlatformArgs says what to stand up.
type PlatformArgs struct {
	Plan *plan.Plan // required
	// BuildPlatform is what images are built for: the engine's own, such as linux/arm64. Required.
	BuildPlatform string
}

// NewPlatform stands a plan up. The docker provider that it is to use comes as
// an option; its children take it from there.
func NewPlatform(ctx *pulumi.Context, name string, args *PlatformArgs, opts ...pulumi.ResourceOption) (*Platform, error) {
	if args == nil || args.Plan == nil || args.BuildPlatform == "" {
		return nil, fmt.Errorf("platform %s needs a plan and the platform that images are built for", name)
	}
	p := &Platform{}
	if err := ctx.RegisterComponentResource("trading-platform:components:Platform", name, p, opts...); err != nil {
		return nil, err
	}
	under := pulumi.Parent(p)
	networks, err := NewNetworks(ctx, name+"-networks", &NetworksArgs{Networks: args.Plan.Networks, Labels: args.Plan.OwnLabels()}, under)
	if err != nil {
		return nil, err
	}
	volumes, err := NewVolumes(ctx, name+"-volumes", &VolumesArgs{Volumes: args.Plan.Volumes, Labels: args.Plan.OwnLabels(), Retain: args.Plan.RetainVolumes}, under)
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

// Outputs gives what a stack exports of the platform.
func (p *Platform) Outputs() pulumi.Map {
	return pulumi.Map{
		"urls":       p.URLs,
		"containers": p.Containers,
		"networks":   p.Networks,
		"volumes":    p.Volumes,
	}
}

// containersOf gives the containers of the named services. Edges name these and
// never the components around them: an edge to a component can get lost in the Go SDK.
func containersOf(services map[string]*Service, names []string) []pulumi.Resource {
	var all []pulumi.Resource
	for _, name := range names {
		for _, c := range services[name].Containers {
			all = append(all, c)
		}
	}
	return all
}
