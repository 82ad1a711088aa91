package provider

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

const (
	// defaultWaitTimeout is the official provider's, for containers that set none.
	defaultWaitTimeout = 60 * time.Second
	// maxRestarts: a container that exited this often during the wait has failed.
	maxRestarts = 3
	// pollEvery is the interval of progress messages and of inspections, which are needed because
	// events can be lost with their connection.
	pollEvery = time.Second
	// askLimit is how long the engine may take to answer before it is asked again.
	askLimit = 10 * time.Second
	// silenceLimit is how long the engine may not answer at all, for example while it restarts.
	silenceLimit = time.Minute
	// logLines is how much of the log of a failed container or build an error shows.
	logLines = 20
)

// watch follows one container from its start until it is up or has failed.
type watch struct {
	c       call
	args    containerArgs
	id      string
	stop    context.CancelFunc // ends the subscription
	events  client.EventsResult
	started time.Time
	limit   time.Duration
	// answered is when the engine last answered.
	answered time.Time

	// lastExit is the last exit code, empty before the first exit.
	lastExit string
	// warned: the log of the first exit has been shown.
	warned bool
	probes map[time.Time]bool
}

// newWatch subscribes to events before the container starts, so that none is missed.
func newWatch(ctx context.Context, c call, args containerArgs, id string) *watch {
	ctx, stop := context.WithCancel(ctx)
	w := &watch{
		c: c, args: args, id: id, stop: stop, started: time.Now(), answered: time.Now(), probes: map[time.Time]bool{},
		limit: cmp.Or(time.Duration(args.WaitTimeout)*time.Second, defaultWaitTimeout),
	}
	w.events = c.engine.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.
		Add("type", string(events.ContainerEventType)).Add("container", id).
		Add("event", string(events.ActionDie), string(events.ActionOOM), string(events.ActionStart), string(events.ActionHealthStatus))})
	return w
}

// wait returns nil once the container is healthy, or has ended.
func (w *watch) wait(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	messages, streamEnd := w.events.Messages, w.events.Err
	for {
		healthy, err := w.look(ctx)
		if healthy || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return w.unfinished("was still starting when the run was cancelled")
		case message := <-messages:
			if message.Action == events.ActionDie {
				w.lastExit = message.Actor.Attributes["exitCode"]
			}
		case <-streamEnd: //nolint:errcheck // without events, inspections go on at each interval
			messages, streamEnd = nil, nil
		case <-tick.C:
		}
	}
}

// look inspects the container once. It reports whether the container is healthy or has ended; an error means that it will not be.
func (w *watch) look(ctx context.Context) (healthy bool, err error) {
	asking, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	result, err := w.c.engine.ContainerInspect(asking, w.id, client.ContainerInspectOptions{})
	age := time.Since(w.started)
	switch {
	case err == nil:
		w.answered = time.Now()
	case ctx.Err() != nil:
		return false, nil // wait ends
	case cerrdefs.IsNotFound(err):
		const what = "was removed while it started"
		return false, &initError{
			reason: fmt.Sprintf("container %s %s; the next `pulumi up` creates it again", w.args.Name, what), summary: what,
		}
	case age < w.limit && time.Since(w.answered) < silenceLimit:
		w.c.log.InfoStatusf("%s: asking the engine again: %v", w.args.Name, err)
		return false, nil
	default:
		return false, w.unfinished(fmt.Sprintf("could not be inspected for %s: %v", seconds(time.Since(w.answered)), err))
	}
	found := result.Container
	state := found.State
	running := state.Running && !state.Restarting
	down := !state.Running && !state.Restarting
	if !running && w.lastExit == "" {
		w.lastExit = strconv.Itoa(state.ExitCode)
	}
	exit := exitText(w.lastExit, state)
	switch {
	case w.args.ended(state):
		return true, nil
	case down && (w.args.Restart == "always" || w.args.Restart == "unless-stopped"):
		// The engine restarts a container that exits on its own. This one was stopped, or the engine shuts down.
		return false, w.unfinished("was stopped while it started (" + exit + ")")
	case down:
		return false, w.failed(ctx, state, "%s %s after its start", exit, seconds(age))
	case found.RestartCount >= maxRestarts:
		return false, w.failed(ctx, state, "restarts over and over: %d times in %s, last %s", found.RestartCount, seconds(age), exit)
	case (state.Restarting || found.RestartCount > 0) && !w.warned:
		w.warned = true
		w.c.log.Warningf("%s: %s %s after its start, the engine restarts it\n%s", w.args.Name, exit, seconds(age), w.logs(ctx))
	}
	probe := lastProbe(state)
	switch {
	case running && state.Health != nil && state.Health.Status == container.Healthy:
		return true, nil
	case unhealthy(state):
		return false, w.failed(ctx, state, "is unhealthy")
	case running && probe != nil && strings.Contains(probe.Output, "Fix: "):
		// A probe whose output names a fix has found a fault that waiting does not remove.
		return false, w.failed(ctx, state, "cannot turn healthy")
	case age >= w.limit && w.args.Attach:
		return false, w.failed(ctx, state, "did not end within %s", seconds(w.limit))
	case age >= w.limit:
		return false, w.failed(ctx, state, "did not turn healthy within %s", seconds(w.limit))
	}
	w.report(age, found)
	return false, nil
}

