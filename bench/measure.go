package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// cost is what a step took.
type cost struct {
	seconds float64
	cpu     float64 // seconds of the command and all that it started
	engine  float64 // CPU seconds of dockerd and containerd meanwhile, which others on the engine can add to
	memory  float64 // highest resident memory of the command and all that it started together, in bytes
}

// adopt makes this process the parent of whatever a command leaves behind, so that the CPU of a plugin that
// outlives its parent is counted too.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// measure runs a command, and returns what it took.
func measure(cmd *exec.Cmd) (c cost, err error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cpuBefore, engineBefore := reaped(), engineCPU()
	stop, sampled := make(chan struct{}), make(chan float64)
	go func() {
		most := 0.0
		for {
			sum := 0.0
			for _, p := range below(os.Getpid())[1:] {
				sum += p.memory
			}
			most = max(most, sum)
			select {
			case <-stop:
				sampled <- most
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	started := time.Now()
	err = cmd.Run()
	c.seconds = time.Since(started).Seconds()
	close(stop)
	c.memory = <-sampled
	for pid := 1; pid > 0; pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil) { //nolint:revive // reaps what the command left
	}
	c.cpu, c.engine = reaped()-cpuBefore, engineCPU()-engineBefore
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out.String())
	}
	return c, err
}

// reaped returns the CPU seconds of all processes below this one that have ended.
func reaped() float64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_CHILDREN, &u) // cannot fail with these arguments
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// process is what /proc/<pid>/stat says: see proc_pid_stat(5).
type process struct {
	pid, parent int
	name        string
	cpu         float64 // seconds, with those of its children that have ended
	memory      float64 // resident bytes
}

func processes() (all []process) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		text, err := os.ReadFile(file)
		name, rest, ok := strings.Cut(string(text), ") ")
		if err != nil || !ok {
			continue // it has ended
		}
		id, name, _ := strings.Cut(name, " (")
		fields := strings.Fields(rest)
		number := func(i int) float64 { n, _ := strconv.ParseFloat(fields[i-3], 64); return n } // the manual counts from 1
		const ticks = 100                                                                       // a second, on every Linux that Go runs on
		pid, _ := strconv.Atoi(id)
		all = append(all, process{pid, int(number(4)), name,
			(number(14) + number(15) + number(16) + number(17)) / ticks, number(24) * float64(os.Getpagesize())})
	}
	return all
}

// below returns these processes with all that they started.
func below(pids ...int) (found []process) {
	all := processes()
	for i := 0; i < len(pids); i++ {
		for _, p := range all {
			if p.pid == pids[i] {
				found = append(found, p)
			}
			if p.parent == pids[i] && !slices.Contains(pids, p.pid) {
				pids = append(pids, p.pid)
			}
		}
	}
	return found
}

func engineCPU() (sum float64) {
	for _, p := range processes() {
		if p.name == "dockerd" || p.name == "containerd" {
			sum += p.cpu
		}
	}
	return sum
}

// stackCPU returns the CPU seconds of a stack's containers so far, with those of their shims, which have started every probe.
func stackCPU(ctx context.Context, engine *client.Client, prefix string) (sum float64, err error) {
	all, err := containersOf(ctx, engine, prefix)
	var shims []int
	for _, p := range processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		if slices.ContainsFunc(all, func(c container.Summary) bool {
			return strings.HasPrefix(p.name, "containerd-shim") && bytes.Contains(line, []byte(c.ID))
		}) {
			shims = append(shims, p.pid)
		}
	}
	for _, p := range below(shims...) {
		sum += p.cpu
	}
	return sum, err
}

// steady returns the CPU that a running stack uses over a minute, in shares of one core: its containers and
// their probes, and the engine.
func steady(ctx context.Context, engine *client.Client, prefix string) (stack, around float64, err error) {
	before, err := stackCPU(ctx, engine, prefix)
	engineBefore := engineCPU()
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(time.Minute)
	now, err := stackCPU(ctx, engine, prefix)
	return (now - before) / 60, (engineCPU() - engineBefore) / 60, err
}

// noticed breaks two services, and returns how many seconds later the engine calls each unhealthy: one
// that answers with an error at once (redis, which then wants a password), and one that hangs.
func noticed(ctx context.Context, engine *client.Client, prefix, hanging string) (failed, hung float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Minute)
	defer cancel()
	failing, hanging := prefix+"_redis", prefix+"_"+hanging
	events := engine.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.Add("event", "health_status").Add("container", failing, hanging)})
	run, err := engine.ExecCreate(ctx, failing, client.ExecCreateOptions{Cmd: []string{"redis-cli", "config", "set", "requirepass", "changed"}})
	if err != nil {
		return 0, 0, err
	}
	started := time.Now()
	if _, err := engine.ExecStart(ctx, run.ID, client.ExecStartOptions{Detach: true}); err != nil {
		return 0, 0, err
	}
	if _, err := engine.ContainerKill(ctx, hanging, client.ContainerKillOptions{Signal: "STOP"}); err != nil {
		return 0, 0, err
	}
	defer func() {
		_, _ = engine.ContainerKill(context.WithoutCancel(ctx), hanging, client.ContainerKillOptions{Signal: "CONT"})
	}()
	for failed == 0 || hung == 0 {
		select {
		case m := <-events.Messages:
			after := time.Since(started).Seconds()
			switch name := m.Actor.Attributes["name"]; {
			case !strings.HasSuffix(string(m.Action), "unhealthy"):
			case name == failing && failed == 0:
				failed = after
			case name == hanging && hung == 0:
				hung = after
			}
		case err := <-events.Err:
			return failed, hung, fmt.Errorf("waiting for %s and %s to be unhealthy: %w", failing, hanging, err)
		}
	}
	return failed, hung, nil
}
