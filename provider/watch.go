package provider

import (
	"bytes"
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
	// settleTime is how long a container without wait has to keep running.
	settleTime = time.Second
	// maxRestarts: a container that exited this often during the wait has failed.
	maxRestarts = 3
	// pollEvery is the interval of progress messages and of inspections, which are needed because
	// events can be lost with their connection.
	pollEvery = time.Second
	// askLimit is how long the engine may take to answer before it is asked again.
	askLimit = 10 * time.Second
	// silenceLimit is how long the engine may not answer at all, for example while it restarts.
	silenceLimit = time.Minute
	// logLines is how much of a failed container's log an error shows.
	logLines = 20
)

// watch follows one container from its start until it is up or has failed.
type watch struct {
	c       call
	args    ContainerArgs
	id      string
	stop    context.CancelFunc
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
func newWatch(ctx context.Context, c call, args ContainerArgs, id string) *watch {
	ctx, stop := context.WithCancel(ctx)
	w := &watch{
		c: c, args: args, id: id, stop: stop, started: time.Now(), answered: time.Now(), probes: map[time.Time]bool{},
		limit: defaultWaitTimeout,
	}
	if args.WaitTimeout > 0 {
		w.limit = time.Duration(args.WaitTimeout) * time.Second
	}
	w.events = c.engine.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.
		Add("type", string(events.ContainerEventType)).Add("container", id).
		Add("event", string(events.ActionDie), string(events.ActionOOM), string(events.ActionStart), string(events.ActionHealthStatus))})
	return w
}

func (w *watch) close() { w.stop() }

// wait returns nil once the container is up: healthy if wait is set, else still
// running after settleTime. A container that need not run is not waited for.
func (w *watch) wait(ctx context.Context) error {
	if !w.args.Wait && !orTrue(w.args.MustRun) {
		return nil
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	messages, streamEnd := w.events.Messages, w.events.Err
	for {
		up, err := w.look(ctx)
		if up || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return w.cancelled()
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

func (w *watch) look(ctx context.Context) (up bool, err error) {
	asking, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	result, err := w.c.engine.ContainerInspect(asking, w.id, client.ContainerInspectOptions{})
	age := time.Since(w.started)
	switch {
	case err == nil:
		w.answered = time.Now()
	case ctx.Err() != nil:
		return false, w.cancelled()
	case cerrdefs.IsNotFound(err):
		const what = "was removed while it started"
		return false, &initError{
			reason: fmt.Sprintf("container %s %s; the next `pulumi up` creates it again", w.args.Name, what), summary: what,
		}
	case age < w.limit && time.Since(w.answered) < silenceLimit:
		w.c.status("%s: asking the engine again: %v", w.args.Name, err)
		return false, nil
	default:
		return false, w.unfinished(fmt.Sprintf("could not be inspected for %s: %v", seconds(time.Since(w.answered)), err))
	}
	found := result.Container
	state := found.State
	down := !state.Running && !state.Restarting
	if (down || state.Restarting) && w.lastExit == "" {
		w.lastExit = strconv.Itoa(state.ExitCode)
	}
	switch {
	case down && !orTrue(w.args.MustRun) && state.ExitCode == 0:
		return true, nil
	case down && (w.args.Restart == "always" || w.args.Restart == "unless-stopped"):
		// The engine restarts a container that exits on its own. This one was stopped, or the engine shuts down.
		return false, w.unfinished("was stopped while it started (" + exitText(w.lastExit, state) + ")")
	case down:
		return false, w.failed(ctx, exitText(w.lastExit, state)+" "+seconds(age)+" after its start", state.Health)
	case found.RestartCount >= maxRestarts:
		return false, w.failed(ctx, fmt.Sprintf("restarts over and over: %d times in %s, last %s",
			found.RestartCount, seconds(age), exitText(w.lastExit, state)), state.Health)
	case (state.Restarting || found.RestartCount > 0) && !w.warned:
		w.warned = true
		w.c.warn("%s: %s %s after its start, the engine restarts it\n%s",
			w.args.Name, exitText(w.lastExit, state), seconds(age), w.logs(ctx))
	}
	if !w.args.Wait {
		return age >= settleTime && state.Running, nil
	}
	switch running := state.Running && !state.Restarting; {
	case running && state.Health != nil && state.Health.Status == container.Healthy:
		return true, nil
	case unhealthy(state):
		return false, w.failed(ctx, "is unhealthy", state.Health)
	case running && state.Health != nil && len(state.Health.Log) > 0 && strings.Contains(state.Health.Log[len(state.Health.Log)-1].Output, "Fix: "):
		// A probe whose output names a fix has found a fault that waiting does not remove.
		return false, w.failed(ctx, "cannot turn healthy", state.Health)
	}
	if age >= w.limit {
		return false, w.failed(ctx, fmt.Sprintf("did not turn healthy within %s", seconds(w.limit)), state.Health)
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
	if health := found.State.Health; health != nil {
		for _, probe := range health.Log {
			w.probes[probe.Start] = true
		}
		if n := len(health.Log); n > 0 {
			text += fmt.Sprintf(", probe %d: %s", len(w.probes), w.probeText(health.Log[n-1], lastLine))
		}
	}
	w.c.status("%s", text)
}

// probeText returns what a probe printed, or else its exit code.
func (w *watch) probeText(probe *container.HealthcheckResult, cut func(string) string) string {
	if text := cut(probe.Output); text != "" {
		return w.c.redact(text)
	}
	return fmt.Sprintf("exit code %d", probe.ExitCode)
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

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// failed says what happened, with the last probe and the last lines of the log.
func (w *watch) failed(ctx context.Context, what string, health *container.Health) error {
	text := fmt.Sprintf("container %s %s", w.args.Name, what)
	if health != nil && len(health.Log) > 0 {
		probe := health.Log[len(health.Log)-1]
		text += fmt.Sprintf("\nits last probe: %s", w.probeText(probe, strings.TrimSpace))
	}
	text += fmt.Sprintf("\n%s\nFix: the container stays for inspection (`docker logs %s`); remove the cause, and the next `pulumi up` replaces it",
		w.logs(ctx), w.args.Name)
	return &initError{reason: text, summary: what}
}

func (w *watch) cancelled() error {
	return w.unfinished("was still starting when the run was cancelled")
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
	stream, err := w.c.engine.ContainerLogs(ctx, w.id, client.ContainerLogsOptions{
		ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(logLines),
	})
	if err != nil {
		return "its log cannot be read: " + err.Error()
	}
	defer func() { _ = stream.Close() }()
	var log bytes.Buffer
	if _, err := stdcopy.StdCopy(&log, &log, stream); err != nil {
		return "its log cannot be read: " + err.Error()
	}
	text := strings.TrimSpace(log.String())
	if text == "" {
		return "its log is empty"
	}
	lines := strings.Split(w.c.redact(text), "\n")
	if len(lines) > logLines {
		lines = lines[len(lines)-logLines:]
	}
	return "last lines of its log:\n    " + strings.Join(lines, "\n    ")
}
