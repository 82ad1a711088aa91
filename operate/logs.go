package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/muesli/termenv"

	"trading-platform/plan"
)

// LogOptions say which lines Logs prints, and how.
type LogOptions struct {
	Follow bool   // go on with new lines until the context ends, also of containers that take the place of these
	Since  string // a time or a duration, such as 2026-01-02T15:04:05Z or 10m; empty for the beginning
	Tail   string // how many lines of each container: a number, or "all"
	JSON   bool   // one JSON object a line
}

// line is one line of a log.
type line struct {
	Time    time.Time `json:"time"`
	Service string    `json:"service"`
	Stream  string    `json:"stream"`
	Text    string    `json:"text"`
}

// logs prints the lines of several containers.
type logs struct {
	*Services
	options LogOptions
	out     io.Writer
	labels  map[string]string // by name, what a line begins with

	mu   sync.Mutex
	last map[string]time.Time // by name, the latest line that was printed
	stop context.CancelCauseFunc
}

// Logs prints the logs of the services in the order of time. A container that does not exist has no lines.
func (s *Services) Logs(ctx context.Context, options LogOptions, out io.Writer) error {
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	l := &logs{Services: s, options: options, out: out, labels: map[string]string{}, last: map[string]time.Time{}, stop: stop}
	width := 0
	for _, c := range s.Containers {
		width = max(width, len(c.Replica))
	}
	output := termenv.NewOutput(out) // without colours unless it is a terminal
	for i, c := range s.Containers {
		l.labels[c.Replica] = output.String(fmt.Sprintf("%-*s |", width, c.Replica)).Foreground(termenv.ANSIColor(1 + i%6)).String()
	}
	// What starts from now on is followed, whatever happens while the first lines are read.
	var started client.EventsResult
	if options.Follow {
		started = s.Engine.Events(reading, client.EventsListOptions{Filters: client.Filters{}.Add("type", string(events.ContainerEventType)).
			Add("event", string(events.ActionStart)).Add("label", plan.StackLabel+"="+s.Plan.Stack)})
	}
	l.history(reading)
	if options.Follow {
		l.follow(reading, started)
	}
	if ctx.Err() != nil {
		return nil // the user has ended it
	}
	return context.Cause(reading)
}

// follow prints new lines until the context ends.
func (l *logs) follow(ctx context.Context, started client.EventsResult) {
	var readers sync.WaitGroup
	read := func(c Container, tail string) {
		l.mu.Lock()
		printed := l.last[c.Replica]
		l.mu.Unlock()
		wanted := client.ContainerLogsOptions{Follow: true, Since: l.options.Since, Tail: tail}
		if !printed.IsZero() {
			wanted.Since, wanted.Tail = strconv.FormatInt(printed.Unix(), 10), "all"
		}
		readers.Go(func() {
			l.read(ctx, c, wanted, func(one line) {
				if one.Time.After(printed) {
					l.print(one)
				}
			})
		})
	}
	for _, c := range l.Containers {
		read(c, "0") // history has printed the others
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case err := <-started.Err:
			l.stop(fmt.Errorf("the engine's events: %w. Fix: make sure that `docker info` works, then run this command again", err))
		case event := <-started.Messages:
			if i := slices.IndexFunc(l.Containers, func(c Container) bool { return c.Name == event.Actor.Attributes["name"] }); i >= 0 {
				read(l.Containers[i], "all")
			}
		}
	}
	readers.Wait()
}

// history prints the lines that the containers have so far.
func (l *logs) history(ctx context.Context) {
	read := make([][]line, len(l.Containers))
	var readers sync.WaitGroup
	wanted := client.ContainerLogsOptions{Since: l.options.Since, Tail: l.options.Tail}
	for i, c := range l.Containers {
		readers.Go(func() {
			l.read(ctx, c, wanted, func(one line) { read[i] = append(read[i], one) })
		})
	}
	readers.Wait()
	all := slices.Concat(read...)
	slices.SortStableFunc(all, func(a, b line) int { return a.Time.Compare(b.Time) })
	for _, one := range all {
		l.print(one)
	}
}

// read calls each with every line of a container's log. An error ends all.
func (l *logs) read(ctx context.Context, c Container, options client.ContainerLogsOptions, each func(line)) {
	options.ShowStdout, options.ShowStderr, options.Timestamps = true, true, true
	stream, err := l.Engine.ContainerLogs(ctx, c.Name, options)
	if err == nil {
		stdout, stderr := &splitter{c.Replica, "stdout", nil, each}, &splitter{c.Replica, "stderr", nil, each}
		_, err = stdcopy.StdCopy(stdout, stderr, stream)
		_ = stream.Close()
	}
	if err != nil && !cerrdefs.IsNotFound(err) {
		l.stop(fmt.Errorf("the log of %s: %w", c.Replica, err))
	}
}

// splitter makes lines of what is written to it. Each begins with its time, in a form of fixed meaning.
type splitter struct {
	service, stream string
	rest            []byte
	each            func(line)
}

func (s *splitter) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	for {
		one, rest, ok := bytes.Cut(s.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		at, text, _ := strings.Cut(string(one), " ")
		when, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			return 0, err
		}
		s.each(line{when, s.service, s.stream, strings.TrimSuffix(text, "\r")})
		s.rest = rest
	}
}

// print prints a line.
func (l *logs) print(one line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one.Time.After(l.last[one.Service]) {
		l.last[one.Service] = one.Time
	}
	var err error
	if l.options.JSON {
		err = json.NewEncoder(l.out).Encode(one)
	} else {
		_, err = fmt.Fprintln(l.out, l.labels[one.Service], one.Text)
	}
	if err != nil {
		l.stop(fmt.Errorf("printing the log of %s: %w", one.Service, err))
	}
}
