package components

import (
	"cmp"
	"slices"

	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/plan"
)

// Networks are the stack's networks: bridges of an engine, or overlays of a Swarm.
type Networks struct {
	pulumi.ResourceState

	// Names has the networks' names on the engine, by their names in the catalog. Containers
	// use these outputs, so that the replacement of a network replaces its containers too:
	// Docker does not remove a network that is in use.
	Names pulumi.StringMap
	// IDs has their IDs on the engine, by which services of a Swarm name them.
	IDs map[string]pulumi.IDOutput
}

// NewNetworks creates the networks.
func NewNetworks(ctx *pulumi.Context, name string, args *PlatformArgs, opts ...pulumi.ResourceOption) (*Networks, error) {
	n := &Networks{Names: pulumi.StringMap{}, IDs: map[string]pulumi.IDOutput{}}
	if err := ctx.RegisterComponentResource("trading-platform:components:Networks", name, n, opts...); err != nil {
		return nil, err
	}
	// The engine gives a network without a subnet the next free one, which may be the one
	// that another network asks for. So the networks with a subnet are created first.
	bySubnet := func(a, b plan.Network) int { return cmp.Compare(b.Subnet, a.Subnet) } // none is the last
	var withSubnet []pulumi.Resource
	for _, network := range slices.SortedStableFunc(slices.Values(args.Plan.Networks), bySubnet) {
		networkArgs := &docker.NetworkArgs{
			Name:   pulumi.String(network.Name),
			Driver: pulumi.String("bridge"),
			Labels: docker.NetworkLabelArray(labels(args.Plan.NetworkLabels(network), func(l docker.ContainerLabelArgs) docker.NetworkLabelInput {
				return docker.NetworkLabelArgs(l)
			})),
		}
		if args.Plan.OnSwarm() {
			networkArgs.Driver, networkArgs.Attachable = pulumi.String("overlay"), pulumi.Bool(true)
		}
		options := []pulumi.ResourceOption{pulumi.Parent(n), pulumi.DeleteBeforeReplace(true)} // two networks cannot share a name or a subnet
		if network.Subnet != "" {
			networkArgs.IpamConfigs = docker.NetworkIpamConfigArray{docker.NetworkIpamConfigArgs{Subnet: pulumi.String(network.Subnet)}}
		} else {
			options = append(options, pulumi.DependsOn(withSubnet))
		}
		made, err := docker.NewNetwork(ctx, name+"-"+network.Key, networkArgs, options...)
		if err != nil {
			return nil, err
		}
		if network.Subnet != "" {
			withSubnet = append(withSubnet, made)
		}
		n.Names[network.Key], n.IDs[network.Key] = made.Name, made.ID()
	}
	return n, ctx.RegisterResourceOutputs(n, pulumi.Map{"names": n.Names})
}
