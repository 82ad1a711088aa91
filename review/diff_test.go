package review

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/plan"
	"trading-platform/settings"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// snapshot is the plan of a stack with some config, as `platform plan -o json --files` gives it.
func snapshot(t *testing.T, config map[string]string) *Snapshot {
	t.Helper()
	set, err := settings.Load(settings.Source{Stack: "dev", Root: t.TempDir(), Config: config})
	require.NoError(t, err)
	p, _ := plan.Resolve(set, nil) // what is not set yet is no matter here
	files := fstest.MapFS{}
	for _, o := range p.Services {
		for _, f := range o.Files {
			files[o.Name+f.Path] = &fstest.MapFile{Data: []byte(f.Content)}
		}
	}
	var text strings.Builder
	require.NoError(t, p.JSON(&text))
	s, err := Read([]byte(text.String()), files)
	require.NoError(t, err)
	return s
}

// of finds a service to edit.
func (s *Snapshot) of(name string) *plan.Service {
	for i := range s.Services {
		if s.Services[i].Name == name {
			return &s.Services[i]
		}
	}
	panic("no service " + name)
}

func TestWhatReplacesAContainer(t *testing.T) {
	for name, c := range map[string]struct {
		edit     func(s *Snapshot)
		field    string
		replaces bool
	}{
		"image":             {func(s *Snapshot) { s.of("redis").Image.Reference = "redis:8-alpine" }, "image", true},
		"name":              {func(s *Snapshot) { s.of("redis").Containers[0] = "other" }, "container", true},
		"command":           {func(s *Snapshot) { s.of("redis").Command = []string{"redis-server"} }, "command", true},
		"user":              {func(s *Snapshot) { s.of("redis").User = "1000" }, "user", true},
		"variable":          {func(s *Snapshot) { s.of("redis").Env = append(s.of("redis").Env, plan.Env{Name: "A", Value: "b"}) }, "env A", true},
		"host port":         {func(s *Snapshot) { s.of("redis").Ports[0].Host++ }, "port 6379", true},
		"address":           {func(s *Snapshot) { s.of("redis").Ports[0].Address = "0.0.0.0" }, "port 6379", true},
		"read-only":         {func(s *Snapshot) { s.of("redis").Mounts[0].ReadOnly = true }, "mount /data", true},
		"probe":             {func(s *Snapshot) { s.of("redis").Probe.Test = []string{"CMD", "true"} }, "probe", true},
		"probe timing":      {func(s *Snapshot) { s.of("redis").Probe.StartPeriod.Duration = 3 * time.Minute }, "probe start period", true},
		"capability":        {func(s *Snapshot) { s.of("redis").Capabilities = []string{"CHOWN"} }, "capabilities", true},
		"image's own files": {func(s *Snapshot) { s.of("redis").ReadOnly = false }, "read-only image", true},
		"init":              {func(s *Snapshot) { s.of("redis").Init = true }, "the engine's init", true},
		"tmpfs":             {func(s *Snapshot) { s.of("redis").Tmpfs = nil }, "folders in memory", true},
		"memory":            {func(s *Snapshot) { s.of("redis").Memory = 1 }, "memory limit in MB", false},
		"subnet":            {func(s *Snapshot) { s.Networks[0].Subnet = "10.0.0.0/24" }, "network default", true},
		"edge":              {func(s *Snapshot) { s.of("redis").After = []string{"postgres"} }, "starts after", true},
		"time to stop":      {func(s *Snapshot) { s.of("redis").Grace.Duration = 2 * time.Minute }, "time to stop", false},
		"health":            {func(s *Snapshot) { s.of("redis").Health = "tcp://redis:1" }, "health", false},
		"printed URL":       {func(s *Snapshot) { s.of("redis").Ports[0].URL = "other" }, "", false},
		"variables' order": {func(s *Snapshot) {
			e := s.of("postgres").Env
			e[0], e[1] = e[1], e[0]
		}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			base, head := snapshot(t, nil), snapshot(t, nil)
			c.edit(head)
			d := Compare("dev", base, head)
			if c.field == "" {
				assert.Equal(t, Stack{Name: "dev", Kind: Same, Severity: None}, d)
				return
			}
			for _, s := range d.items("service") {
				if s.Name != "redis" {
					continue
				}
				require.Len(t, s.Changes, 1)
				assert.Equal(t, c.field, s.Changes[0].Field)
				assert.Equal(t, c.replaces, len(s.Replaced) == 1, "%+v", s)
				return
			}
			assert.Fail(t, "redis does not change")
		})
	}
}

