package preflight_test

import (
	"slices"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/engine/enginetest"
	"trading-platform/fault"
	"trading-platform/preflight"
)

// dump returns the start of an RDB file of a Redis version.
func dump(version string) string {
	return "REDIS0011\xfa\x09redis-ver\x06" + version + "\xfa\x0aredis-bits\xc0\x40"
}

// redisFiles is a Redis volume after its file was rewritten, when its base has another number.
func redisFiles(header string) map[string]map[string]string {
	return map[string]map[string]string{rdVolume: {
		"appendonlydir/appendonly.aof.manifest":   "file appendonly.aof.3.base.rdb seq 3 type b\nfile appendonly.aof.3.incr.aof seq 3 type i\n",
		"appendonlydir/appendonly.aof.3.base.rdb": header,
	}}
}

const (
	pgVolume = "trading_platform_pgdata"
	rdVolume = "trading_platform_redisdata"
)

func TestData(t *testing.T) {
	postgres := func(image string, have, want string) fault.List {
		upgrade := ""
		if have < want {
			upgrade = "move the data to the new version: platform upgrade -s test; or "
		}
		return fault.List{{
			Where: "volume " + pgVolume,
			What:  "holds data of PostgreSQL " + have + ", and the image " + image + " is version " + want + "; nothing in it was changed",
			Fix:   upgrade + "run the version that wrote it: pulumi config set -s test --path images.postgres postgres:" + have,
		}}
	}
	redis := func(image, have string) fault.List {
		return fault.List{{
			Where: "volume " + rdVolume,
			What:  "holds data of Redis " + have + ", newer than the image " + image + "; nothing in it was changed",
			Fix: "pulumi config set -s test --path images.redis redis:" + have + "-alpine; or start with an empty volume: " +
				"pulumi config set -s test --path volumes.redisdata trading_platform_redisdata_new after docker volume create",
		}}
	}
	for name, test := range map[string]struct {
		config map[string]string
		images map[string][]string
		files  map[string]map[string]string
		want   fault.List
	}{
		"of the image's own version": {nil, map[string][]string{"postgres:16": {"PG_MAJOR=16"}}, map[string]map[string]string{pgVolume: {"PG_VERSION": "16\n"}}, nil},
		"of an older PostgreSQL": {nil, map[string][]string{"postgres:16": {"PATH=/", "PG_MAJOR=16"}},
			map[string]map[string]string{pgVolume: {"PG_VERSION": "15\n"}}, postgres("postgres:16", "15", "16")},
		"of a newer PostgreSQL": {map[string]string{"images": `{"postgres":"mirror:5000/postgres:15.4"}`}, map[string][]string{"mirror:5000/postgres:15.4": {"PG_MAJOR=15"}},
			map[string]map[string]string{pgVolume: {"PG_VERSION": "16"}}, postgres("mirror:5000/postgres:15.4", "16", "15")},
		"an image that does not tell, by its tag": {map[string]string{"images": `{"postgres":"postgres:15.4"}`}, map[string][]string{"postgres:15.4": nil},
			map[string]map[string]string{pgVolume: {"PG_VERSION": "16"}}, postgres("postgres:15.4", "16", "15")},
		"an image that is not here, on a registry with a port": {map[string]string{"images": `{"postgres":"mirror:5000/postgres:16.1"}`}, map[string][]string{"mirror:5000/postgres:16.1": nil},
			map[string]map[string]string{pgVolume: {"PG_VERSION": "16"}}, nil},
		"an image that does not tell at all": {map[string]string{"images": `{"postgres":"mine"}`}, map[string][]string{"mine": nil},
			map[string]map[string]string{pgVolume: {"PG_VERSION": "16"}}, nil},
		"an empty volume": {nil, map[string][]string{"postgres:16": {"PG_MAJOR=16"}}, nil, nil},
		"of the same Redis": {nil, map[string][]string{"redis:7-alpine": {"REDIS_VERSION=7.2.4"}},
			redisFiles(dump("7.2.1")), nil},
		"of an older Redis": {nil, map[string][]string{"redis:7-alpine": {"REDIS_VERSION=7.2.4"}},
			redisFiles(dump("6.2.9")), nil},
		"of a newer Redis": {nil, map[string][]string{"redis:7-alpine": {"REDIS_VERSION=7.0.15"}},
			redisFiles(dump("7.4.1")), redis("redis:7-alpine", "7.4")},
		"of a newer major Redis": {nil, map[string][]string{"redis:7-alpine": {}},
			redisFiles(dump("8.0.1")), redis("redis:7-alpine", "8.0")},
		"a tag without a minor is the newest": {nil, map[string][]string{"redis:7-alpine": {}},
			redisFiles(dump("7.4.1")), nil},
		"a file that is none": {nil, map[string][]string{"redis:7-alpine": {}, "postgres:16": {}},
			map[string]map[string]string{rdVolume: redisFiles("garbage")[rdVolume], pgVolume: {"PG_VERSION": "garbage"}}, nil},
	} {
		volumes := []volume.Volume{{Name: pgVolume}, {Name: rdVolume}}
		t.Run(name+", seen in a container", func(t *testing.T) {
			mine := func(name, volume, path string) container.Summary {
				c := running(name, stack("test"))
				c.Mounts = []container.MountPoint{{Name: volume, Destination: path}}
				return c
			}
			e := &enginetest.Engine{Images: test.images, Files: test.files, Volumes: volumes, Containers: []container.Summary{
				mine("trading_platform_postgres", pgVolume, "/var/lib/postgresql/data"),
				mine("backup", rdVolume, "/elsewhere"), // whoever has the volume, wherever
			}}
			assert.Equal(t, test.want, findings(t, e, with(test.config)))
			made, _ := e.Made()
			assert.Zero(t, made, "none is made where there is one")
		})
		t.Run(name+", seen through a temporary container", func(t *testing.T) {
			e := &enginetest.Engine{Images: test.images, Files: test.files, Volumes: volumes}
			assert.Equal(t, test.want, findings(t, e, with(test.config)))
			made, left := e.Made()
			assert.Positive(t, made)
			assert.Zero(t, left, "it is removed")
		})
	}
}

