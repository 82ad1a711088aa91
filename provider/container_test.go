package provider

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi/sdk/v3/go/property"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// probed is a container as an engine shows it.
func probed(state container.State, restarts int) container.InspectResponse {
	return container.InspectResponse{
		ID: "c1", Image: "sha256:one", State: &state, RestartCount: restarts,
		Config: &container.Config{
			Env: []string{"PATH=/bin", "A=1", "B=2"}, Labels: map[string]string{"a": "1", "b": "2", "image": "own"},
			Healthcheck: &container.HealthConfig{Test: []string{"CMD", "probe"}},
		},
		HostConfig: &container.HostConfig{
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyUnlessStopped},
			Resources:     container.Resources{Memory: 64 << 20, MemorySwap: 64 << 20},
		},
	}
}

func health(status container.HealthStatus, streak int, outputs ...string) *container.Health {
	h := &container.Health{Status: status, FailingStreak: streak}
	for i, output := range outputs {
		h.Log = append(h.Log, &container.HealthcheckResult{Start: time.Unix(int64(i), 0), ExitCode: 1, Output: output})
	}
	return h
}

var (
	starting = probed(container.State{Status: "running", Running: true, Health: health(container.Starting, 0)}, 0)
	healthy  = probed(container.State{Status: "running", Running: true, Health: health(container.Healthy, 0)}, 0)
	exited   = probed(container.State{Status: "exited", ExitCode: 137}, 0)
	created  = probed(container.State{Status: "created"}, 0)
	running  = probed(container.State{Status: "running", Running: true}, 0)
	ended    = probed(container.State{Status: "exited"}, 0)
	paused   = probed(container.State{Status: "paused", Running: true, Paused: true, Health: health(container.Healthy, 0)}, 0)
)

// once is what a container that runs to its end has other than one that stays.
var once = map[string]any{"wait": nil, "attach": true, "mustRun": false, "restart": nil, "healthcheck": nil}

func TestAContainerThatHasEndedStays(t *testing.T) {
	t.Parallel()
	for name, found := range map[string]container.InspectResponse{"as it should": ended, "with a failure": exited} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inputs := properties(merged(containerInputs, once))
			e := &fakeEngine{inspect: []container.InspectResponse{found, found, ended}}
			server := withEngine(t, e)
			read, err := server.Read(p.ReadRequest{Urn: urnOf(containerToken), ID: "c1", Inputs: inputs, Properties: inputs.Set(markerKey, property.New(Version))})
			require.NoError(t, err)
			assert.Equal(t, name == "with a failure", drifted(read.Properties, "running"))
			_, err = server.Update(p.UpdateRequest{Urn: urnOf(containerToken), ID: "c1", State: read.Properties, Inputs: inputs})
			require.NoError(t, err)
			assert.Equal(t, name == "with a failure", strings.Contains(strings.Join(e.calls, " "), "start"), "it runs again after a failure only: %s", e.calls)
		})
	}
}

// reason is why a resource exists and did not come up.
func reason(t *testing.T, partial *p.InitializationFailed) string {
	t.Helper()
	require.NotNil(t, partial, "nothing is recorded")
	require.Len(t, partial.Reasons, 1)
	return partial.Reasons[0]
}

// drifted reports whether drift of this kind is recorded.
func drifted(recorded property.Map, inner string) bool {
	v := recorded.Get(driftKey)
	return v.IsMap() && !v.AsMap().Get(inner).IsNull()
}

