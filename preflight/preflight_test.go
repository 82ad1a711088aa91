package preflight_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/engine"
	"trading-platform/engine/enginetest"
	"trading-platform/fault"
	"trading-platform/plan"
	"trading-platform/preflight"
	"trading-platform/settings"
)

func stackOf(t *testing.T, config map[string]string) (*plan.Plan, *settings.Settings) {
	t.Helper()
	set, err := settings.Load(settings.Source{Stack: "test", Root: "/clone", Config: config})
	require.NoError(t, err)
	p, err := plan.Resolve(set, nil)
	require.NoError(t, err)
	return p, set
}

func with(configs ...map[string]string) map[string]string {
	out := map[string]string{"portOffset": "17300"}
	for _, c := range configs {
		for key, value := range c {
			out[key] = value
		}
	}
	return out
}

// check runs the preflight of a stack with this config on an engine.
func check(t *testing.T, e *enginetest.Engine, config map[string]string) error {
	t.Helper()
	p, set := stackOf(t, config)
	c, err := client.New(client.WithHost(e.Start(t)))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return preflight.Check(context.Background(), c, engine.Ref{Root: e.Root, Host: c.DaemonHost()}, p, set, nil)
}

func findings(t *testing.T, e *enginetest.Engine, config map[string]string) fault.List {
	t.Helper()
	err := check(t, e, config)
	if err == nil {
		return nil
	}
	var list fault.List
	require.ErrorAs(t, err, &list)
	return list
}

func running(name string, labels map[string]string, ports ...container.PortSummary) container.Summary {
	return container.Summary{ID: name + "-id", Names: []string{"/" + name}, State: "running", Labels: labels, Ports: ports}
}

func port(address string, number int) container.PortSummary {
	return container.PortSummary{IP: netip.MustParseAddr(address), PublicPort: uint16(number), Type: "tcp"}
}

func net4(name, subnet string, labels map[string]string) network.Summary {
	n := network.Network{Name: name, ID: name + "-id", Labels: labels}
	if subnet != "" {
		n.IPAM.Config = []network.IPAMConfig{{Subnet: netip.MustParsePrefix(subnet)}}
	}
	return network.Summary{Network: n}
}

func stack(name string) map[string]string { return map[string]string{"trading-platform.stack": name} }

func project(name string) map[string]string {
	return map[string]string{"com.docker.compose.project": name}
}

func TestAnEmptyEngineHasNoFaults(t *testing.T) {
	assert.NoError(t, check(t, &enginetest.Engine{}, with()))
}

func TestObjectsOfTheStackItselfAreNoFaults(t *testing.T) {
	mine := stack("test")
	e := &enginetest.Engine{
		Containers: []container.Summary{
			running("trading_platform_postgres", mine, port("127.0.0.1", 22733)),
			running("trading_platform_grafana", mine, port("127.0.0.1", 20300)),
		},
		Networks: []network.Summary{
			net4("bridge", "172.17.0.0/16", nil),
			net4("trading_platform_default", "172.18.0.0/16", mine),
			net4("trading_platform_trading_platform", "172.28.0.0/16", mine),
			net4("old_prefix_trading_platform", "172.28.0.0/16", mine), // the next up replaces it
		},
		Volumes: []volume.Volume{{Name: "trading_platform_pgdata"}, {Name: "trading_platform_redisdata"}},
	}
	assert.NoError(t, check(t, e, with()))
}

func TestVersion(t *testing.T) {
	for name, test := range map[string]struct {
		actual, set string
		want        fault.List
	}{
		"too old for the provider": {"1.39", "", fault.List{{
			Where: "Docker engine", What: "speaks API 1.39 only; 1.40 is needed", Fix: "install Docker 19.03 or newer",
		}}},
		"the oldest": {"1.40", "", nil},
		"as set up":  {"1.44", "1.44", nil},
		"newer":      {"1.47", "1.44", nil},
		"older than set": {"1.41", "1.44", fault.List{{
			Where: "trading-platform:engineApi", What: "the stack was set up for API 1.44, and this engine speaks 1.41",
			Fix: "pulumi config set -s test engineApi '1.41', or: platform init -s test",
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, findings(t, &enginetest.Engine{API: test.actual}, with(map[string]string{"engineApi": test.set})))
		})
	}
}

