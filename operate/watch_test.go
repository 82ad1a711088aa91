package operate

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/plan"
)

// write writes files of a checkout, by their paths in it.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
}

// built returns a service that is built from an app's folder.
func built(dir, app string) plan.Service {
	return plan.Service{Name: app, Containers: []string{"stack_" + app}, Image: plan.Image{Build: &plan.Build{
		Name: "stack/" + app + ":local", Context: dir, Dockerfile: filepath.Join(dir, "apps", app, "Dockerfile"),
		Contexts: []plan.Build{{Context: dir, Args: map[string]string{plan.FolderArg: "qlib"}}},
	}}}
}

func TestHolds(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		".dockerignore":        "data\n*.md\n",
		"apps/a/Dockerfile":    "FROM x AS build\nCOPY apps/a/ libs/*.py /app/\nADD conf /conf\nFROM y\nCOPY --from=build apps/b /out\n",
		"apps/all/Dockerfile":  "FROM x\nCOPY . /app\n",
		"apps/arg/Dockerfile":  "FROM x\nARG PART\nCOPY ${PART} /app\n",
		"apps/bind/Dockerfile": "FROM x\nRUN --mount=type=bind,target=/src make\n",
		"apps/bad/Dockerfile":  "FRUM x\n",
	})
	for file, want := range map[string]string{
		"apps/a/main.py":      "a all arg bind bad",
		"apps/a/Dockerfile":   "a all arg bind bad",
		"apps/b/main.py":      "all arg bind bad",
		"apps/all/Dockerfile": "all arg bind bad",
		"libs/one.py":         "a all arg bind bad",
		"libs/one.txt":        "all arg bind bad",
		"conf":                "a all arg bind bad",
		"qlib/x":              "a all arg bind bad",
		"data/prices.csv":     "",
		"README.md":           "",
		"../elsewhere":        "",
	} {
		var got []string
		for _, app := range []string{"a", "all", "arg", "bind", "bad"} {
			if holds(built(dir, app).Image.Build, filepath.Join(dir, file)) {
				got = append(got, app)
			}
		}
		assert.Equal(t, want, strings.Join(got, " "), file)
	}
}

func TestSynced(t *testing.T) {
	catalog.SetLocal([]catalog.Service{{Name: "web", Sync: []catalog.Sync{{From: "apps/web/static/", To: "/app/static"}, {From: "one.html", To: "/srv/index.html"}}}})
	t.Cleanup(func() { catalog.SetLocal(nil) })
	for file, want := range map[string]string{
		"apps/web/static/a/b.css": "/app/static", "apps/web/static": "/app/static", "one.html": "/srv/index.html", "apps/web/static2/b.css": "", "one.htmlx": "",
	} {
		got, _ := synced(plan.Service{Name: "web"}, "/src", filepath.Join("/src", file))
		assert.Equal(t, want, got.To, file)
	}
}

// TestWatch saves files while an update runs, into new folders too: each is in one update, and one runs at a time.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"apps/a/Dockerfile": "FROM x\nCOPY apps/a /app\n", "apps/b/Dockerfile": "FROM x\nCOPY apps/b /app\n", ".dockerignore": "data\n"})
	s := &Services{Plan: &plan.Plan{Stack: "dev"}}
	for _, app := range []string{"a", "b"} {
		service := built(dir, app)
		s.Containers = append(s.Containers, Container{Name: service.Containers[0], Replica: app, service: service})
	}
	updates, finish := make(chan []plan.Service), make(chan error)
	var mu sync.Mutex
	var said []string
	ready := make(chan bool, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Watch(t.Context(), dir, func(services []plan.Service) error { updates <- services; return <-finish }, func(line string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, line)
			if strings.HasPrefix(line, "watching ") {
				ready <- true
			}
		})
	}()
	<-ready
	next := func() (names []string) {
		t.Helper()
		select {
		case services := <-updates:
			for _, s := range services {
				names = append(names, s.Name)
			}
		case <-time.After(30 * time.Second):
			require.Fail(t, "no update")
		}
		return names
	}
	write(t, dir, map[string]string{"data/x": "ignored", "apps/a/one": "1", "apps/a/new/two": "2"})
	assert.Equal(t, []string{"a"}, next())
	write(t, dir, map[string]string{"apps/b/one": "1"})
	write(t, dir, map[string]string{"apps/a/new/two": "3"})
	select {
	case <-updates:
		require.Fail(t, "a second update begins while the first runs")
	case <-time.After(300 * time.Millisecond):
	}
	finish <- os.ErrDeadlineExceeded
	assert.Equal(t, []string{"a", "b"}, next(), "what was saved meanwhile is one update")
	finish <- nil
	write(t, dir, map[string]string{"data/x": "again"})
	select {
	case <-updates:
		require.Fail(t, "an update for a file that is ignored")
	case <-time.After(300 * time.Millisecond):
	}
	mu.Lock()
	defer mu.Unlock()
	text := strings.Join(said, "\n")
	assert.Contains(t, text, "a: not updated: i/o timeout. A failed build leaves the container as it was.")
	assert.Contains(t, text, "a, b: updated and healthy after")
	err := (&Services{Plan: &plan.Plan{Stack: "dev"}}).Watch(t.Context(), dir, nil, nil)
	require.ErrorContains(t, err, "none of the services is built from "+dir)
}
