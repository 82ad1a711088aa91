//go:build live

package test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog/catalogtest"
	"trading-platform/settings"
)

// swarmed is a stack on a Swarm of the test's own engines, each in a network namespace of its own. The first is the manager that
// the stack's commands speak to, and holds the volumes.
type swarmed struct {
	*live
	nodes []*ownEngine
	ids   map[*ownEngine]string
	hub   string         // the network namespace with the bridge that joins the nodes
	pull  *registry      // on the first node, from which all nodes pull
	from  map[string]any // images, by service
}

const pullFrom = "10.213.0.1:5000"

// push pushes an image of the shared engine to the Swarm's registry, and returns its name there.
func (s *swarmed) push(name, image string) string {
	s.pull.t.Helper()
	name = pullFrom + "/" + name + ":1"
	s.pull.load(image)
	s.pull.push(image, name)
	return name
}

// newSwarm makes a Swarm of so many nodes, of which the first are managers, with the images that a stack of the databases and the
// reference app needs. config is laid over that of the stack.
func newSwarm(t *testing.T, count, managers int, config map[string]any) *swarmed {
	t.Helper()
	s := &swarmed{ids: map[*ownEngine]string{}, hub: fmt.Sprintf("%s-%d", runID, stacks.Add(1))}
	dir := t.TempDir()
	ip := func(arguments ...string) { t.Helper(); runIn(t, dir, nil, append([]string{"ip"}, arguments...)...) }
	ip("netns", "add", s.hub)
	t.Cleanup(func() { ip("netns", "del", s.hub) })
	ip("-n", s.hub, "link", "add", "br0", "type", "bridge")
	ip("-n", s.hub, "link", "set", "br0", "up")
	join := map[bool]string{} // by whether it is to be a manager
	for i := range count {
		e := newOwnEngine(t, map[string]any{"insecure-registries": []string{pullFrom}})
		s.nodes = append(s.nodes, e)
		link, address := fmt.Sprintf("node%d", i), fmt.Sprintf("10.213.0.%d", i+1)
		ip("-n", s.hub, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", e.netns)
		ip("-n", s.hub, "link", "set", link, "master", "br0", "up")
		ip("-n", e.netns, "addr", "add", address+"/24", "dev", "eth0")
		ip("-n", e.netns, "link", "set", "eth0", "up")
		if i == 0 {
			e.docker("swarm", "init", "--advertise-addr", address)
			for manager, role := range map[bool]string{true: "manager", false: "worker"} {
				join[manager] = strings.TrimSpace(e.docker("swarm", "join-token", "-q", role))
			}
			e.load(references["postgres"], references["redis"])
			s.pull = &registry{ownEngine: e}
			runIn(t, "registry", nil, "go", "build", "-o", filepath.Join(e.dir, "registry"), ".")
			s.pull.serve("own", []string{"nsenter", "--net=/run/netns/" + e.netns}, "http: {addr: '"+pullFrom+"'}")
			s.from = merged(images(), settings.Reference, s.push("reference", references[settings.Reference]))
		} else {
			e.docker("swarm", "join", "--advertise-addr", address, "--token", join[i < managers], "10.213.0.1:2377")
		}
		info, err := e.client.Info(t.Context(), client.InfoOptions{})
		require.NoError(t, err)
		s.ids[e] = info.Info.Swarm.NodeID
	}
	s.live = newLive(t, prepareClone(t), map[string]any{ // which is taken down before the nodes are
		"orchestrator": "swarm", "sharedVolumes": []string{"backtest_data"}, "disabled": catalogtest.BaseWithout("postgres", "redis"), "images": s.from,
		"env": map[string]any{"WEB_CONSOLE_USER": "admin", "WEB_CONSOLE_PASSWORD": "admin", "ALERT_RECIPIENT_HASH_SECRET": "x"},
	})
	s.configure(config)
	s.moveTo(s.nodes[0])
	s.swarm = true
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := s.docker("service", "ls")
			t.Log(out)
		}
	})
	return s
}

// must runs a platform command that must succeed.
func (s *swarmed) must(command string) string {
	s.t.Helper()
	started := time.Now()
	said := s.platform(command)
	require.NoError(s.t, said.err, "%s\n%s", command, said.out)
	s.t.Logf("%s: %.1f s", command, time.Since(started).Seconds())
	return said.out
}

// tasks returns how many tasks of a service run, by the ID of their node.
func (s *swarmed) tasks(service string) map[string]int {
	s.t.Helper()
	found, err := s.engine.TaskList(context.Background(), client.TaskListOptions{
		Filters: client.Filters{}.Add("service", s.prefix+"_"+service).Add("desired-state", "running"),
	})
	require.NoError(s.t, err)
	running := map[string]int{}
	for _, t := range found.Items {
		if t.Status.State == swarm.TaskStateRunning {
			running[t.NodeID]++
		}
	}
	return running
}

// TestSwarm has the dev stack on a Swarm of three nodes.
func TestSwarm(t *testing.T) {
	t.Parallel()
	s := newSwarm(t, 3, 1, map[string]any{"profiles": []string{"dev"}, "replicas": map[string]any{"backtest_worker_dev": 2}})
	data := s.ids[s.nodes[0]]
	s.must("doctor")
	s.must("up")
	assert.Contains(t, s.must("up"), "nothing to change")
	assert.Contains(t, s.must("preview -- --diff --expect-no-changes"), "unchanged")
	status := s.must("status")
	assert.Contains(t, status, "1 of 1 tasks run, on data node")
	s.fill()

	nodes := map[string]bool{}
	for _, service := range s.plan().Services {
		for node := range s.tasks(service.Name) {
			nodes[node] = true
			if service.Placement == "data node" {
				assert.Equal(t, data, node, service.Name)
			}
		}
	}
	assert.Len(t, nodes, 3, "what has no data is spread")
	assert.Equal(t, "PONG\n", s.must("exec redis redis-cli ping"))
	refused := s.platform("restart redis")
	require.Error(t, refused.err)
	assert.Contains(t, refused.out, "docker service update --force "+s.prefix+"_<service>")

	s.must("down")
	services, err := s.engine.ServiceList(t.Context(), client.ServiceListOptions{})
	require.NoError(t, err)
	assert.Empty(t, services.Items)
	assert.Empty(t, s.networks())
	assert.NotEmpty(t, s.volumes(), "the data stays")
	s.must("up")
	assert.Equal(t, s.rows, s.contents())
}