func TestConnect(t *testing.T) {
	t.Run("an engine that does not answer", func(t *testing.T) {
		t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
		_, _, err := preflight.Connect(context.Background(), settings.Docker{})
		require.ErrorContains(t, err, "Docker engine: does not answer: ")
		require.ErrorContains(t, err, "Fix: start Docker (Docker Desktop, or: sudo systemctl start docker), or set DOCKER_HOST; docker info must work")
	})
	t.Run("an address that is none", func(t *testing.T) {
		t.Setenv("DOCKER_HOST", "nonsense")
		_, _, err := preflight.Connect(context.Background(), settings.Docker{})
		require.ErrorContains(t, err, "or set DOCKER_HOST")
	})
	t.Run("a second one on the host, with the first one's ID", func(t *testing.T) {
		t.Setenv("DOCKER_HOST", (&enginetest.Engine{ID: "HERE", Root: "/srv/docker"}).Start(t))
		c, here, err := preflight.Connect(context.Background(), settings.Docker{})
		require.NoError(t, err)
		require.NoError(t, c.Close())
		assert.ErrorContains(t, preflight.SameEngine("dev", engine.Ref{ID: "HERE", Host: "unix:///a"}, here), "(ID HERE in /srv/docker)")
	})
	for name, api := range map[string]string{"one that answers": "1.41", "one that is too old, which Check says": "1.39"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DOCKER_HOST", (&enginetest.Engine{API: api, ID: "HERE"}).Start(t))
			c, here, err := preflight.Connect(context.Background(), settings.Docker{})
			require.NoError(t, err)
			assert.Equal(t, engine.Ref{ID: "HERE", Host: os.Getenv("DOCKER_HOST")}, here)
			require.NoError(t, c.Close())
		})
	}
}

func TestAnEngineThatFailsIsAnError(t *testing.T) {
	for path, want := range map[string]string{
		"/containers/json": "asking the engine for its containers: ",
		"/networks":        "asking the engine for its networks: ",
		"/volumes":         "asking the engine for its volumes: ",
	} {
		t.Run(path, func(t *testing.T) {
			err := check(t, &enginetest.Engine{Broken: []string{path}}, with())
			require.ErrorContains(t, err, want)
			var list fault.List
			assert.NotErrorAs(t, err, &list)
		})
	}
}

const anotherPrefix = "give this one a namePrefix, portOffset and subnet of its own"

const downDev = "make down STACK=dev (its data stays, and this stack goes on with it)"