func TestDataThatCannotBeRead(t *testing.T) {
	files := map[string]map[string]string{pgVolume: {"PG_VERSION": "15"}}
	t.Run("no image to look with", func(t *testing.T) {
		assert.Empty(t, findings(t, &enginetest.Engine{Files: files, Volumes: []volume.Volume{{Name: pgVolume}}}, with()))
	})
	t.Run("no volume yet: none is made by looking", func(t *testing.T) {
		e := &enginetest.Engine{Files: files, Images: map[string][]string{"postgres:16": nil, "redis:7-alpine": nil}}
		assert.Empty(t, findings(t, e, with()))
		made, _ := e.Made()
		assert.Zero(t, made)
	})
	t.Run("databases that are disabled", func(t *testing.T) {
		e := &enginetest.Engine{Files: files, Volumes: []volume.Volume{{Name: pgVolume}}, Images: map[string][]string{"postgres:16": nil}}
		assert.Empty(t, findings(t, e, with(map[string]string{"disabled": `["postgres","redis"]`})))
	})
}

func TestDataOfAVolumeThatWasTakenOver(t *testing.T) {
	e := &enginetest.Engine{
		Images:  map[string][]string{"postgres:16": {"PG_MAJOR=16"}},
		Files:   map[string]map[string]string{"old_pgdata": {"PG_VERSION": "14"}},
		Volumes: []volume.Volume{{Name: "old_pgdata", Labels: project("old")}},
	}
	got := findings(t, e, with(map[string]string{"volumes": `{"pgdata":"old_pgdata"}`}))
	if assert.Len(t, got, 1) {
		assert.Equal(t, "volume old_pgdata", got[0].Where)
		assert.Contains(t, got[0].What, "holds data of PostgreSQL 14")
	}
}

