package timing

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is where the time of one run went.
type Report struct {
	Start, End time.Time
	Steps      []Span // one after the other, from Start to End
	Containers []Container
	Processes  []Span // what Pulumi's processes did, see ReadTraces; empty if they were not traced
}

// Container is what the run did with one container. The zero time stands for what did not happen.
type Container struct {
	Service, Name string
	WaitedFor     string    // the service whose health it waited for last; empty if none of them was started by the run
	Free          time.Time // when that service became healthy, or else when the run began

	Created, Started, Healthy time.Time
	Stopped                   time.Time // the container that it replaces
}

// Path names the services that decided when the last container became healthy, each one waiting for the one before.
func (r *Report) Path() []string {
	var names []string
	left := r.Containers
	for len(left) > 0 {
		last := slices.MaxFunc(left, func(a, b Container) int { return a.Healthy.Compare(b.Healthy) })
		names = append(names, last.Service)
		left = slices.DeleteFunc(slices.Clone(r.Containers), func(c Container) bool { return c.Service != last.WaitedFor })
	}
	slices.Reverse(names)
	return names
}

// Text writes the report as tables of seconds.
func (r *Report) Text(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "waiting\tcreating\tstarting\tgetting healthy\thealthy at\t  container")
	for _, c := range r.Containers {
		after := ""
		if c.WaitedFor != "" {
			after = ", after " + c.WaitedFor
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t  %s%s\n", seconds(r.Start, c.Free), seconds(c.Free, c.Created),
			seconds(c.Created, c.Started), seconds(c.Started, c.Healthy), seconds(r.Start, c.Healthy), c.Name, after)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if path := r.Path(); len(path) > 0 {
		fmt.Fprintln(out, "The last container to become healthy waited for these, one after the other:", strings.Join(path, ", "))
	}
	for _, s := range append(slices.Clone(r.Steps), Span{Name: "altogether", Start: r.Start, End: r.End}) {
		fmt.Fprintf(out, "%7s  %s\n", seconds(s.Start, s.End), s.Name)
	}
	calls, took := map[string]int{}, map[string]time.Duration{}
	for _, s := range r.Processes {
		name := s.Of + ": " + s.Name
		calls[name]++
		took[name] += s.End.Sub(s.Start)
	}
	for _, name := range slices.SortedFunc(maps.Keys(took), func(a, b string) int { return int(took[b] - took[a]) }) {
		if took[name] >= 10*time.Millisecond {
			fmt.Fprintf(out, "%7.2f  in %d × %s\n", took[name].Seconds(), calls[name], name)
		}
	}
	return nil
}

// seconds is the time from one event to another; empty if one of them did not occur.
func seconds(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return ""
	}
	return fmt.Sprintf("%.2f", max(0, to.Sub(from).Seconds()))
}

// lanes returns all spans of the report by lane. Spans of one lane do not overlap.
func (r *Report) lanes() (names []string, lanes map[string][]Span) {
	spans := slices.Clone(r.Steps)
	for _, c := range r.Containers {
		spans = append(spans, Span{c.Name, "waiting", r.Start, c.Free}, Span{c.Name, "creating", c.Free, c.Created},
			Span{c.Name, "starting", c.Created, c.Started}, Span{c.Name, "getting healthy", c.Started, c.Healthy})
	}
	lanes = map[string][]Span{}
	for _, s := range append(spans, r.Processes...) {
		lane := s.Of
		for n := 2; len(lanes[lane]) > 0 && lanes[lane][len(lanes[lane])-1].End.After(s.Start); n++ {
			lane = fmt.Sprintf("%s %d", s.Of, n)
		}
		if s.Start.IsZero() || !s.End.After(s.Start) {
			continue
		}
		if lanes[lane] == nil {
			names = append(names, lane)
		}
		lanes[lane] = append(lanes[lane], s)
	}
	return names, lanes
}

// Chrome writes the report in Chrome's Trace Event Format, which https://ui.perfetto.dev shows.
func (r *Report) Chrome(out io.Writer) error {
	events := []map[string]any{}
	names, lanes := r.lanes()
	for i, name := range names {
		events = append(events, map[string]any{"ph": "M", "name": "thread_name", "pid": 1, "tid": i + 1, "args": map[string]string{"name": name}})
		for _, s := range lanes[name] {
			events = append(events, map[string]any{
				"ph": "X", "name": s.Name, "pid": 1, "tid": i + 1, "ts": s.Start.UnixMicro(), "dur": s.End.Sub(s.Start).Microseconds(),
			})
		}
	}
	return json.NewEncoder(out).Encode(map[string]any{"traceEvents": events})
}

// phases of a container in the picture, with their colors.
var phases = []struct{ name, color string }{{"waiting", "#d0d7de"}, {"creating", "#4493f8"}, {"starting", "#a371f7"}, {"getting healthy", "#3fb950"}}

// Picture writes the steps and the containers as an SVG picture, a row for each.
func (r *Report) Picture(out io.Writer) error {
	const left, width, row = 260, 700, 20
	names, lanes := (&Report{Start: r.Start, End: r.End, Steps: r.Steps, Containers: r.Containers}).lanes()
	at := func(t time.Time) float64 { return left + width*float64(t.Sub(r.Start))/float64(r.End.Sub(r.Start)) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="#fff"/>
`, left+width+20, row*(len(names)+2))
	colors, x := map[string]string{}, left
	for _, phase := range phases {
		colors[phase.name] = phase.color
		fmt.Fprintf(&b, `<text x="%d" y="14" fill="%s">■</text><text x="%d" y="14">%s</text>`+"\n", x, phase.color, x+14, phase.name)
		x += 30 + 8*len(phase.name)
	}
	for i, name := range names {
		y := row * (i + 1)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+13, html.EscapeString(name))
		for _, s := range lanes[name] {
			fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" stroke="#fff"><title>%s, %s s</title></rect>`+"\n",
				at(s.Start), y+2, at(s.End)-at(s.Start), row-4, cmp.Or(colors[s.Name], "#8c959f"), html.EscapeString(s.Name), seconds(s.Start, s.End))
		}
	}
	_, err := fmt.Fprintf(out, `%s<text x="%d" y="%d" text-anchor="end">%s s</text>
</svg>
`, b.String(), left+width, row*(len(names)+1)+14, seconds(r.Start, r.End))
	return err
}
