package review

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/fault"
	"trading-platform/plan"
	"trading-platform/settings"
)

// Every stack that has a file keeps every rule.
func TestTheStacksKeepTheRules(t *testing.T) {
	for name, profiles := range map[string]string{"base": "[]", "dev": `["dev"]`, "workers": `["workers"]`, "mtls": `["mtls"]`, "oauth2": `["oauth2"]`, "manual": `["manual"]`} {
		for _, address := range []string{"127.0.0.1", "0.0.0.0"} {
			set, err := settings.Load(settings.Source{Stack: name, Root: t.TempDir(), Config: map[string]string{"profiles": profiles, "bindAddress": address}})
			require.NoError(t, err)
			p, _ := plan.Resolve(set, nil) // what is not set yet is no matter here
			assert.NoError(t, Check(p, set, catalog.Services()), name)
		}
	}
}

func TestRules(t *testing.T) {
	for name, test := range map[string]struct {
		edit   func(o *plan.Service, s *catalog.Service)
		config map[string]string
		want   string // where and what
	}{
		"no tag":                     {edit: func(o *plan.Service, _ *catalog.Service) { o.Image.Reference = "redis" }, want: "policy pinned-image: service redis runs image redis, which can be another one tomorrow"},
		"latest":                     {edit: func(o *plan.Service, _ *catalog.Service) { o.Image.Reference = "example.com:5000/redis:latest" }, want: "policy pinned-image: service redis runs image example.com:5000/redis:latest, which can be another one tomorrow"},
		"a digest":                   {edit: func(o *plan.Service, _ *catalog.Service) { o.Image.Reference = "redis@sha256:" + hex64 }},
		"latest, with a digest":      {edit: func(o *plan.Service, _ *catalog.Service) { o.Image.Reference = "redis:latest@sha256:" + hex64 }},
		"a build":                    {edit: func(o *plan.Service, _ *catalog.Service) { o.Image = plan.Image{Build: &plan.Build{Name: "a"}} }},
		"open":                       {edit: func(o *plan.Service, _ *catalog.Service) { o.Ports[0].Address = "0.0.0.0" }, want: "policy loopback-only: service redis publishes port 6379 on 0.0.0.0, and no setting names it"},
		"open, IPv6":                 {edit: func(o *plan.Service, _ *catalog.Service) { o.Ports[0].Address = "::" }, want: "policy loopback-only: service redis publishes port 6379 on ::, and no setting names it"},
		"open by bindAddress alone":  {edit: func(o *plan.Service, _ *catalog.Service) { o.Ports[0].Address = "10.0.0.1" }, config: map[string]string{"bindAddress": "10.0.0.1"}, want: "policy loopback-only: service redis publishes port 6379 on 10.0.0.1, and no setting names it"},
		"with a login":               {edit: func(o *plan.Service, s *catalog.Service) { o.Ports[0].Address, s.Ports[0].Login = "10.0.0.1", true }, config: map[string]string{"bindAddress": "10.0.0.1"}},
		"exposed":                    {edit: func(o *plan.Service, _ *catalog.Service) { o.Ports[0].Address = "10.0.0.1" }, config: map[string]string{"expose": `["redis"]`, "REDIS_PASSWORD": "only-in-this-test"}},
		"no probe":                   {edit: func(o *plan.Service, _ *catalog.Service) { o.Probe.Test = nil }, want: "policy probe: service redis has no probe"},
		"a probe that is turned off": {edit: func(o *plan.Service, _ *catalog.Service) { o.Probe.Test = []string{"NONE"} }, want: "policy probe: service redis has no probe"},
		"no memory limit":            {edit: func(o *plan.Service, _ *catalog.Service) { o.Memory = 0 }, want: "policy memory-limit: service redis has no memory limit"},
		"no owner":                   {edit: func(_ *plan.Service, s *catalog.Service) { s.Owner = "" }, want: "policy owner: service redis has no owner"},
		"an exception": {edit: func(o *plan.Service, s *catalog.Service) {
			o.Memory, s.Exceptions = 0, map[catalog.Rule]string{catalog.RuleMemory: "it is measured"}
		}},
		"another exception": {edit: func(o *plan.Service, s *catalog.Service) {
			o.Memory, s.Exceptions = 0, map[catalog.Rule]string{catalog.RuleOwner: "it is nobody's"}
		}, want: "policy memory-limit: service redis has no memory limit"},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := settings.Load(settings.Source{Stack: "dev", Root: t.TempDir(), Config: test.config})
			require.NoError(t, err)
			p, _ := plan.Resolve(set, nil) // what is not set yet is no matter here
			redis, _ := catalog.Lookup("redis")
			test.edit((&Snapshot{Plan: *p}).of("redis"), &redis)
			err = Check(p, set, []catalog.Service{redis})
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			var list fault.List
			require.ErrorAs(t, err, &list)
			require.Len(t, list, 1)
			assert.Equal(t, test.want, list[0].Where+": "+list[0].What)
			assert.Contains(t, list[0].Fix, `in catalog/base.go, or write there why not: Exceptions: map[Rule]string{"`)
		})
	}
}

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestARemovedVolumeBreaksARule(t *testing.T) {
	base, head := snapshot(t, nil), snapshot(t, nil)
	head.Volumes = head.Volumes[1:]
	assert.Equal(t, []Item{{What: "policy", Name: "pgdata", Text: "volume-kept: volume pgdata is removed. Fix: keep it in catalog.Volumes, or give the reason in catalog.RemovedVolumes"}},
		Compare("dev", base, head).items("policy"))
	head.RemovedVolumes = map[string]string{"pgdata": "the data is elsewhere"}
	assert.Empty(t, Compare("dev", base, head).items("policy"))
}

func TestARuleThatIsNewlyBrokenIsAnError(t *testing.T) {
	base, head := snapshot(t, nil), snapshot(t, nil)
	base.Faults, head.Faults = []string{"policy owner: service a has no owner"}, []string{"policy owner: service a has no owner", "policy probe: service b has no probe"}
	report := Report{Stacks: []Stack{Compare("dev", base, head)}}
	assert.Equal(t, []Item{{What: "policy", Text: "probe: service b has no probe"}}, report.Stacks[0].Items)
	require.EqualError(t, report.BrokenRules(), "stack dev: policy probe: service b has no probe")
}
