//go:build live || official

package test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
)

// ownEngine is a Docker engine of a test's own, which it may restart. It has a network namespace of its own: in the host's
// it would take the other engine's bridge and rules away.
type ownEngine struct {
	t       *testing.T
	dir     string
	netns   string
	client  *client.Client
	process *exec.Cmd
}

func newOwnEngine(t *testing.T, references ...string) *ownEngine {
	t.Helper()
	e := &ownEngine{t: t, dir: t.TempDir(), netns: runID}
	info, err := engine.Info(t.Context(), client.InfoOptions{})
	require.NoError(t, err)
	config := map[string]string{"storage-driver": info.Info.Driver}
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
	load := "docker save " + strings.Join(references, " ") + " | docker -H " + e.host() + " load"
	runIn(t, e.dir, nil, "sh", "-c", load)
	return e
}

func (e *ownEngine) host() string { return "unix://" + filepath.Join(e.dir, "docker.sock") }

// start starts the engine and waits until it answers.
func (e *ownEngine) start() {
	e.t.Helper()
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(e.t, err)
	e.process = exec.Command("nsenter", "--net=/run/netns/"+e.netns, "dockerd", "--config-file", filepath.Join(e.dir, "daemon.json"),
		"--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"), "--pidfile", filepath.Join(e.dir, "pid"), "-H", e.host())
	e.process.Stdout, e.process.Stderr = log, log
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
