package observe_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/engine/enginetest"
	"trading-platform/observe"
	"trading-platform/plan"
)

func TestStacks(t *testing.T) {
	of := func(stack, id, prefix, key string) map[string]string {
		return map[string]string{plan.StackLabel: stack, plan.IdentityLabel: id, "com.docker.compose.project": prefix, plan.VolumeLabel: key}
	}
	ports := []container.PortSummary{{IP: netip.MustParseAddr("127.0.0.1"), PublicPort: 8901}, {IP: netip.MustParseAddr("127.0.0.1"), PublicPort: 8900},
		{IP: netip.MustParseAddr("0.0.0.0"), PublicPort: 80}, {IP: netip.IPv6Unspecified(), PublicPort: 81}, {PrivatePort: 5432}}
	made := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	fake := &enginetest.Engine{
		Containers: []container.Summary{
			{ID: "1", Names: []string{"/a_redis"}, State: "running", Status: "Up 1 minute (healthy)", Labels: of("dev", "i1", "a", ""), Ports: ports, Created: made.Unix() + 60},
			{ID: "2", Names: []string{"/a_postgres"}, State: "running", Status: "Up 1 minute (unhealthy)", Labels: of("mtls", "i2", "a", ""), Created: made.Unix()},
		},
		Networks: []network.Summary{{Network: network.Network{Name: "b_default", Labels: of("dev", "i3", "", "")}}},
		Volumes: []volume.Volume{
			{Name: "a_pgdata_20270102T030405Z", Labels: of("dev", "i1", "", "pgdata"), CreatedAt: "2020-01-01T00:00:00Z"},
			{Name: "c_pgdata", Labels: map[string]string{plan.StackLabel: "base", plan.VolumeLabel: "pgdata"}, CreatedAt: "2020-01-01T00:00:00Z"},
		},
	}
	engine, err := client.New(client.WithHost(fake.Start(t)))
	require.NoError(t, err)
	all, err := observe.Stacks(t.Context(), engine)
	require.NoError(t, err)
	require.Len(t, all, 3)
	a, b, c := all[0], all[1], all[2]
	assert.Equal(t, "a", a.NamePrefix)
	assert.Equal(t, []string{"dev", "mtls"}, a.Stacks)
	assert.Equal(t, []string{"i1", "i2"}, a.Identities)
	assert.Equal(t, "1/2 healthy", a.State())
	assert.Equal(t, "80, 8900-8901", a.Ports())
	assert.Equal(t, []string{"a_pgdata_20270102T030405Z"}, a.Volumes, "found by its own name")
	assert.Equal(t, 2020, a.Since.Year())
	assert.Equal(t, "b", b.NamePrefix)
	assert.Equal(t, "c", c.NamePrefix)
	assert.Equal(t, []string{""}, c.Identities, "of an earlier version")
	assert.Equal(t, "down", c.State())
	assert.Equal(t, "—", c.Ports())
	assert.Equal(t, 2020, c.Since.Year())

	for _, path := range []string{"/containers/json", "/networks", "/volumes"} {
		fake.Broken = []string{path}
		_, err := observe.Stacks(t.Context(), engine)
		assert.ErrorContains(t, err, "asking the engine for its stacks")
	}
}
