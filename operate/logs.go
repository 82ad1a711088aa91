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
	"golang.org/x/sync/errgroup"

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
	engine  client.APIClient
	options LogOptions
	out     io.Writer
	width   int                                 // of the longest name
	colours map[string]func(text string) string // by name

	mu   sync.Mutex
	last map[string]time.Time // by name, of the last line that was printed
	err  error                // of the first line that could not be printed
}

// Logs prints the logs of containers in the order of time. A container that does not exist has no lines.
func Logs(ctx context.Context, engine client.APIClient, p *plan.Plan, containers []Container, options LogOptions, out io.Writer) error {
	l := &logs{engine: engine, options: options, out: out, colours: map[string]func(string) string{}, last: map[string]time.Time{}}
	output := termenv.NewOutput(out) // without colours unless it is a terminal
	for i, c := range containers {
		l.width = max(l.width, len(c.Replica))
		colour := termenv.ANSIColor(1 + i%6) //nolint:gosec // 1 to 6
		l.colours[c.Replica] = func(text string) string { return output.String(text).Foreground(colour).String() }
	}
	// What starts from now on is followed, whatever happens while the first lines are read.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var started client.EventsResult
	if options.Follow {
		started = engine.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.Add("type", string(events.ContainerEventType)).
			Add("event", string(events.ActionStart)).Add("label", plan.StackLabel+"="+p.Stack)})
	}
	if err := l.history(ctx, containers); err != nil || !options.Follow {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	follow := func(c Container) {
		group.Go(func() error {
			l.mu.Lock()
			since := l.last[c.Replica]
			l.mu.Unlock()
			wanted := client.ContainerLogsOptions{Follow: true, Since: options.Since, Tail: "all"}
			if !since.IsZero() {
				wanted.Since = strconv.FormatInt(since.Unix(), 10) // print leaves out what it has printed
			} else {
				wanted.Tail = options.Tail
			}
			return l.read(ctx, c, wanted, l.print)
		})
	}
	for _, c := range containers {
		follow(c)
	}
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case err := <-started.Err:
				return err
			case event := <-started.Messages:
				if i := slices.IndexFunc(containers, func(c Container) bool { return c.Name == event.Actor.Attributes["name"] }); i >= 0 {
					follow(containers[i])
				}
			}
		}
	})
	err := group.Wait()
	if ctx.Err() != nil && l.err == nil {
		return nil // the user has ended it
	}
	return err
}

// history prints the lines that the containers have so far.
func (l *logs) history(ctx context.Context, containers []Container) error {
	var mu sync.Mutex
	var all []line
	group, groupCtx := errgroup.WithContext(ctx)
	for _, c := range containers {
		group.Go(func() error {
			return l.read(groupCtx, c, client.ContainerLogsOptions{Since: l.options.Since, Tail: l.options.Tail}, func(one line) {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, one)
			})
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b line) int { return a.Time.Compare(b.Time) })
	for _, one := range all {
		l.print(one)
	}
	return l.err
}

// read calls each with every line of a container's log.
func (l *logs) read(ctx context.Context, c Container, options client.ContainerLogsOptions, each func(line)) error {
	options.ShowStdout, options.ShowStderr, options.Timestamps = true, true, true
	stream, err := l.engine.ContainerLogs(ctx, c.Name, options)
	if cerrdefs.IsNotFound(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("the log of %s: %w", c.Replica, err)
	}
	defer func() { _ = stream.Close() }()
	stdout, stderr := &splitter{c.Replica, "stdout", nil, each}, &splitter{c.Replica, "stderr", nil, each}
	if _, err = stdcopy.StdCopy(stdout, stderr, stream); err != nil {
		return fmt.Errorf("the log of %s: %w", c.Replica, err)
	}
	return nil
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

// print prints a line, unless it was printed before.
func (l *logs) print(one line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.last[one.Service]; ok && !one.Time.After(last) && l.options.Follow || l.err != nil {
		return
	}
	l.last[one.Service] = one.Time
	if l.options.JSON {
		l.err = json.NewEncoder(l.out).Encode(one)
		return
	}
	name := fmt.Sprintf("%-*s |", l.width, one.Service)
	_, l.err = fmt.Fprintln(l.out, l.colours[one.Service](name), one.Text)
}
