package review

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// moved is a change of redis for which signal_service waits.
func moved() Stack {
	return Stack{Name: "dev", Kind: Changed, Severity: Outage, Items: []Item{{
		What: "service", Name: "redis", Kind: Changed, Changes: []Change{{Field: "port 6379", Before: "a", After: "b"}},
		Replaced: []string{"x_redis"}, Waiting: []string{"signal_service"},
	}}}
}

// went is a step that does what moved predicts.
func went() Step {
	return Step{From: "main (abc1234)", To: "this checkout", Up: 3.25, Order: []string{"redis"}, Services: []Measured{
		{Service: "redis", Predicted: "replaced", Measured: "replaced", Outage: 1.5, Calls: 40, FailedCalls: 6, ImageBefore: 41e6, ImageAfter: 45e6},
		{Service: "signal_service", Predicted: "kept", Measured: "kept", Waits: true, Outage: 9, Calls: 40, FailedCalls: 36, Warnings: []string{"WARN redis is away", "b", "c", "d", "e"}},
		{Service: "postgres", Predicted: "kept", Measured: "kept", Calls: 40, ImageBefore: 1e8, ImageAfter: 1e8},
	}, Data: []Count{{"keys of Redis", 201, 201}, {"rows of PostgreSQL", 5050, 5050}}}
}

func TestFindings(t *testing.T) {
	atRisk := Item{What: "data", Name: "redis", Text: "its volume is gone"}
	for name, test := range map[string]struct {
		edit func(diff *Stack, step *Step)
		want []Finding
		back bool
	}{
		"as predicted": {edit: func(*Stack, *Step) {}},
		"not replaced": {edit: func(_ *Stack, s *Step) { s.Services[0].Measured = "kept" }, want: []Finding{{Restart, false, "redis", "predicted: replaced; measured: kept"}}},
		"another replaced": {edit: func(_ *Stack, s *Step) { s.Services[2].Measured = "replaced" },
			want: []Finding{{Restart, false, "postgres", "predicted: kept; measured: replaced"}}},
		"an outage that nothing predicted": {edit: func(_ *Stack, s *Step) { s.Services[2].Outage = 7.25 },
			want: []Finding{{Outage, false, "postgres", "could not answer for 7.2 s, and nothing predicted it"}}},
		"slow for a moment": {edit: func(_ *Stack, s *Step) { s.Services[2].Outage = 2 }},
		"a failed up": {edit: func(_ *Stack, s *Step) { s.Failed, s.Services[2].Measured = "oh", "deleted" },
			want: []Finding{{Outage, false, "up", "fails, and nothing predicted it"}}},
		"a failed up that was predicted": {edit: func(d *Stack, s *Step) {
			s.Failed, d.Items = "oh", append(d.Items, Item{What: "fault", Text: "x: is not set"})
		},
			want: []Finding{{Outage, false, "up", "fails; predicted: x: is not set"}}},
		"an up that should fail": {edit: func(d *Stack, _ *Step) { d.Items = append(d.Items, Item{What: "fault", Text: "x: is not set"}) },
			want: []Finding{{None, false, "up", "succeeds; predicted: x: is not set"}}},
		"lost keys": {edit: func(_ *Stack, s *Step) { s.Data[0].After = 3 }, want: []Finding{{DataAtRisk, false, "keys of Redis", "201 before, 3 after"}}},
		"no database": {edit: func(_ *Stack, s *Step) { s.Data[1].After = Unreadable },
			want: []Finding{{DataAtRisk, false, "rows of PostgreSQL", "5050 before, cannot be read after"}}},
		"lost as predicted": {edit: func(d *Stack, s *Step) { s.Data[0].After, d.Items = 0, append(d.Items, atRisk) },
			want: []Finding{{DataAtRisk, false, "keys of Redis", "201 before, 0 after"}}},
		"not lost": {edit: func(d *Stack, _ *Step) { d.Items = append(d.Items, atRisk) },
			want: []Finding{{None, false, "data", "all of it is there; predicted: redis its volume is gone"}}},
		"no way back": {edit: func(_ *Stack, s *Step) { s.Failed = "oh" }, back: true,
			want: []Finding{{Outage, true, "up", "fails on the way back, so that the change cannot be undone by an up"}}},
	} {
		t.Run(name, func(t *testing.T) {
			diff, step := moved(), went()
			test.edit(&diff, &step)
			r := Rehearsal{Forward: step}
			if test.back {
				r = Rehearsal{Forward: went(), Back: step}
			}
			r.Judge(moved(), diff)
			if !test.back {
				r.Judge(diff, moved())
			}
			assert.Equal(t, test.want, r.Findings)
			assert.Equal(t, 2*min(1, len(test.want)), Report{Rehearsal: &r}.ExitCode())
		})
	}
}