func TestContainerNames(t *testing.T) {
	for name, test := range map[string]struct {
		config     map[string]string
		containers []container.Summary
		want       fault.List
	}{
		"another stack, which a profile could be added to": {
			map[string]string{"profiles": `["workers"]`, "env": `{"ALERT_RECIPIENT_HASH_SECRET":"x"}`, "images": `{"reference":"ref:1"}`},
			[]container.Summary{running("trading_platform_postgres", stack("dev")), running("trading_platform_redis", stack("dev"))},
			fault.List{{
				Where: "container trading_platform_postgres, container trading_platform_redis", What: "taken by stack dev",
				Fix: downDev + "; or have both in one: add workers to profiles in Pulumi.dev.yaml and make up STACK=dev; or, for a second stack beside it, " + anotherPrefix,
			}},
		},
		"another stack, with nothing to add": {
			nil,
			[]container.Summary{running("trading_platform_redis", stack("dev"))},
			fault.List{{
				Where: "container trading_platform_redis", What: "taken by stack dev",
				Fix: downDev + "; or, for a second stack beside it, " + anotherPrefix,
			}},
		},
		"the old Compose stack": {
			nil,
			[]container.Summary{running("trading_platform_postgres", project("my-trading"))},
			fault.List{{
				Where: "container trading_platform_postgres", What: "taken by Docker Compose project my-trading",
				Fix: "docker compose -p my-trading down (without -v: the volumes stay, and are taken over)",
			}},
		},
		"anything else": {
			nil,
			[]container.Summary{running("trading_platform_redis", nil)},
			fault.List{{
				Where: "container trading_platform_redis", What: "taken by something else",
				Fix: "docker rm -f trading_platform_redis; or pulumi config set -s test namePrefix <another>",
			}},
		},
		"a replica's": {
			map[string]string{"profiles": `["workers"]`, "env": `{"ALERT_RECIPIENT_HASH_SECRET":"x"}`, "replicas": `{"alert_worker":2}`, "images": `{"reference":"ref:1"}`},
			[]container.Summary{running("trading_platform_alert_worker_2", nil)},
			fault.List{{
				Where: "container trading_platform_alert_worker_2", What: "taken by something else",
				Fix: "docker rm -f trading_platform_alert_worker_2; or pulumi config set -s test namePrefix <another>",
			}},
		},
		"one that only begins like ours": {nil, []container.Summary{running("trading_platform_redis_exporter", nil)}, nil},
		"one of another prefix":          {map[string]string{"namePrefix": "blue"}, []container.Summary{running("trading_platform_redis", nil)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, findings(t, &enginetest.Engine{Containers: test.containers}, with(test.config)))
		})
	}
}

func TestPorts(t *testing.T) {
	finding := func(where, by string, number int) fault.List {
		stop := "stop it (sudo ss -ltnp 'sport = :" + strconv.Itoa(number) + "' tells which)"
		if container, is := strings.CutPrefix(by, "container "); is {
			stop = "docker stop " + container
		}
		return fault.List{{Where: where, What: "taken by " + by, Fix: stop + ", or pulumi config set -s test portOffset 1000"}}
	}
	for name, test := range map[string]struct {
		config map[string]string
		held   container.PortSummary
		want   fault.List
	}{
		"a container's":                  {nil, port("127.0.0.1", 20300), finding("port 127.0.0.1:20300 of grafana", "container other", 20300)},
		"a container's on every address": {nil, port("0.0.0.0", 20300), finding("port 127.0.0.1:20300 of grafana", "container other", 20300)},
		"ours on every address":          {map[string]string{"bindAddress": "0.0.0.0", "env": `{"POSTGRES_PASSWORD":"x","GF_SECURITY_ADMIN_PASSWORD":"x"}`}, port("127.0.0.9", 20300), finding("port 0.0.0.0:20300 of grafana", "container other", 20300)},
		"on another address":             {nil, port("127.0.0.9", 20300), nil},
		"the same number, but not TCP":   {nil, container.PortSummary{IP: netip.MustParseAddr("127.0.0.1"), PublicPort: 20300, Type: "udp"}, nil},
		"inside of the container alone":  {nil, container.PortSummary{PrivatePort: 20300, Type: "tcp"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := &enginetest.Engine{Containers: []container.Summary{running("other", nil, test.held)}}
			assert.Equal(t, test.want, findings(t, e, with(test.config)))
		})
	}
	t.Run("a program's", func(t *testing.T) {
		l := enginetest.Listen(t)
		number := l.Addr().(*net.TCPAddr).Port
		// The offset makes Grafana's port the same as the listener's.
		config := map[string]string{"portOffset": strconv.Itoa(number - 3000)}
		assert.Equal(t, finding("port "+l.Addr().String()+" of grafana", "a program on this host", number), findings(t, &enginetest.Engine{}, config))
	})
	t.Run("that of a container whose name is taken is told with the name", func(t *testing.T) {
		e := &enginetest.Engine{Containers: []container.Summary{running("trading_platform_grafana", stack("dev"), port("127.0.0.1", 20300))}}
		found := findings(t, e, with(nil))
		require.Len(t, found, 1)
		assert.Equal(t, "container trading_platform_grafana", found[0].Where)
	})
	t.Run("our own container's, between two of its starts", func(t *testing.T) {
		l := enginetest.Listen(t)
		config := map[string]string{"portOffset": strconv.Itoa(l.Addr().(*net.TCPAddr).Port - 3000)}
		c := running("trading_platform_grafana", stack("test"))
		c.State = container.StateRestarting
		assert.NoError(t, check(t, &enginetest.Engine{Containers: []container.Summary{c}}, config))
	})
	t.Run("an engine elsewhere is not this host", func(t *testing.T) {
		l := enginetest.Listen(t)
		e := &enginetest.Engine{}
		remote := remoteEngine(t, e)
		p, set := stackOf(t, map[string]string{
			"portOffset": strconv.Itoa(l.Addr().(*net.TCPAddr).Port - 3000), "sourceDir": t.TempDir(),
		})
		assert.NoError(t, preflight.Check(context.Background(), remote, engine.Ref{Host: remote.DaemonHost()}, p, set, nil), "its ports cannot be looked at")
	})
}

