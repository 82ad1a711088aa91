package settings_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/fault"
	"trading-platform/settings"
)

// load loads a stack named dev with only this config.
func load(config map[string]string, secret ...string) (*settings.Settings, error) {
	src := settings.Source{Stack: "dev", Root: "/clone", Config: config, Secret: map[string]bool{}}
	for _, key := range secret {
		src.Secret[key] = true
	}
	return settings.Load(src)
}

func TestDefaults(t *testing.T) {
	s, err := load(nil)
	require.NoError(t, err)
	assert.Equal(t, &settings.Settings{
		Stack:         "dev",
		NamePrefix:    "trading_platform",
		BindAddress:   netip.MustParseAddr("127.0.0.1"),
		Subnet:        netip.MustParsePrefix("172.28.0.0/16"),
		NginxAddress:  netip.MustParseAddr("172.28.0.10"),
		Images:        map[string]string{},
		Volumes:       map[string]string{},
		ServiceEnv:    map[string]map[string]settings.Value{},
		Variables:     map[string]settings.Value{},
		Replicas:      map[string]int{},
		Memory:        map[string]int{},
		DockerRoot:    "/var/lib/docker",
		RetainVolumes: true,
		Provider:      settings.Official,
		Orchestrator:  settings.OneEngine,
	}, s)
}

