//go:build live || official

package test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	random "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/plan"
)

// runID starts every name that this run gives to something on the engine.
var runID = newRunID()

func newRunID() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b) // never fails, says its documentation
	return "tptest-" + hex.EncodeToString(b)
}

// runLabel is the label, with runID as its value, of what a test makes beside its stacks.
const runLabel = "trading-platform.test"

// ours reports whether an object with these labels was made by this run.
func ours(labels map[string]string) bool {
	return labels[runLabel] == runID || strings.HasPrefix(labels[plan.IdentityLabel], runID+"-")
}

// stacks counts the stacks of this run.
var stacks atomic.Int32

// newPlace returns a stack a name prefix, an identity, ports and a subnet that nothing else on the engine or on this host has.
func newPlace(t testing.TB, name, dir string) *stack {
	t.Helper()
	s := &stack{t: t, name: name, dir: dir, engine: engine, prefix: fmt.Sprintf("%s-%d", runID, stacks.Add(1))}
	s.offset, s.subnet = places.take(t)
	return s
}

// place is the stack's place as its settings have it.
func (s *stack) place() map[string]any {
	s.t.Helper()
	info, err := engine.Info(context.Background(), client.InfoOptions{})
	require.NoError(s.t, err)
	return map[string]any{
		"namePrefix": s.prefix, "identity": s.prefix, "portOffset": s.offset, "subnet": s.subnet,
		"ignoreCompose": []string{"*"}, // whatever data the user, or another test, has on this engine
		"dockerRoot":    info.Info.DockerRootDir,
	}
}

// places hands out the ports and subnets of this run, so that parallel tests do not choose the same.
var places = &allocator{ports: map[int]bool{}, subnets: map[netip.Prefix]bool{}}

type allocator struct {
	mu      sync.Mutex
	ports   map[int]bool
	subnets map[netip.Prefix]bool
}

// Port offsets lie between these: all ports stay clear of a stack with the default ones, and below those that the kernel gives out.
const lowestOffset, highestOffset = 10000, 32767 - 9090

// take returns a port offset and a subnet to a test, until the test ends.
func (a *allocator) take(t testing.TB) (offset int, subnet string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	published, networks := onEngine(t)
	ports := func(offset int) (all []int) {
		for _, port := range hostPorts() {
			all = append(all, port+offset)
		}
		return all
	}
	for try := 0; ; try++ {
		require.Less(t, try, 1000, "no free port offset")
		offset = lowestOffset + random.IntN(highestOffset-lowestOffset)
		if !slices.ContainsFunc(ports(offset), func(port int) bool { return a.ports[port] || published[port] || !listens(port) }) {
			break
		}
	}
	var prefix netip.Prefix
	for try := 0; ; try++ {
		require.Less(t, try, 1000, "no free subnet")
		prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + random.IntN(192)), byte(random.IntN(256))}), 24)
		if !a.subnets[prefix] && !slices.ContainsFunc(networks, prefix.Overlaps) {
			break
		}
	}
	for _, port := range ports(offset) {
		a.ports[port] = true
	}
	a.subnets[prefix] = true
	t.Cleanup(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, port := range ports(offset) {
			delete(a.ports, port)
		}
		delete(a.subnets, prefix)
	})
	return offset, prefix.String()
}

// hostPorts returns every port that a service may publish, and 0: tests listen on the offset itself.
func hostPorts() []int { return append([]int{0}, catalog.HostPorts()...) }

// listens reports whether this host has the port to give.
func listens(port int) bool {
	l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err == nil {
		_ = l.Close()
	}
	return err == nil
}

// onEngine returns the ports that containers publish, and the subnets of the engine's networks and of this host.
func onEngine(t testing.TB) (published map[int]bool, subnets []netip.Prefix) {
	t.Helper()
	ctx := context.Background()
	containers, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true})
	require.NoError(t, err)
	published = map[int]bool{}
	for _, c := range containers.Items {
		for _, p := range c.Ports {
			published[int(p.PublicPort)] = true
		}
	}
	networks, err := engine.NetworkList(ctx, client.NetworkListOptions{})
	require.NoError(t, err)
	for _, n := range networks.Items {
		for _, config := range n.IPAM.Config {
			subnets = append(subnets, config.Subnet)
		}
	}
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range addresses {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			subnets = append(subnets, prefix.Masked())
		}
	}
	return published, subnets
}