func TestWhatItMeansForData(t *testing.T) {
	for name, c := range map[string]struct {
		base func(s *Snapshot)
		head func(s *Snapshot)
		want []string
	}{
		"nothing": {},
		"another PostgreSQL": {
			head: func(s *Snapshot) { s.of("postgres").Image.Reference = "postgres:17.2-alpine" },
			want: []string{"postgres: PostgreSQL 16 → 17: version 17 cannot read the data of version 16. An up of a stack with data is refused until the data is moved: platform upgrade"},
		},
		"the same PostgreSQL, named otherwise": {
			head: func(s *Snapshot) { s.of("postgres").Image.Reference = "registry.example:5000/postgres:16.4" },
		},
		"a PostgreSQL that does not say its version": {
			head: func(s *Snapshot) { s.of("postgres").Image.Reference = "registry.example:5000/postgres" },
			want: []string{"postgres: another image, postgres:16 → registry.example:5000/postgres, whose tags do not tell both versions: make sure that it can read the data that is there"},
		},
		"a newer Redis": {
			head: func(s *Snapshot) { s.of("redis").Image.Reference = "redis:8-alpine" },
		},
		"an older Redis": {
			base: func(s *Snapshot) { s.of("redis").Image.Reference = "redis:7.4" },
			head: func(s *Snapshot) { s.of("redis").Image.Reference = "redis:7.2" },
			want: []string{"redis: redis:7.4 → redis:7.2 is a step back: an older Redis may not read the data of a newer one, and an up is refused then"},
		},
		"volumes no longer kept": {
			head: func(s *Snapshot) { s.RetainVolumes = false },
			want: []string{"retainVolumes: turned off: from the next up on, `pulumi destroy` and every volume that leaves the stack delete the data"},
		},
		"a volume gone": {
			head: func(s *Snapshot) { s.Volumes = s.Volumes[1:] },
			want: []string{"volume trading_platform_pgdata: leaves the stack (postgres used it); its data stays on the engine"},
		},
		"a volume gone that was not kept": {
			base: func(s *Snapshot) { s.RetainVolumes = false },
			head: func(s *Snapshot) { s.RetainVolumes, s.Volumes = false, s.Volumes[1:] },
			want: []string{"volume trading_platform_pgdata: leaves the stack (postgres used it); its data is DELETED by the next up, because retainVolumes is off"},
		},
		"a volume of another name": {
			head: func(s *Snapshot) { s.Volumes[0].Name = "other" },
			want: []string{"volume trading_platform_pgdata: is left for other, which starts empty unless it exists; of the old one, its data stays on the engine"},
		},
		"a volume taken over": {
			head: func(s *Snapshot) { s.Volumes[0] = plan.Volume{Key: "pgdata", Name: "old_pgdata", TakeOver: true} },
			want: []string{"volume trading_platform_pgdata: is left for the existing volume old_pgdata, whose data postgres takes over; of the old one, its data stays on the engine"},
		},
		"a volume out of use": {
			head: func(s *Snapshot) { s.of("grafana").Mounts = nil },
			want: []string{"volume trading_platform_grafanadata: is mounted by no service any more (grafana did); its data stays on the engine, out of use"},
		},
		"a volume that fewer use": {
			head: func(s *Snapshot) { s.of("web_console_dev").Mounts = nil },
			want: []string{"volume trading_platform_backtest_data: is no longer mounted by web_console_dev (backtest_worker_dev still mounts it)"},
		},
		"a volume elsewhere": {
			head: func(s *Snapshot) { s.of("postgres").Mounts[0].Path = "/var/lib/postgresql" },
			want: []string{"volume trading_platform_pgdata: is mounted elsewhere in postgres, at /var/lib/postgresql instead of /var/lib/postgresql/data: what looks for its data at the old path finds none"},
		},
		"another password, which an up sets": {
			head: func(s *Snapshot) { s.of("postgres").Env[1].Value = "another" },
		},
		"another role": {
			head: func(s *Snapshot) { s.of("postgres").Env[0].Value = "another" },
			want: []string{"postgres: POSTGRES_USER changes, and counts for an empty volume only: a database that exists has no such role, and an up fails until the old one is set again"},
		},
		"another database": {
			head: func(s *Snapshot) { s.of("postgres").Env[2].Value = "another" },
			want: []string{"postgres: POSTGRES_DB changes: the next up adds an empty database of that name, and the data stays in the old one"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := map[string]string{"profiles": `["dev"]`}
			base, head := snapshot(t, config), snapshot(t, config)
			if c.base != nil {
				c.base(base)
			}
			if c.head != nil {
				c.head(head)
			}
			var got []string
			for _, consequence := range Compare("dev", base, head).items("data") {
				got = append(got, consequence.Name+": "+consequence.Text)
			}
			assert.Equal(t, c.want, got)
		})
	}
}