func TestValidSettings(t *testing.T) {
	folder := t.TempDir()
	for name, test := range map[string]struct {
		key, value string
		got        func(*settings.Settings) any
		want       any
	}{
		"profiles, sorted and each once": {"profiles", `["workers","dev","dev"]`, func(s *settings.Settings) any { return s.Profiles }, []string{"dev", "workers"}},
		"no profiles":                    {"profiles", `[]`, func(s *settings.Settings) any { return len(s.Profiles) }, 0},
		"namePrefix":                     {"namePrefix", "blue", func(s *settings.Settings) any { return s.NamePrefix }, "blue"},
		"namePrefix, of several parts":   {"namePrefix", "Blue.9_x__y-z", func(s *settings.Settings) any { return s.NamePrefix }, "Blue.9_x__y-z"},
		"images, in every form": {"images", `{"postgres":"mirror:5000/a/b_c@sha256:` + strings.Repeat("ab", 32) + `","redis":"redis"}`,
			func(s *settings.Settings) any { return len(s.Images) }, 2},
		"bindAddress":                 {"bindAddress", "0.0.0.0", func(s *settings.Settings) any { return s.BindAddress.String() }, "0.0.0.0"},
		"bindAddress, IPv6":           {"bindAddress", "::1", func(s *settings.Settings) any { return s.BindAddress.String() }, "::1"},
		"portOffset":                  {"portOffset", "1000", func(s *settings.Settings) any { return s.PortOffset }, 1000},
		"subnet":                      {"subnet", "10.9.0.0/24", func(s *settings.Settings) any { return s.Subnet.String() }, "10.9.0.0/24"},
		"nginxAddress follows subnet": {"subnet", "10.9.0.0/24", func(s *settings.Settings) any { return s.NginxAddress.String() }, "10.9.0.10"},
		"nginxAddress":                {"nginxAddress", "172.28.1.1", func(s *settings.Settings) any { return s.NginxAddress.String() }, "172.28.1.1"},
		"images": {"images", `{"postgres":"postgres:15","reference":"ref:1","redis":""}`, func(s *settings.Settings) any { return s.Images },
			map[string]string{"postgres": "postgres:15", "reference": "ref:1"}},
		"sourceDir":           {"sourceDir", folder, func(s *settings.Settings) any { return s.SourceDir }, folder},
		"certsDir, relative":  {"certsDir", "certs/mtls", func(s *settings.Settings) any { return s.CertsDir }, "/clone/certs/mtls"},
		"certsDir, absolute":  {"certsDir", "/etc/certs", func(s *settings.Settings) any { return s.CertsDir }, "/etc/certs"},
		"env":                 {"env", `{"LOG_LEVEL":"DEBUG"}`, func(s *settings.Settings) any { return s.Variables["LOG_LEVEL"] }, settings.Value{Text: "DEBUG"}},
		"env, a number":       {"env", `{"WEB_CONSOLE_UID":1001}`, func(s *settings.Settings) any { return s.Variables["WEB_CONSOLE_UID"].Text }, "1001"},
		"env, a large number": {"env", `{"BACKTEST_JOB_MEMORY_LIMIT":4294967296}`, func(s *settings.Settings) any { return s.Variables["BACKTEST_JOB_MEMORY_LIMIT"].Text }, "4294967296"},
		"env, a boolean":      {"env", `{"DRY_RUN":false}`, func(s *settings.Settings) any { return s.Variables["DRY_RUN"].Text }, "false"},
		"env, null is unset":  {"env", `{"DRY_RUN":null}`, func(s *settings.Settings) any { return len(s.Variables) }, 0},
		"env, empty is unset": {"env", `{"DRY_RUN":""}`, func(s *settings.Settings) any { return len(s.Variables) }, 0},
		"a variable of its own": {"POSTGRES_PASSWORD", "hunter2", func(s *settings.Settings) any { return s.Variables["POSTGRES_PASSWORD"] },
			settings.Value{Text: "hunter2"}},
		"serviceEnv": {"serviceEnv", `{"signal_service":{"EXTRA":"1","DATABASE_URL":""}}`, func(s *settings.Settings) any { return s.ServiceEnv },
			map[string]map[string]settings.Value{"signal_service": {"EXTRA": {Text: "1"}, "DATABASE_URL": {}}}},
		"replicas": {"replicas", `{"alert_worker":3,"backtest_worker_high":"5"}`, func(s *settings.Settings) any { return s.Replicas },
			map[string]int{"alert_worker": 3, "backtest_worker_high": 5}},
		"memory":     {"memory", `{"redis":8192}`, func(s *settings.Settings) any { return s.Memory }, map[string]int{"redis": 8192}},
		"dockerRoot": {"dockerRoot", "/data/docker/", func(s *settings.Settings) any { return s.DockerRoot }, "/data/docker"},
		"volumes": {"volumes", `{"pgdata":"my-trading_pgdata"}`, func(s *settings.Settings) any { return s.Volumes },
			map[string]string{"pgdata": "my-trading_pgdata"}},
		"disabled":                 {"disabled", `["grafana"]`, func(s *settings.Settings) any { return s.Disabled }, []string{"grafana"}},
		"expose":                   {"expose", `["postgres"]`, func(s *settings.Settings) any { return s.Expose }, []string{"postgres"}},
		"retainVolumes":            {"retainVolumes", "false", func(s *settings.Settings) any { return s.RetainVolumes }, false},
		"engineApi":                {"engineApi", "1.44", func(s *settings.Settings) any { return s.EngineAPI }, settings.Version{Major: 1, Minor: 44}},
		"provider":                 {"provider", "offline", func(s *settings.Settings) any { return s.Provider }, "offline"},
		"a password of every sign": {"POSTGRES_PASSWORD", " '\"$HOME%41`\\é\t", func(s *settings.Settings) any { return s.Variables["POSTGRES_PASSWORD"].Text }, " '\"$HOME%41`\\é\t"},
		"a value of lines":         {"LOG_LEVEL", "a\nb", func(s *settings.Settings) any { return s.Variables["LOG_LEVEL"].Text }, "a\nb"},
		"blanks around a value":    {"namePrefix", "  blue ", func(s *settings.Settings) any { return s.NamePrefix }, "blue"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := load(map[string]string{test.key: test.value})
			require.NoError(t, err)
			assert.Equal(t, test.want, test.got(s))
		})
	}
}