func TestCreateWaits(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		looks   []container.InspectResponse // the first is from before the start
		happens []happening
		changes map[string]any
		log     string
		want    []string // of the failure; none is success
		state   string
		within  time.Duration
	}{
		"no longer than an event takes": {
			looks: []container.InspectResponse{starting, starting, starting, healthy},
			happens: []happening{
				{after: 100 * time.Millisecond, action: events.ActionStart}, {after: 150 * time.Millisecond, action: events.ActionHealthStatusHealthy},
			},
			within: 250 * time.Millisecond,
		},
		"and tells the exit code of the last exit's event": {
			looks: []container.InspectResponse{
				starting, starting, probed(container.State{Status: "restarting", Running: true, Restarting: true}, 3),
			},
			happens: []happening{{after: 200 * time.Millisecond, action: events.ActionDie, exitCode: "42"}},
			want:    []string{"restarts over and over: 3 times in 0s, last exited with code 42"}, state: "exited with code 42", within: 200 * time.Millisecond,
		},
		"until it is healthy": {looks: []container.InspectResponse{starting, starting, starting, healthy}, within: 2 * time.Second},
		"not past an exit": {
			looks:   []container.InspectResponse{starting, starting, probed(container.State{Status: "exited", ExitCode: 3}, 0)},
			changes: map[string]any{"restart": nil},
			log:     "one\nfatal: no database, password hunter2secret\n",
			want: []string{
				"container stack_db exited with code 3 1s after its start", "fatal: no database, password [secret]",
				"docker logs stack_db", "the next `pulumi up` replaces it",
			},
			state: "exited with code 3 1s after its start", within: time.Second,
		},
		"out of memory": {
			looks:   []container.InspectResponse{starting, probed(container.State{Status: "exited", ExitCode: 137, OOMKilled: true}, 0)},
			changes: map[string]any{"restart": nil},
			want:    []string{"exited with code 137 (out of memory: raise the service's memory limit)", "its log is empty"},
			state:   "exited with code 137",
		},
		"not past a failing probe": {
			looks: []container.InspectResponse{
				starting, starting,
				probed(container.State{Running: true, Health: health(container.Unhealthy, 3, "connection refused")}, 0),
			},
			want: []string{"is unhealthy", "its last probe: connection refused"}, state: "is unhealthy", within: time.Second,
		},
		"not past three restarts": {
			looks: []container.InspectResponse{
				starting,
				probed(container.State{Status: "restarting", Running: true, Restarting: true, ExitCode: 2, Health: health(container.Unhealthy, 0)}, 1),
				probed(container.State{Status: "running", Running: true, Health: health(container.Starting, 0)}, 2),
				probed(container.State{Status: "restarting", Running: true, Restarting: true, ExitCode: 2}, 3),
			},
			want: []string{"restarts over and over: 3 times in 2s, last exited with code 2"}, state: "restarts over and over", within: 2 * time.Second,
		},
		"one restart is none too many": {
			looks: []container.InspectResponse{
				starting, probed(container.State{Status: "restarting", Running: true, Restarting: true, ExitCode: 2}, 1),
				probed(container.State{Running: true, Health: health(container.Healthy, 0)}, 1),
			},
			within: time.Second,
		},
		"for one that runs to its end": {
			looks: []container.InspectResponse{running, running, running, ended}, changes: once, within: 2 * time.Second,
		},
		"and one that ends at once": {looks: []container.InspectResponse{running, ended}, changes: once},
		"and does not take a failure for an end": {
			looks: []container.InspectResponse{running, running, exited}, changes: once, log: "no such table\n",
			want: []string{"container stack_db exited with code 137 1s after its start", "no such table"}, state: "exited with code 137", within: time.Second,
		},
		"nor for one that does not end": {
			looks: []container.InspectResponse{running}, changes: once, want: []string{"did not end within 30s"}, state: "did not end", within: 30 * time.Second,
		},
		"no longer than its limit": {
			looks: []container.InspectResponse{starting, probed(container.State{Running: true, Health: health(container.Starting, 0, "not yet")}, 0)},
			want:  []string{"did not turn healthy within 30s", "its last probe: not yet"}, state: "did not turn healthy", within: 30 * time.Second,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := &fakeEngine{inspect: c.looks, log: c.log, happens: c.happens}
				server := withEngine(t, e)
				inputs := properties(merged(merged(containerInputs, map[string]any{
					"envs": []any{"A=1", secret("PASSWORD=hunter2secret")},
				}), c.changes))
				before := time.Now()
				resp, err := server.Create(p.CreateRequest{Urn: urnOf(containerToken), Properties: inputs})
				assert.Equal(t, c.within, time.Since(before))
				assert.Empty(t, e.removed)
				if len(c.want) == 0 {
					require.NoError(t, err)
					assert.Equal(t, "c1", resp.ID)
					assert.True(t, resp.Properties.Get(failedKey).IsNull())
					assert.True(t, resp.Properties.Get("envs").HasSecrets())
					return
				}
				for _, want := range c.want {
					assert.Contains(t, reason(t, resp.PartialState), want)
				}
				assert.NotContains(t, reason(t, resp.PartialState), "hunter2secret")
				require.EqualError(t, err, reason(t, resp.PartialState))
				assert.Equal(t, "c1", resp.ID)
				assert.Contains(t, resp.Properties.Get(failedKey).AsString(), c.state)
				assert.True(t, resp.Properties.Get("envs").HasSecrets())
				assert.False(t, resp.Properties.Get(markerKey).IsNull())
			})
		})
	}
}

