package provider

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi-go-provider/infer"
)

// NetworkArgs are docker.Network's inputs.
type NetworkArgs struct {
	Name        string            `pulumi:"name" provider:"replaceOnChanges"`
	Driver      string            `pulumi:"driver,optional" provider:"replaceOnChanges"`
	IPAMConfigs []ipamConfig      `pulumi:"ipamConfigs,optional" provider:"replaceOnChanges"`
	Labels      []label           `pulumi:"labels,optional" provider:"replaceOnChanges"`
	Internal    bool              `pulumi:"internal,optional" provider:"replaceOnChanges"`
	Attachable  bool              `pulumi:"attachable,optional" provider:"replaceOnChanges"`
	Options     map[string]string `pulumi:"options,optional" provider:"replaceOnChanges"`
}

type ipamConfig struct {
	Subnet  string `pulumi:"subnet,optional"`
	Gateway string `pulumi:"gateway,optional"`
	IPRange string `pulumi:"ipRange,optional"`
}

// NetworkState is what the state records of a network. The engine chooses the driver if
// none was given.
type NetworkState struct {
	NetworkArgs
	Scope string `pulumi:"scope,optional"`
}

// Network implements docker.Network. Its id is the engine's network id.
type Network struct{}

// Annotate names the official provider's type.
func (*Network) Annotate(a infer.Annotator) { a.SetToken("index/network", "Network") }

// Check reports what the engine would refuse.
func (*Network) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[NetworkArgs], error) {
	return check(ctx, req, func(args NetworkArgs) []string {
		_, faults := ipam(args)
		return faults
	})
}

// ipam parses the address settings.
func ipam(args NetworkArgs) (*network.IPAM, []string) {
	if len(args.IPAMConfigs) == 0 {
		return nil, nil
	}
	var faults []string
	fault := func(i int, field string, err error) {
		faults = append(faults, fmt.Sprintf("ipamConfigs[%d].%s: %v", i, field, err))
	}
	parsed := &network.IPAM{Driver: "default"}
	for i, c := range args.IPAMConfigs {
		var config network.IPAMConfig
		var err error
		if c.Subnet != "" {
			if config.Subnet, err = netip.ParsePrefix(c.Subnet); err != nil {
				fault(i, "subnet", err)
			}
		}
		if c.IPRange != "" {
			if config.IPRange, err = netip.ParsePrefix(c.IPRange); err != nil {
				fault(i, "ipRange", err)
			}
		}
		if c.Gateway != "" {
			if config.Gateway, err = netip.ParseAddr(c.Gateway); err != nil {
				fault(i, "gateway", err)
			}
		}
		parsed.Config = append(parsed.Config, config)
	}
	return parsed, faults
}

// Create creates the network, or adopts the one that this stack created before.
func (*Network) Create(
	ctx context.Context, req infer.CreateRequest[NetworkArgs],
) (infer.CreateResponse[NetworkState], error) {
	found, err := createNetwork(ctx, callOf(ctx), req.Inputs)
	return infer.CreateResponse[NetworkState]{ID: found.ID, Output: networkState(req.Inputs, found)}, err
}

func networkState(args NetworkArgs, found network.Inspect) NetworkState {
	args.Driver = found.Driver
	return NetworkState{args, found.Scope}
}

