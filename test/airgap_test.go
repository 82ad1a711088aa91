//go:build live

package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/airgap"
)

// airgapPrefix starts the name of every container and volume that these tests make.
var airgapPrefix = runID + "-airgap_"

// TestAirgapImages makes every air-gap image that the engine lacks (minutes on a machine that never did, else nothing)
// and runs each as the stack does.
func TestAirgapImages(t *testing.T) {
	engine, err := client.New(client.FromEnv)
	require.NoError(t, err)
	references, err := airgap.References("..")
	require.NoError(t, err)
	var names []string
	for name := range references {
		names = append(names, name)
	}
	require.Subset(t, names, []string{"postgres", "redis", "prometheus", "nginx", "loki_server", "promtail"})
	require.NoError(t, airgap.Build(t.Context(), engine, "..", names, func(line string) { t.Log(line) }))

	t.Run("a second build does nothing, quickly", func(t *testing.T) {
		started := time.Now()
		require.NoError(t, airgap.Build(t.Context(), engine, "..", names, func(line string) { t.Error(line) }))
		assert.Less(t, time.Since(started), time.Second)
	})
	t.Run("an unknown name is refused with the known ones", func(t *testing.T) {
		err := airgap.Build(t.Context(), engine, "..", []string{"grafana"}, nil)
		require.ErrorContains(t, err, `no recipe for "grafana"; there are recipes for alertmanager, loki_server, nginx, node_exporter, postgres`)
	})

	for name, run := range map[string]func(*testing.T, string){
		"postgres": testPostgresImage, "redis": testRedisImage, "prometheus": testPrometheusImage,
		"nginx": testNginxImage, "loki_server": testLokiImage, "promtail": testPromtailImage, "reference": testReferenceImage,
		"alertmanager": testVersion, "node_exporter": testVersion, "postgres_exporter": testVersion, "redis_exporter": testVersion,
	} {
		if reference, made := references[name]; made {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				assert.NotEmpty(t, airgapInspect(t, reference).Config.Labels["org.opencontainers.image.source"], "source label")
				run(t, reference)
			})
		}
	}
}

