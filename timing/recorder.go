// Package timing records where the time of an up goes: for each container how long it
// waited for others, was created, started and became healthy; the services that decided
// when the last one was healthy; and what platform, Pulumi and the provider did meanwhile.
package timing

import (
	"context"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"trading-platform/plan"
)

// Span is something that took time.
type Span struct {
	Of, Name   string // a container or a process, and what it did
	Start, End time.Time
}

// Recorder collects the times of one run. A nil Recorder collects nothing.
type Recorder struct {
	mu       sync.Mutex
	steps    []Span
	events   map[string]map[events.Action]time.Time // by container, the first of each kind
	stop     context.CancelFunc
	watching sync.WaitGroup
}

// Step ends the current step of the run, and begins the named one.
func (r *Recorder) Step(name string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if n := len(r.steps); n > 0 {
		r.steps[n-1].End = now
	}
	r.steps = append(r.steps, Span{Of: "the run", Name: name, Start: now})
}

// Watch collects the events of a stack's containers from now on.
func (r *Recorder) Watch(ctx context.Context, engine client.APIClient, stack string) {
	if r == nil {
		return
	}
	ctx, r.stop = context.WithCancel(ctx)
	r.events = map[string]map[events.Action]time.Time{}
	stream := engine.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.
		Add("type", string(events.ContainerEventType)).Add("label", plan.StackLabel+"="+stack).
		Add("event", string(events.ActionCreate), string(events.ActionStart), string(events.ActionHealthStatus), string(events.ActionDie))})
	r.watching.Go(func() {
		for {
			select {
			case m := <-stream.Messages:
				r.add(m)
			case <-ctx.Done():
				return
			case <-stream.Err: //nolint:errcheck // the report then has what came before
				return
			}
		}
	})
}

func (r *Recorder) add(m events.Message) {
	name := m.Actor.Attributes["name"]
	if m.Action == events.ActionCreate || r.events[name] == nil { // a container that is replaced begins anew, and has the end of the other
		stopped, replaces := r.events[name][events.ActionDie]
		if r.events[name] = map[events.Action]time.Time{}; replaces {
			r.events[name][events.ActionDie] = stopped
		}
	}
	if r.events[name][m.Action].IsZero() {
		r.events[name][m.Action] = time.Unix(0, m.TimeNano)
	}
}

// lastEvents is how long the engine may take to send the events of the run.
const lastEvents = 200 * time.Millisecond

// Report ends the recording. The plan gives the order of the containers and whom they wait for.
func (r *Recorder) Report(p *plan.Plan) *Report {
	r.Step("")
	if r.stop != nil {
		time.Sleep(lastEvents)
		r.stop()
		r.watching.Wait()
	}
	last := len(r.steps) - 1
	report := &Report{Start: r.steps[0].Start, End: r.steps[last].Start, Steps: r.steps[:last]}
	healthy := map[string]time.Time{} // by service, when its last container was
	for _, s := range p.Services {
		free, waited := report.Start, ""
		for _, after := range s.After {
			if healthy[after].After(free) {
				free, waited = healthy[after], after
			}
		}
		for _, name := range s.Containers {
			e := r.events[name]
			if e[events.ActionCreate].IsZero() {
				continue
			}
			c := Container{s.Name, name, waited, free, e[events.ActionCreate], e[events.ActionStart], e[events.ActionHealthStatusHealthy], e[events.ActionDie]}
			report.Containers = append(report.Containers, c)
			if c.Healthy.After(healthy[s.Name]) {
				healthy[s.Name] = c.Healthy
			}
		}
	}
	return report
}