func TestFaults(t *testing.T) {
	allProfiles := strings.Join(catalog.ProfileNames(), ", ")
	var workers []string
	for _, s := range catalog.Services() {
		if s.Scalable {
			workers = append(workers, s.Name)
		}
	}
	allWorkers := strings.Join(workers, ", ")
	set := "pulumi config set -s dev "
	for name, test := range map[string]struct {
		key, value       string
		where, what, fix string
	}{
		"profiles, no list": {"profiles", "dev", "profiles", `"dev" is not a list of profile names`, "pulumi config rm -s dev profiles && " + set + "--path 'profiles[0]' " + catalog.ProfileNames()[0]},
		"profiles, unknown": {"profiles", `["worker"]`, "profiles", `no profile "worker"; did you mean workers?`, "use one of " + allProfiles},
		"profiles, far off": {"profiles", `["production"]`, "profiles", `no profile "production"`, "use one of " + allProfiles},
		"profiles, conflict": {"profiles", `["mtls","oauth2"]`, "profiles",
			"mtls and oauth2 cannot be in one stack: both publish host ports 80 and 443 and want nginx's fixed address",
			"use two stacks, one of them with another namePrefix, portOffset and subnet: pulumi up -s mtls, pulumi up -s oauth2"},
		"namePrefix":             {"namePrefix", "my stack", "namePrefix", `"my stack" is not a name that the engine accepts for containers and images (letters and digits, with a single . _ - between them, 63 at most)`, set + "namePrefix trading_platform"},
		"namePrefix, an end":     {"namePrefix", "blue-", "namePrefix", `"blue-" is not a name that the engine accepts for containers and images (letters and digits, with a single . _ - between them, 63 at most)`, set + "namePrefix trading_platform"},
		"namePrefix, a start":    {"namePrefix", "_blue", "namePrefix", `"_blue" is not a name that the engine accepts for containers and images (letters and digits, with a single . _ - between them, 63 at most)`, set + "namePrefix trading_platform"},
		"namePrefix, two dots":   {"namePrefix", "a..b", "namePrefix", `"a..b" is not a name that the engine accepts for containers and images (letters and digits, with a single . _ - between them, 63 at most)`, set + "namePrefix trading_platform"},
		"bindAddress":            {"bindAddress", "localhost", "bindAddress", `"localhost" is not an IP address`, set + "bindAddress 127.0.0.1"},
		"portOffset, no number":  {"portOffset", "ten", "portOffset", `"ten" is not a whole number from 0 to 50000`, set + "portOffset 0"},
		"portOffset, a fraction": {"portOffset", "1.5", "portOffset", `"1.5" is not a whole number from 0 to 50000`, set + "portOffset 0"},
		"portOffset, negative":   {"portOffset", "-1", "portOffset", `"-1" is not a whole number from 0 to 50000`, set + "portOffset 0"},
		"portOffset, too large":  {"portOffset", "50001", "portOffset", `"50001" is not a whole number from 0 to 50000`, set + "portOffset 0"},
		"subnet, none":           {"subnet", "172.28.0.0", "subnet", `"172.28.0.0" is not an IPv4 subnet of at least 16 addresses without host bits, such as 172.28.0.0/16`, set + "subnet 172.28.0.0/16"},
		"subnet, too small":      {"subnet", "172.28.0.0/29", "subnet", `"172.28.0.0/29" is not an IPv4 subnet of at least 16 addresses without host bits, such as 172.28.0.0/16`, set + "subnet 172.28.0.0/16"},
		"subnet, IPv6":           {"subnet", "fd00::/64", "subnet", `"fd00::/64" is not an IPv4 subnet of at least 16 addresses without host bits, such as 172.28.0.0/16`, set + "subnet 172.28.0.0/16"},
		"subnet, host bits":      {"subnet", "172.28.0.1/16", "subnet", `"172.28.0.1/16" is not an IPv4 subnet of at least 16 addresses without host bits, such as 172.28.0.0/16`, set + "subnet 172.28.0.0/16"},
		"nginxAddress, none":     {"nginxAddress", "nginx", "nginxAddress", `"nginx" is not an address that a container can have in the subnet 172.28.0.0/16 (its first is the gateway)`, set + "nginxAddress 172.28.0.10"},
		"nginxAddress, outside": {"nginxAddress", "10.0.0.1", "nginxAddress",
			`"10.0.0.1" is not an address that a container can have in the subnet 172.28.0.0/16 (its first is the gateway)`, set + "nginxAddress 172.28.0.10"},
		"nginxAddress, the gateway's": {"nginxAddress", "172.28.0.1", "nginxAddress",
			`"172.28.0.1" is not an address that a container can have in the subnet 172.28.0.0/16 (its first is the gateway)`, set + "nginxAddress 172.28.0.10"},
		"images, no map":  {"images", "postgres:15", "images", `"postgres:15" is not a map`, "pulumi config rm -s dev images && " + set + "--path images.<name> <value>"},
		"images, unknown": {"images", `{"postgress":"x"}`, "images", `no service "postgress"; did you mean postgres?`, ""},
		"images, nested":  {"images", `{"postgres":{"tag":"15"}}`, "images.postgres", "is not a plain value", set + "--path images.postgres <value>"},
		"images, upper case": {"images", `{"redis":"Redis:7"}`, "images.redis",
			`"Redis:7" is not an image reference, such as registry.example/redis:7-alpine, with a repository in lower case`, set + "--path images.redis <repository>:<tag>"},
		"images, a blank": {"images", `{"redis":"redis: 7"}`, "images.redis", `"redis: 7" is not an image reference, such as registry.example/redis:7-alpine, with a repository in lower case`,
			set + "--path images.redis <repository>:<tag>"},
		"images, a URL": {"images", `{"reference":"https://mirror/redis"}`, "images.reference",
			`"https://mirror/redis" is not an image reference, such as registry.example/redis:7-alpine, with a repository in lower case`, set + "--path images.reference <repository>:<tag>"},
		"sourceDir": {"sourceDir", "/no/such/checkout", "sourceDir", `"/no/such/checkout" is not a folder (a relative path starts at /clone)`,
			set + "sourceDir <value>, or: pulumi config rm -s dev sourceDir"},
		"envFile": {"envFile", "/no/such/.env", "envFile", "file /no/such/.env does not exist",
			"write it with one NAME=value per line, or: pulumi config rm -s dev envFile"},
		"env, no map": {"env", `["LOG_LEVEL=DEBUG"]`, "env", `"[\"LOG_LEVEL=DEBUG\"]" is not a map`, "pulumi config rm -s dev env && " + set + "--path env.<name> <value>"},
		"env, unknown": {"env", `{"LOGLEVEL":"DEBUG"}`, "env.LOGLEVEL", "no service uses this variable; did you mean LOG_LEVEL?",
			"to give a service a variable of your own, set serviceEnv.<service>.LOGLEVEL"},
		"env, fixed": {"env", `{"RQ_QUEUES":"mine"}`, "env.RQ_QUEUES", "no service uses this variable",
			"to give a service a variable of your own, set serviceEnv.<service>.RQ_QUEUES"},
		"env, nested": {"env", `{"LOG_LEVEL":["DEBUG"]}`, "env.LOG_LEVEL", "is not a plain value", set + "--path env.LOG_LEVEL <value>"},
		"serviceEnv, no map": {"serviceEnv", `{"redis":"x"}`, "serviceEnv", `"{\"redis\":\"x\"}" is not a map of services to maps of variables`,
			"pulumi config rm -s dev serviceEnv && " + set + "--path serviceEnv.<service>.<NAME> <value>"},
		"serviceEnv, unknown": {"serviceEnv", `{"signals":{"A":"1"}}`, "serviceEnv", `no service "signals"`, ""},
		"serviceEnv, no variable": {"serviceEnv", `{"redis":{"A-B":"1"}}`, "serviceEnv.redis.A-B", "is not the name of a variable",
			"pulumi config rm -s dev --path serviceEnv.redis.A-B"},
		"serviceEnv, nested": {"serviceEnv", `{"redis":{"A":{}}}`, "serviceEnv.redis.A", "is not a plain value",
			set + "--path serviceEnv.redis.A <value>"},
		"a variable with a NUL": {"POSTGRES_PASSWORD", "a\x00b", "POSTGRES_PASSWORD", "contains a NUL character, which a variable cannot", "pulumi config set -s dev --secret POSTGRES_PASSWORD"},
		"a password of two lines": {"POSTGRES_PASSWORD", "a\nb", "POSTGRES_PASSWORD", "contains a line break, but must be a single line",
			"pulumi config set -s dev --secret POSTGRES_PASSWORD"},
		"a variable that is not UTF-8": {"LOG_LEVEL", "\xff", "LOG_LEVEL", "is not valid UTF-8, which Pulumi's config requires", "pulumi config set -s dev --secret LOG_LEVEL"},
		"a variable of 128 KiB": {"LOG_LEVEL", strings.Repeat("x", 128<<10), "LOG_LEVEL", "is longer than the 128 KiB that Linux allows for a variable",
			"pulumi config set -s dev --secret LOG_LEVEL"},
		"serviceEnv, with a NUL": {"serviceEnv", `{"redis":{"A":"\u0000"}}`, "serviceEnv.redis.A", "contains a NUL character, which a variable cannot",
			"pulumi config set -s dev --secret --path serviceEnv.redis.A"},
		"memory, too little":   {"memory", `{"redis":32}`, "memory.redis", `"32" is not a number from 64 to 1048576`, set + "--path memory.redis 64"},
		"dockerRoot, relative": {"dockerRoot", "docker", "dockerRoot", `"docker" is not the absolute path of a folder on the engine's host`, set + "dockerRoot /var/lib/docker"},
		"replicas, none": {"replicas", `{"alert_worker":0}`, "replicas.alert_worker",
			`"0" is not a number from 1 to 9999 (to have none, name it in ` + "`disabled`)", set + "--path replicas.alert_worker 1"},
		"replicas, words": {"replicas", `{"alert_worker":"many"}`, "replicas.alert_worker",
			`"many" is not a number from 1 to 9999 (to have none, name it in ` + "`disabled`)", set + "--path replicas.alert_worker 1"},
		"replicas of what has one": {"replicas", `{"postgres":2}`, "replicas", `no worker "postgres"`,
			"use one of " + allWorkers},
		"volumes, unknown": {"volumes", `{"pg_data":"x"}`, "volumes", `no volume "pg_data"; did you mean pgdata?`,
			"use one of " + strings.Join(catalog.Volumes, ", ")},
		"disabled, no list": {"disabled", "grafana", "disabled", `"grafana" is not a list of service names`, "pulumi config rm -s dev disabled && " + set + "--path 'disabled[0]' postgres"},
		"disabled, unknown": {"disabled", `["graphana"]`, "disabled", `no service "graphana"; did you mean grafana?`, ""},
		"expose, unknown":   {"expose", `["grafana"]`, "expose", `no service "grafana"`, "use one of " + strings.Join(catalog.Exposable(), ", ")},
		"retainVolumes":     {"retainVolumes", "yes", "retainVolumes", `"yes" is not true or false`, set + "retainVolumes true"},
		"engineApi":         {"engineApi", "twenty", "engineApi", `"twenty" is not an API version such as "1.44" (quote it)`, set + "engineApi <value>, or: pulumi config rm -s dev engineApi"},
		"engineApi, a half": {"engineApi", "1", "engineApi", `"1" is not an API version such as "1.44" (quote it)`, set + "engineApi <value>, or: pulumi config rm -s dev engineApi"},
		"provider":          {"provider", "terraform", "provider", `"terraform" is not one of official, offline`, set + "provider official"},
		"unknown setting":   {"profile", "dev", "profile", "no such setting; did you mean profiles?", "pulumi config rm -s dev profile"},
		"unknown variable":  {"POSTGRES_PASWORD", "x", "POSTGRES_PASWORD", "no such variable; did you mean POSTGRES_PASSWORD?", "pulumi config rm -s dev POSTGRES_PASWORD"},
		"fixed variable":    {"HMAC_CURRENT_KEY_ID", "02", "HMAC_CURRENT_KEY_ID", "no such variable", "pulumi config rm -s dev HMAC_CURRENT_KEY_ID"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(map[string]string{test.key: test.value})
			var faults fault.List
			require.ErrorAs(t, err, &faults)
			require.Len(t, faults, 1, "%v", err)
			assert.Equal(t, "trading-platform:"+test.where, faults[0].Where)
			assert.Equal(t, test.what, faults[0].What)
			if test.fix == "" { // a long list of names
				assert.Contains(t, faults[0].Fix, "use one of postgres, redis, ")
			} else {
				assert.Equal(t, test.fix, faults[0].Fix)
			}
		})
	}
}

