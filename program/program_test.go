package program_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/engine"
	"trading-platform/engine/enginetest"
	"trading-platform/program"
	"trading-platform/settings"
)

// monitor is a fake Pulumi engine.
type monitor struct {
	mu      sync.Mutex
	all     []pulumi.MockResourceArgs
	outputs resource.PropertyMap // the stack's own last ones
	asked   []string             // the names of the stacks whose outputs were asked for
	failure error
	failing int    // how often to fail; 0 fails always
	export  string // what pulumi stack export would print
}

func (m *monitor) NewResource(args pulumi.MockResourceArgs) (string, resource.PropertyMap, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, args)
	outputs := args.Inputs.Copy()
	outputs["imageId"] = resource.NewStringProperty("sha256:abc")
	outputs["repoDigest"] = resource.NewStringProperty("image@sha256:abc")
	return args.Name, outputs, nil
}

func (m *monitor) Call(args pulumi.MockCallArgs) (resource.PropertyMap, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if args.Token != "pulumi:pulumi:readStackOutputs" {
		return nil, errors.New("unexpected call of " + args.Token)
	}
	m.asked = append(m.asked, args.Args["name"].StringValue())
	failure := m.failure
	if m.failing > 0 && len(m.asked) > m.failing {
		failure = nil
	}
	return resource.PropertyMap{"name": args.Args["name"], "outputs": resource.NewObjectProperty(m.outputs)}, failure
}

// run runs the program with a config on an engine, or without an engine if it is nil.
func run(t *testing.T, m *monitor, preview bool, e *enginetest.Engine, config map[string]string) error {
	t.Helper()
	text := map[string]string{}
	for key, value := range config {
		text["trading-platform:"+key] = value
	}
	encoded, err := json.Marshal(text)
	require.NoError(t, err)
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "apps", "reference"), 0o750))
	return pulumi.RunErr(func(ctx *pulumi.Context) error {
		return program.Run(ctx, program.Host{
			Getenv: func(name string) string {
				if name == "PULUMI_CONFIG" {
					return string(encoded)
				}
				return ""
			},
			Engine: func(context.Context, settings.Docker) (*client.Client, engine.Ref, error) {
				if e == nil {
					return nil, engine.Ref{}, errors.New("no engine here")
				}
				host := e.Start(t)
				c, err := client.New(client.WithHost(host))
				return c, engine.Ref{ID: "HERE", Host: host}, err
			},
			Export: func(context.Context, string, string) ([]byte, error) { return []byte(m.export), nil },
		})
	}, pulumi.WithMocksWithOrganization("organization", "trading-platform", "dev", m), func(info *pulumi.RunInfo) {
		info.DryRun, info.RootDirectory = preview, root
	})
}

func TestFourFaultsGiveOneErrorAndNothingIsRegistered(t *testing.T) {
	l := enginetest.Listen(t)
	offset := strconv.Itoa(l.Addr().(*net.TCPAddr).Port - 3000)
	for name, preview := range map[string]bool{"preview": true, "up": false} {
		t.Run(name, func(t *testing.T) {
			m := &monitor{}
			e := &enginetest.Engine{Containers: []container.Summary{{ID: "x", Names: []string{"/trading_platform_redis"}}}}
			err := run(t, m, preview, e, map[string]string{
				"profiles": `["workers"]`, "images": `{"reference":"ref:1"}`,
				"portOffset": offset, // puts grafana on the listener's port
				"portOfset":  "80",
			})
			require.ErrorContains(t, err, `4 things are wrong, and nothing was changed:
  1. trading-platform:portOfset: no such setting; did you mean portOffset?
     Fix: pulumi config rm -s dev portOfset
  2. trading-platform:ALERT_RECIPIENT_HASH_SECRET: required by alert_worker, but not set
     Fix: platform init -s dev generates one, or: pulumi config set -s dev --secret ALERT_RECIPIENT_HASH_SECRET
  3. container trading_platform_redis: taken by something else
     Fix: docker rm -f trading_platform_redis; or pulumi config set -s dev namePrefix <another>
  4. port `+l.Addr().String()+` of grafana: taken by a program on this host
     Fix: stop it (sudo ss -ltnp 'sport = :`+strconv.Itoa(l.Addr().(*net.TCPAddr).Port)+`' tells which), or pulumi config set -s dev portOffset 1000`)
			assert.Empty(t, m.all, "nothing is registered")
		})
	}
}