// rehearsed is a report of a rehearsal with findings there and back.
func rehearsed() Report {
	diff, back := moved(), went()
	r := &Rehearsal{Stack: "dev", Seed: "the project's own seed", Up: 12, Forward: went(), Back: back}
	r.Forward.Data[0].After, r.Back.Failed = 7, "error: it <does> not work\n```\nFix: nothing"
	r.Judge(diff, diff)
	return Report{Version: Version, Base: "main (abc1234)", Head: "this checkout", Stacks: []Stack{diff}, Rehearsal: r}
}

func TestRehearsalsRead(t *testing.T) {
	report := rehearsed()
	quiet := rehearsed()
	quiet.Rehearsal.Forward, quiet.Rehearsal.Back = went(), Step{}
	quiet.Rehearsal.Judge(moved(), moved())
	var text, markdown strings.Builder
	for _, r := range []Report{report, quiet} {
		require.NoError(t, r.Text(&text))
		require.NoError(t, r.Markdown(&markdown))
	}
	for name, got := range map[string]string{"rehearsal.txt": text.String(), "rehearsal.md": markdown.String()} {
		golden := filepath.Join("testdata", name)
		if *update {
			require.NoError(t, os.WriteFile(golden, []byte(got), 0o600))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		assert.Equal(t, string(want), got)
	}
}

func TestALongRehearsalFitsACommentBesideThePlans(t *testing.T) {
	report := rehearsed()
	for range 5000 {
		report.Rehearsal.Forward.Failed += strings.Repeat("ä", 20) + "\n"
	}
	var out strings.Builder
	require.NoError(t, report.Markdown(&out))
	assert.Less(t, longestPlans+out.Len(), 65000)
	assert.Equal(t, strings.Count(out.String(), "<details>"), strings.Count(out.String(), "</details>"))
}

func TestReportsKeepTheSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../docs/report.schema.json")
	require.NoError(t, err)
	base, head := snapshot(t, nil), snapshot(t, map[string]string{"portOffset": "10", "retainVolumes": "false"})
	head.Faults, head.Volumes = []string{"a: is wrong"}, head.Volumes[1:]
	plans := Report{Version: Version, Base: "a", Head: "b", Stacks: []Stack{Compare("dev", base, head), Compare("new", nil, head)}, Unplanned: []string{"go.mod"}}
	for _, report := range []Report{plans, rehearsed()} {
		var text bytes.Buffer
		require.NoError(t, report.JSON(&text))
		value, err := jsonschema.UnmarshalJSON(&text)
		require.NoError(t, err)
		require.NoError(t, schema.Validate(value))
		value.(map[string]any)["version"] = json.Number("2")
		require.Error(t, schema.Validate(value), "another version")
	}
}

func TestJUnit(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "reports")
	require.NoError(t, rehearsed().WriteAll(folder))
	text, err := os.ReadFile(filepath.Join(folder, "report.xml"))
	require.NoError(t, err)
	var suite struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Cases    []struct {
			Class   string `xml:"classname,attr"`
			Name    string `xml:"name,attr"`
			Failure string `xml:"failure"`
		} `xml:"testsuite>testcase"`
	}
	require.NoError(t, xml.Unmarshal(text, &suite))
	assert.Equal(t, [3]int{5, 2, 5}, [3]int{suite.Tests, suite.Failures, len(suite.Cases)})
	assert.Equal(t, "no data is at risk", suite.Cases[0].Name)
	assert.Empty(t, suite.Cases[0].Failure)
	assert.Equal(t, "rehearsal of dev", suite.Cases[3].Class)
	assert.Equal(t, "keys of Redis: 201 before, 7 after", suite.Cases[3].Failure)
	assert.Equal(t, "the change can be undone", suite.Cases[4].Name)
	assert.Contains(t, suite.Cases[4].Failure, "cannot be undone")
	for _, file := range []string{"report.md", "report.json"} {
		assert.FileExists(t, filepath.Join(folder, file))
	}
}

func TestSeverity(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(s *Snapshot)
		want Severity
	}{
		"nothing":                        {func(*Snapshot) {}, None},
		"in place":                       {func(s *Snapshot) { s.of("redis").Memory++ }, None},
		"nobody waits for it":            {func(s *Snapshot) { s.of("promtail").User = "1000" }, Restart},
		"users can reach it":             {func(s *Snapshot) { s.of("grafana").User = "1000" }, Outage},
		"a fault":                        {func(s *Snapshot) { s.Faults = []string{"a"} }, Outage},
		"data, whatever else it changes": {func(s *Snapshot) { s.of("grafana").Mounts = nil }, DataAtRisk},
	} {
		t.Run(name, func(t *testing.T) {
			base, head := snapshot(t, nil), snapshot(t, nil)
			test.edit(head)
			assert.Equal(t, test.want, Compare("dev", base, head).Severity)
		})
	}
}
