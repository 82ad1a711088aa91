package preflight

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	engines "trading-platform/engine"
	"trading-platform/fault"
	"trading-platform/plan"
)

func TestTooManyNeighbors(t *testing.T) {
	before := neighborLimit
	t.Cleanup(func() { neighborLimit = before })
	neighborLimit = filepath.Join(t.TempDir(), "gc_thresh3")
	require.NoError(t, os.WriteFile(neighborLimit, []byte("1024\n"), 0o600))
	other := container.Summary{State: container.StateRunning}
	for name, test := range map[string]struct {
		host     string
		replicas int
		others   []container.Summary
		faults   int
	}{
		"they fit":                       {"unix:///var/run/docker.sock", 256, nil, 0},
		"one too many":                   {"unix:///var/run/docker.sock", 257, nil, 1},
		"one too many, of another stack": {"unix:///var/run/docker.sock", 256, []container.Summary{other}, 1},
		"another one that is stopped":    {"unix:///var/run/docker.sock", 256, []container.Summary{{State: container.StateExited}}, 0},
		"another machine":                {"ssh://there", 300, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := &check{here: engines.Ref{Host: test.host}, containers: test.others, plan: &plan.Plan{Stack: "test", Services: []plan.Service{{Containers: slices.Repeat([]string{"w"}, test.replicas)}}}}
			c.neighbors()
			require.Len(t, c.faults, test.faults)
			if test.faults > 0 {
				assert.Equal(t, fault.Fault{
					Where: "kernel of this host", What: "remembers 1024 network neighbors, and 257 containers need about 1028",
					Fix: "sudo sysctl -w net.ipv4.neigh.default.gc_thresh3=2056, or have fewer replicas",
				}, c.faults[0])
			}
		})
	}
}