func TestCancelEndsTheWaitAndTheNextRunTakesItUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &fakeEngine{inspect: []container.InspectResponse{starting}}
		server := withEngine(t, e)
		go func() {
			time.Sleep(5500 * time.Millisecond)
			_ = server.Cancel()
		}()
		before := time.Now()
		made, err := server.Create(p.CreateRequest{Urn: urnOf(containerToken), Properties: properties(containerInputs)})
		require.Error(t, err)
		assert.Equal(t, 5500*time.Millisecond, time.Since(before))
		assert.Contains(t, reason(t, made.PartialState), "still starting when the run was cancelled")
		assert.True(t, made.Properties.Get(failedKey).IsNull())
		assert.True(t, drifted(made.Properties, "health"))

		e = &fakeEngine{inspect: []container.InspectResponse{starting, starting, healthy}}
		resp, err := withEngine(t, e).Update(p.UpdateRequest{
			Urn: urnOf(containerToken), ID: "c1", State: made.Properties, Inputs: properties(containerInputs),
		})
		require.NoError(t, err)
		assert.Equal(t, 3, e.looks)
		assert.True(t, resp.Properties.Get(driftKey).IsNull())
	})
}

func TestCreateHandsTheEngineTheContainer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &fakeEngine{inspect: []container.InspectResponse{healthy}}
		_, err := withEngine(t, e).Create(p.CreateRequest{Urn: urnOf(containerToken), Properties: properties(
			merged(containerInputs, map[string]any{
				"uploads": []any{
					map[string]any{"file": "/etc/db.conf", "content": "x"},
					map[string]any{"file": "/k", "content": "key", "permissions": "0600"},
				},
				"capabilities": map[string]any{"adds": []any{"CAP_NET_ADMIN"}}, "init": true,
				"securityOpts": []any{"no-new-privileges:true"}, "dnsOpts": []any{"ndots:1"},
			}))})
		require.NoError(t, err)
		made := e.created
		assert.Equal(t, "stack_db", made.Name)
		assert.Equal(t, []string{"A=1", "B=2"}, made.Config.Env)
		assert.Equal(t, 90*time.Second, made.Config.Healthcheck.Interval)
		assert.Len(t, made.Config.Labels[hashLabel], 64)
		delete(made.Config.Labels, hashLabel)
		assert.Equal(t, map[string]string{"a": "1", "b": "2"}, made.Config.Labels)
		assert.Equal(t, []string{"no-new-privileges:true"}, made.HostConfig.SecurityOpt)
		assert.Equal(t, []string{"ndots:1"}, made.HostConfig.DNSOptions)
		assert.Equal(t, []string{"data:/data", "/h:/c:ro"}, made.HostConfig.Binds)
		assert.Equal(t, int64(64<<20), made.HostConfig.Memory)
		assert.Equal(t, []string{"CAP_NET_ADMIN"}, made.HostConfig.CapAdd)
		assert.Equal(t, container.NetworkMode("one"), made.HostConfig.NetworkMode)
		assert.Equal(t, "10.9.0.2", made.NetworkingConfig.EndpointsConfig["one"].IPAMConfig.IPv4Address.String())
		assert.Equal(t, []string{"two"}, e.connected)
		for number, bindings := range made.HostConfig.PortBindings {
			assert.Equal(t, "5432/tcp 127.0.0.1 5433", fmt.Sprint(number, " ", bindings[0].HostIP, " ", bindings[0].HostPort))
		}

		files := map[string]string{}
		for r := tar.NewReader(bytes.NewReader(e.uploaded)); ; {
			header, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			content, err := io.ReadAll(r)
			require.NoError(t, err)
			files[header.Name] = fmt.Sprintf("%o %q", header.Mode, content)
		}
		assert.Equal(t, map[string]string{
			"etc/db.conf": `644 "x"`, "k": `600 "key"`,
		}, files)
	})
}

