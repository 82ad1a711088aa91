package preflight

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"trading-platform/plan"
	"trading-platform/settings"
)

// volumes finds existing data that the stack would not use, because it would silently
// start with an empty database: data of an old Compose stack, or its own under other names.
func (c *check) volumes() error {
	all, err := listVolumes(c.ctx, c.engine)
	if err != nil {
		return err
	}
	for _, want := range c.plan.Volumes {
		if want.TakeOver && all[want.Name] == nil {
			c.faults.Add(settings.Project+":volumes."+want.Key,
				"name one that `docker volume ls` shows, or: pulumi config rm -s "+c.plan.Stack+" --path volumes."+want.Key,
				"there is no volume %s to take over", want.Name)
		}
	}
	c.renamed(all)
	for _, old := range oldCompose(all, c.plan, c.set) {
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
	return nil
}

func listVolumes(ctx context.Context, engine client.APIClient) (map[string]*volume.Volume, error) {
	found, err := engine.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return nil, fmt.Errorf("asking the engine for its volumes: %w", err)
	}
	all := map[string]*volume.Volume{}
	for i, v := range found.Items {
		all[v.Name] = &found.Items[i]
	}
	return all, nil
}

// renamed finds the stack's own data under names that it would no longer use, as after a
// change of namePrefix. If a volume with the new name exists, the user has decided to use it.
func (c *check) renamed(all map[string]*volume.Volume) {
	var names, keep, empty []string
	for _, want := range c.plan.Volumes {
		old := c.lastVolumes[want.Key]
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if old == "" && all[name].Labels[plan.VolumeLabel] == want.Key && c.plan.Owns(all[name].Labels) {
				old = name
			}
		}
		if old == "" || old == want.Name || all[old] == nil || all[want.Name] != nil || want.TakeOver {
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
	all, err := listVolumes(ctx, engine)
	return oldCompose(all, p, set), err
}

// oldVolumes is how many volumes with the names of our stack a Compose project must have,
// including pgdata. A single one of these names is common.
const oldVolumes = 3

func oldCompose(all map[string]*volume.Volume, p *plan.Plan, set *settings.Settings) []OldStack {
	if want := p.Volume("pgdata"); want.TakeOver || all[want.Name] != nil || slices.Contains(set.IgnoreCompose, "*") {
		return nil
	}
	projects := map[string]map[string]string{}
	for _, v := range all {
		project, key := v.Labels["com.docker.compose.project"], v.Labels["com.docker.compose.volume"]
		if project == "" || p.Volume(key) == nil || v.Labels[plan.StackLabel] != "" { // a stack of this program has Compose's labels too
			continue
		}
		if projects[project] == nil {
			projects[project] = map[string]string{}
		}
		projects[project][key] = v.Name
	}
	var old []OldStack
	for _, project := range slices.Sorted(maps.Keys(projects)) {
		if volumes := projects[project]; len(volumes) >= oldVolumes && volumes["pgdata"] != "" && !slices.Contains(set.IgnoreCompose, project) {
			old = append(old, OldStack{project, volumes})
		}
	}
	return old
}
