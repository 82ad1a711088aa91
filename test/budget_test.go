//go:build live

package test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"trading-platform/catalog"
)

var update = flag.Bool("update", false, "write testdata/budget.txt anew")

const acceptBudget = "go test -tags live ./test -run TestBudget -update"

// TestBudget counts what the platform command asks of the engine, starts and writes in the life of a stack, and compares it
// with testdata/budget.txt. The stack consists of the same services whatever the catalog has besides, so that a new service
// needs no edit here: of each kind (a database, one that is given files, two of one image) it has some.
func TestBudget(t *testing.T) {
	t.Parallel()
	services := []string{"postgres", "redis", "prometheus", "loki_server", "promtail", "execution_gateway", "signal_service"}
	var others []string
	for _, name := range catalog.ServiceNames() {
		if !slices.Contains(services, name) {
			others = append(others, name)
		}
	}
	m := &meter{counts: map[string]int{}}
	l := newLive(t, prepareClone(t), map[string]any{"profiles": []string{"dev"}, "disabled": others})
	l.env = append(l.env, "DOCKER_HOST="+newProxy(t, m.before).host())
	made := l.platform("init") // builds the provider, and makes the stack
	require.NoError(t, made.err, made.out)

	spent := map[string]int{}
	for _, run := range [][2]string{{"up-new", "up"}, {"up-again", "up"}, {"preview", "preview"}, {"compared", "preview -- --diff"}, {"down", "down"}} {
		for figure, n := range m.meter(l, run[1]) {
			spent[run[0]+" "+figure] = n
		}
	}
	if *update {
		writeBudget(t, spent)
		return
	}
	budget := readBudget(t)
	figures := slices.Sorted(maps.Keys(spent))
	for figure := range budget {
		if _, still := spent[figure]; !still {
			figures = append(figures, figure)
		}
	}
	for _, figure := range figures {
		n, most := spent[figure], budget[figure]
		slack := 0
		if strings.HasSuffix(figure, "uploaded") { // the contents of the files change with what they configure
			slack = most / 5
		}
		switch {
		case n > most+slack:
			assert.Fail(t, "over the budget", "%s: %d, and the budget is %d. Fix: do without the %d more; or, if they are worth it, accept them by `%s`",
				figure, n, most, n-most, acceptBudget)
		case n < most-slack:
			assert.Fail(t, "under the budget", "%s: %d, and the budget is still %d. Fix: lower it, so that it stays so: `%s`", figure, n, most, acceptBudget)
		}
	}
}

const budgetHead = `# What each platform command costs for the stack of TestBudget: requests to the engine, processes (platform itself is one),
# replacements of the state file, and kilobytes of files for containers. The test fails at any other number; kilobytes may
# vary by a fifth. Left out are inspections of a container that is not healthy yet, because their number depends on time.
`

var budgetFile = filepath.Join("testdata", "budget.txt")

func writeBudget(t *testing.T, spent map[string]int) {
	var text strings.Builder
	text.WriteString(budgetHead)
	for _, figure := range slices.Sorted(maps.Keys(spent)) {
		fmt.Fprintf(&text, "%-44s %4d\n", figure, spent[figure])
	}
	require.NoError(t, os.WriteFile(budgetFile, []byte(text.String()), 0o644))
}

func readBudget(t *testing.T) map[string]int {
	text, err := os.ReadFile(budgetFile)
	require.NoError(t, err)
	budget := map[string]int{}
	for _, line := range regexp.MustCompile(`(?m)^([^#].*?) +(\d+)$`).FindAllStringSubmatch(string(text), -1) {
		var n int
		_, err := fmt.Sscan(line[2], &n)
		require.NoError(t, err)
		budget[line[1]] = n
	}
	return budget
}

// meter counts what passes between the platform command and the engine.
type meter struct {
	next   http.RoundTripper
	mu     sync.Mutex
	counts map[string]int
	bytes  int // of files for containers
}

func (m *meter) before(next http.RoundTripper) http.RoundTripper {
	m.next = next
	return m
}

// meter runs a command, and returns what it did.
func (m *meter) meter(l *live, command string) map[string]int {
	l.t.Helper()
	m.mu.Lock()
	m.counts, m.bytes = map[string]int{}, 0
	m.mu.Unlock()
	processes, writes := watchProcesses(l.t), watchRenames(l.t, filepath.Dir(l.stateFile()))
	r := l.start(command)
	programs, failed := processes(r.cmd.Process.Pid)
	said := l.wait(r)
	require.NoError(l.t, said.err, said.out)
	require.NoError(l.t, failed)
	l.t.Logf("%s started %s", command, strings.Join(programs, ", "))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts["processes"] = len(programs)
	m.counts["state writes"] = writes(filepath.Base(l.stateFile()))
	m.counts["kilobytes uploaded"] = (m.bytes + 1023) / 1024
	return m.counts
}

