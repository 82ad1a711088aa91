package main

import (
	"fmt"
	"strings"

	"trading-platform/plan"
)

// notOnSwarm says why a command does not work on a Swarm, and what does the same; the verb stands for the beginning of the
// services' names.
var notOnSwarm = map[string]string{
	"logs":    "a service's containers are on several nodes. Fix: docker service logs %s_<service>",
	"restart": "Swarm replaces the tasks of a service itself. Fix: docker service update --force %s_<service>",
	"stop":    "Swarm starts a container again that is stopped. Fix: docker service scale %s_<service>=0, and platform up starts it again",
	"start":   "Swarm starts the containers itself. Fix: platform up starts what `docker service scale %s_<service>=0` has stopped",
	"upgrade": "Swarm starts the server again that an upgrade stops. Fix: take the stack down, set orchestrator to engine, upgrade, take it down again, and set it to swarm (%s_pgdata stays)",
	"watch":   "it builds on one engine. Fix: platform up, which updates %s_<service>",
	"forward": "Swarm publishes no port on loopback. Fix: set bindAddress to 0.0.0.0 for the ports with a login, or docker exec in a container of %s_<service>",

	"snapshot save":    onlyOneEngine,
	"snapshot restore": onlyOneEngine,
	"fork":             onlyOneEngine,
}

const onlyOneEngine = "its containers pause on one engine only. Fix: platform backup, and restore, save %s's data too"

// refuse refuses a command that does not work on a Swarm.
func (t target) refuse(p *plan.Plan) error {
	command := strings.TrimPrefix(t.cmd.CommandPath(), t.cmd.Root().Name()+" ")
	if why, ok := notOnSwarm[command]; ok && p.OnSwarm() {
		return fmt.Errorf("stack %s runs on a Swarm, and platform "+command+" does not work there: "+why, t.stack, p.NamePrefix)
	}
	return nil
}