func testPostgresImage(t *testing.T, image string) {
	config := airgapInspect(t, image).Config
	assert.Equal(t, "15", config.Labels[airgap.VersionLabel])
	assert.Contains(t, config.Env, "PG_MAJOR=15")
	assert.Equal(t, "SIGINT", config.StopSignal)

	t.Run("keeps its data over a clean stop and a new container", func(t *testing.T) {
		t.Parallel()
		volume := airgapVolume(t, "pgdata")
		arguments := []string{"-e", "POSTGRES_USER=trader", "-e", "POSTGRES_PASSWORD=p@ss'w", "-e", "POSTGRES_DB=market", "-v", volume + ":/var/lib/postgresql/data", image}
		first := airgapRun(t, "pg_first", arguments...)
		first.becomes(t, "accepting", "pg_isready", "-h", "127.0.0.1", "-U", "trader", "-d", "market")
		query := func(c airgapContainer, sql string) string {
			return c.exec(t, "env", "PGPASSWORD=p@ss'w", "psql", "-h", "127.0.0.1", "-U", "trader", "-d", "market", "-Atc", sql)
		}
		query(first, "CREATE TABLE fills (id int); INSERT INTO fills VALUES (42)")
		assert.Equal(t, "UTF8 en_US.utf8", query(first, "SELECT pg_encoding_to_char(encoding) || ' ' || datcollate FROM pg_database WHERE datname = 'market'"))
		assert.Equal(t, "postgres", first.exec(t, "stat", "-c", "%U", "/proc/1"), "user of the server")
		assert.Contains(t, first.exec(t, "cat", "/proc/net/tcp"), "00000000:1538", "listens for every host")

		address := first.address(t)
		refused, err := docker("run", "--rm", "--label", runLabel+"="+runID, "-e", "PGPASSWORD=wrong", image, "psql", "-h", address, "-U", "trader", "-d", "market", "-c", "SELECT 1")
		require.Error(t, err)
		assert.Contains(t, refused, "password authentication failed")

		first.stop(t)
		assert.Contains(t, first.logs(t), "database system is shut down")
		second := airgapRun(t, "pg_second", arguments...)
		second.becomes(t, "accepting", "pg_isready", "-h", "127.0.0.1", "-U", "trader", "-d", "market")
		assert.Equal(t, "42", query(second, "SELECT id FROM fills"))
		assert.Contains(t, second.logs(t), "database system was shut down at")
		assert.NotContains(t, second.logs(t), "initialised")
	})
	t.Run("runs what lies in docker-entrypoint-initdb.d", func(t *testing.T) {
		t.Parallel()
		container := airgapCreate(t, "pg_init", "-e", "POSTGRES_PASSWORD=x", "--tmpfs", "/var/lib/postgresql/data", image)
		folder := t.TempDir()
		require.NoError(t, exec.Command("sh", "-c", `cd "$1" && echo "CREATE TABLE seeded (id int);" >10.sql && echo 'psql -U "$POSTGRES_USER" -c "INSERT INTO seeded VALUES (7)"' >20.sh`, "sh", folder).Run())
		airgapMust(t, "cp", folder+"/.", string(container)+":/docker-entrypoint-initdb.d/")
		airgapMust(t, "start", string(container))
		container.becomes(t, "accepting", "pg_isready", "-h", "127.0.0.1")
		assert.Equal(t, "7", container.exec(t, "psql", "-U", "postgres", "-Atc", "SELECT id FROM seeded"))
	})
	t.Run("begins again after an interrupted first start", func(t *testing.T) {
		t.Parallel()
		volume := airgapVolume(t, "pghalf")
		airgapMust(t, "run", "--rm", "--label", runLabel+"="+runID, "-v", volume+":/var/lib/postgresql/data", "--entrypoint", "sh", image, "-c", "cd /var/lib/postgresql/data && mkdir -p .initialising base && touch .initialising/PG_VERSION")
		container := airgapRun(t, "pg_half", "-e", "POSTGRES_PASSWORD=x", "-v", volume+":/var/lib/postgresql/data", image)
		container.becomes(t, "accepting", "pg_isready", "-h", "127.0.0.1")
		assert.Contains(t, container.logs(t), "the first start was interrupted")
	})

	for name, refusal := range map[string]struct{ prepare, message string }{
		"data of another major version": {
			prepare: "echo 16 >/var/lib/postgresql/data/PG_VERSION",
			message: "the data in /var/lib/postgresql/data was made by PostgreSQL 16 and this image is PostgreSQL 15",
		},
		"a volume with something else in it": {
			prepare: "echo notes >/var/lib/postgresql/data/notes",
			message: "/var/lib/postgresql/data is not empty and holds no database",
		},
		"no password": {
			prepare: "export POSTGRES_PASSWORD=",
			message: "POSTGRES_PASSWORD is not set",
		},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			t.Parallel()
			started := time.Now()
			output, err := docker("run", "--rm", "--label", runLabel+"="+runID, "-e", "POSTGRES_PASSWORD=x", "--entrypoint", "sh", image, "-c", refusal.prepare+"; exec docker-entrypoint.sh postgres")
			require.Error(t, err)
			assert.Contains(t, output, refusal.message)
			assert.Less(t, time.Since(started), 20*time.Second)
		})
	}
}

func testRedisImage(t *testing.T, image string) {
	config := airgapInspect(t, image).Config
	assert.Contains(t, config.Env, "REDIS_VERSION="+config.Labels[airgap.VersionLabel])
	assert.Contains(t, airgapMust(t, "run", "--rm", "--label", runLabel+"="+runID, image, "redis-server", "--version"), "v="+config.Labels[airgap.VersionLabel])

	volume := airgapVolume(t, "redisdata")
	arguments := []string{"-v", volume + ":/data", image, "redis-server", "--appendonly", "yes"}
	first := airgapRun(t, "redis_first", arguments...)
	first.becomes(t, "PONG", "redis-cli", "ping")
	first.exec(t, "redis-cli", "set", "position", "long")
	assert.Equal(t, "redis", first.exec(t, "stat", "-c", "%U", "/proc/1"), "user of the server")
	assert.Equal(t, "PONG", airgapMust(t, "run", "--rm", "--label", runLabel+"="+runID, image, "redis-cli", "-h", first.address(t), "ping"), "from another container")
	first.stop(t)
	assert.Contains(t, first.logs(t), "Redis is now ready to exit")

	second := airgapRun(t, "redis_second", arguments...)
	second.becomes(t, "PONG", "redis-cli", "ping")
	assert.Equal(t, "long", second.exec(t, "redis-cli", "get", "position"))
}

