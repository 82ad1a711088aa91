//go:build live

package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/certs"
)

// TestRemoteEngine drives a stack on the engine of another machine: one in a network namespace of its own, which is reached by a
// real ssh server, and over TLS with certificates of the test's own.
func TestRemoteEngine(t *testing.T) {
	t.Parallel()
	clone := prepareClone(t)
	t.Run("ssh", func(t *testing.T) {
		t.Parallel()
		e := newOwnEngine(t, nil)
		server := newSSHServer(t, e)
		l := newLive(t, clone, map[string]any{"disabled": []string{"grafana"}}) // many requests at once, on one ssh connection
		l.moveTo(e)
		l.env = append(withoutHost(l.env), "PATH="+server.bin+":"+filepath.Join(root, "tools", "bin")+":"+os.Getenv("PATH"))
		l.configure(map[string]any{"docker:host": "ssh://root@" + server.machine})

		up := l.lives(server.machine)
		assert.Contains(t, up, "platform forward -s "+l.name)
		l.isForwarded()

		l.t.Log("the connection is lost in the middle of an up")
		l.touch()
		cut := l.wait(l.during("up", "start", "postgres", func(*running) { server.stop() }))
		require.Error(t, cut.err, cut.out)
		assert.Contains(t, cut.out, "Fix: ", "what to do about it")
		gone := l.platform("status")
		require.Error(t, gone.err)
		assert.Contains(t, gone.out, "Fix: make this work: docker -H ssh://root@"+server.machine+" info")
		server.start()
		l.converges()
	})
	t.Run("tls", func(t *testing.T) {
		t.Parallel()
		e, files := newOwnEngine(t, nil), t.TempDir()
		machine := e.join()
		l := newLive(t, clone, nil)
		l.moveTo(e)
		_, err := certs.Ensure(files, certs.Options{Stack: l.name, Names: []string{machine}, Clients: []string{"admin"}})
		require.NoError(t, err)
		for from, to := range map[string]string{"ca.crt": "ca.pem", "clients/admin.crt": "cert.pem", "clients/admin.key": "key.pem"} {
			require.NoError(t, os.Symlink(filepath.Join(files, from), filepath.Join(files, to)))
		}
		e.stop()
		e.flags = []string{"-H", "tcp://" + machine + ":2376", "--tlsverify", "--tlscacert", files + "/ca.crt", "--tlscert", files + "/server.crt", "--tlskey", files + "/server.key"}
		e.start()
		host := e.flags[1]
		l.env = withoutHost(l.env)
		l.configure(map[string]any{"docker:host": host})
		refused := l.platform("up")
		require.Error(t, refused.err, "a client without a certificate")
		assert.Contains(t, refused.out, "Fix: make this work: docker -H "+host+" info")
		l.configure(map[string]any{"docker:certPath": files, "bindAddress": machine})

		l.lives(machine)
		l.configure(map[string]any{"expose": []string{"redis"}, "REDIS_PASSWORD": "only-in-this-test"})
		require.NoError(t, l.platform("up").err)
		assert.Contains(t, redisSays(t, net.JoinHostPort(machine, strconv.Itoa(6379+l.offset)), "PING"), "NOAUTH", "its port is reached from here")
	})
}

// withoutHost removes DOCKER_HOST, so that only the stack's own setting leads to the engine.
func withoutHost(env []string) (without []string) {
	for _, e := range env {
		if !strings.HasPrefix(e, "DOCKER_HOST=") {
			without = append(without, e)
		}
	}
	return without
}

// lives takes a stack through its life on another machine, and leaves it up with rows in its databases.
func (l *live) lives(machine string) (up string) {
	l.t.Helper()
	must := func(command string) string {
		l.t.Helper()
		said := l.platform(command)
		require.NoError(l.t, said.err, "%s\n%s", command, said.out)
		return said.out
	}
	checkout := l.t.TempDir()
	l.configure(map[string]any{"sourceDir": checkout, "profiles": []string{"workers"}, "ALERT_RECIPIENT_HASH_SECRET": "x"})
	refused := l.platform("up")
	require.Error(l.t, refused.err)
	assert.Contains(l.t, refused.out, checkout+"/data: is a folder of this machine, and backtest_worker_high, which mounts it, would run on "+machine)
	assert.Empty(l.t, l.containers(), "nothing was touched")
	l.configure(map[string]any{"sourceDir": nil, "profiles": nil, "ALERT_RECIPIENT_HASH_SECRET": nil})

	up = must("up")
	for tries := 1; !strings.Contains(must("up"), "nothing to change"); tries++ { // on a busy machine a probe can fail in between
		require.Less(l.t, tries, 3)
	}
	assert.Contains(l.t, must("preview -- --diff --expect-no-changes"), "unchanged")
	must("status")
	must("doctor")
	assert.Equal(l.t, "PONG\n", must("exec redis redis-cli ping"))
	assert.Contains(l.t, must("logs --tail 1 redis"), "redis")
	l.fill()
	file := filepath.Join(l.t.TempDir(), "remote.backup.zip")
	must("backup " + file)
	must("down")
	must("purge --yes")
	must("up")
	must("restore " + file)
	assert.Equal(l.t, l.rows, l.contents(), "what the backup held")
	return up
}

