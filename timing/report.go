package timing

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/moby/moby/api/types/events"

	"trading-platform/plan"
)

// Container is what a run did with one container. The zero time stands for an event that did not occur.
type Container struct {
	Service, Name string
	// Free is when the last service that it waits for became healthy, or else when the run began.
	Free time.Time
	// Waited for the container of this service last; empty if it waited for none that the run started.
	WaitedFor string

	Created, Started, Healthy time.Time
}

// Report is where the time of one run went.
type Report struct {
	Stack      string
	Start, End time.Time
	Steps      []Span // of platform itself, one after the other
	Containers []Container
	// Path names the services whose waits, one after the other, decided when the last container was healthy.
	Path []string
	// Spans are what Pulumi's processes recorded, see Traces.
	Spans []Span
}

// eventGrace is how long the last events may take to arrive after the run.
const eventGrace = 200 * time.Millisecond

// Report ends the recording.
func (r *Recorder) Report(p *plan.Plan) *Report {
	if r.stop != nil {
		time.Sleep(eventGrace)
		r.stop()
		<-r.done
	}
	now := time.Now()
	r.steps[len(r.steps)-1].End = now
	report := &Report{Stack: r.stack, Start: r.steps[0].Start, End: now, Steps: r.steps}
	healthy := map[string]time.Time{} // by service, when its last container was
	for _, s := range p.Services {
		free, last := report.Start, ""
		for _, after := range s.After {
			if healthy[after].After(free) {
				free, last = healthy[after], after
			}
		}
		for _, name := range s.Containers {
			e := r.events[name]
			if e[events.ActionCreate].IsZero() {
				continue
			}
			c := Container{s.Name, name, free, last, e[events.ActionCreate], e[events.ActionStart], e[events.ActionHealthStatusHealthy]}
			report.Containers = append(report.Containers, c)
			if c.Healthy.After(healthy[s.Name]) {
				healthy[s.Name] = c.Healthy
			}
		}
	}
	report.Path = path(report.Containers)
	return report
}

// path returns the services that the last healthy container waited for, the first one first.
func path(containers []Container) (names []string) {
	if len(containers) == 0 {
		return nil
	}
	latest := slices.MaxFunc(containers, func(a, b Container) int { return a.Healthy.Compare(b.Healthy) })
	for latest.Service != "" {
		names = append(names, latest.Service)
		i := slices.IndexFunc(containers, func(c Container) bool { return c.Service == latest.WaitedFor })
		if i < 0 {
			break
		}
		latest = containers[i]
	}
	slices.Reverse(names)
	return names
}

// seconds of a wait; empty if one of its ends did not occur.
func seconds(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return ""
	}
	return fmt.Sprintf("%.2f", max(0, to.Sub(from).Seconds()))
}

// Text writes the report as a table of seconds.
func (r *Report) Text(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "CONTAINER\tWAITED\tCREATED\tSTARTED\tHEALTHY\tAT\t FOR")
	for _, c := range r.Containers {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t %s\n", c.Name, seconds(r.Start, c.Free), seconds(c.Free, c.Created),
			seconds(c.Created, c.Started), seconds(c.Started, c.Healthy), seconds(r.Start, c.Healthy), c.WaitedFor)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(r.Path) > 0 {
		fmt.Fprintln(w, "the longest wait:", strings.Join(r.Path, " → "))
	}
	for _, s := range r.Steps {
		fmt.Fprintf(w, "%s: %s\n", s.Name, seconds(s.Start, s.End))
	}
	_, err := fmt.Fprintf(w, "altogether: %s s\n", seconds(r.Start, r.End))
	return err
}

// Spans returns the whole report as spans.
func (r *Report) all() []Span {
	spans := slices.Concat(r.Steps, r.Spans)
	for _, c := range r.Containers {
		for _, s := range []Span{
			{c.Name, "wait", r.Start, c.Free}, {c.Name, "create", c.Free, c.Created},
			{c.Name, "start", c.Created, c.Started}, {c.Name, "become healthy", c.Started, c.Healthy},
		} {
			if s.End.After(s.Start) {
				spans = append(spans, s)
			}
		}
	}
	return spans
}

// Chrome writes the report in the Trace Event Format, which chrome://tracing and https://ui.perfetto.dev open.
func (r *Report) Chrome(w io.Writer) error {
	type event struct {
		Name  string         `json:"name"`
		Phase string         `json:"ph"`
		Start int64          `json:"ts"` // in microseconds, as the duration
		Took  int64          `json:"dur"`
		PID   int            `json:"pid"`
		TID   int            `json:"tid"`
		Args  map[string]any `json:"args,omitempty"`
	}
	events, threads := []event{}, map[string]int{}
	for _, s := range r.all() {
		if _, known := threads[s.Of]; !known {
			threads[s.Of] = len(threads) + 1
			events = append(events, event{Name: "thread_name", Phase: "M", PID: 1, TID: threads[s.Of], Args: map[string]any{"name": s.Of}})
		}
		events = append(events, event{Name: s.Name, Phase: "X", Start: s.Start.UnixMicro(), Took: s.End.Sub(s.Start).Microseconds(), PID: 1, TID: threads[s.Of]})
	}
	return json.NewEncoder(w).Encode(map[string]any{"traceEvents": events, "displayTimeUnit": "ms"})
}
