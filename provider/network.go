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
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
)

// networkArgs are docker.Network's inputs. An id is the engine's network id.
type networkArgs struct {
	Name        string            `json:"name"        rule:"required"`
	Driver      string            `json:"driver"`
	IPAMConfigs []ipamConfig      `json:"ipamConfigs" rule:"set"`
	Labels      []label           `json:"labels"      rule:"set"`
	Internal    bool              `json:"internal"`
	Attachable  bool              `json:"attachable"`
	Options     map[string]string `json:"options"`
}

type ipamConfig struct {
	Subnet  string `json:"subnet"`
	Gateway string `json:"gateway"`
	IPRange string `json:"ipRange"`
}

type networkType struct{}

func (networkType) computed() []resource.PropertyKey {
	return []resource.PropertyKey{"driver", "scope"}
}

func (networkType) validate(args networkArgs) []plugin.CheckFailure {
	_, failures := ipam(args)
	return failures
}

// ipam parses the address settings.
func ipam(args networkArgs) (*network.IPAM, []plugin.CheckFailure) {
	if len(args.IPAMConfigs) == 0 {
		return nil, nil
	}
	var failures []plugin.CheckFailure
	fail := func(i int, field string, err error) {
		path := fmt.Sprintf("ipamConfigs[%d].%s", i, field)
		failures = append(failures, plugin.CheckFailure{
			Property: resource.PropertyKey(path), Reason: fmt.Sprintf("%s: %v", path, err),
		})
	}
	parsed := &network.IPAM{Driver: "default"}
	for i, c := range args.IPAMConfigs {
		var config network.IPAMConfig
		var err error
		if c.Subnet != "" {
			if config.Subnet, err = netip.ParsePrefix(c.Subnet); err != nil {
				fail(i, "subnet", err)
			}
		}
		if c.IPRange != "" {
			if config.IPRange, err = netip.ParsePrefix(c.IPRange); err != nil {
				fail(i, "ipRange", err)
			}
		}
		if c.Gateway != "" {
			if config.Gateway, err = netip.ParseAddr(c.Gateway); err != nil {
				fail(i, "gateway", err)
			}
		}
		parsed.Config = append(parsed.Config, config)
	}
	return parsed, failures
}

func (networkType) create(ctx context.Context, c call, args networkArgs) (resource.ID, outputs, error) {
	addresses, _ := ipam(args)
	options := client.NetworkCreateOptions{
		Driver: args.Driver, IPAM: addresses, Internal: args.Internal, Attachable: args.Attachable, Options: args.Options,
	}
	options.Labels = withHash(args.Labels, args.Name, options)
	// Engines before API 1.44 would make a second network of the same name.
	existing, err := c.engine.NetworkInspect(ctx, args.Name, client.NetworkInspectOptions{})
	switch {
	case cerrdefs.IsNotFound(err):
	case err != nil:
		return "", nil, fmt.Errorf("network %s: %w", args.Name, err)
	case !isOurs(existing.Network.Labels, args.Labels):
		return "", nil, fmt.Errorf("network %s exists already and is not this stack's: "+
			"`docker network inspect %[1]s` shows who uses it, `docker network rm %[1]s` removes it, "+
			"or give this stack another namePrefix", args.Name)
	default:
		// An orphan: this stack created it, and its state does not know it.
		c.id = resource.ID(existing.Network.ID)
		if existing.Network.Labels[hashLabel] == options.Labels[hashLabel] {
			c.run.takenOver.Store(c.id, c.progress.urn)
			return c.id, networkOutputs(existing.Network), nil
		}
		if err := clearNetwork(ctx, c, args, existing.Network); err != nil {
			return "", nil, err
		}
	}
	made, err := c.engine.NetworkCreate(ctx, args.Name, options)
	if err != nil {
		if strings.Contains(err.Error(), "overlap") {
			err = fmt.Errorf("%w\nFix: give this stack another `subnet`, or remove the network that holds it (`docker network ls`)", err)
		}
		return "", nil, fmt.Errorf("network %s: %w", args.Name, err)
	}
	found, err := c.engine.NetworkInspect(ctx, made.ID, client.NetworkInspectOptions{})
	if err != nil {
		// No state knows it yet. Where this fails too, the next run takes it over.
		_, removeErr := c.engine.NetworkRemove(context.WithoutCancel(ctx), made.ID, client.NetworkRemoveOptions{})
		return "", nil, fmt.Errorf("network %s: %w", args.Name, errors.Join(err, removeErr))
	}
	return resource.ID(made.ID), networkOutputs(found.Network), nil
}

// clearNetwork removes an orphan that is not what is wanted. This stack's containers
// are disconnected first: each is replaced when its own turn comes.
func clearNetwork(ctx context.Context, c call, args networkArgs, found network.Inspect) error {
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
	return networkType{}.remove(ctx, c, args)
}

func networkOutputs(found network.Inspect) outputs {
	return outputs{"driver": resource.NewProperty(found.Driver), "scope": resource.NewProperty(found.Scope)}
}

func (networkType) read(ctx context.Context, c call, args networkArgs) (outputs, error) {
	found, err := c.engine.NetworkInspect(ctx, string(c.id), client.NetworkInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", args.Name, err)
	}
	return networkOutputs(found.Network), nil
}

// update has nothing to do: every property of a network is fixed when it is made.
func (t networkType) update(ctx context.Context, c call, args networkArgs) (outputs, error) {
	return t.read(ctx, c, args)
}

func (networkType) remove(ctx context.Context, c call, args networkArgs) error {
	_, err := c.engine.NetworkRemove(ctx, string(c.id), client.NetworkRemoveOptions{})
	if err == nil || cerrdefs.IsNotFound(err) {
		return nil
	}
	found, inspectErr := c.engine.NetworkInspect(ctx, string(c.id), client.NetworkInspectOptions{})
	if inspectErr != nil || len(found.Network.Containers) == 0 {
		return fmt.Errorf("network %s: %w", args.Name, err)
	}
	return stillUsed(args, found.Network)
}

func stillUsed(args networkArgs, found network.Inspect) error {
	var names []string
	for _, attached := range found.Containers {
		names = append(names, attached.Name)
	}
	slices.Sort(names)
	return fmt.Errorf("network %s is still used by containers that are not this stack's: %s\n"+
		"Fix: `docker rm -f %[3]s`, or `docker network disconnect -f %[1]s <container>` for each, then run this again",
		args.Name, strings.Join(names, ", "), strings.Join(names, " "))
}