// isForwarded asserts that `platform forward` leads from this machine to the stack's ports, and ends when it is interrupted.
func (l *live) isForwarded() {
	l.t.Helper()
	port := fmt.Sprintf("127.0.0.1:%d", 6379+l.offset)
	_, err := net.Dial("tcp", port)
	require.Error(l.t, err, "the port is on the other machine")
	r := l.start("forward")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		c, err := net.Dial("tcp", port)
		if err == nil {
			_ = c.Close()
			break
		}
		require.True(l.t, time.Now().Before(deadline), "%s is not forwarded:\n%s", port, r.out)
	}
	assert.Contains(l.t, redisSays(l.t, port, "PING"), "PONG")
	require.NoError(l.t, r.cmd.Process.Signal(syscall.SIGINT))
	ended := l.wait(r)
	assert.NoError(l.t, ended.err, ended.out)
}

// redisSays sends Redis one command, and returns the first line of the answer.
func redisSays(t testing.TB, address, command string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	_, err = c.Write([]byte(command + "\r\n"))
	require.NoError(t, err)
	answer := make([]byte, 200)
	n, err := c.Read(answer)
	require.NoError(t, err)
	return string(answer[:n])
}

// sshServer is an ssh server on the machine of an engine of the test's own.
type sshServer struct {
	t       *testing.T
	machine string // its address
	bin     string // a folder with an ssh command that knows the server and has a key for it
	netns   string
	dir     string
	process *exec.Cmd
}

func newSSHServer(t *testing.T, e *ownEngine) *sshServer {
	t.Helper()
	s := &sshServer{t: t, machine: e.join(), netns: e.netns, dir: t.TempDir()}
	s.bin = filepath.Join(s.dir, "bin")
	for _, key := range []string{"host", "user"} {
		runIn(t, s.dir, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(s.dir, key))
	}
	write := func(name string, mode os.FileMode, lines ...string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(s.dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), []byte(strings.Join(lines, "\n")+"\n"), mode))
	}
	public, err := os.ReadFile(filepath.Join(s.dir, "host.pub"))
	require.NoError(t, err)
	write("known_hosts", 0o600, s.machine+" "+string(public))
	write("server", 0o600, "ListenAddress "+s.machine, "HostKey "+s.dir+"/host", "AuthorizedKeysFile "+s.dir+"/user.pub", "PidFile none", "UsePAM no",
		"StrictModes no", "PermitRootLogin prohibit-password", "PasswordAuthentication no", "SetEnv DOCKER_HOST="+e.host()+" PATH="+os.Getenv("PATH"))
	write("client", 0o600, "Host *", "IdentityFile "+s.dir+"/user", "IdentitiesOnly yes", "UserKnownHostsFile "+s.dir+"/known_hosts", "StrictHostKeyChecking yes")
	write("bin/ssh", 0o700, "#!/bin/sh", "exec /usr/bin/ssh -F "+s.dir+`/client "$@"`)
	require.NoError(t, os.MkdirAll("/run/sshd", 0o755)) // where sshd gives up its rights; Debian's service makes it too
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *sshServer) start() {
	s.t.Helper()
	s.process = exec.Command("nsenter", "--net=/run/netns/"+s.netns, "/usr/sbin/sshd", "-D", "-E", filepath.Join(s.dir, "log"), "-f", filepath.Join(s.dir, "server"))
	require.NoError(s.t, s.process.Start())
	require.Eventually(s.t, func() bool {
		return exec.Command(filepath.Join(s.bin, "ssh"), "root@"+s.machine, "true").Run() == nil
	}, 20*time.Second, 100*time.Millisecond, "the ssh server answers; it says in %s/log why not", s.dir)
}

// stop ends the server with all its connections.
func (s *sshServer) stop() {
	for _, pid := range append([]int{s.process.Process.Pid}, descendants(s.process.Process.Pid, "")...) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = s.process.Wait()
}
