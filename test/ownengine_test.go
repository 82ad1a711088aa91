//go:build live || official

package test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// ownEngine is a Docker engine of a test's own, which it may restart. It has a network namespace of its own: in the host's
// it would take the other engine's bridge and rules away.
type ownEngine struct {
	t       *testing.T
	dir     string
	netns   string
	flags   []string // of dockerd, beside the usual ones
	client  *client.Client
	process *exec.Cmd
}

// newOwnEngine starts an engine that holds nothing. config is laid over its daemon.json.
func newOwnEngine(t *testing.T, config map[string]any) *ownEngine {
	t.Helper()
	e := &ownEngine{t: t, dir: t.TempDir(), netns: fmt.Sprintf("%s-%d", runID, stacks.Add(1))}
	info, err := engine.Info(t.Context(), client.InfoOptions{})
	require.NoError(t, err)
	config = with(map[string]any{"storage-driver": info.Info.Driver}, config)
	if strings.HasPrefix(info.Info.ServerVersion, "20.") { // its ID is that of a key, by default of one key for all engines of a host
		config["deprecated-key-path"] = filepath.Join(e.dir, "key.json")
	}
	text, err := json.Marshal(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(e.dir, "daemon.json"), text, 0o600))
	runIn(t, e.dir, nil, "ip", "netns", "add", e.netns)
	t.Cleanup(func() { runIn(t, e.dir, nil, "ip", "netns", "del", e.netns) })
	runIn(t, e.dir, nil, "ip", "-n", e.netns, "link", "set", "lo", "up")
	e.client, err = client.New(client.WithHost(e.host()))
	require.NoError(t, err)
	e.start()
	t.Cleanup(e.stop)
	return e
}

// load copies images from the engine that all tests share.
func (e *ownEngine) load(references ...string) {
	e.t.Helper()
	runIn(e.t, e.dir, nil, "sh", "-c", "docker save "+strings.Join(references, " ")+" | docker -H "+e.host()+" load")
}

// docker runs a docker command that must succeed.
func (e *ownEngine) docker(arguments ...string) string {
	e.t.Helper()
	out, err := docker(append([]string{"-H", e.host()}, arguments...)...)
	require.NoError(e.t, err)
	return out
}

// listen opens a port in the engine's network namespace.
func (e *ownEngine) listen(address string) net.Listener {
	e.t.Helper()
	var listener net.Listener
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and not unlocked: the thread ends with this function, and nothing else runs in the namespace
		var namespace *os.File
		if namespace, err = os.Open("/run/netns/" + e.netns); err != nil {
			return
		}
		defer func() { _ = namespace.Close() }()
		if err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err == nil {
			listener, err = net.Listen("tcp", address)
		}
	}()
	<-done
	require.NoError(e.t, err)
	return listener
}

func (e *ownEngine) host() string { return "unix://" + filepath.Join(e.dir, "docker.sock") }

// start starts the engine and waits until it answers.
func (e *ownEngine) start() {
	e.t.Helper()
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(e.t, err)
	e.process = exec.Command("nsenter", "--net=/run/netns/"+e.netns, "dockerd", "--config-file", filepath.Join(e.dir, "daemon.json"),
		"--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"), "--pidfile", filepath.Join(e.dir, "pid"), "-H", e.host())
	e.process.Args = append(e.process.Args, e.flags...)
	e.process.Stdout, e.process.Stderr = log, log
	e.process.Env = append(os.Environ(), "SSL_CERT_FILE="+filepath.Join(e.dir, "ca.crt")) // the authority that it trusts, where a test puts one
	require.NoError(e.t, e.process.Start())
	require.Eventually(e.t, func() bool {
		_, err := e.client.Ping(context.Background(), client.PingOptions{})
		return err == nil
	}, time.Minute, 100*time.Millisecond, "the test's own engine answers; it says in %s/log why not", e.dir)
}

// stop ends the engine in good order, with its containers.
func (e *ownEngine) stop() {
	_ = e.process.Process.Signal(syscall.SIGTERM)
	_ = e.process.Wait()
}

// join connects the engine's network namespace with this one, and returns the engine's address.
func (e *ownEngine) join() string {
	e.t.Helper()
	subnet := fmt.Sprintf("10.214.%d.", stacks.Add(1)%250)
	link := fmt.Sprintf("tp%d", os.Getpid()%100000*100+int(stacks.Add(1))%100)
	runIn(e.t, e.dir, nil, "ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", e.netns) // gone with the namespace
	runIn(e.t, e.dir, nil, "ip", "addr", "add", subnet+"1/30", "dev", link)
	runIn(e.t, e.dir, nil, "ip", "link", "set", link, "up")
	runIn(e.t, e.dir, nil, "ip", "-n", e.netns, "addr", "add", subnet+"2/30", "dev", "eth0")
	runIn(e.t, e.dir, nil, "ip", "-n", e.netns, "link", "set", "eth0", "up")
	return subnet + "2"
}