func createNetwork(ctx context.Context, c call, args NetworkArgs) (network.Inspect, error) {
	addresses, _ := ipam(args)
	options := client.NetworkCreateOptions{
		Driver: args.Driver, IPAM: addresses, Internal: args.Internal, Attachable: args.Attachable, Options: args.Options,
	}
	options.Labels = withHash(args.Labels, args.Name, options)
	// Engines before API 1.44 would create a second network of the same name.
	existing, err := c.engine.NetworkInspect(ctx, args.Name, client.NetworkInspectOptions{})
	switch {
	case cerrdefs.IsNotFound(err):
	case err != nil:
		return network.Inspect{}, fmt.Errorf("network %s: %w", args.Name, err)
	case !isOurs(existing.Network.Labels, args.Labels):
		return network.Inspect{}, fmt.Errorf("network %s exists already and does not belong to this stack: "+
			"`docker network inspect %[1]s` shows who uses it, `docker network rm %[1]s` removes it, "+
			"or give this stack another namePrefix", args.Name)
	case existing.Network.Labels[hashLabel] == options.Labels[hashLabel]:
		// An orphan: this stack created it, and its state does not know it.
		c.takenOver.Store(existing.Network.ID, c.urn)
		return existing.Network, nil
	default:
		if err := clearNetwork(ctx, c, args, existing.Network); err != nil {
			return network.Inspect{}, err
		}
	}
	made, err := c.engine.NetworkCreate(ctx, args.Name, options)
	if err != nil {
		if strings.Contains(err.Error(), "overlap") {
			err = fmt.Errorf("%w\nFix: give this stack another `subnet`, or remove the network that holds it (`docker network ls`)", err)
		}
		return network.Inspect{}, fmt.Errorf("network %s: %w", args.Name, err)
	}
	found, err := c.engine.NetworkInspect(ctx, made.ID, client.NetworkInspectOptions{})
	if err != nil {
		// No state knows the network yet. If this fails too, the next run adopts it.
		_, removeErr := c.engine.NetworkRemove(context.WithoutCancel(ctx), made.ID, client.NetworkRemoveOptions{})
		return network.Inspect{}, fmt.Errorf("network %s: %w", args.Name, errors.Join(err, removeErr))
	}
	found.Network.ID = made.ID
	return found.Network, nil
}

// clearNetwork removes an orphan that does not match the specification. This stack's containers
// are disconnected first: each is replaced when its own turn comes.
func clearNetwork(ctx context.Context, c call, args NetworkArgs, found network.Inspect) error {
	for id := range found.Containers {
		attached, err := c.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err != nil {
			return fmt.Errorf("network %s: %w", args.Name, err)
		}
		if !isOurs(attached.Container.Config.Labels, args.Labels) {
			return stillUsed(args, found)
		}
	}
	for id := range found.Containers {
		if _, err := c.engine.NetworkDisconnect(ctx, found.ID, client.NetworkDisconnectOptions{Container: id, Force: true}); err != nil {
			return fmt.Errorf("network %s: %w", args.Name, err)
		}
	}
	return removeNetwork(ctx, c, found.ID, args)
}

// Read finds out whether the network still exists.
func (*Network) Read(
	ctx context.Context, req infer.ReadRequest[NetworkArgs, NetworkState],
) (infer.ReadResponse[NetworkArgs, NetworkState], error) {
	found, err := callOf(ctx).engine.NetworkInspect(ctx, req.ID, client.NetworkInspectOptions{})
	if err != nil {
		return infer.ReadResponse[NetworkArgs, NetworkState]{}, unlessGone(err, "network", req.State.Name)
	}
	req.State = networkState(req.Inputs, found.Network)
	return infer.ReadResponse[NetworkArgs, NetworkState](req), nil
}

// Delete removes the network, or names the containers that still use it.
func (*Network) Delete(ctx context.Context, req infer.DeleteRequest[NetworkState]) (infer.DeleteResponse, error) {
	return infer.DeleteResponse{}, removeNetwork(ctx, callOf(ctx), req.ID, req.State.NetworkArgs)
}

func removeNetwork(ctx context.Context, c call, id string, args NetworkArgs) error {
	_, err := c.engine.NetworkRemove(ctx, id, client.NetworkRemoveOptions{})
	if err == nil || cerrdefs.IsNotFound(err) {
		return nil
	}
	found, inspectErr := c.engine.NetworkInspect(ctx, id, client.NetworkInspectOptions{})
	if inspectErr != nil || len(found.Network.Containers) == 0 {
		return fmt.Errorf("network %s: %w", args.Name, err)
	}
	return stillUsed(args, found.Network)
}

func stillUsed(args NetworkArgs, found network.Inspect) error {
	var names []string
	for _, attached := range found.Containers {
		names = append(names, attached.Name)
	}
	slices.Sort(names)
	return fmt.Errorf("network %s is still used by containers that do not belong to this stack: %s\n"+
		"Fix: `docker rm -f %[3]s`, or `docker network disconnect -f %[1]s <container>` for each, then run this again",
		args.Name, strings.Join(names, ", "), strings.Join(names, " "))
}
