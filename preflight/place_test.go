package preflight

import (
	"net"
	"net/netip"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	engines "trading-platform/engine"
	"trading-platform/engine/enginetest"
)

func TestFreePlace(t *testing.T) {
	fake := &enginetest.Engine{}
	here := engines.Ref{Host: fake.Start(t)}
	engine, err := client.New(client.WithHost(here.Host))
	require.NoError(t, err)
	const seed = 1_234_567
	find := func(others ...Place) Place {
		place, err := FreePlace(t.Context(), engine, here, seed, others)
		require.NoError(t, err)
		return place
	}
	first := find()
	assert.Equal(t, first, find(), "the same again")
	overlaps := func(a, b Place) bool {
		for _, p := range catalog.HostPorts() {
			for _, q := range catalog.HostPorts() {
				if p+a.PortOffset == q+b.PortOffset {
					return true
				}
			}
		}
		return netip.MustParsePrefix(a.Subnet).Overlaps(netip.MustParsePrefix(b.Subnet))
	}
	second := find(first)
	assert.False(t, overlaps(first, second), "beside another place: %v %v", first, second)
	assert.False(t, overlaps(Place{0, "172.28.0.0/16"}, first), "beside the default one")
	third := find(first, second)
	assert.False(t, overlaps(second, third))
	assert.False(t, overlaps(first, third))

	port := catalog.HostPorts()[3]
	fake.Containers = []container.Summary{{Names: []string{"/x"}, Ports: []container.PortSummary{{PublicPort: uint16(port + first.PortOffset)}}}}
	assert.NotEqual(t, first.PortOffset, find().PortOffset, "beside a container's port")
	fake.Containers = nil
	fake.Networks = []network.Summary{{Network: network.Network{Name: "x", IPAM: network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix(first.Subnet)}}}}}}
	found := find()
	assert.NotEqual(t, first.Subnet, found.Subnet, "beside a network")
	assert.Equal(t, first.PortOffset, found.PortOffset)
	fake.Networks = nil
	for _, address := range []string{"127.0.0.1", "0.0.0.0"} {
		l, err := net.Listen("tcp4", netip.AddrPortFrom(netip.MustParseAddr(address), uint16(port+first.PortOffset)).String())
		require.NoError(t, err)
		assert.NotEqual(t, first.PortOffset, find().PortOffset, "beside a program that listens at "+address)
		require.NoError(t, l.Close())
	}
	assert.Equal(t, first, find())

	fake.Broken = []string{"/networks"}
	_, err = FreePlace(t.Context(), engine, here, seed, nil)
	assert.ErrorContains(t, err, "asking the engine for its networks")
	fake.Broken = nil
	var all []Place
	for offset := 0; offset < highestPort; offset += offsetStep {
		all = append(all, Place{PortOffset: offset})
	}
	_, err = FreePlace(t.Context(), engine, here, seed, all)
	assert.ErrorContains(t, err, "Fix: take down one that `platform stacks` lists")
}