// An invalid value must not prevent the other checks.
func TestMalformedSettingsDoNotHideFaultsOfTheEngine(t *testing.T) {
	m := &monitor{}
	e := &enginetest.Engine{Containers: []container.Summary{{ID: "x", Names: []string{"/trading_platform_redis"}}}}
	err := run(t, m, false, e, map[string]string{
		"bindAddress": "everywhere", "subnet": "big", "nginxAddress": "first", "portOffset": "60000", "profiles": `["manual"]`,
		"images": `{"reference":"ref:1"}`,
	})
	for _, where := range []string{"bindAddress", "subnet", "nginxAddress", "portOffset", "WEB_CONSOLE_PASSWORD"} {
		assert.ErrorContains(t, err, "trading-platform:"+where)
	}
	assert.ErrorContains(t, err, "container trading_platform_redis")
	assert.Empty(t, m.all)
}

// The official plugin asks no registry with a password unless it is told in which file one is.
func TestTheOfficialProviderKnowsTheLogins(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths": {"registry.example": {"auth": "cmVhZGVyOmNhbmFyeQ=="}}}`), 0o600))
	t.Setenv("DOCKER_CONFIG", dir)
	for provider, want := range map[string]string{
		"official": `[{"address":"registry.example","configFile":"` + dir + `/config.json"}]`,
		"offline":  "null",
	} {
		m := &monitor{}
		require.NoError(t, run(t, m, false, nil, map[string]string{"provider": provider, "images": `{"redis": "registry.example/redis:7", "postgres": "other.example/postgres:16"}`}))
		i := slices.IndexFunc(m.all, func(r pulumi.MockResourceArgs) bool { return r.TypeToken == "pulumi:providers:docker" })
		require.GreaterOrEqual(t, i, 0)
		logins, err := json.Marshal(m.all[i].Inputs["registryAuth"].Mappable())
		require.NoError(t, err)
		assert.JSONEq(t, want, string(logins), "the file, and nothing of what is in it")
	}
}

func TestTheProviderIsRemembered(t *testing.T) {
	made := func(provider string) resource.PropertyMap {
		return resource.PropertyMap{"provider": resource.NewStringProperty(provider)}
	}
	for name, test := range map[string]struct {
		outputs resource.PropertyMap
		now     string
		want    string // the error
	}{
		"a new stack":        {nil, "offline", ""},
		"the same, official": {made("official"), "official", ""},
		"the same, offline":  {made("offline"), "offline", ""},
		"official, then offline": {made("official"), "offline", `One thing is wrong, and nothing was changed:
  1. trading-platform:provider: the stack was made with the official docker provider, and cannot be used with the offline one
     Fix: keep that provider: pulumi config set -s dev provider official; or change it and keep the data: pulumi config set -s dev provider official && pulumi destroy -s dev && pulumi config set -s dev provider offline && pulumi up -s dev`},
		"offline, then official": {made("offline"), "official", `the stack was made with the offline docker provider, and cannot be used with the official one`},
	} {
		t.Run(name, func(t *testing.T) {
			m := &monitor{outputs: test.outputs}
			err := run(t, m, false, nil, map[string]string{"provider": test.now})
			assert.Equal(t, []string{"organization/trading-platform/dev"}, m.asked)
			if test.want != "" {
				require.ErrorContains(t, err, test.want)
				assert.Empty(t, m.all)
				return
			}
			require.NoError(t, err)
			i := slices.IndexFunc(m.all, func(r pulumi.MockResourceArgs) bool { return r.TypeToken == "pulumi:providers:docker" })
			require.GreaterOrEqual(t, i, 0, "there is a provider")
			if version := m.all[i].RegisterRPC.Version; test.now == "offline" {
				assert.Contains(t, version, "-offline.", "ours, where both are installed")
			} else {
				assert.NotContains(t, version, "offline")
			}
		})
	}
	t.Run("that is just being written", func(t *testing.T) {
		m := &monitor{failure: errors.New("EOF"), failing: 2}
		require.NoError(t, run(t, m, false, nil, nil))
		assert.Len(t, m.asked, 3)
	})
	t.Run("that cannot be read", func(t *testing.T) {
		m := &monitor{failure: errors.New("the backend is away")}
		err := run(t, m, false, nil, nil)
		require.ErrorContains(t, err, "reading the stack's own last outputs: ")
		assert.Empty(t, m.all)
	})
}

