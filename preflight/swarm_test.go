package preflight_test

import (
	"context"
	"testing"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/engine"
	"trading-platform/engine/enginetest"
	"trading-platform/fault"
	"trading-platform/preflight"
)

func TestSwarm(t *testing.T) {
	for name, test := range map[string]struct {
		engine *enginetest.Engine
		node   string // of the engine
		want   fault.Fault
	}{
		"a manager": {&enginetest.Engine{Nodes: []swarm.Node{{ID: "n1"}}}, "n1", fault.Fault{}},
		"an engine alone": {&enginetest.Engine{}, "", fault.Fault{
			Where: "Docker engine", What: "is not a manager of a Swarm, which orchestrator: swarm needs",
			Fix: "docker swarm init, or docker swarm join with a manager's token; or: pulumi config set -s test orchestrator engine",
		}},
		"no quorum": {&enginetest.Engine{Broken: []string{"/nodes"}}, "n1", fault.Fault{
			Where: "Swarm", What: "cannot be managed: Error response from daemon: the engine is broken",
			Fix: "start managers until more than half of them run; if they are lost for good: docker swarm init --force-new-cluster",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p, set := stackOf(t, with(map[string]string{"orchestrator": "swarm"}))
			c, err := client.New(client.WithHost(test.engine.Start(t)))
			require.NoError(t, err)
			err = preflight.Check(context.Background(), c, engine.Ref{Host: c.DaemonHost(), Node: test.node}, p, set, nil)
			if test.want == (fault.Fault{}) {
				require.NoError(t, err)
				return
			}
			var found fault.List
			require.ErrorAs(t, err, &found)
			assert.Equal(t, fault.List{test.want}, found)
		})
	}
}