func testPrometheusImage(t *testing.T, image string) {
	container := airgapRun(t, "prometheus", "-v", airgapVolume(t, "prometheusdata")+":/prometheus", image,
		"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus")
	container.becomes(t, "Ready", "wget", "-q", "-O", "-", "http://127.0.0.1:9090/-/ready")
	assert.Equal(t, "nobody", container.exec(t, "stat", "-c", "%U", "/proc/1"), "user of the server")
	assert.Contains(t, container.exec(t, "wget", "-q", "-O", "-", "http://127.0.0.1:9090/graph"), "Prometheus", "the web interface")
	version := container.exec(t, "promtool", "--version")
	assert.Contains(t, version, airgapInspect(t, image).Config.Labels[airgap.VersionLabel])
	container.stop(t)
}

func testVersion(t *testing.T, image string) {
	assert.Contains(t, airgapMust(t, "run", "--rm", "--label", runLabel+"="+runID, image, "--version"), airgapInspect(t, image).Config.Labels[airgap.VersionLabel])
}

func testNginxImage(t *testing.T, image string) {
	container := airgapRun(t, "nginx", image)
	container.becomes(t, "nginx", "wget", "-q", "-O", "-", "http://127.0.0.1/")
	assert.Contains(t, container.logs(t), `"GET / HTTP/1.1" 200`, "the access log goes to the container's log")
	assert.Contains(t, container.exec(t, "sh", "-c", "nginx -V 2>&1"), "nginx/"+airgapInspect(t, image).Config.Labels[airgap.VersionLabel])
	assert.Contains(t, container.exec(t, "sh", "-c", "ps -o user,args 2>/dev/null || busybox ps -o user,args"), "nginx", "user of the workers")
	container.stop(t)
}

func testLokiImage(t *testing.T, image string) {
	t.Run("alone, as its own user", func(t *testing.T) {
		t.Parallel()
		container := airgapRun(t, "loki_alone", image)
		container.becomes(t, `"version":"3.0.0"`, "wget", "-q", "-O", "-", "http://127.0.0.1:3100/loki/api/v1/status/buildinfo")
		assert.Equal(t, "loki", container.exec(t, "stat", "-c", "%U", "/proc/1"), "user of the server")
		container.becomes(t, `"margin call"`, "sh", "-c", `
wget -q -O - --header 'Content-Type: application/json' http://127.0.0.1:3100/loki/api/v1/push \
	--post-data '{"streams": [{"stream": {"job": "test"}, "values": [["'$(date +%s)'000000000", "margin call"]]}]}'
wget -q -O - 'http://127.0.0.1:3100/loki/api/v1/query_range?query=%7Bjob%3D%22test%22%7D'`)
		container.becomes(t, `"value":[`, "wget", "-q", "-O", "-", "http://127.0.0.1:3100/loki/api/v1/query?query=sum(count_over_time(%7Bjob%3D%22test%22%7D%5B5m%5D))")
	})
	t.Run("as root, with the stack's configuration", func(t *testing.T) {
		t.Parallel()
		container := airgapCreate(t, "loki", "--user", "0", "-v", airgapVolume(t, "lokidata")+":/tmp/loki", image, "-config.file=/etc/loki/loki-config.yml")
		airgapMust(t, "cp", "../infra/files/loki_server/etc/loki/loki-config.yml", string(container)+":/etc/loki/loki-config.yml")
		airgapMust(t, "start", string(container))
		container.becomes(t, "ready", "wget", "-q", "-O", "-", "http://127.0.0.1:3100/ready")
		container.stop(t)
	})
}

