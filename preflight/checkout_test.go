package preflight_test

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/engine"
	"trading-platform/engine/enginetest"
	"trading-platform/fault"
	"trading-platform/preflight"
)

// checkout is a checkout with these Dockerfiles, by their app, and the config of a workers stack that builds from it.
func checkout(t *testing.T, dockerfiles map[string]string) (dir string, config map[string]string) {
	t.Helper()
	dir = t.TempDir()
	for app, text := range dockerfiles {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "apps", app), 0o750))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "apps", app, "Dockerfile"), []byte(text), 0o600))
	}
	return dir, with(map[string]string{"profiles": `["workers"]`, "env": `{"ALERT_RECIPIENT_HASH_SECRET":"x"}`, "sourceDir": dir})
}

func TestAnIncompleteCheckout(t *testing.T) {
	dir, config := checkout(t, nil)
	missing := func(app, service string) fault.Fault {
		return fault.Fault{
			Where: filepath.Join(dir, "apps", app, "Dockerfile"), What: "does not exist, and " + service + " is built from it",
			Fix: "point sourceDir at a full checkout, or: pulumi config set -s test --path images." + service + " <reference>",
		}
	}
	assert.ElementsMatch(t, fault.List{missing("backtest_worker", "backtest_worker_high"), missing("alert_worker", "alert_worker")},
		findings(t, &enginetest.Engine{}, config), "each once, however many services want it; data is made")
}

func TestMakeFolders(t *testing.T) {
	dir, config := checkout(t, nil)
	p, _ := stackOf(t, config)
	here := engine.Ref{Host: client.DefaultDockerHost}
	owner := map[string]string{"SUDO_UID": "1234", "SUDO_GID": "5678"}
	made, err := preflight.MakeFolders(here, p, func(name string) string { return owner[name] })
	require.NoError(t, err)
	assert.Equal(t, []string{filepath.Join(dir, "data")}, made)
	info, err := os.Stat(filepath.Join(dir, "data"))
	require.NoError(t, err)
	assert.Equal(t, "drwxr-xr-x", info.Mode().String())
	uid := os.Geteuid()
	if uid == 0 {
		uid = 1234 // behind sudo
	}
	assert.Equal(t, strconv.Itoa(uid), strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid)))
	made, err = preflight.MakeFolders(here, p, os.Getenv)
	require.NoError(t, err)
	assert.Empty(t, made, "what exists stays as it is")
}

func TestBaseImages(t *testing.T) {
	const base = "registry.example/python:3.11"
	_, config := checkout(t, map[string]string{
		"backtest_worker": "ARG VERSION=3.10\nARG IMAGE=registry.example/python:${VERSION}\nFROM --platform=linux/amd64 $IMAGE AS Build\nFROM build AS next\nFROM scratch\nCOPY --from=next / /\n",
		"alert_worker":    "# syntax=docker/dockerfile:1\nFROM registry.example/python:3.11\n",
	})
	failing := func(base, services, first, cause string) fault.Fault {
		return fault.Fault{
			Where: "image " + base, What: "is not available, and " + services + " would be built from it: " + cause,
			Fix: "docker pull " + base + " must work; or name built images: pulumi config set -s test --path images." + first + " <reference>",
		}
	}
	const away = "Error response from daemon: the test's engine does not know GET /distribution/"
	t.Run("that cannot be had, once with all that they stop", func(t *testing.T) {
		assert.Equal(t, fault.List{
			failing("registry.example/python:3.10", "backtest_worker_high, backtest_worker_normal, backtest_worker_low", "backtest_worker_high", away+"registry.example/python:3.10/json"),
			failing(base, "alert_worker", "alert_worker", away+base+"/json"),
		}, findings(t, &enginetest.Engine{}, config))
	})
	t.Run("that the engine has", func(t *testing.T) {
		e := &enginetest.Engine{Images: map[string][]string{base: nil}}
		assert.Len(t, findings(t, e, config), 1, "the other")
	})
	t.Run("that a registry has", func(t *testing.T) {
		assert.Empty(t, findings(t, &enginetest.Engine{Registry: true}, config))
	})
	t.Run("of images that are built", func(t *testing.T) {
		e := &enginetest.Engine{Images: map[string][]string{"trading_platform/backtest_worker:local": nil, "trading_platform/alert_worker:local": nil}}
		assert.Empty(t, findings(t, e, config))
	})
	t.Run("of a Dockerfile that cannot be read, which its build tells", func(t *testing.T) {
		_, config := checkout(t, map[string]string{"backtest_worker": "FRM x", "alert_worker": "FROM scratch"})
		assert.Empty(t, findings(t, &enginetest.Engine{}, config))
	})
}

func TestDockerRoot(t *testing.T) {
	assert.Equal(t, fault.List{{
		Where: "trading-platform:dockerRoot", What: "is /var/lib/docker, and the engine keeps its containers' logs under /data/docker",
		Fix: "pulumi config set -s test dockerRoot /data/docker",
	}}, findings(t, &enginetest.Engine{Root: "/data/docker"}, with()))
	assert.Empty(t, findings(t, &enginetest.Engine{Root: "/data/docker"}, with(map[string]string{"dockerRoot": "/data/docker"})))
	assert.Empty(t, findings(t, &enginetest.Engine{Root: "/data/docker"}, with(map[string]string{"disabled": `["promtail"]`})), "nobody reads there")
}