// remoteEngine serves an engine over TCP, as one on another host is.
func remoteEngine(t *testing.T, e *enginetest.Engine) *client.Client {
	t.Helper()
	host := e.Start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	c, err := client.New(client.WithHost("tcp://"+l.Addr().String()), client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", host[len("unix://"):])
	}))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestNetworks(t *testing.T) {
	for name, test := range map[string]struct {
		config map[string]string
		have   network.Summary
		want   fault.List
	}{
		"a name of another stack": {nil, net4("trading_platform_default", "172.19.0.0/16", stack("dev")), fault.List{{
			Where: "network trading_platform_default", What: "taken by stack dev",
			Fix: downDev + "; or, for a second stack beside it, " + anotherPrefix,
		}}},
		"a name of the old Compose stack": {nil, net4("trading_platform_default", "", project("trading_platform")), fault.List{{
			Where: "network trading_platform_default", What: "taken by Docker Compose project trading_platform",
			Fix: "docker compose -p trading_platform down (without -v: the volumes stay, and are taken over)",
		}}},
		"a name of anything else": {nil, net4("trading_platform_default", "", nil), fault.List{{
			Where: "network trading_platform_default", What: "taken by something else",
			Fix: "docker network rm trading_platform_default; or pulumi config set -s test namePrefix <another>",
		}}},
		"a subnet": {nil, net4("vpn", "172.28.0.0/16", nil), fault.List{{
			Where: "subnet 172.28.0.0/16 of network trading_platform_trading_platform", What: "overlaps 172.28.0.0/16 of network vpn",
			Fix: "pulumi config set -s test subnet 172.29.0.0/16 (any free one), or: docker network rm vpn",
		}}},
		"a part of the subnet": {nil, net4("vpn", "172.28.5.0/24", nil), fault.List{{
			Where: "subnet 172.28.0.0/16 of network trading_platform_trading_platform", What: "overlaps 172.28.5.0/24 of network vpn",
			Fix: "pulumi config set -s test subnet 172.29.0.0/16 (any free one), or: docker network rm vpn",
		}}},
		"another subnet":     {nil, net4("vpn", "172.29.0.0/16", nil), nil},
		"an IPv6 subnet":     {nil, net4("six", "fd00::/64", nil), nil},
		"ours moved away":    {map[string]string{"subnet": "10.9.0.0/24"}, net4("vpn", "172.28.0.0/16", nil), nil},
		"one without subnet": {nil, net4("host", "", nil), nil},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, findings(t, &enginetest.Engine{Networks: []network.Summary{test.have}}, with(test.config)))
		})
	}
}