func TestCreateThatFailsBeforeTheStartLeavesNothing(t *testing.T) {
	t.Parallel()
	noProbe := probed(container.State{Status: "created"}, 0)
	noProbe.Config.Healthcheck = nil
	cases := map[string]struct {
		engine  *fakeEngine
		changes map[string]any
		want    []string
		removed int
	}{
		"name taken": {
			engine: &fakeEngine{orphan: &container.InspectResponse{Name: "/stack_db", Config: &container.Config{}}},
			want:   []string{"container stack_db: the name is used", "docker rm -f stack_db", "namePrefix"},
		},
		"image gone": {
			engine: &fakeEngine{createErr: cerrdefs.ErrNotFound}, want: []string{"`pulumi refresh`"},
		},
		"port taken": {
			engine: &fakeEngine{
				inspect:  []container.InspectResponse{created},
				startErr: errors.New("Bind for 127.0.0.1:5433 failed: port is already allocated"),
			},
			want: []string{"container stack_db: Bind for 127.0.0.1:5433", "portOffset"}, removed: 1,
		},
		"nothing to wait for": {
			engine:  &fakeEngine{inspect: []container.InspectResponse{noProbe}},
			changes: map[string]any{"healthcheck": nil},
			want:    []string{"wait is set, but neither the service nor its image has a healthcheck"}, removed: 1,
		},
		"startInterval on an old engine": {
			engine: &fakeEngine{version: "1.41"},
			changes: map[string]any{"healthcheck": map[string]any{
				"tests": []any{"CMD", "probe"}, "startInterval": "1s",
			}},
			want: []string{"startInterval needs Docker Engine 25 (API 1.44), this engine speaks API 1.41", "platform init"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := withEngine(t, c.engine).Create(p.CreateRequest{
				Urn: urnOf(containerToken), Properties: properties(merged(containerInputs, c.changes)),
			})
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			assert.Len(t, c.engine.removed, c.removed)
			assert.Nil(t, resp.PartialState, "nothing exists, nothing is recorded")
		})
	}
}

func TestReadMarksWhatDrifted(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		found    container.InspectResponse
		recorded map[string]any
		want     map[string]string
	}{
		"nothing":                   {found: healthy},
		"restarting is not stopped": {found: probed(container.State{Restarting: true}, 1)},
		"stopped":                   {found: exited, want: map[string]string{"running": "exit code 137"}},
		"paused":                    {found: paused, want: map[string]string{"running": "paused"}},
		"still starting since a cancelled run": {
			found: starting, recorded: map[string]any{driftKey: map[string]any{"health": "cancelled"}}, want: map[string]string{"health": "cancelled"},
		},
		"healthy since a cancelled run": {found: healthy, recorded: map[string]any{driftKey: map[string]any{"health": "cancelled"}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inputs := properties(containerInputs)
			recorded := properties(merged(merged(containerInputs, map[string]any{markerKey: Version}), c.recorded))
			resp, err := withEngine(t, &fakeEngine{inspect: []container.InspectResponse{c.found}}).Read(p.ReadRequest{
				Urn: urnOf(containerToken), ID: "c1", Inputs: inputs, Properties: recorded,
			})
			require.NoError(t, err)
			assert.Equal(t, "c1", resp.ID)
			assert.Equal(t, inputs, resp.Inputs)
			if len(c.want) == 0 {
				assert.Equal(t, recorded.Delete(driftKey), resp.Properties, "a read that finds nothing leaves the state as it was")
				return
			}
			drift := resp.Properties.Get(driftKey).AsMap()
			assert.Equal(t, len(c.want), drift.Len(), "%v", drift)
			for key, want := range c.want {
				assert.Contains(t, drift.Get(key).AsString(), want)
			}
		})
	}
}

