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
			most = max(most, sum(below(os.Getpid())[1:], memory))
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
	name   string
	parent int
	cpu    float64 // seconds, with those of its children that have ended
	memory float64 // resident bytes
}

// look returns a process. It is zero if the process has ended.
func look(pid int) (p process) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	name, rest, ok := strings.Cut(string(text), ") ")
	if !ok {
		return p
	}
	fields := strings.Fields(rest)
	number := func(i int) float64 { n, _ := strconv.ParseFloat(fields[i-3], 64); return n } // the manual counts from 1
	_, p.name, _ = strings.Cut(name, " (")
	p.parent, p.memory = int(number(4)), number(24)*float64(os.Getpagesize())
	p.cpu = (number(14) + number(15) + number(16) + number(17)) / 100 // ticks a second, on every Linux that Go runs on
	return p
}

// below returns these processes with all that they started.
func below(pids ...int) []int {
	for i := 0; i < len(pids); i++ {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, file := range files {
			text, _ := os.ReadFile(file)
			for _, field := range strings.Fields(string(text)) {
				pid, _ := strconv.Atoi(field)
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func sum(pids []int, of func(process) float64) (total float64) {
	for _, pid := range pids {
		total += of(look(pid))
	}
	return total
}

func cpu(p process) float64    { return p.cpu }
func memory(p process) float64 { return p.memory }

// named returns the processes of this name.
func named(name string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, file := range files {
		if text, _ := os.ReadFile(file); strings.TrimSpace(string(text)) == name {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// engineCPU is about the engine of this host that has Docker's own pid file. Its containerd is its child, or a service.
func engineCPU() float64 {
	text, _ := os.ReadFile("/var/run/docker.pid")
	dockerd, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return sum(slices.DeleteFunc(append(named("containerd"), dockerd), func(pid int) bool {
		parent := look(pid).parent
		return pid != dockerd && parent != dockerd && parent != 1
	}), cpu)
}

// stackCPU returns the CPU seconds of a stack's containers so far, with those of their shims, which have started every probe.
func stackCPU(ctx context.Context, engine *client.Client, prefix string) (float64, error) {
	all, err := containersOf(ctx, engine, prefix)
	var shims []int
	for _, pid := range named("containerd-shim") {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if slices.ContainsFunc(all, func(c container.Summary) bool { return bytes.Contains(line, []byte(c.ID)) }) {
			shims = append(shims, pid)
		}
	}
	return sum(below(shims...), cpu), err
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
