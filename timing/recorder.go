// Package timing records where the time of an up goes: for each container how long it
// waited for others, was created, started and became healthy; the path of services that
// decided how long the whole took; and how long the CLI, the program and the provider ran.
package timing

import (
	"context"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"trading-platform/plan"
)

// Recorder collects the times of one run. A nil Recorder collects nothing.
type Recorder struct {
	steps []Span

	stack  string
	stop   context.CancelFunc
	done   chan struct{}
	mu     sync.Mutex
	events map[string]map[events.Action]time.Time // by container, the first of each kind
}

// Span is something that took time.
type Span struct {
	Of   string // who spent it, such as a service or a process
	Name string
	Start, End time.Time
}

// Step ends the current step of platform's own work, and begins the named one.
func (r *Recorder) Step(name string) {
	if r == nil {
		return
	}
	now := time.Now()
	if n := len(r.steps); n > 0 {
		r.steps[n-1].End = now
	}
	r.steps = append(r.steps, Span{Of: "platform", Name: name, Start: now})
}

// Watch collects the events of a stack's containers from now on.
func (r *Recorder) Watch(ctx context.Context, engine client.APIClient, stack string) {
	if r == nil {
		return
	}
	ctx, r.stop = context.WithCancel(ctx)
	r.stack, r.done, r.events = stack, make(chan struct{}), map[string]map[events.Action]time.Time{}
	stream := engine.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.
		Add("type", string(events.ContainerEventType)).Add("label", plan.StackLabel+"="+stack).
		Add("event", string(events.ActionCreate), string(events.ActionStart), string(events.ActionHealthStatus))})
	go func() {
		defer close(r.done)
		for {
			select {
			case m := <-stream.Messages:
				r.add(m)
			case <-stream.Err: // also when ctx is done
				return
			}
		}
	}()
}

func (r *Recorder) add(m events.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := m.Actor.Attributes["name"]
	if m.Action == events.ActionCreate || r.events[name] == nil { // a container that is replaced begins anew
		r.events[name] = map[events.Action]time.Time{}
	}
	if r.events[name][m.Action].IsZero() {
		r.events[name][m.Action] = time.Unix(0, m.TimeNano)
	}
}
