//go:build live && swarm

package test

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lose takes a node away as a power cut does: its link is down, and all that its engine started is killed.
func (s *swarmed) lose(e *ownEngine) {
	s.t.Helper()
	for i, node := range s.nodes {
		if node == e {
			runIn(s.t, s.dir, nil, "ip", "-n", s.hub, "link", "set", fmt.Sprintf("node%d", i), "down")
		}
	}
	pids := descendants(e.process.Process.Pid, "")
	for _, pid := range append([]int{e.process.Process.Pid}, pids...) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	// The shims of the containers are no descendants of the engine. Their command line has its folder.
	out, _ := exec.Command("pgrep", "-f", e.dir+"/exec/containerd").Output()
	for pid := range strings.FieldsSeq(string(out)) {
		var shim int
		if _, err := fmt.Sscan(pid, &shim); err == nil {
			for _, process := range append(descendants(shim, ""), shim) {
				_ = syscall.Kill(process, syscall.SIGKILL)
			}
		}
	}
	_ = e.process.Wait()
}

// back starts a node again.
func (s *swarmed) back(e *ownEngine) {
	s.t.Helper()
	for i, node := range s.nodes {
		if node == e {
			runIn(s.t, s.dir, nil, "ip", "-n", s.hub, "link", "set", fmt.Sprintf("node%d", i), "up")
		}
	}
	e.start()
}

// ready waits until the Swarm sees so many nodes.
func (s *swarmed) ready(want int) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		nodes, err := s.engine.NodeList(ctx, client.NodeListOptions{})
		ready := 0
		for _, n := range nodes.Items {
			if n.Status.State == swarm.NodeStateReady {
				ready++
			}
		}
		return err == nil && ready == want
	}, 2*time.Minute, 200*time.Millisecond, "%d nodes are ready", want)
}

// count returns how many tasks of a service run on nodes other than one.
func (s *swarmed) count(service, except string) (n int) {
	for node, running := range s.tasks(service) {
		if node != except {
			n += running
		}
	}
	return n
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

// version returns the image of a service.
func (s *swarmed) version(service string) string {
	s.t.Helper()
	found, err := s.engine.ServiceInspect(context.Background(), s.prefix+"_"+service, client.ServiceInspectOptions{})
	require.NoError(s.t, err)
	c := found.Service.Spec.TaskTemplate.ContainerSpec
	return c.Image + " " + strconv.Itoa(len(c.Env))
}

// TestSwarmUpdates changes a service while a client calls it, then gives it an image that does not start, and undoes what others change.
func TestSwarmUpdates(t *testing.T) {
	s := newSwarm(t, 3, 1, map[string]any{"profiles": []string{"dev"}, "replicas": map[string]any{"backtest_worker_dev": 2}})
	s.must("up")
	s.fill()

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
}

// TestSwarmLosesNodes loses a worker in the middle of jobs, and then the node with the data.
func TestSwarmLosesNodes(t *testing.T) {
	s := newSwarm(t, 3, 1, map[string]any{"profiles": []string{"dev"}, "replicas": map[string]any{"backtest_worker_dev": 6}})
	s.must("up")
	s.fill()
	const jobs = 30
	for i := range jobs {
		s.enqueue("backtest_normal", `{"job_id": "job-%d", "text": "text", "steps": 40, "step_ms": 100}`, i)
	}
	s.eventually("t", "select count(*) >= 4 from reference_app.jobs where status = 'running'")

	lost := s.nodes[2]
	s.lose(lost)
	died := time.Now()
	s.ready(2)
	t.Logf("a lost worker was seen after %.1f s", time.Since(died).Seconds())
	require.Eventually(t, func() bool {
		for _, service := range s.plan().Services {
			if s.count(service.Name, s.ids[lost]) < len(service.Containers) {
				return false
			}
		}
		return true
	}, 3*time.Minute, 200*time.Millisecond)
	t.Logf("its tasks ran elsewhere after %.1f s", time.Since(died).Seconds())
	up := s.must("up")
	assert.NotContains(t, up, "updating", "nothing has to be changed")
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		got, err := s.trySQL("select count(*), count(distinct result) from reference_app.jobs where status = 'completed' and job_id like 'job-%'")
		assert.NoError(c, err)
		assert.Equal(c, fmt.Sprintf("%d|1", jobs), strings.TrimSpace(got))
	}, 3*time.Minute, time.Second, "each job once, as its row says")
	assert.Equal(t, s.rows, s.contents())
	s.back(lost)
	s.ready(3)
	s.must("up")
	s.must("preview -- --diff --expect-no-changes")

	t.Log("the node with the data is lost")
	s.lose(s.nodes[0])
	gone := s.platform("status")
	require.Error(t, gone.err)
	assert.Contains(t, gone.out, "Fix: ")
	for _, other := range s.nodes[1:] {
		assert.NotContains(t, other.docker("ps", "--format", "{{.Names}}"), "postgres", "none starts on an empty volume")
	}
	s.back(s.nodes[0])
	s.ready(3)
	s.must("up")
	assert.Equal(t, s.rows, s.contents())
}

