package rehearse

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"trading-platform/catalog"
	"trading-platform/plan"
	"trading-platform/review"
	"trading-platform/timing"
)

// apply changes the stack from one side to the other by an up, and measures what happens. It also returns what the plans predict.
func (r *rehearsal) apply(ctx context.Context, from, to *side) (step review.Step, predicted review.Stack, err error) {
	if err := r.enter(ctx, to); err != nil {
		return step, predicted, err
	}
	from.plan.Edited = nil // which files differ is said of the side that comes
	if err := to.plan.MarkEdited(ctx, r.Workspace.Root, r.commit); err != nil {
		return step, predicted, err
	}
	predicted = review.Compare(r.Stack, from.plan, to.plan)
	r.Say("applying " + from.Name + " → " + to.Name)
	step = review.Step{From: from.Name, To: to.Name}
	before, rows, started := r.look(ctx, time.Time{}), r.counts(ctx, from), time.Now()
	recorder := &timing.Recorder{}
	recorder.Step("up")
	recorder.Watch(ctx, r.Engine, r.Stack)
	calls := newTraffic(ctx, r.Engine, &from.plan.Plan, &to.plan.Plan)
	step.Up, step.Failed, err = r.platform(ctx, to, "up")
	limit := 4 * patience
	if err != nil || step.Failed != "" {
		limit = 0
	}
	calls.end(ctx, limit)
	times := recorder.Report(&to.plan.Plan)
	if err != nil {
		return step, predicted, err
	}
	slices.SortStableFunc(times.Containers, func(a, b timing.Container) int { return a.Created.Compare(b.Created) })
	after := r.look(ctx, started)
	step.Data = compareCounts(rows, r.counts(ctx, to))
	for _, s := range slices.Concat(to.plan.Services, from.plan.Services) {
		if slices.ContainsFunc(step.Services, func(m review.Measured) bool { return m.Service == s.Name }) {
			continue
		}
		was, is := before[s.Name], after[s.Name]
		m := review.Measured{Service: s.Name, Predicted: predicted.Predicted(s.Name), Waits: predicted.Waits(s.Name), Measured: changed(was.containers, is.containers)}
		m.ImageBefore, m.ImageAfter = was.image, is.image
		for sort, line := range is.warnings {
			if was.warnings[sort] == "" {
				m.Warnings = append(m.Warnings, line)
			}
		}
		slices.Sort(m.Warnings)
		if one := calls.targets[s.Name]; one != nil {
			m.Outage, m.Calls, m.FailedCalls = one.outage.Seconds(), one.calls, one.failed
		}
		for _, c := range times.Containers {
			if c.Service == s.Name && m.Calls == 0 && m.Predicted != "created" { // it cannot be called from here
				healthy, down := cmp.Or(c.Healthy, times.End), cmp.Or(c.Stopped, c.Created)
				m.Outage = max(m.Outage, healthy.Sub(down).Seconds())
			}
			if c.Service == s.Name && !slices.Contains(step.Order, s.Name) {
				step.Order = append(step.Order, s.Name)
			}
		}
		step.Services = append(step.Services, m)
	}
	return step, predicted, nil
}

// The labels by which a container is known whatever its name.
const serviceLabel, numberLabel = "com.docker.compose.service", "com.docker.compose.container-number"

// seen is what the engine has of a service.
type seen struct {
	containers map[string]string // the IDs, by the number of the replica
	image      int64             // its size
	warnings   map[string]string // lines of its logs, by sort
}

// look asks the engine for the services of the stack, with their warnings since a time. What it cannot read is missing.
func (r *rehearsal) look(ctx context.Context, since time.Time) map[string]seen {
	all := map[string]seen{}
	list, _ := r.Engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", plan.IdentityLabel+"="+r.id)})
	for _, c := range list.Items {
		one, known := all[c.Labels[serviceLabel]]
		if !known {
			one = seen{map[string]string{}, 0, map[string]string{}}
		}
		one.containers[c.Labels[numberLabel]] = c.ID
		if image, err := r.Engine.ImageInspect(ctx, c.ImageID); err == nil {
			one.image = image.Size
		}
		maps.Copy(one.warnings, r.warnings(ctx, c.ID, since))
		all[c.Labels[serviceLabel]] = one
	}
	return all
}

// changed says what happened to containers, in the words of review.Stack.Predicted.
func changed(was, is map[string]string) string {
	words := map[string]bool{}
	for number, id := range is {
		words["created"] = words["created"] || was[number] == ""
		words["replaced"] = words["replaced"] || was[number] != "" && was[number] != id
	}
	for number := range was {
		words["deleted"] = words["deleted"] || is[number] == ""
	}
	maps.DeleteFunc(words, func(_ string, happened bool) bool { return !happened })
	return cmp.Or(strings.Join(slices.Sorted(maps.Keys(words)), ", "), "kept")
}

// warning is a line of a log that warns, and varies is what differs from one such line to the next.
var (
	warning = regexp.MustCompile(`(?i)\b(warn|warning|error|fatal|panic|critical)\b`)
	varies  = regexp.MustCompile(`[0-9a-f]{8,}|[0-9]+`)
)

// longestLine is how much of a line of a log a report shows.
const longestLine = 300

// warnings returns the warnings in a container's log since a time, one of each sort, without the values of its secrets.
func (r *rehearsal) warnings(ctx context.Context, id string, since time.Time) map[string]string {
	c, err1 := r.Engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	stream, err2 := r.Engine.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "5000", Since: strconv.FormatInt(max(0, since.Unix()), 10)})
	if err1 != nil || err2 != nil {
		return nil
	}
	defer func() { _ = stream.Close() }()
	var log bytes.Buffer
	_, _ = stdcopy.StdCopy(&log, &log, stream) // what came before an error counts
	var secrets []string
	for _, e := range c.Container.Config.Env {
		if name, value, _ := strings.Cut(e, "="); len(value) > 5 && catalog.IsSecret(name, value) {
			secrets = append(secrets, value, "[secret]")
		}
	}
	hide, found := strings.NewReplacer(secrets...), map[string]string{}
	for line := range strings.Lines(log.String()) {
		if line = hide.Replace(strings.TrimSpace(line)); warning.MatchString(line) {
			found[varies.ReplaceAllString(line, "#")] = strings.ToValidUTF8(line[:min(len(line), longestLine)], "")
		}
	}
	return found
}