func TestAllFaultsComeInOneErrorInTheOrderOfTheirKeys(t *testing.T) {
	_, err := load(map[string]string{
		"profiles": `["prod"]`, "portOffset": "many", "retainVolumes": "no", "foo": "1", "POSTGRES_PASWORD": "hunter2",
		"replicas": `{"alert_worker":10000}`,
	})
	require.EqualError(t, err, `6 things are wrong, and nothing was changed:
  1. trading-platform:POSTGRES_PASWORD: no such variable; did you mean POSTGRES_PASSWORD?
     Fix: pulumi config rm -s dev POSTGRES_PASWORD
  2. trading-platform:foo: no such setting
     Fix: pulumi config rm -s dev foo
  3. trading-platform:portOffset: "many" is not a whole number from 0 to 50000
     Fix: pulumi config set -s dev portOffset 0
  4. trading-platform:profiles: no profile "prod"
     Fix: use one of `+strings.Join(catalog.ProfileNames(), ", ")+`
  5. trading-platform:replicas.alert_worker: "10000" is not a number from 1 to 9999 (to have none, name it in `+"`disabled`"+`)
     Fix: pulumi config set -s dev --path replicas.alert_worker 1
  6. trading-platform:retainVolumes: "no" is not true or false
     Fix: pulumi config set -s dev retainVolumes true`)
}

