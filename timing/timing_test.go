package timing

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/plan"
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return begin.Add(time.Duration(seconds * float64(time.Second))) }

// recorded is the record of a run: the database became healthy after 3 s and the cache after
// 2 s, the API needs both, and the page, which needs the API, was never healthy. The proxy was there before.
func recorded() *Recorder {
	r := &Recorder{
		steps:  []Span{{"the run", "preparing", at(0), at(1)}, {"the run", "Pulumi & Docker", at(1), at(9)}},
		events: map[string]map[events.Action]time.Time{},
	}
	for name, times := range map[string][]float64{"x_db": {1, 1.5, 3}, "x_cache": {1, 1.25, 2}, "x_api": {3.5, 4, 7.25}, "x_page": {7.5, 8}} {
		for i, seconds := range times {
			action := []events.Action{events.ActionCreate, events.ActionStart, events.ActionHealthStatusHealthy}[i]
			r.add(events.Message{Action: action, TimeNano: at(seconds).UnixNano(), Actor: events.Actor{Attributes: map[string]string{"name": name}}})
		}
	}
	return r
}

var stack = &plan.Plan{Services: []plan.Service{
	{Name: "db", Containers: []string{"x_db"}},
	{Name: "cache", Containers: []string{"x_cache"}},
	{Name: "proxy", Containers: []string{"x_proxy"}},
	{Name: "api", Containers: []string{"x_api"}, After: []string{"cache", "db", "proxy"}},
	{Name: "page", Containers: []string{"x_page"}, After: []string{"api"}},
}}

func report() *Report {
	r := recorded().Report(stack)
	r.End, r.Steps[len(r.Steps)-1].End = at(9), at(9)
	r.Processes = []Span{{"docker", "Create", at(1), at(3)}, {"docker", "Create", at(1), at(2)}, {"docker", "Check", at(1), at(1.001)}}
	return r
}

func text(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, write(&b))
	return b.String()
}

func TestReport(t *testing.T) {
	r := report()
	assert.Equal(t, []string{"db", "api"}, r.Path())
	assert.Equal(t, `  waiting  creating  starting  getting healthy  healthy at  container
     0.00      1.00      0.50             1.50        3.00  x_db
     0.00      1.00      0.25             0.75        2.00  x_cache
     3.00      0.50      0.50             3.25        7.25  x_api, after db
     7.25      0.25      0.50                               x_page, after api
The last container to become healthy waited for these, one after the other: db, api
   1.00  preparing
   8.00  Pulumi & Docker
   9.00  altogether
   3.00  in 2 × docker: Create
`, text(t, r.Text))
}

func TestAContainerThatIsReplacedCountsFromItsCreation(t *testing.T) {
	r := recorded()
	r.add(events.Message{Action: events.ActionCreate, TimeNano: at(8).UnixNano(), Actor: events.Actor{Attributes: map[string]string{"name": "x_db"}}})
	assert.Equal(t, map[events.Action]time.Time{events.ActionCreate: time.Unix(0, at(8).UnixNano())}, r.events["x_db"])
}

func TestARunThatStartedNothing(t *testing.T) {
	r := (&Recorder{steps: []Span{{"the run", "preparing", at(0), at(1)}}}).Report(stack)
	assert.Empty(t, r.Containers)
	assert.Empty(t, r.Path())
	assert.NotContains(t, text(t, r.Text), "one after the other")
}

func TestNoRecorderRecordsNothing(t *testing.T) {
	var r *Recorder
	r.Step("preparing")
	r.Watch(t.Context(), nil, "dev")
}

func TestChromeTrace(t *testing.T) {
	var trace struct {
		TraceEvents []struct {
			Name, Ph string
			Ts, Dur  int64
			Tid      int
			Args     map[string]string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(text(t, report().Chrome)), &trace))
	lanes, end := map[int]string{}, map[int]int64{}
	seen := map[string]int64{}
	for _, e := range trace.TraceEvents {
		if e.Ph == "M" {
			lanes[e.Tid] = e.Args["name"]
			continue
		}
		assert.GreaterOrEqual(t, e.Ts, end[e.Tid], "calls of one lane do not overlap")
		end[e.Tid] = e.Ts + e.Dur
		seen[lanes[e.Tid]+": "+e.Name] = e.Dur
	}
	assert.Equal(t, int64(3_250_000), seen["x_api: getting healthy"], "in microseconds")
	assert.Equal(t, int64(2_000_000), seen["docker: Create"])
	assert.Equal(t, int64(1_000_000), seen["docker 2: Create"], "at the same time")
	assert.NotContains(t, seen, "x_page: getting healthy")
}

func TestPicture(t *testing.T) {
	picture := text(t, report().Picture)
	for d := xml.NewDecoder(strings.NewReader(picture)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
	assert.Contains(t, picture, ">x_api</text>")
	assert.Contains(t, picture, "Pulumi &amp; Docker, 8.00 s")
}

func TestTraces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "traces.json")
	line := func(process, name, start, end string) string {
		return `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"` + process + `"}}]},` +
			`"scopeSpans":[{"spans":[{"name":"` + name + `","startTimeUnixNano":"` + start + `","endTimeUnixNano":"` + end + `"}]}]}]}` + "\n"
	}
	require.NoError(t, os.WriteFile(file, []byte(line("docker", "pulumirpc.ResourceProvider/Create", "2000", "3000")+
		line("docker", "GET /v1.41/containers/0123456789abcdef/json", "1000", "1500")+
		line("docker", "POST /v1.41/containers/create", "4000", "5000")+
		line("docker", "DELETE /v1.41/containers/0123456789abcdef", "6000", "7000")+
		line("docker", "GET /v1.41/images/a/b:c/json", "8000", "9000")), 0o600))
	spans, err := ReadTraces(file)
	require.NoError(t, err)
	var names []string
	for _, s := range spans {
		names = append(names, s.Name)
	}
	assert.Equal(t, []string{
		"GET /containers/{id}/json", "ResourceProvider/Create", "POST /containers/create", "DELETE /containers/{id}", "GET /images/{id}/json",
	}, names)
	assert.Equal(t, Span{"docker", "ResourceProvider/Create", time.Unix(0, 2000), time.Unix(0, 3000)}, spans[1])

	require.NoError(t, os.WriteFile(file, []byte("{"), 0o600))
	_, err = ReadTraces(file)
	require.ErrorContains(t, err, "reading Pulumi's trace "+file)
}