func TestADatabaseThatASecuredStackHasUsed(t *testing.T) {
	e := func() *enginetest.Engine {
		return &enginetest.Engine{
			Images:  map[string][]string{"postgres:16": nil},
			Files:   map[string]map[string]string{pgVolume: {"trading-platform-secured": "mtls\n"}},
			Volumes: []volume.Volume{{Name: pgVolume}},
		}
	}
	t.Run("is given no password that everyone knows", func(t *testing.T) {
		assert.Equal(t, fault.List{{
			Where: "trading-platform:POSTGRES_PASSWORD",
			What:  "the secured stack mtls has used the database in volume " + pgVolume + ", and this stack would set its password to the public default",
			Fix:   "platform init -s test generates one, or: pulumi config set -s test --secret POSTGRES_PASSWORD",
		}}, findings(t, e(), with()))
	})
	t.Run("takes any other", func(t *testing.T) {
		assert.Empty(t, findings(t, e(), with(map[string]string{"POSTGRES_PASSWORD": "mine"})))
	})
	t.Run("can be asked for", func(t *testing.T) {
		for want, engine := range map[bool]*enginetest.Engine{true: e(), false: {}} {
			c, err := client.New(client.WithHost(engine.Start(t)))
			require.NoError(t, err)
			p, _ := stackOf(t, with())
			got, err := preflight.SecuredDatabase(t.Context(), c, p)
			require.NoError(t, err)
			assert.Equal(t, want, got)
			_, left := engine.Made()
			assert.Zero(t, left)
		}
	})
}

// A healthy container of the stack itself shows that its image can read the data. Its files are read only if a run would change something.
func TestDataThatTheStackItselfServes(t *testing.T) {
	const password = "POSTGRES_PASSWORD"
	p, _ := stackOf(t, with())
	postgres, _ := p.Lookup("postgres")
	for name, test := range map[string]struct {
		config map[string]string
		change func(c *container.Summary)
		read   bool
	}{
		"as planned":        {nil, func(*container.Summary) {}, false},
		"of another stack":  {nil, func(c *container.Summary) { c.Labels = nil }, true},
		"not healthy":       {nil, func(c *container.Summary) { c.Status = "Up 3 seconds (unhealthy)" }, true},
		"another image":     {nil, func(c *container.Summary) { c.ImageID = "sha256:postgres:14" }, true},
		"another volume":    {nil, func(c *container.Summary) { c.Mounts[0].Name = "other" }, true},
		"another password":  {map[string]string{password: "mine"}, func(*container.Summary) {}, true},
		"another container": {nil, func(c *container.Summary) { c.Names[0] = "/trading_platform_postgres_old" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := container.Summary{
				ID: "c1", Names: []string{"/" + postgres.Containers[0]}, ImageID: "sha256:postgres:16", State: "running", Status: "Up 3 seconds (healthy)",
				Labels: p.OwnLabels(), Mounts: []container.MountPoint{{Name: pgVolume, Destination: postgres.Mounts[0].Path}},
			}
			test.change(&c)
			e := &enginetest.Engine{
				Containers: []container.Summary{c}, Images: map[string][]string{"postgres:16": {"PG_MAJOR=16"}}, Volumes: []volume.Volume{{Name: pgVolume}},
				Env:   map[string][]string{"c1": {password + "=" + postgres.Value(password)}},
				Files: map[string]map[string]string{pgVolume: {"PG_VERSION": "15"}, "other": {"PG_VERSION": "15"}},
			}
			got := slices.ContainsFunc(findings(t, e, with(test.config)), func(f fault.Fault) bool { return f.Where == "volume "+pgVolume })
			assert.Equal(t, test.read, got, "whether it finds that the data is of another version")
		})
	}
}
