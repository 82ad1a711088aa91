//go:build live

package test

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
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

// calls has a container of redis call a service of the stack all the time, until stop is called. It returns the numbers of calls
// that were answered, and of those that failed.
func (s *swarmed) calls(service string, port int) (stop func() (answered, failed int)) {
	s.t.Helper()
	client := fmt.Sprintf(`answered=0 failed=0
while [ ! -e /tmp/stop ]; do
  if { printf 'GET /health HTTP/1.0\r\n\r\n' >&3 && read -r -t 5 line <&3 && [[ $line == *" 200 "* ]]; } 3<>/dev/tcp/%s/%d
  then answered=$((answered+1)); else failed=$((failed+1)); fi
  sleep .05
done
echo "$answered $failed" >/tmp/calls`, service, port)
	_, err := s.docker("exec", "-d", s.container("redis"), "bash", "-c", client)
	require.NoError(s.t, err)
	return func() (answered, failed int) {
		s.exec("redis", "touch", "/tmp/stop")
		require.Eventually(s.t, func() bool {
			said, err := s.docker("exec", s.container("redis"), "cat", "/tmp/calls")
			if err != nil {
				return false
			}
			_, err = fmt.Sscan(said, &answered, &failed)
			return err == nil
		}, 20*time.Second, 200*time.Millisecond)
		s.exec("redis", "rm", "/tmp/stop", "/tmp/calls")
		return answered, failed
	}
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
	assert.Contains(t, refused.out, "docker service update --force "+s.prefix+"_redis")

	t.Log("a rolling update, while a client calls")
	stop := s.calls("signal_service", 8001)
	s.configure(map[string]any{"serviceEnv": map[string]any{"signal_service": map[string]any{"LOG_LEVEL": "DEBUG"}}, "replicas": map[string]any{"backtest_worker_dev": 6}})
	s.must("up")
	answered, failed := stop()
	t.Logf("%d calls were answered, %d failed", answered, failed)
	assert.Zero(t, failed)
	assert.Greater(t, answered, 20)
	running := s.tasks("backtest_worker_dev")
	assert.Len(t, running, 3, "of six workers each node has some: %v", running)

	t.Log("an image that does not start")
	bad := testImage(t, "bad", references["reference"], `ENTRYPOINT ["false"]`)
	s.configure(map[string]any{"images": merged(s.from, "signal_service", s.push("bad", bad))})
	before := s.version("signal_service")
	broken := s.platform("up")
	require.Error(t, broken.err, broken.out)
	assert.Contains(t, broken.out, "the update failed, and Swarm has gone back to the previous version, which runs")
	assert.Equal(t, before, s.version("signal_service"))
	s.configure(map[string]any{"images": s.from})
	s.must("up")
	assert.Contains(t, s.must("up"), "nothing to change")

	t.Log("somebody else's change is undone")
	s.nodes[0].docker("service", "scale", "--detach", s.prefix+"_market_data_service=0")
	s.must("up")
	assert.Len(t, s.tasks("market_data_service"), 1)
	assert.Equal(t, s.rows, s.contents())

	s.must("down")
	services, err := s.engine.ServiceList(t.Context(), client.ServiceListOptions{})
	require.NoError(t, err)
	assert.Empty(t, services.Items)
	assert.Empty(t, s.networks())
	assert.NotEmpty(t, s.volumes(), "the data stays")
	s.must("up")
	assert.Equal(t, s.rows, s.contents())
}

// version returns the image of a service.
func (s *swarmed) version(service string) string {
	s.t.Helper()
	found, err := s.engine.ServiceInspect(context.Background(), s.prefix+"_"+service, client.ServiceInspectOptions{})
	require.NoError(s.t, err)
	c := found.Service.Spec.TaskTemplate.ContainerSpec
	return c.Image + " " + strconv.Itoa(len(c.Env))
}