// If everything runs according to the state, `pulumi up` does not check the engine.
func TestAnUpOfAStackThatIsDownIsRefused(t *testing.T) {
	last := resource.PropertyMap{"containers": resource.NewProperty([]resource.PropertyValue{resource.NewProperty("trading_platform_redis")})}
	export := `{"version": 3, "deployment": {"resources": [
		{"urn": "a", "type": "docker:index/container:Container", "id": "c", "inputs": {"name": "trading_platform_redis"}}]}}`
	ours := map[string]string{"trading-platform.stack": "dev", "trading-platform.id": "ours"}
	redis := container.Summary{ID: "c", Names: []string{"/trading_platform_redis"}, State: "running", Labels: ours}
	config := map[string]string{"portOffset": "17300", "identity": "ours"}

	err := run(t, &monitor{outputs: last, export: export}, false, &enginetest.Engine{}, config)
	require.ErrorContains(t, err, "stack dev: these run according to the state, but not on the engine: trading_platform_redis")
	require.ErrorContains(t, err, "make up STACK=dev; or, with pulumi alone: pulumi refresh -s dev, then pulumi up -s dev")
	require.NoError(t, run(t, &monitor{outputs: last, export: export}, true, &enginetest.Engine{}, config), "a preview warns")
	require.NoError(t, run(t, &monitor{outputs: last, export: `{"version": 3}`}, false, &enginetest.Engine{}, config), "after a refresh")
	require.NoError(t, run(t, &monitor{outputs: last}, false, &enginetest.Engine{Containers: []container.Summary{redis}}, config), "it runs: nothing is exported")
}

func TestAnotherEngineIsRefused(t *testing.T) {
	last := resource.PropertyMap{"engine": resource.NewProperty(resource.PropertyMap{
		"id": resource.NewProperty("THERE"), "host": resource.NewProperty("tcp://there:2375")})}
	for name, test := range map[string]struct {
		outputs resource.PropertyMap
		config  string
	}{
		"by the stack's last outputs": {last, "{}"},
		"by its settings":             {nil, `{"id": "THERE", "host": "tcp://there:2375"}`},
	} {
		t.Run(name, func(t *testing.T) {
			m := &monitor{outputs: test.outputs}
			err := run(t, m, false, &enginetest.Engine{}, map[string]string{"portOffset": "17300", "engine": test.config})
			require.ErrorContains(t, err, "stack dev runs on the engine at tcp://there:2375 (ID THERE)")
			assert.Empty(t, m.all)
		})
	}
	m := &monitor{}
	require.NoError(t, run(t, m, false, &enginetest.Engine{}, map[string]string{"portOffset": "17300"}))
	for _, r := range m.all {
		if r.TypeToken == "pulumi:providers:docker" {
			assert.Contains(t, r.Inputs["host"].StringValue(), "docker.sock", "the provider goes where the checks went")
			return
		}
	}
	assert.Fail(t, "no provider")
}

// A preview changes nothing, not even in the checkout.
func TestFoldersOfTheCheckoutAreCreatedOnlyByUp(t *testing.T) {
	for name, preview := range map[string]bool{"preview": true, "up": false} {
		t.Run(name, func(t *testing.T) {
			checkout := t.TempDir()
			require.NoError(t, run(t, &monitor{}, preview, &enginetest.Engine{}, map[string]string{
				"portOffset": "17300", "profiles": `["manual"]`, "WEB_CONSOLE_USER": "me", "WEB_CONSOLE_PASSWORD": "mine",
				"sourceDir": checkout, "images": `{"web_console":"console:1"}`,
			}))
			if preview {
				assert.NoDirExists(t, filepath.Join(checkout, "data"))
			} else {
				assert.DirExists(t, filepath.Join(checkout, "data"))
			}
		})
	}
}

