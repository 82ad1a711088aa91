package main

import (
	"bytes"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/exp/teatest"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	engines "trading-platform/engine"
	"trading-platform/engine/enginetest"
	"trading-platform/operate"
	"trading-platform/plan"
)

// watchedRedis returns the services of a base stack of which an engine has only redis, as planned and healthy.
func watchedRedis(t *testing.T) (*operate.Services, plan.Service, *enginetest.Engine) {
	t.Helper()
	tempClone(t)
	w, err := here()
	require.NoError(t, err)
	p, _, err := w.Resolve("base")
	require.NotNil(t, p, "%v", err)
	redis, _ := p.Lookup("redis")
	var env []string
	for _, e := range redis.Env {
		env = append(env, e.Name+"="+e.Value)
	}
	fake := &enginetest.Engine{
		Containers: []container.Summary{{ID: "r", Names: []string{"/" + redis.Containers[0]}, State: "running", Status: "Up", Image: redis.Image.Key(), Labels: redis.Labels(p, 0)}},
		Health:     map[string]string{"r": "healthy"}, Env: map[string][]string{"r": env},
	}
	engine, err := client.New(client.WithHost(fake.Start(t)))
	require.NoError(t, err)
	all, err := operate.Select(engine, engines.Ref{}, p, nil)
	require.NoError(t, err)
	return all, redis, fake
}

func TestWatch(t *testing.T) {
	all, _, _ := watchedRedis(t)
	shown := teatest.NewTestModel(t, newWatcher(t.Context(), all), teatest.WithInitialTermSize(160, 20))
	wait := func(texts ...string) {
		t.Helper()
		teatest.WaitFor(t, shown.Output(), func(all []byte) bool {
			for _, text := range texts {
				if !bytes.Contains(all, []byte(text)) {
					return false
				}
			}
			return true
		}, teatest.WithDuration(30*time.Second), teatest.WithCheckInterval(10*time.Millisecond))
	}
	wait("SERVICE", "WAITS FOR", "postgres", "missing", "redis", "healthy", "redis://127.0.0.1:6379")
	shown.Type("r")
	wait("error: container trading_platform_postgres of stack base does not exist.")
	shown.Send(tea.KeyMsg{Type: tea.KeyDown})
	shown.Type("r")
	wait("redis was restarted, and is healthy")
	shown.Type("q")
	shown.WaitFinished(t, teatest.WithFinalTimeout(30*time.Second))
}

func TestWatcher(t *testing.T) {
	all, _, fake := watchedRedis(t)
	w := newWatcher(t.Context(), all)
	press := func(key string) tea.Cmd {
		next, do := w.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(key)})
		w = next.(watcher)
		return do
	}
	for _, key := range []string{"r", "l", "j", "k"} {
		assert.Nil(t, press(key), "there is nothing to restart, to read or to select yet")
	}
	answer := func(msg tea.Msg) {
		next, _ := w.Update(msg)
		w = next.(watcher)
	}
	fake.Broken = []string{"/containers/json"}
	answer(w.look())
	assert.Contains(t, w.View(), "error: ", "the engine is away")
	fake.Broken = nil
	answer(w.look())
	assert.NotContains(t, w.View(), "error: ")
	answer(logMsg("one\ntwo"))
	assert.Equal(t, "one\ntwo\n\nesc: back  q: quit", w.View())
	next, _ := w.Update(tea.KeyMsg{Type: tea.KeyEsc})
	assert.Contains(t, next.View(), "SERVICE")
}

// The rows come from the engine: who is missing, whom it waits for, and how a container differs from the plan.
func TestWatchRows(t *testing.T) {
	all, redis, fake := watchedRedis(t)
	p := all.Plan
	row := func(replica string) map[string]string {
		rows, err := watchRows(t.Context(), all)
		require.NoError(t, err)
		columns := map[string]string{}
		for _, r := range rows {
			for i, title := range watchTitles {
				if r[0] == replica {
					columns[title] = r[i]
				}
			}
		}
		require.NotEmpty(t, columns, replica)
		return columns
	}
	assert.Equal(t, "healthy", row("redis")["HEALTH"])
	assert.Empty(t, row("redis")["DRIFT"])
	for _, s := range p.Services {
		if len(s.After) > 0 {
			assert.NotContains(t, row(s.Name)["WAITS FOR"], "redis", "it is healthy")
			assert.Equal(t, len(s.After) > 1 || s.After[0] != "redis", row(s.Name)["WAITS FOR"] != "", s.Name)
		}
	}
	c := &fake.Containers[0]
	for want, change := range map[string]func(){
		"paused":           func() { c.State = "paused" },
		"exited":           func() { c.State = "exited" },
		"image or command": func() { c.Labels = map[string]string{plan.StackLabel: "base", plan.IdentityLabel: p.Identity} },
		"of another stack": func() { c.Labels = nil },
		"image " + redis.Image.Key() + " is another one": func() { c.Image = "sha256:abc" },
	} {
		before := *c
		change()
		assert.Equal(t, want, row("redis")["DRIFT"])
		*c = before
	}
	if len(redis.Env) > 0 {
		fake.Env = nil
		assert.Contains(t, row("redis")["DRIFT"], "variable ")
	}
}