// The checks that follow must work with the default that replaces an invalid value.
func TestAWrongValueLeavesTheDefault(t *testing.T) {
	s, err := load(map[string]string{"bindAddress": "x", "subnet": "x", "nginxAddress": "x", "retainVolumes": "x"})
	require.Error(t, err)
	assert.Equal(t, "127.0.0.1", s.BindAddress.String())
	assert.Equal(t, "172.28.0.0/16", s.Subnet.String())
	assert.Equal(t, "172.28.0.10", s.NginxAddress.String())
	assert.True(t, s.RetainVolumes, "data is kept when in doubt")
}

func TestASecretOfTheWrongTypeIsNotShown(t *testing.T) {
	_, err := load(map[string]string{"env": "hunter2", "serviceEnv": "hunter2", "portOffset": "hunter2"}, "env", "serviceEnv", "portOffset")
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "hunter2")
	assert.Contains(t, err.Error(), `"[secret]" is not a whole number`)
}

func TestSecrets(t *testing.T) {
	s, err := load(map[string]string{
		"POSTGRES_PASSWORD": "one", "POSTGRES_USER": "two",
		"env":        `{"LOG_LEVEL":"DEBUG","WEB_CONSOLE_PASSWORD":"three"}`,
		"serviceEnv": `{"redis":{"EXTRA":"four"}}`,
	}, "POSTGRES_PASSWORD", "env", "serviceEnv")
	require.NoError(t, err)
	assert.Equal(t, map[string]settings.Value{
		"POSTGRES_PASSWORD": {Text: "one", Secret: true},
		"POSTGRES_USER":     {Text: "two"},
		// Pulumi only says that something in the map is secret, so all of it is treated as secret.
		"LOG_LEVEL":            {Text: "DEBUG", Secret: true},
		"WEB_CONSOLE_PASSWORD": {Text: "three", Secret: true},
	}, s.Variables)
	assert.Equal(t, settings.Value{Text: "four", Secret: true}, s.ServiceEnv["redis"]["EXTRA"])
}

func envFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), ".env")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestWhereAVariableComesFrom(t *testing.T) {
	t.Setenv("LOG_LEVEL", "the process environment is never read")
	file := envFile(t, `
# a user's dotenv file, with variables that no service uses
LOG_LEVEL=from-file
STRATEGY_ID="quoted, with a # sign"
export DRY_RUN=false
EMPTY_ONE=
DEBUG=
SOMETHING_ELSE=ignored
REDIS_URL=redis://localhost:6379
DATABASE_URL=postgresql://me@localhost/db
`)
	for name, test := range map[string]struct {
		config map[string]string
		want   map[string]string
	}{
		"nowhere":  {nil, map[string]string{"LOG_LEVEL": ""}},
		"the file": {map[string]string{"envFile": file}, map[string]string{"LOG_LEVEL": "from-file", "STRATEGY_ID": "quoted, with a # sign", "DRY_RUN": "false"}},
		"what no service takes stays in the file": {map[string]string{"envFile": file},
			map[string]string{"SOMETHING_ELSE": "", "REDIS_URL": "", "DATABASE_URL": "", "DEBUG": ""}},
		"env over the file": {map[string]string{"envFile": file, "env": `{"LOG_LEVEL":"from-env"}`}, map[string]string{"LOG_LEVEL": "from-env", "DRY_RUN": "false"}},
		"a key of its own over env": {map[string]string{"envFile": file, "env": `{"LOG_LEVEL":"from-env"}`, "LOG_LEVEL": "from-key"},
			map[string]string{"LOG_LEVEL": "from-key"}},
		"an empty one does not hide another": {map[string]string{"envFile": file, "env": `{"LOG_LEVEL":""}`, "DRY_RUN": ""},
			map[string]string{"LOG_LEVEL": "from-file", "DRY_RUN": "false"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := load(test.config)
			require.NoError(t, err)
			for variable, want := range test.want {
				assert.Equal(t, want, s.Variables[variable].Text, variable)
			}
		})
	}
}