func TestSecretsHaveNoValue(t *testing.T) {
	const secret = "t0p-s3cret"
	for name, c := range map[string]struct{ before, after []plan.Env }{
		"becomes a secret":     {[]plan.Env{{Name: "A", Value: secret}}, []plan.Env{{Name: "A", Value: settings.Hidden, Secret: true}}},
		"is no secret anymore": {[]plan.Env{{Name: "A", Value: settings.Hidden, Secret: true}}, []plan.Env{{Name: "A", Value: secret}}},
		"a new secret":         {nil, []plan.Env{{Name: "A", Value: secret, Secret: true}}},
		"a secret less":        {[]plan.Env{{Name: "A", Value: secret, Secret: true}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			base, head := snapshot(t, nil), snapshot(t, nil)
			base.of("redis").Env, head.of("redis").Env = c.before, c.after
			report := Report{Base: "a", Head: "b", Stacks: []Stack{Compare("dev", base, head)}}
			var out strings.Builder
			require.NoError(t, report.Text(&out))
			require.NoError(t, report.Markdown(&out))
			require.NoError(t, report.JSON(&out))
			assert.Contains(t, out.String(), "env A")
			assert.NotContains(t, out.String(), secret)
		})
	}
}

func TestReplicasComeAndGoWithoutTouchingTheRest(t *testing.T) {
	one, three := snapshot(t, map[string]string{"profiles": `["workers"]`}), snapshot(t, map[string]string{
		"profiles": `["workers"]`, "replicas": `{"alert_worker": 3}`})
	two := []string{"trading_platform_alert_worker_2", "trading_platform_alert_worker_3"}
	assert.Equal(t, []Item{{What: "service", Name: "alert_worker", Kind: Changed, Created: two}}, Compare("dev", one, three).Items)
	assert.Equal(t, []Item{{What: "service", Name: "alert_worker", Kind: Changed, Deleted: two}}, Compare("dev", three, one).Items)
}

func TestExitCode(t *testing.T) {
	assert.Equal(t, 0, Report{Stacks: []Stack{{Kind: Same}}}.ExitCode())
	assert.Equal(t, 2, Report{Stacks: []Stack{{Kind: Same}, {Kind: Changed}}}.ExitCode())
	assert.Equal(t, 2, Report{Stacks: []Stack{{Kind: Removed}}}.ExitCode())
	assert.Equal(t, 3, Report{Stacks: []Stack{{Kind: Added}, {Kind: Changed, Items: []Item{{What: "data"}}}}}.ExitCode())
}

func TestANewFaultIsAChange(t *testing.T) {
	base, head := snapshot(t, nil), snapshot(t, nil)
	base.Faults, head.Faults = []string{"a", "b"}, []string{"b", "c"}
	d := Compare("dev", base, head)
	assert.Equal(t, Changed, d.Kind)
	assert.Equal(t, []Item{{What: "fault", Text: "c"}, {What: "fixed", Text: "a"}}, d.Items)
}

func TestEveryFieldOfAServiceIsCompared(t *testing.T) {
	full := plan.Service{
		Name: "a", Tier: catalog.Base, Profile: "p", Local: true, Once: true, Host: &plan.Host{Port: 1},
		Containers: []string{"a"}, Image: plan.Image{Reference: "i"}, Command: []string{"c"},
		User: "u", Env: []plan.Env{{Name: "E"}}, Ports: []plan.Port{{Host: 1}}, Mounts: []plan.Mount{{Path: "/m"}},
		Files: []plan.File{{Path: "/f"}}, Networks: []plan.Attachment{{Network: "n"}}, After: []string{"b"},
		Probe: plan.Probe{Test: []string{"t"}}, Health: "h", Metrics: "m", Grace: plan.Duration{Duration: 1}, Capabilities: []string{"c"}, Placement: "n", Memory: 1, CPUShares: 1, ReadOnly: true, Init: true, Tmpfs: []string{"t"}, DNSOptions: []string{"d"},
	}
	for i := range reflect.TypeFor[plan.Service]().NumField() {
		f := reflect.TypeFor[plan.Service]().Field(i)
		if !f.IsExported() || f.Name == "Name" {
			continue
		}
		less := full
		reflect.ValueOf(&less).Elem().Field(i).SetZero()
		assert.NotEqual(t, full, less, "give the test a value for %s", f.Name)
		d := Compare("dev", &Snapshot{Plan: plan.Plan{Services: []plan.Service{full}}}, &Snapshot{Plan: plan.Plan{Services: []plan.Service{less}}})
		assert.Len(t, d.items("service"), 1, "%s is not in the table of fields (Snapshot.values)", f.Name)
	}
}