func TestReadKeepsAFailure(t *testing.T) {
	t.Parallel()
	recorded := properties(merged(merged(containerInputs, ourState), map[string]any{failedKey: "is unhealthy"}))
	resp, err := withEngine(t, &fakeEngine{inspect: []container.InspectResponse{healthy}}).Read(p.ReadRequest{
		Urn: urnOf(containerToken), ID: "c1", Inputs: properties(containerInputs), Properties: recorded,
	})
	require.NoError(t, err)
	assert.Equal(t, "is unhealthy", resp.Properties.Get(failedKey).AsString())
}

func TestWhatIsGone(t *testing.T) {
	t.Parallel()
	server := withEngine(t, &fakeEngine{gone: true})
	recorded := properties(merged(containerInputs, ourState))
	read, err := server.Read(p.ReadRequest{Urn: urnOf(containerToken), ID: "c1", Inputs: properties(containerInputs), Properties: recorded})
	require.NoError(t, err)
	assert.Empty(t, read.ID)
	err = server.Delete(p.DeleteRequest{Urn: urnOf(containerToken), ID: "c1", OldInputs: properties(containerInputs), Properties: recorded})
	require.NoError(t, err)
	_, err = server.Update(p.UpdateRequest{Urn: urnOf(containerToken), ID: "c1", State: recorded, Inputs: properties(containerInputs)})
	assert.ErrorContains(t, err, "Fix: `pulumi refresh`")
}

func TestUpdateResumesAPausedContainer(t *testing.T) {
	t.Parallel()
	e := &fakeEngine{inspect: []container.InspectResponse{paused, healthy}}
	_, err := withEngine(t, e).Update(p.UpdateRequest{
		Urn: urnOf(containerToken), ID: "c1", Inputs: properties(containerInputs),
		State: properties(merged(merged(containerInputs, ourState), map[string]any{driftKey: map[string]any{"running": "paused"}})),
	})
	require.NoError(t, err)
	assert.Equal(t, []string{"unpause c1"}, e.calls)
}

// One failed answer of the engine is no fact about the container.
func TestWaitAsksAgain(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		fails  func(look int) error
		want   string
		failed bool
		within time.Duration
	}{
		"after a connection that broke": {
			fails: func(look int) error {
				if look == 2 || look == 3 {
					return errEngine
				}
				return nil
			},
			within: 2 * time.Second,
		},
		"until the limit, and can go on then": {
			fails: func(look int) error {
				if look > 1 {
					return errEngine
				}
				return nil
			},
			want: "could not be inspected for 30s: engine says no", within: 30 * time.Second,
		},
		"not for a container that is gone": {
			fails: func(look int) error {
				if look > 1 {
					return cerrdefs.ErrNotFound
				}
				return nil
			},
			want: "was removed while it started", failed: true,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := &fakeEngine{inspect: []container.InspectResponse{starting, starting, starting, healthy}, inspectErr: c.fails}
				before := time.Now()
				resp, err := withEngine(t, e).Create(p.CreateRequest{Urn: urnOf(containerToken), Properties: properties(containerInputs)})
				assert.Equal(t, c.within, time.Since(before))
				assert.Empty(t, e.removed)
				if c.want == "" {
					require.NoError(t, err)
					return
				}
				assert.Contains(t, reason(t, resp.PartialState), c.want)
				assert.Equal(t, c.failed, !resp.Properties.Get(failedKey).IsNull(), "only what failed is replaced")
				assert.Equal(t, !c.failed, drifted(resp.Properties, "health"))
			})
		})
	}
}

// The engine restarts what exits by itself: one that is down was stopped, perhaps with its engine.
func TestStoppedWhileItStartedIsTakenUp(t *testing.T) {
	t.Parallel()
	e := &fakeEngine{inspect: []container.InspectResponse{starting, exited}}
	resp, err := withEngine(t, e).Create(p.CreateRequest{Urn: urnOf(containerToken), Properties: properties(containerInputs)})
	require.Error(t, err)
	assert.Contains(t, reason(t, resp.PartialState), "was stopped while it started (exited with code 137)")
	assert.True(t, resp.Properties.Get(failedKey).IsNull())
}