func TestAnEnvFileThatCannotBeReadIsNotShown(t *testing.T) {
	for name, text := range map[string]string{
		"a quote that is not closed": "POSTGRES_PASSWORD=\"hunter2\nLOG_LEVEL=DEBUG",
		"a name that is none":        "hunter2!=x",
		"binary":                     "hunter2\x00\xff=",
	} {
		t.Run(name, func(t *testing.T) {
			path := envFile(t, text)
			_, err := load(map[string]string{"envFile": path})
			require.EqualError(t, err, "One thing is wrong, and nothing was changed:\n"+
				"  1. trading-platform:envFile: "+path+" cannot be read as a dotenv file\n"+
				"     Fix: write one NAME=value per line, and close all quotes")
		})
	}
}

func TestPath(t *testing.T) {
	t.Setenv("HOME", "/home/me")
	for path, want := range map[string]string{
		"":            "",
		"certs":       "/clone/certs",
		"../platform": "/platform",
		"/abs":        "/abs",
		"~/platform":  "/home/me/platform",
		"~other":      "/clone/~other",
	} {
		t.Run(path, func(t *testing.T) {
			s, err := load(map[string]string{"certsDir": path})
			require.NoError(t, err)
			assert.Equal(t, want, s.CertsDir)
		})
	}
}

func TestCommands(t *testing.T) {
	assert.Equal(t, "pulumi config set -s dev portOffset 1000", settings.SetCommand("dev", "portOffset", "1000"))
	assert.Equal(t, "pulumi config set -s dev --path a.b", settings.SetCommand("dev", "--path a.b", ""), "a value that is asked for")
	assert.Equal(t, "pulumi config set -s dev --secret POSTGRES_PASSWORD", settings.SetSecretCommand("dev", "POSTGRES_PASSWORD"))
}

func TestVersion(t *testing.T) {
	v := settings.Version{Major: 1, Minor: 44}
	assert.True(t, v.AtLeast(1, 44))
	assert.True(t, v.AtLeast(1, 9))
	assert.False(t, v.AtLeast(1, 45))
	assert.False(t, v.AtLeast(2, 0))
	assert.True(t, settings.Version{Major: 2}.AtLeast(1, 44))
	assert.False(t, settings.Version{}.AtLeast(1, 40), "of an unknown engine nothing is taken for granted")
}

// The fix lists all names.
func TestTheFixOfAnUnknownServiceListsAllServices(t *testing.T) {
	_, err := load(map[string]string{"disabled": `["x"]`})
	var faults fault.List
	require.ErrorAs(t, err, &faults)
	assert.Equal(t, "use one of "+strings.Join(catalog.ServiceNames(), ", "), faults[0].Fix)
}