// The goldens are what users see.
func TestReportsRead(t *testing.T) {
	dev := map[string]string{"profiles": `["dev"]`}
	base, head := snapshot(t, dev), snapshot(t, map[string]string{
		"profiles": `["dev"]`, "retainVolumes": "false", "disabled": `["grafana"]`, "LOG_LEVEL": "DEBUG", "portOffset": "10",
	})
	head.of("postgres").Image.Reference = "postgres:17"
	configuration := &head.of("prometheus").Files[0]
	configuration.Content = strings.Replace(configuration.Content, "scrape_interval: 15s", "scrape_interval: 20s", 1)
	head.Faults = []string{"trading-platform:WEB_CONSOLE_USER: required by web_console_dev, but not set"}
	head.Edited = map[string][]string{"apps/reference": {"apps/reference/main.go", "apps/reference/new.go"}}
	quiet := snapshot(t, nil)
	// The goldens are of these alone and in this order, whatever else the catalog has by now.
	written := strings.Fields("postgres redis prometheus loki_server promtail grafana execution_gateway signal_service market_data_service " +
		"model_registry orchestrator backtest_worker_dev web_console_dev")
	for _, s := range []*Snapshot{base, head, quiet} {
		s.Services = slices.DeleteFunc(s.Services, func(s plan.Service) bool { return !slices.Contains(written, s.Name) })
		slices.SortFunc(s.Services, func(a, b plan.Service) int { return slices.Index(written, a.Name) - slices.Index(written, b.Name) })
	}
	report := Report{Base: "main (abc1234)", Head: "this checkout", Unplanned: []string{"components/service.go"}}
	for _, stack := range []struct {
		name       string
		base, head *Snapshot
	}{{"base", quiet, quiet}, {"dev", base, head}, {"dev2", base, head}, {"new", nil, quiet}, {"old", quiet, nil}} {
		report.Stacks = append(report.Stacks, Compare(stack.name, stack.base, stack.head))
	}
	var text, markdown strings.Builder
	require.NoError(t, report.Text(&text))
	require.NoError(t, report.Markdown(&markdown))
	// How many lines stand before a changed one depends on how many services the catalog has.
	position := regexp.MustCompile(`@@ [-+,0-9 ]+ @@`)
	for name, got := range map[string]string{"report.txt": text.String(), "report.md": markdown.String()} {
		got = position.ReplaceAllString(got, "@@ … @@")
		golden := filepath.Join("testdata", name)
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(golden, []byte(got), 0o600))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		assert.Equal(t, string(want), got)
	}
}

func TestMarkdownCannotBeBrokenOutOf(t *testing.T) {
	base, head := snapshot(t, nil), snapshot(t, nil)
	nasty := "`` @everyone <b> ```\n# heading | [x](http://example.com)"
	head.of("redis").User = nasty
	head.Faults = []string{nasty}
	head.of("prometheus").Files[0].Content += "```\n````\n"
	var out strings.Builder
	require.NoError(t, Report{Base: "a", Head: "b", Stacks: []Stack{Compare("dev", base, head)}}.Markdown(&out))
	assert.Contains(t, out.String(), "- user: ```` `` @everyone <b> ``` # heading | [x](http://example.com) ````")
	assert.Contains(t, out.String(), "&lt;b&gt;")
	assert.NotContains(t, out.String(), "\n# heading")
	assert.Contains(t, out.String(), "  `````diff\n")
}

func TestALongReportFitsAComment(t *testing.T) {
	base, head := snapshot(t, nil), snapshot(t, nil)
	for i := range 2000 {
		head.Faults = append(head.Faults, strings.Repeat("ä", 20)+string(rune('a'+i%26))+strings.Repeat("x", i%50+i/50))
	}
	var out strings.Builder
	require.NoError(t, Report{Stacks: []Stack{Compare("dev", base, head)}}.Markdown(&out))
	assert.Less(t, out.Len(), 65536)
	assert.Contains(t, out.String(), "… cut: the report's artifact has all of it, and so has `platform plan --all --diff <ref>`.")
}

func TestTheUnplannedPlacesExist(t *testing.T) {
	for _, place := range unplanned {
		_, err := os.Stat(filepath.Join("..", place))
		assert.NoError(t, err)
	}
}