// RoundTrip passes a request on, and counts it.
func (m *meter) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/archive") {
		r.Body = &counted{r.Body, m}
	}
	answer, err := m.next.RoundTrip(r)
	if err != nil {
		return answer, err
	}
	call := callKind(r)
	if call == "GET /containers/*/json" {
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			return answer, err
		}
		answer.Body = io.NopCloser(bytes.NewReader(text))
		var found container.InspectResponse
		if json.Unmarshal(text, &found) == nil && found.State != nil && found.State.Running && found.State.Health != nil && found.State.Health.Status != container.Healthy {
			return answer, nil
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[call]++
	return answer, nil
}

// callKind is a request's method and path, with * for what an object is called.
func callKind(r *http.Request) string {
	path := strings.Split(regexp.MustCompile(`^/v1\.\d+`).ReplaceAllString(r.URL.Path, ""), "/")
	switch {
	case len(path) > 3 && path[1] == "images":
		path = []string{"", "images", "*", path[len(path)-1]}
	case len(path) > 2 && slices.Contains([]string{"containers", "networks", "volumes", "exec"}, path[1]) && path[2] != "json" && path[2] != "create":
		path[2] = "*"
	}
	return r.Method + " " + strings.Join(path, "/")
}

// counted is the body of a request whose bytes are counted.
type counted struct {
	io.ReadCloser
	m *meter
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.bytes += n
	return n, err
}

// watchProcesses has the kernel report every process from now on; the process connector does not miss one that has ended
// before anybody can look into /proc, and is open to several at once. It needs root. The function that it returns waits for
// the end of a process, and names the programs that it and its descendants ran: ? for one that has gone.
func watchProcesses(t testing.TB) func(root int) ([]string, error) {
	t.Helper()
	const processes, fork, exec, exit = 1, 1, 2, 1 << 31 // linux/connector.h, linux/cn_proc.h
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	require.NoError(t, err)
	require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20), "a buffer for what the whole machine starts; this needs root")
	require.NoError(t, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: processes}))
	listen, err := binary.Append(nil, binary.NativeEndian, struct {
		unix.NlMsghdr
		Index, Value, Seq, Ack uint32
		Len, Flags             uint16
		Listen                 uint32
	}{unix.NlMsghdr{Len: 40, Type: unix.NLMSG_DONE}, processes, 1, 0, 0, 4, 0, 1})
	require.NoError(t, err)
	require.NoError(t, unix.Sendto(fd, listen, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	return func(root int) (programs []string, err error) {
		defer func() { err = errors.Join(err, unix.Close(fd)) }()
		family := map[uint32]bool{}
		buffer := make([]byte, 4096)
		for {
			n, _, err := unix.Recvfrom(fd, buffer, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil { // ENOBUFS: events were lost
				return nil, fmt.Errorf("the kernel's events of processes: %w", err)
			}
			var event struct {
				_      [36]byte // the headers of netlink and of the connector
				What   uint32
				_      [12]byte // the CPU and the time
				Fields [4]uint32
			}
			if _, err := binary.Decode(buffer[:n], binary.NativeEndian, &event); err != nil {
				continue // an acknowledgement
			}
			switch of := event.Fields; {
			case event.What == fork && of[2] == of[3]: // a process, not a thread
				family[of[3]] = family[of[1]] || int(of[3]) == root
			case event.What == exec && family[of[1]]:
				name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", of[1]))
				if err != nil {
					name = []byte("?")
				}
				programs = append(programs, strings.TrimSpace(string(name)))
			case event.What == exit && int(of[0]) == root:
				return programs, nil
			}
		}
	}
}

// watchRenames remembers what takes its name in a folder, which is how Pulumi replaces a state. The function that it returns
// counts how often this was a file. inotify leaves out an event that equals the one before it, so that it is asked for what
// happens between two of them, too.
func watchRenames(t testing.TB, folder string) func(file string) int {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	require.NoError(t, err)
	_, err = unix.InotifyAddWatch(fd, folder, unix.IN_MOVE|unix.IN_CREATE)
	require.NoError(t, err)
	return func(file string) (count int) {
		defer func() { _ = unix.Close(fd) }()
		buffer := make([]byte, 1<<20) // for thousands of events
		n, err := unix.Read(fd, buffer)
		for rest := buffer[:max(n, 0)]; len(rest) > 0; {
			mask, size := binary.NativeEndian.Uint32(rest[4:]), unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(rest[12:])
			if name, _, _ := bytes.Cut(rest[unix.SizeofInotifyEvent:size], []byte{0}); mask&unix.IN_MOVED_TO != 0 && string(name) == file {
				count++
			}
			rest = rest[size:]
		}
		if !errors.Is(err, unix.EAGAIN) { // nothing happened
			require.NoError(t, err)
		}
		return count
	}
}
