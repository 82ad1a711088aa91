package preflight

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/moby/moby/client"

	"trading-platform/catalog"
	engines "trading-platform/engine"
)

// Place is what a stack needs for itself on an engine, besides its names.
type Place struct {
	PortOffset int    `json:"portOffset"` // added to every host port
	Subnet     string `json:"subnet"`     // of the edge network
}

// Offsets keep all ports above the default ones, and below those that the kernel gives to outgoing connections.
const lowestOffset, offsetStep, highestPort = 10000, 100, 32767

// FreePlace returns a place that collides with nothing on the engine or on this host, nor with other places. The search starts at
// the seed, so that it ends at the same place if it is repeated.
func FreePlace(ctx context.Context, engine client.APIClient, here engines.Ref, seed uint32, others []Place) (Place, error) {
	c := &check{ctx: ctx, engine: engine, here: here}
	if err := errors.Join(c.listContainers(), c.listNetworks()); err != nil {
		return Place{}, err
	}
	ports, used, subnets := catalog.HostPorts(), map[int]bool{}, []netip.Prefix{}
	for _, o := range c.containers {
		for _, p := range o.Ports {
			used[int(p.PublicPort)] = true
		}
	}
	for _, n := range c.networks {
		for _, config := range n.IPAM.Config {
			subnets = append(subnets, config.Subnet)
		}
	}
	addresses, _ := net.InterfaceAddrs() // this host may be behind an engine elsewhere, which has its own
	for _, a := range addresses {
		others = append(others, Place{-highestPort, a.String()})
	}
	for _, other := range others {
		for _, port := range ports {
			used[port+other.PortOffset] = true
		}
		if subnet, err := netip.ParsePrefix(other.Subnet); err == nil {
			subnets = append(subnets, subnet.Masked())
		}
	}
	steps := (highestPort - slices.Max(ports) - lowestOffset) / offsetStep
	for i := range steps {
		offset := lowestOffset + (int(seed)+i)%steps*offsetStep
		if slices.ContainsFunc(ports, func(port int) bool { return used[port+offset] || local(here) && listens(port+offset) }) {
			continue
		}
		for n := seed; ; n++ { // of 10.64.0.0/10, outside of the engine's own pools; there are more than an engine has networks
			subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 + byte(n>>8)%64, byte(n), 0}), 24) //nolint:gosec // the other bits do not matter
			if !slices.ContainsFunc(subnets, subnet.Overlaps) {
				return Place{offset, subnet.String()}, nil
			}
		}
	}
	return Place{}, errors.New("no ports are free for this worktree's stacks. Fix: take down one that `platform stacks` lists, or set portOffset in the stack's file")
}

// listens reports whether a program of this host listens on a port, at any address or only at the loopback one.
func listens(port int) bool {
	at := func(a netip.Addr) bool { return inUse(netip.AddrPortFrom(a, uint16(port))) } //nolint:gosec // at most highestPort
	return at(netip.IPv4Unspecified()) || at(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
}