func testPromtailImage(t *testing.T, image string) {
	container := airgapCreate(t, "promtail", image, "-config.file=/etc/promtail/files.yml")
	config, log := t.TempDir()+"/files.yml", t.TempDir()+"/empty.log"
	require.NoError(t, os.WriteFile(log, nil, 0o644)) // a line would be sent again and again until there is a Loki
	require.NoError(t, os.WriteFile(config, []byte(`
server: {http_listen_port: 9080, grpc_listen_port: 0}
positions: {filename: /tmp/positions.yaml}
clients: [{url: "http://127.0.0.1:3100/loki/api/v1/push"}]
scrape_configs:
  - job_name: containers
    static_configs: [{targets: [localhost], labels: {__path__: /etc/promtail/empty.log}}]
`), 0o644))
	airgapMust(t, "cp", config, string(container)+":/etc/promtail/files.yml")
	airgapMust(t, "cp", log, string(container)+":/etc/promtail/empty.log")
	airgapMust(t, "start", string(container))
	container.becomes(t, "200", "bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/9080 && printf 'GET /ready HTTP/1.0\r\n\r\n' >&3 && read -r line <&3 && echo "$line"`)
	container.stop(t)
}

func testReferenceImage(t *testing.T, image string) {
	assert.Equal(t, "1000", airgapMust(t, "run", "--rm", "--label", runLabel+"="+runID, "--entrypoint", "sh", image, "-c",
		"test -x /app/reference && touch /app/data/backtest_results/x /app/data/models/x /app/locks/x && id -u"))
}

// airgapContainer is the name of a container, removed with its anonymous volumes when its test ends.
type airgapContainer string

func airgapRun(t *testing.T, name string, arguments ...string) airgapContainer {
	t.Helper()
	container := airgapCreate(t, name, arguments...)
	airgapMust(t, "start", string(container))
	return container
}

func airgapCreate(t *testing.T, name string, arguments ...string) airgapContainer {
	t.Helper()
	container := airgapContainer(airgapPrefix + name)
	t.Cleanup(func() { _, _ = docker("rm", "-fv", string(container)) })
	airgapMust(t, append([]string{"create", "--name", string(container), "--label", runLabel + "=" + runID}, arguments...)...)
	return container
}

// airgapVolume makes an empty volume that goes with the test, after its containers.
func airgapVolume(t *testing.T, name string) string {
	t.Helper()
	t.Cleanup(func() { _, _ = docker("volume", "rm", "-f", airgapPrefix+name) })
	return airgapMust(t, "volume", "create", "--label", runLabel+"="+runID, airgapPrefix+name)
}

func (c airgapContainer) exec(t *testing.T, command ...string) string {
	t.Helper()
	return airgapMust(t, append([]string{"exec", string(c)}, command...)...)
}

// becomes waits, a minute at most, until the command succeeds and prints what is wanted.
func (c airgapContainer) becomes(t *testing.T, want string, command ...string) {
	t.Helper()
	var output string
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(300 * time.Millisecond) {
		if output, err = docker(append([]string{"exec", string(c)}, command...)...); err == nil && strings.Contains(output, want) {
			return
		}
		if strings.Contains(output, "is not running") {
			break
		}
	}
	require.FailNowf(t, "never became ready", "%s: %v: %s\n%s", c, err, output, c.logs(t))
}

// stop stops the container as `docker stop` does and wants that it ended by itself, with success.
func (c airgapContainer) stop(t *testing.T) {
	t.Helper()
	airgapMust(t, "stop", "-t", "30", string(c))
	assert.Equal(t, "0", airgapMust(t, "inspect", "-f", "{{.State.ExitCode}}", string(c)), "exit code of %s\n%s", c, c.logs(t))
}

func (c airgapContainer) logs(t *testing.T) string {
	t.Helper()
	return airgapMust(t, "logs", string(c))
}

func (c airgapContainer) address(t *testing.T) string {
	t.Helper()
	return airgapMust(t, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", string(c))
}

type airgapImage struct {
	Config struct {
		Env        []string
		Labels     map[string]string
		StopSignal string
	}
}

func airgapInspect(t *testing.T, image string) airgapImage {
	t.Helper()
	var images []airgapImage
	require.NoError(t, json.Unmarshal([]byte(airgapMust(t, "image", "inspect", image)), &images))
	require.Len(t, images, 1)
	return images[0]
}

func airgapMust(t *testing.T, arguments ...string) string {
	t.Helper()
	output, err := docker(arguments...)
	require.NoError(t, err)
	return output
}
