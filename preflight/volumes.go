package preflight

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/client"

	"trading-platform/plan"
	"trading-platform/settings"
)

// oldData finds existing data that the stack would not use, because it would silently
// start with an empty database: data of an old Compose stack, or its own under other names.
func (c *check) oldData() {
	for _, want := range c.plan.Volumes {
		if want.TakeOver && !c.hasVolume(want.Name) {
			c.faults.Add(settings.Project+":volumes."+want.Key,
				"name one that `docker volume ls` shows, or: pulumi config rm -s "+c.plan.Stack+" --path volumes."+want.Key,
				"there is no volume %s to take over", want.Name)
		}
	}
	c.renamed()
	for _, old := range c.oldCompose() {
		var takeOver []string
		for _, v := range c.plan.Volumes {
			if name := old.Volumes[v.Key]; name != "" {
				takeOver = append(takeOver, c.config("--path volumes."+v.Key, name))
			}
		}
		c.faults.Add("volume "+c.plan.Volume("pgdata").Name, strings.Join(takeOver, " && ")+
			"; or, to ignore it: "+c.config("--path 'ignoreCompose[0]'", old.Project),
			"does not exist yet, but the old Compose project %s left its data in %s: the stack would start with an empty database",
			old.Project, old.Volumes["pgdata"])
	}
}

// renamed finds the stack's own data under names that it would no longer use, as after a
// change of namePrefix. If a volume with the new name exists, the user has decided to use it.
func (c *check) renamed() {
	var names, keep, empty []string
	for _, want := range c.plan.Volumes {
		old := c.lastVolumes[want.Key]
		for _, name := range slices.Sorted(maps.Keys(c.volumes)) {
			if labels := c.volumes[name].Labels; old == "" && labels[plan.VolumeLabel] == want.Key && c.plan.Owns(labels) {
				old = name
			}
		}
		if old == "" || old == want.Name || !c.hasVolume(old) || c.hasVolume(want.Name) || want.TakeOver {
			continue
		}
		names = append(names, old)
		keep = append(keep, c.config("--path volumes."+want.Key, old))
		empty = append(empty, want.Name)
	}
	if len(names) == 0 {
		return
	}
	c.faults.Add(settings.Project+":namePrefix",
		"keep the data: "+strings.Join(keep, " && ")+"; or go back to the old prefix; or start with empty volumes: for v in "+strings.Join(empty, " ")+"; do docker volume create $v; done",
		"the stack's data is in %s, and with the prefix %s it would start with empty volumes", strings.Join(names, ", "), c.plan.NamePrefix)
}

// OldStack is what an old Compose stack left on an engine.
type OldStack struct {
	Project string
	Volumes map[string]string // names on the engine, by name in the catalog
}

// OldCompose finds old Compose stacks whose data a stack could take over. It returns none
// if the stack already has a database, or if the settings take over or ignore the data.
func OldCompose(ctx context.Context, engine client.APIClient, p *plan.Plan, set *settings.Settings) ([]OldStack, error) {
	c := &check{ctx: ctx, engine: engine, plan: p, set: set}
	if err := c.listVolumes(); err != nil {
		return nil, err
	}
	return c.oldCompose(), nil
}

// oldVolumes is how many volumes with the names of our stack a Compose project must have,
// including pgdata. A single one of these names is common.
const oldVolumes = 3

func (c *check) oldCompose() []OldStack {
	if want := c.plan.Volume("pgdata"); want.TakeOver || c.hasVolume(want.Name) || slices.Contains(c.set.IgnoreCompose, "*") {
		return nil
	}
	projects := map[string]map[string]string{}
	for _, v := range c.volumes {
		project, key := v.Labels["com.docker.compose.project"], v.Labels["com.docker.compose.volume"]
		if project == "" || c.plan.Volume(key) == nil || v.Labels[plan.StackLabel] != "" { // a stack of this program has Compose's labels too
			continue
		}
		if projects[project] == nil {
			projects[project] = map[string]string{}
		}
		projects[project][key] = v.Name
	}
	var old []OldStack
	for _, project := range slices.Sorted(maps.Keys(projects)) {
		if volumes := projects[project]; len(volumes) >= oldVolumes && volumes["pgdata"] != "" && !slices.Contains(c.set.IgnoreCompose, project) {
			old = append(old, OldStack{project, volumes})
		}
	}
	return old
}