// unhealthy reports whether probes failed. The engine also reports stopped and paused containers as
// unhealthy.
func unhealthy(state *container.State) bool {
	health := state.Health
	return state.Running && !state.Restarting && health != nil && health.Status == container.Unhealthy && health.FailingStreak > 0
}

// report shows what is waited for.
func (w *watch) report(age time.Duration, found container.InspectResponse) {
	text := fmt.Sprintf("%s: starting %s", w.args.Name, seconds(age))
	if found.RestartCount > 0 {
		text += fmt.Sprintf(", restart %d of %d", found.RestartCount, maxRestarts)
	}
	if last := lastProbe(found.State); last != nil {
		for _, probe := range found.State.Health.Log {
			w.probes[probe.Start] = true
		}
		printed := w.printed(last)
		text += fmt.Sprintf(", probe %d: %s", len(w.probes), printed[strings.LastIndex(printed, "\n")+1:])
	}
	w.c.log.InfoStatusf("%s", text)
}

// lastProbe returns the latest result of the healthcheck, or nil if there is none.
func lastProbe(state *container.State) *container.HealthcheckResult {
	if state.Health == nil || len(state.Health.Log) == 0 {
		return nil
	}
	return state.Health.Log[len(state.Health.Log)-1]
}

// printed returns what a probe printed, or else its exit code.
func (w *watch) printed(probe *container.HealthcheckResult) string {
	return cmp.Or(w.c.redact(strings.TrimSpace(probe.Output)), fmt.Sprintf("exit code %d", probe.ExitCode))
}

func exitText(code string, state *container.State) string {
	text := "exited with code " + code
	if state.OOMKilled {
		text += " (out of memory: raise the service's memory limit)"
	}
	if state.Error != "" {
		text += " (" + state.Error + ")"
	}
	return text
}

func seconds(d time.Duration) string { return d.Round(time.Second).String() }

// failed says what happened, with the last probe and the last lines of the log.
func (w *watch) failed(ctx context.Context, state *container.State, format string, a ...any) error {
	what := fmt.Sprintf(format, a...)
	text := fmt.Sprintf("container %s %s", w.args.Name, what)
	if probe := lastProbe(state); probe != nil {
		text += "\nits last probe: " + w.printed(probe)
	}
	text += fmt.Sprintf("\n%s\nFix: the container stays for inspection (`docker logs %s`); "+
		"remove the cause, and the next `pulumi up` replaces it", w.logs(ctx), w.args.Name)
	return &initError{reason: text, summary: what}
}

// unfinished returns the error of a wait without a result: the container may be all right.
func (w *watch) unfinished(what string) error {
	return &initError{
		reason:  fmt.Sprintf("container %s %s; the next `pulumi up` goes on with it", w.args.Name, what),
		summary: what, resumable: true,
	}
}

// logs returns the last lines of the container's log, indented and without its secrets.
func (w *watch) logs(ctx context.Context) string {
	var log bytes.Buffer
	options := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(logLines)}
	stream, err := w.c.engine.ContainerLogs(ctx, w.id, options)
	if err == nil {
		defer func() { _ = stream.Close() }()
		_, err = stdcopy.StdCopy(&log, &log, stream)
	}
	switch text := strings.TrimSpace(log.String()); {
	case err != nil:
		return "its log cannot be read: " + err.Error()
	case text == "":
		return "its log is empty"
	default:
		return "last lines of its log:" + lastLines(w.c.redact(text))
	}
}

// lastLines returns the end of a log, indented.
func lastLines(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return "\n    " + strings.Join(lines[max(0, len(lines)-logLines):], "\n    ")
}
