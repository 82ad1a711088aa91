package rehearse

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/client"

	"trading-platform/plan"
)

const (
	beat      = 250 * time.Millisecond // between two calls of a service
	patience  = 5 * time.Second        // for an answer
	listening = 100 * time.Millisecond // how long a server that waits for its client says nothing
)

// traffic calls the health endpoint of every service that this host can reach.
type traffic struct {
	engine  *client.Client
	http    http.Client
	targets map[string]*target // by service
	calling sync.WaitGroup
	stop    context.CancelFunc
}

// target is one service.
type target struct {
	places        []plan.Service // how it is reached, before and after the change
	calls, failed int
	outage        time.Duration
	answered      time.Time // the last answer
	down          bool
}

// newTraffic calls the services that stay and answer now, at their places in either plan, until end is called.
func newTraffic(ctx context.Context, engine *client.Client, from, to *plan.Plan) *traffic {
	t := &traffic{engine: engine, targets: map[string]*target{}}
	t.http = http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	ctx, t.stop = context.WithCancel(ctx)
	for _, s := range from.Services {
		next, stays := to.Lookup(s.Name)
		one := &target{places: []plan.Service{s, next}, answered: time.Now()}
		if stays && t.answers(ctx, one) {
			t.targets[s.Name] = one
			t.calling.Go(func() {
				for ; ctx.Err() == nil; time.Sleep(beat) {
					if answers := t.answers(ctx, one); ctx.Err() == nil { // else it was cut off
						one.note(answers, time.Now())
					}
				}
			})
		}
	}
	return t
}

// note counts a call. An outage lasts from one answer to the next.
func (one *target) note(answers bool, now time.Time) {
	one.calls++
	if !answers {
		one.failed++
	} else if one.down {
		one.outage += now.Sub(one.answered)
	}
	if one.down = !answers; answers {
		one.answered = now
	}
}

// end stops the calls when every service answers again, or the limit is over.
func (t *traffic) end(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, one := range t.targets {
		for !t.answers(ctx, one) && ctx.Err() == nil {
			time.Sleep(beat)
		}
	}
	time.Sleep(2 * beat) // so that the callers see it too
	t.stop()
	t.calling.Wait()
	for _, one := range t.targets {
		if one.down {
			one.outage += time.Since(one.answered)
		}
	}
}

// answers reports whether a service answers at one of its places, as its health URL says.
func (t *traffic) answers(ctx context.Context, one *target) bool {
	return slices.ContainsFunc(one.places, func(s plan.Service) bool {
		health, err := url.Parse(s.Health)
		if err != nil || s.Health == "" {
			return false
		}
		if health.Host = t.address(ctx, s, health.Port()); health.Host == "" {
			return false
		}
		if health.Scheme == "tcp" {
			return listens(ctx, health.Host)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, health.String(), http.NoBody)
		if err != nil {
			return false
		}
		answer, err := t.http.Do(req)
		if err == nil {
			_ = answer.Body.Close()
		}
		return err == nil && answer.StatusCode < http.StatusBadRequest
	})
}

// listens reports whether a server accepts a connection and waits for its client to speak. Docker's proxy for a published port
// accepts every connection, and closes it if nobody listens behind it.
func listens(ctx context.Context, address string) bool {
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadDeadline(time.Now().Add(listening))
	_, err = conn.Read(make([]byte, 1))
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// address returns where this host reaches a port of a service: where it is published, or else at its container's address, which
// works on Linux. On another machine, neither answers.
func (t *traffic) address(ctx context.Context, s plan.Service, port string) string {
	if i := slices.IndexFunc(s.Ports, func(p plan.Port) bool { return strconv.Itoa(p.Container) == port }); i >= 0 {
		return net.JoinHostPort(s.Ports[i].Address, strconv.Itoa(s.Ports[i].Host))
	}
	found, err := t.engine.ContainerInspect(ctx, s.Containers[0], client.ContainerInspectOptions{})
	if err != nil || found.Container.NetworkSettings == nil {
		return ""
	}
	for _, n := range found.Container.NetworkSettings.Networks {
		if n.IPAddress.IsValid() {
			return net.JoinHostPort(n.IPAddress.String(), port)
		}
	}
	return ""
}
