package components

import (
	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/plan"
)

// Networks are the stack's bridge networks.
type Networks struct {
	pulumi.ResourceState

	// Names has the networks' names on the engine, by their names in the catalog. Containers
	// use these outputs, so that the replacement of a network replaces its containers too:
	// Docker does not remove a network that is in use.
	Names pulumi.StringMap
}

// NetworksArgs are the arguments of NewNetworks.
type NetworksArgs struct {
	Plan *plan.Plan
}

// NewNetworks creates the networks.
func NewNetworks(ctx *pulumi.Context, name string, args *NetworksArgs, opts ...pulumi.ResourceOption) (*Networks, error) {
	n := &Networks{Names: pulumi.StringMap{}}
	if err := ctx.RegisterComponentResource("trading-platform:components:Networks", name, n, opts...); err != nil {
		return nil, err
	}
	// The engine gives a network without a subnet the next free one, which may be the one
	// that another network asks for. So the networks with a subnet are created first.
	var withSubnet []pulumi.Resource
	for _, network := range args.Plan.Networks {
		if network.Subnet == "" {
			continue
		}
		made, err := n.add(ctx, name, args.Plan, network)
		if err != nil {
			return nil, err
		}
		withSubnet = append(withSubnet, made)
	}
	for _, network := range args.Plan.Networks {
		if network.Subnet != "" {
			continue
		}
		if _, err := n.add(ctx, name, args.Plan, network, pulumi.DependsOn(withSubnet)); err != nil {
			return nil, err
		}
	}
	return n, ctx.RegisterResourceOutputs(n, pulumi.Map{"names": n.Names})
}

// add creates one network.
func (n *Networks) add(ctx *pulumi.Context, name string, p *plan.Plan, network plan.Network, opts ...pulumi.ResourceOption) (*docker.Network, error) {
	args := &docker.NetworkArgs{
		Name:   pulumi.String(network.Name),
		Driver: pulumi.String("bridge"),
	}
	var labels docker.NetworkLabelArray
	for _, l := range p.NetworkLabels(network) {
		labels = append(labels, docker.NetworkLabelArgs{Label: pulumi.String(l.Name), Value: pulumi.String(l.Value)})
	}
	args.Labels = labels
	if network.Subnet != "" {
		args.IpamConfigs = docker.NetworkIpamConfigArray{
			docker.NetworkIpamConfigArgs{Subnet: pulumi.String(network.Subnet)},
		}
	}
	made, err := docker.NewNetwork(ctx, name+"-"+network.Key, args, append(opts, pulumi.Parent(n),
		// Two networks cannot share a name or a subnet.
		pulumi.DeleteBeforeReplace(true))...)
	if err != nil {
		return nil, err
	}
	n.Names[network.Key] = made.Name
	return made, nil
}
