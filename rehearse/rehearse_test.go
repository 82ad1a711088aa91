package rehearse

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/review"
)

func TestWhatHappenedToContainers(t *testing.T) {
	for name, test := range map[string]struct {
		was, is map[string]string
		want    string
	}{
		"nothing":           {map[string]string{"1": "a"}, map[string]string{"1": "a"}, "kept"},
		"a new service":     {nil, map[string]string{"1": "a"}, "created"},
		"a service less":    {map[string]string{"1": "a"}, nil, "deleted"},
		"another container": {map[string]string{"1": "a"}, map[string]string{"1": "b"}, "replaced"},
		"replicas":          {map[string]string{"1": "a"}, map[string]string{"1": "a", "2": "b", "3": "c"}, "created"},
		"other, and fewer":  {map[string]string{"1": "a", "2": "b"}, map[string]string{"1": "c"}, "deleted, replaced"},
		"nowhere":           {nil, nil, "kept"},
	} {
		assert.Equal(t, test.want, changed(test.was, test.is), name)
	}
}

func TestOutagesLastFromAnswerToAnswer(t *testing.T) {
	start := time.Now()
	one := &target{answered: start}
	for second, answers := range []bool{true, true, false, false, true, true, false, true} {
		one.note(answers, start.Add(time.Duration(second)*time.Second))
	}
	assert.Equal(t, 3*time.Second+2*time.Second, one.outage)
	assert.Equal(t, [2]int{8, 3}, [2]int{one.calls, one.failed})
	assert.False(t, one.down)
}

// A proxy that closes each connection at once, as Docker's does for a container without a server, does not count as one that listens.
func TestListens(t *testing.T) {
	for name, test := range map[string]struct {
		serve func(net.Conn)
		want  bool
	}{
		"waits for its client": {func(c net.Conn) { time.Sleep(2 * time.Second); _ = c.Close() }, true},
		"speaks first":         {func(c net.Conn) { _, _ = c.Write([]byte("220 hello")); _ = c.Close() }, true},
		"closes at once":       {func(c net.Conn) { _ = c.Close() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			go func() {
				if c, err := l.Accept(); err == nil {
					test.serve(c)
				}
			}()
			assert.Equal(t, test.want, listens(context.Background(), l.Addr().String()))
			require.NoError(t, l.Close())
			assert.False(t, listens(context.Background(), l.Addr().String()), "nobody is there")
		})
	}
}

func TestCountsAreCompared(t *testing.T) {
	before := map[string]int{"rows of PostgreSQL": 30, "rows of public.a": 10, "rows of public.b": 20, "keys of Redis": 5}
	after := map[string]int{"rows of PostgreSQL": 35, "rows of public.a": 9, "rows of public.b": 26}
	assert.Equal(t, []review.Count{
		{Name: "keys of Redis", Before: 5, After: review.Unreadable}, {Name: "rows of PostgreSQL", Before: 30, After: 35}, {Name: "rows of public.a", Before: 10, After: 9},
	}, compareCounts(before, after))
}

// A name is the user's own, and its folder is locked, so that no other rehearsal takes it for one that was killed.
func TestARunningRehearsalIsNotSwept(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	id, lock, err := claim()
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(id, owner()))
	assert.DirExists(t, folder(id))
	another, _, err := claim()
	require.NoError(t, err)
	assert.NotEqual(t, id, another)
	locked, err := os.ReadDir(filepath.Dir(folder(id)))
	require.NoError(t, err)
	assert.Len(t, locked, 4)
	next := flock.New(folder(id) + ".lock")
	free, err := next.TryLock()
	require.NoError(t, err)
	assert.False(t, free, "while it runs")
	require.NoError(t, lock.Unlock())
	free, err = next.TryLock()
	require.NoError(t, err)
	assert.True(t, free, "when it was killed")
}
