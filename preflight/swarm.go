package preflight

import (
	"github.com/moby/moby/client"

	"trading-platform/settings"
)

// swarm finds out whether the engine is a manager of a Swarm that works, if the stack needs one, and reports whether the other
// checks can be made.
func (c *check) swarm() bool {
	if !c.plan.OnSwarm() {
		return true
	}
	if c.here.Node == "" {
		c.faults.Add("Docker engine", "docker swarm init, or docker swarm join with a manager's token; or: "+c.config("orchestrator", settings.OneEngine),
			"is not a manager of a Swarm, which orchestrator: swarm needs")
		return false
	}
	if _, err := c.engine.NodeList(c.ctx, client.NodeListOptions{}); err != nil {
		c.faults.Add("Swarm", "start managers until more than half of them run; if they are lost for good: docker swarm init --force-new-cluster",
			"cannot be managed: %v", err)
		return false
	}
	return true
}