func TestTheProgramRegistersTheStack(t *testing.T) {
	for name, preview := range map[string]bool{"preview": true, "up": false} {
		t.Run(name, func(t *testing.T) {
			m := &monitor{}
			require.NoError(t, run(t, m, preview, &enginetest.Engine{}, map[string]string{"portOffset": "17300"}))
			count := map[string]int{}
			for _, r := range m.all {
				count[r.TypeToken]++
				if r.Custom && r.TypeToken != "pulumi:providers:docker" {
					assert.Contains(t, r.Provider, "::docker::", "%s uses a default provider", r.Name)
				}
			}
			assert.Equal(t, 1, count["pulumi:providers:docker"])
			assert.Equal(t, 6, count["docker:index/container:Container"])
			assert.Equal(t, len(catalog.Volumes), count["docker:index/volume:Volume"])
			assert.Equal(t, 2, count["docker:index/network:Network"])
		})
	}
}

// An image is built on the engine's host, which can be another machine.
func TestBuildsAreForTheEnginesArchitecture(t *testing.T) {
	t.Chdir("..") // where the reference app's Dockerfile is
	for name, test := range map[string]struct {
		engine *enginetest.Engine
		want   string
	}{
		"of the engine": {&enginetest.Engine{Arch: "riscv64", Registry: true}, "linux/riscv64"},
		"this machine's, where none can be asked":    {nil, "linux/" + runtime.GOARCH},
		"this machine's, where the engine is silent": {&enginetest.Engine{Registry: true, Broken: []string{"/version"}}, "linux/" + runtime.GOARCH},
	} {
		t.Run(name, func(t *testing.T) {
			m := &monitor{}
			require.NoError(t, run(t, m, false, test.engine, map[string]string{
				"portOffset": "17300", "profiles": `["manual"]`, "WEB_CONSOLE_USER": "me", "WEB_CONSOLE_PASSWORD": "mine",
			}))
			built := 0
			for _, r := range m.all {
				if r.TypeToken == "docker:index/image:Image" {
					built++
					assert.Equal(t, test.want, r.Inputs["build"].ObjectValue()["platform"].StringValue())
				}
			}
			assert.Equal(t, 1, built)
		})
	}
}

// If the engine does not answer, the provider reports the cause.
func TestAnEngineThatDoesNotAnswerIsLeftToTheProvider(t *testing.T) {
	m := &monitor{}
	require.NoError(t, run(t, m, true, nil, nil))
	assert.NotEmpty(t, m.all)
}

func TestAnEngineThatFailsDuringThePreflightStopsTheRun(t *testing.T) {
	m := &monitor{}
	err := run(t, m, false, &enginetest.Engine{Broken: []string{"/networks"}}, map[string]string{"portOffset": "17300"})
	require.ErrorContains(t, err, "asking the engine for its networks: ")
	assert.Empty(t, m.all)
}

func TestAMalformedEnvironment(t *testing.T) {
	m := &monitor{}
	err := pulumi.RunErr(func(ctx *pulumi.Context) error {
		return program.Run(ctx, program.Host{Getenv: func(string) string { return "{" }})
	}, pulumi.WithMocks("trading-platform", "dev", m))
	require.ErrorContains(t, err, "reading PULUMI_CONFIG: ")
}

// Pulumi would start the servers of the new orchestrator while those of the old one use the same data.
func TestTheOrchestratorIsChangedOnlyWhileTheStackIsDown(t *testing.T) {
	names := resource.PropertyMap{"containers": resource.NewArrayProperty([]resource.PropertyValue{resource.NewStringProperty("trading_platform_redis")})}
	node := resource.PropertyMap{"node": resource.NewStringProperty("n1")}
	for name, test := range map[string]struct {
		outputs resource.PropertyMap
		now     string
		want    string
	}{
		"it is down":            {nil, "swarm", ""},
		"it stays on the Swarm": {node, "swarm", ""},
		"it stays on an engine": {names, "engine", ""},
		"from an engine to a Swarm": {names, "swarm", "trading-platform:orchestrator: is swarm, and the stack is up on: engine\n" +
			"     Fix: take it down first: pulumi config set -s dev orchestrator engine && platform down -s dev && pulumi config set -s dev orchestrator swarm; its data stays"},
		"from a Swarm to an engine": {node, "engine", "is engine, and the stack is up on: swarm"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &monitor{outputs: test.outputs}
			err := run(t, m, false, nil, map[string]string{"orchestrator": test.now, "images": `{"reference":"ref:1"}`})
			if test.want != "" {
				require.ErrorContains(t, err, test.want)
				assert.Empty(t, m.all)
				return
			}
			require.NoError(t, err)
		})
	}
}