func TestVolumesOfTheOldStack(t *testing.T) {
	old := func(prefix string, names ...string) []volume.Volume {
		var out []volume.Volume
		for _, name := range names {
			labels := project("my-trading")
			labels["com.docker.compose.volume"] = name
			out = append(out, volume.Volume{Name: prefix + name, Labels: labels})
		}
		return out
	}
	for name, test := range map[string]struct {
		config  map[string]string
		volumes []volume.Volume
		want    fault.List
	}{
		"data beside which an empty database would start": {nil, old("my-trading_", "pgdata", "redisdata", "backtest_data", "other"), fault.List{{
			Where: "volume trading_platform_pgdata",
			What: "does not exist yet, but the old Compose project my-trading left its data in my-trading_pgdata: " +
				"the stack would start with an empty database",
			Fix: "pulumi config set -s test --path volumes.pgdata my-trading_pgdata && pulumi config set -s test --path volumes.redisdata my-trading_redisdata" +
				" && pulumi config set -s test --path volumes.backtest_data my-trading_backtest_data; or, to ignore it: pulumi config set -s test --path 'ignoreCompose[0]' my-trading",
		}}},
		"under another name than its project's": {nil, old("shop_", "pgdata", "lokidata", "promtaildata"), fault.List{{
			Where: "volume trading_platform_pgdata",
			What: "does not exist yet, but the old Compose project my-trading left its data in shop_pgdata: " +
				"the stack would start with an empty database",
			Fix: "pulumi config set -s test --path volumes.pgdata shop_pgdata && pulumi config set -s test --path volumes.lokidata shop_lokidata" +
				" && pulumi config set -s test --path volumes.promtaildata shop_promtaildata; or, to ignore it: pulumi config set -s test --path 'ignoreCompose[0]' my-trading",
		}}},
		"taken over":            {map[string]string{"volumes": `{"pgdata":"my-trading_pgdata"}`}, old("my-trading_", "pgdata"), nil},
		"left alone":            {map[string]string{"ignoreCompose": `["my-trading"]`}, old("my-trading_", "pgdata", "redisdata", "lokidata"), nil},
		"all left alone":        {map[string]string{"ignoreCompose": `["*"]`}, old("my-trading_", "pgdata", "redisdata", "lokidata"), nil},
		"of another program":    {nil, old("blog_", "pgdata", "redisdata", "uploads"), nil},
		"under our very name":   {nil, old("trading_platform_", "pgdata", "redisdata", "lokidata"), nil},
		"ours is there already": {nil, append(old("my-trading_", "pgdata", "redisdata", "lokidata"), volume.Volume{Name: "trading_platform_pgdata"}), nil},
		"not of Compose":        {nil, []volume.Volume{{Name: "blog_pgdata"}}, nil},
		"not PostgreSQL's":      {nil, old("my-trading_", "redisdata", "lokidata", "promtaildata"), nil},
		"nothing to take over": {map[string]string{"volumes": `{"pgdata":"my-tradin_pgdata"}`}, nil, fault.List{{
			Where: "trading-platform:volumes.pgdata", What: "there is no volume my-tradin_pgdata to take over",
			Fix: "name one that `docker volume ls` shows, or: pulumi config rm -s test --path volumes.pgdata",
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, findings(t, &enginetest.Engine{Volumes: test.volumes}, with(test.config)))
		})
	}
}

func TestAllFaultsAreReportedAtOnce(t *testing.T) {
	e := &enginetest.Engine{
		Containers: []container.Summary{running("trading_platform_redis", nil), running("other", nil, port("127.0.0.1", 20300))},
		Networks:   []network.Summary{net4("vpn", "172.28.0.0/16", nil)},
		Volumes:    []volume.Volume{{Name: "green_pgdata"}},
	}
	p, set := stackOf(t, with())
	c, err := client.New(client.WithHost(e.Start(t)))
	require.NoError(t, err)
	err = preflight.Check(context.Background(), c, engine.Ref{}, p, set, map[string]string{"pgdata": "green_pgdata"})
	require.ErrorContains(t, err, "4 things are wrong, and nothing was changed:")
	for _, part := range []string{"container trading_platform_redis", "port 127.0.0.1:20300 of grafana", "subnet 172.28.0.0/16", "the stack's data is in green_pgdata"} {
		assert.ErrorContains(t, err, part)
	}
}