// TestSwarmLosesItsQuorum has three managers, of which two are lost.
func TestSwarmLosesItsQuorum(t *testing.T) {
	s := newSwarm(t, 3, 3, nil)
	s.must("up")
	s.fill()
	s.lose(s.nodes[1])
	s.lose(s.nodes[2])
	for _, command := range []string{"up", "preview", "status", "doctor", "down", "exec redis redis-cli ping"} {
		started := time.Now()
		said := s.platform(command)
		t.Logf("%s without a quorum: %.1f s, %v", command, time.Since(started).Seconds(), said.err)
		if strings.HasPrefix(command, "exec") {
			assert.NoError(t, said.err, "the database goes on, and this asks its own engine: %s", said.out)
			continue
		}
		require.Error(t, said.err, command)
		assert.Contains(t, said.out, "Fix: ", command)
	}
	s.back(s.nodes[1])
	s.back(s.nodes[2])
	s.ready(3)
	s.must("up")
	assert.Equal(t, s.rows, s.contents())
}

// TestSwarmAndBack moves a stack's data from one engine to a Swarm and back, by a backup.
func TestSwarmAndBack(t *testing.T) {
	s := newSwarm(t, 1, 1, map[string]any{"orchestrator": "engine"})
	s.swarm = false
	s.must("up")
	s.fill()
	refused := func() {
		said := s.platform("up")
		require.Error(t, said.err)
		assert.Contains(t, said.out, "take it down first")
	}
	moveBy := func(orchestrator string) {
		file := s.dir + "/" + orchestrator + ".backup.zip"
		s.must("backup " + file)
		s.configure(map[string]any{"orchestrator": orchestrator})
		refused()
		s.configure(map[string]any{"orchestrator": map[bool]string{true: "swarm", false: "engine"}[orchestrator == "engine"]})
		s.must("down")
		s.must("purge --yes")
		s.configure(map[string]any{"orchestrator": orchestrator})
		s.swarm = orchestrator == "swarm"
		s.must("restore " + file)
		assert.Equal(t, s.rows, s.contents(), "what the backup held")
	}
	moveBy("swarm")
	moveBy("engine")
}

// TestSwarmGrows measures an up, and one with nothing to do, with more and more workers.
func TestSwarmGrows(t *testing.T) {
	s := newSwarm(t, 3, 1, map[string]any{"profiles": []string{"workers"}})
	for _, replicas := range []int{2, 30, 50, 100} {
		s.configure(map[string]any{"replicas": map[string]any{"alert_worker": replicas}})
		t.Logf("%d replicas", replicas)
		s.must("up")
		s.must("up")
		s.must("preview -- --diff --expect-no-changes")
		t.Logf("%d replicas: %v", replicas, s.tasks("alert_worker"))
	}
}

// TestSwarmPulls builds the apps of a checkout, pushes them to the registry, and runs them on a node that has none of them.
func TestSwarmPulls(t *testing.T) {
	s := newSwarm(t, 2, 1, map[string]any{"profiles": []string{"dev"}, "registry": pullFrom + "/trading"})
	checkout := newCheckout(t)
	s.pull.load(references["reference"])
	s.configure(map[string]any{"sourceDir": checkout.dir})
	s.must("up")
	s.must("preview -- --diff --expect-no-changes")
	before := s.version("orchestrator")
	assert.Contains(t, before, pullFrom+"/trading/"+s.prefix+"/orchestrator@sha256:")
	elsewhere := 0
	for _, service := range s.plan().Services {
		elsewhere += s.count(service.Name, s.ids[s.nodes[0]])
	}
	assert.NotZero(t, elsewhere, "the other node has pulled")
	checkout.write("apps/orchestrator/version", "2\n")
	s.must("up")
	assert.NotEqual(t, before, s.version("orchestrator"), "an edit rolls the service")
}