// A start whose answer got lost may have started a database that writes its first files.
func TestStartWithoutAnAnswerIsTakenUp(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]*fakeEngine{
		"it runs": {inspect: []container.InspectResponse{created, healthy}, startErr: errEngine},
		"nobody knows": {inspect: []container.InspectResponse{created}, startErr: errEngine, inspectErr: func(look int) error {
			if look > 1 {
				return errEngine
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := withEngine(t, e).Create(p.CreateRequest{Urn: urnOf(containerToken), Properties: properties(containerInputs)})
			require.Error(t, err)
			assert.Contains(t, reason(t, resp.PartialState), "may not have started: engine says no")
			assert.Empty(t, e.removed)
			assert.True(t, resp.Properties.Get(failedKey).IsNull())
		})
	}
}

func TestDeleteGivesTheGraceTime(t *testing.T) {
	t.Parallel()
	e := &fakeEngine{}
	inputs := properties(containerInputs)
	err := withEngine(t, e).Delete(p.DeleteRequest{
		Urn: urnOf(containerToken), ID: "c1", OldInputs: inputs, Properties: properties(merged(containerInputs, ourState)),
	})
	require.NoError(t, err)
	require.Len(t, e.stopped, 1)
	assert.Equal(t, 60, *e.stopped[0].Timeout)
	require.Len(t, e.removed, 1)
	assert.True(t, e.removed[0].RemoveVolumes, "anonymous volumes go, as with the official plugin")
}

func TestUpdateTouchesOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	recorded := properties(merged(containerInputs, ourState))
	cases := map[string]struct {
		changes map[string]any
		updates int
	}{
		"state only":   {map[string]any{"waitTimeout": 99}, 0},
		"memory":       {map[string]any{"memory": 96, "memorySwap": -1}, 1},
		"CPU shares":   {map[string]any{"cpuShares": 16384}, 1},
		"a new policy": {map[string]any{"restart": nil}, 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &fakeEngine{inspect: []container.InspectResponse{healthy}}
			_, err := withEngine(t, e).Update(p.UpdateRequest{
				Urn: urnOf(containerToken), ID: "c1", State: recorded, Inputs: properties(merged(containerInputs, c.changes)),
			})
			require.NoError(t, err)
			assert.Len(t, e.updated, c.updates)
			if name == "memory" {
				assert.Equal(t, int64(-1), e.updated[0].Resources.MemorySwap)
			}
			if name == "CPU shares" {
				assert.Equal(t, int64(16384), e.updated[0].Resources.CPUShares)
			}
			if name == "a new policy" {
				assert.Equal(t, container.RestartPolicyDisabled, e.updated[0].RestartPolicy.Name)
			}
		})
	}
}

func TestPreviewsAskTheEngineNothing(t *testing.T) {
	t.Parallel()
	server := withEngine(t, nil)
	created, err := server.Create(p.CreateRequest{Urn: urnOf(remoteImageToken), DryRun: true, Properties: properties(map[string]any{"name": "a"})})
	require.NoError(t, err)
	assert.True(t, created.Properties.Get("imageId").IsComputed())
	updated, err := server.Update(p.UpdateRequest{
		Urn: urnOf(remoteImageToken), DryRun: true, Inputs: properties(map[string]any{"name": "a", "keepLocally": true}),
		State: properties(map[string]any{"name": "a", "imageId": "sha256:one", markerKey: "1"}),
	})
	require.NoError(t, err)
	assert.Equal(t, "sha256:one", updated.Properties.Get("imageId").AsString(), "no change is announced downstream")
	rebuilt, err := server.Update(p.UpdateRequest{
		Urn: urnOf(imageType), DryRun: true, Inputs: properties(map[string]any{"imageName": "a", "build": map[string]any{"context": "new"}}),
		State: properties(map[string]any{"imageName": "a", "build": map[string]any{"context": "."}, "repoDigest": "sha256:one", markerKey: "1"}),
	})
	require.NoError(t, err)
	assert.True(t, rebuilt.Properties.Get("repoDigest").IsComputed())
}
