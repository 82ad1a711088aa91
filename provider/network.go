package provider

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

type networkArgs struct {
	Name        string       `pulumi:"name" provider:"replaceOnChanges"`
	Driver      string       `pulumi:"driver,optional" provider:"replaceOnChanges"`
	Attachable  bool         `pulumi:"attachable,optional" provider:"replaceOnChanges"`
	IPAMConfigs []ipamConfig `pulumi:"ipamConfigs,optional" provider:"replaceOnChanges"`
	Labels      []label      `pulumi:"labels,optional" provider:"replaceOnChanges"`
}

type ipamConfig struct {
	Subnet string `pulumi:"subnet"`
}

// networks are docker.Network. The ID is the engine's network ID.
var networks = &kind[networkArgs, noOutputs]{
	module: "index/network", name: "Network",
	check: func(_ context.Context, args *networkArgs) []string {
		_, faults := subnets(*args)
		return faults
	},
	create: createNetwork, remove: removeNetwork,
	read: func(ctx context.Context, c call, id string, _ networkArgs, _ noOutputs) (noOutputs, error) {
		_, err := c.engine.NetworkInspect(ctx, id, client.NetworkInspectOptions{})
		return noOutputs{}, err
	},
}

// subnets parses the address settings.
func subnets(args networkArgs) (*network.IPAM, []string) {
	if len(args.IPAMConfigs) == 0 {
		return nil, nil
	}
	parsed := &network.IPAM{Driver: "default"}
	var faults []string
	for i, c := range args.IPAMConfigs {
		subnet, err := netip.ParsePrefix(c.Subnet)
		if err != nil {
			faults = append(faults, fmt.Sprintf("ipamConfigs[%d].subnet: %v", i, err))
		}
		parsed.Config = append(parsed.Config, network.IPAMConfig{Subnet: subnet})
	}
	return parsed, faults
}

// createNetwork creates the network, or adopts the one that this stack created before.
func createNetwork(ctx context.Context, c call, args networkArgs) (string, noOutputs, error) {
	addresses, _ := subnets(args)
	options := client.NetworkCreateOptions{Driver: args.Driver, Attachable: args.Attachable, IPAM: addresses, Labels: labelMap(args.Labels)}
	hash := specHash(args.Name, options)
	// Engines before API 1.44 would create a second network of the same name.
	existing, err := c.engine.NetworkInspect(ctx, args.Name, client.NetworkInspectOptions{})
	switch found := existing.Network; {
	case cerrdefs.IsNotFound(err):
	case err != nil:
		return "", noOutputs{}, err
	case !isOurs(found.Labels, options.Labels):
		return "", noOutputs{}, fmt.Errorf("network %s exists already and does not belong to this stack: "+
			"`docker network inspect %[1]s` shows who uses it, `docker network rm %[1]s` removes it, "+
			"or give this stack another namePrefix", args.Name)
	case found.Labels[hashLabel] == hash:
		// An orphan: this stack created it, and its state does not know it.
		c.takenOver.Store(found.ID, c.urn)
		return found.ID, noOutputs{}, nil
	default:
		if err := clearNetwork(ctx, c, args, found); err != nil && !cerrdefs.IsNotFound(err) {
			return "", noOutputs{}, err
		}
	}
	options.Labels[hashLabel] = hash
	made, err := c.engine.NetworkCreate(ctx, args.Name, options)
	if err != nil && strings.Contains(err.Error(), "overlap") {
		err = fmt.Errorf("%w\nFix: give this stack another `subnet`, or remove the network that holds it (`docker network ls`)", err)
	}
	return made.ID, noOutputs{}, err
}

// clearNetwork removes an orphan that does not match the specification. This stack's containers
// are disconnected first: each is replaced when its own turn comes.
func clearNetwork(ctx context.Context, c call, args networkArgs, found network.Inspect) error {
	for id := range found.Containers {
		attached, err := c.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		if !isOurs(attached.Container.Config.Labels, labelMap(args.Labels)) {
			return stillUsed(args.Name, found)
		}
	}
	for id := range found.Containers {
		if _, err := c.engine.NetworkDisconnect(ctx, found.ID, client.NetworkDisconnectOptions{Container: id, Force: true}); err != nil {
			return err
		}
	}
	return removeNetwork(ctx, c, found.ID, args)
}

// removeNetwork removes the network, or names the containers that still use it.
func removeNetwork(ctx context.Context, c call, id string, args networkArgs) error {
	_, err := c.engine.NetworkRemove(ctx, id, client.NetworkRemoveOptions{})
	if err == nil || cerrdefs.IsNotFound(err) {
		return err
	}
	found, inspectErr := c.engine.NetworkInspect(ctx, id, client.NetworkInspectOptions{})
	switch {
	case inspectErr != nil:
		return err
	case len(found.Network.Containers) > 0:
		return stillUsed(args.Name, found.Network)
	case cerrdefs.IsPermissionDenied(err): // seen with Docker 20.10 after 300 containers were removed at once
		return fmt.Errorf("%w\nno container uses it, so the engine has lost track of one that it removed\n"+
			"Fix: restart the engine (sudo systemctl restart docker), then run this again", err)
	}
	return err
}

func stillUsed(name string, found network.Inspect) error {
	var users []string
	for _, attached := range found.Containers {
		users = append(users, attached.Name)
	}
	slices.Sort(users)
	return fmt.Errorf("network %s is still used by containers that do not belong to this stack: %s\n"+
		"Fix: `docker rm -f %[3]s`, or `docker network disconnect -f %[1]s <container>` for each, then run this again",
		name, strings.Join(users, ", "), strings.Join(users, " "))
}