func TestDataUnderAnotherPrefix(t *testing.T) {
	mine := map[string]string{"trading-platform.stack": "test", "trading-platform.id": "abc", "trading-platform.volume": "pgdata"}
	other := map[string]string{"trading-platform.stack": "test", "trading-platform.id": "xyz", "trading-platform.volume": "pgdata"}
	for name, test := range map[string]struct {
		before  map[string]string
		volumes []volume.Volume
		config  map[string]string
		found   string // the volume that is told
	}{
		"as the last run used it":       {map[string]string{"pgdata": "green_pgdata"}, []volume.Volume{{Name: "green_pgdata"}}, nil, "green_pgdata"},
		"as its labels say":             {nil, []volume.Volume{{Name: "green_pgdata", Labels: mine}}, nil, "green_pgdata"},
		"of another stack of this name": {nil, []volume.Volume{{Name: "green_pgdata", Labels: other}}, nil, ""},
		"that is gone":                  {map[string]string{"pgdata": "green_pgdata"}, nil, nil, ""},
		"that is kept on purpose":       {nil, []volume.Volume{{Name: "green_pgdata", Labels: mine}}, map[string]string{"volumes": `{"pgdata":"green_pgdata"}`}, ""},
		"left on purpose":               {nil, []volume.Volume{{Name: "green_pgdata", Labels: mine}, {Name: "blue_pgdata"}}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			config := with(map[string]string{"namePrefix": "blue", "identity": "abc"}, test.config)
			p, set := stackOf(t, config)
			c, err := client.New(client.WithHost((&enginetest.Engine{Volumes: test.volumes}).Start(t)))
			require.NoError(t, err)
			err = preflight.Check(context.Background(), c, engine.Ref{}, p, set, test.before)
			if test.found == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "namePrefix: the stack's data is in "+test.found+", and with the prefix blue it would start with empty volumes")
			require.ErrorContains(t, err, "keep the data: pulumi config set -s test --path volumes.pgdata green_pgdata")
			require.ErrorContains(t, err, "docker volume create $v")
		})
	}
}

func TestSameEngine(t *testing.T) {
	here := engine.Ref{ID: "HERE", Host: "unix:///var/run/docker.sock"}
	require.NoError(t, preflight.SameEngine("dev", engine.Ref{}, here), "a new stack takes any")
	require.NoError(t, preflight.SameEngine("dev", engine.Ref{ID: "HERE", Host: "ssh://me"}, here), "by another way to it")
	err := preflight.SameEngine("dev", engine.Ref{ID: "THERE", Host: "tcp://there:2376"}, here)
	require.ErrorContains(t, err, "stack dev runs on the engine at tcp://there:2376 (ID THERE), but docker now connects to another, at unix:///var/run/docker.sock (ID HERE)")
	require.ErrorContains(t, err, "docker:host tcp://there:2376")
	require.ErrorContains(t, err, "platform init -s dev --move-engine")
}

func TestAnotherStackOfTheSameName(t *testing.T) {
	labels := map[string]string{"trading-platform.stack": "test", "trading-platform.id": "theirs"}
	e := &enginetest.Engine{Containers: []container.Summary{running("trading_platform_redis", labels)}}
	found := findings(t, e, with(map[string]string{"identity": "ours"}))
	require.Len(t, found, 1)
	assert.Equal(t, "taken by a stack test of another project or user (identity theirs)", found[0].What)
	labels["trading-platform.id"] = "ours"
	assert.Empty(t, findings(t, e, with(map[string]string{"identity": "ours"})))
}
