//go:build live

package test

import (
	"encoding/json"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"trading-platform/infra"
)

// mayBeEmpty has the queries, by their panel or alert, that find nothing in a stack where all is well, each with the reason.
var mayBeEmpty = map[string]string{
	"jobs: Orders per second":          "the reference app places no orders",
	"jobs: Positions":                  "the reference app holds no positions",
	"requests: Server errors":          "no request has failed",
	"requests: Share of server errors": "no request has failed",
	"requests: Requests that failed":   "no request has failed",
	"alert RequestsFail":               "no request has failed",
	"alert LokiRequestsFail":           "Loki has failed on no request",
	"alert LokiRefusesLines":           "Loki has refused no line",
	"alert PromtailCannotSend":         "Promtail has delivered everything at once",
}

// query is one query of a panel or of an alert.
type query struct{ name, datasource, expression string }

// queries returns every query of every dashboard and alert.
func queries(t *testing.T, s *stack) (all []query) {
	t.Helper()
	// Grafana has no air-gap image, so the stack lacks it.
	files, err := infra.Files("grafana", infra.Values{URLs: map[string]string{"prometheus": "x", "loki_server": "x"}})
	require.NoError(t, err)
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(path, ".json") {
			continue
		}
		var dashboard struct {
			UID    string
			Panels []struct {
				Title      string
				Datasource struct{ UID string }
				Targets    []struct{ Expr string }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(files[path]), &dashboard))
		for _, panel := range dashboard.Panels {
			for _, target := range panel.Targets {
				all = append(all, query{dashboard.UID + ": " + panel.Title, panel.Datasource.UID, strings.NewReplacer(
					"$__rate_interval", "1m", "$__auto", "1m", "$service", ".+", "$log_service", ".+", "$search", "").Replace(target.Expr)})
			}
		}
	}
	prometheus, _ := s.plan().Lookup("prometheus")
	comparison := regexp.MustCompile(` (==|[<>]=?) `)
	for _, file := range prometheus.Files {
		var rules struct {
			Groups []struct {
				Rules []struct{ Alert, Expr string }
			}
		}
		if strings.Contains(file.Path, "/rules/") {
			require.NoError(t, yaml.Unmarshal([]byte(file.Content), &rules))
		}
		for _, group := range rules.Groups {
			for _, r := range group.Rules {
				if r.Alert != "" {
					// With bool, a comparison answers 0 in place of nothing: so the query finds what the alert looks at.
					all = append(all, query{"alert " + r.Alert, "prometheus", comparison.ReplaceAllString(r.Expr, " $1 bool ")})
				}
			}
		}
	}
	return all
}

// finds reports whether a query has an answer that is a number or a line.
func (s *stack) finds(t assert.TestingT, q query) bool {
	address := s.url(9090, "/api/v1/query?"+url.Values{"query": {q.expression}}.Encode())
	if q.datasource == "loki" {
		address = s.url(3100, "/loki/api/v1/query_range?"+url.Values{"query": {q.expression}, "limit": {"1"}, "step": {"15"}}.Encode())
	}
	type series struct { // at one time, or at many
		Value  [2]any
		Values [][2]any
	}
	var answer struct {
		Data struct{ Result []series }
	}
	return getJSON(t, address, &answer) && slices.ContainsFunc(answer.Data.Result, func(s series) bool {
		return slices.ContainsFunc(append(s.Values, s.Value), func(sample [2]any) bool { return sample[1] != nil && sample[1] != "NaN" })
	})
}

// assertAlerts asserts that of the named alerts exactly those fire that are wanted, each for its service, as Prometheus and
// Alertmanager have them.
func (s *stack) assertAlerts(want map[string]string) {
	s.t.Helper()
	require.EventuallyWithT(s.t, func(t *assert.CollectT) {
		var prometheus struct {
			Data struct {
				Alerts []struct {
					Labels map[string]string
					State  string
				}
			}
		}
		var alertmanager []struct{ Labels map[string]string }
		if !getJSON(t, s.url(9090, "/api/v1/alerts"), &prometheus) || !getJSON(t, s.url(9093, "/api/v2/alerts"), &alertmanager) {
			return
		}
		fires, passedOn := map[string]string{}, map[string]string{}
		for _, a := range prometheus.Data.Alerts {
			if name := a.Labels["alertname"]; a.State == "firing" && (name == "TargetDown" || name == "ServiceMissing") {
				fires[name] = a.Labels["service"]
			}
		}
		for _, a := range alertmanager {
			if name := a.Labels["alertname"]; name == "TargetDown" || name == "ServiceMissing" {
				passedOn[name] = a.Labels["service"]
			}
		}
		assert.Equal(t, want, fires)
		assert.Equal(t, want, passedOn)
	}, 3*time.Minute, time.Second)
}

// TestObservability runs what dashboards and alerts ask on a stack with a part of everything in it, of which two services
// have failed meanwhile, so that their alerts fire.
func TestObservability(t *testing.T) {
	t.Parallel()
	dir := makeCerts(t, time.Now(), "alice")
	s := newSite(t, newStack(t, "mtls", map[string]any{
		"certsDir": dir, "env": secrets, "profiles": []string{"mtls", "workers", "observability"},
	}), dir)
	s.up()
	assertHealthy(t, s.stack)
	for _, arguments := range [][]string{{"pause", s.prefix + "_backtest_worker_low"}, {"stop", s.prefix + "_alert_worker"}} {
		_, err := s.docker(arguments...)
		require.NoError(t, err)
	}

	t.Run("every query of every panel and alert finds something", func(t *testing.T) {
		alice := s.client(clientCert(t, dir, "alice"))
		s.sql("select pg_create_physical_replication_slot('nobody', true)")
		s.enqueue("backtest_high", "this is not a job")
		left := queries(t, s.stack)
		require.NotEmpty(t, left)
		known := map[string]bool{}
		for _, q := range left {
			known[q.name] = true
		}
		for name := range mayBeEmpty {
			assert.True(t, known[name], "%s has no such query any more", name)
		}
		t.Logf("%d queries", len(left))
		for n, end := 0, time.Now().Add(90*time.Second); len(left) > 0 && time.Now().Before(end); n++ {
			s.get(t, alice, "/")
			s.get(t, alice, "/nothing")
			s.enqueue("backtest_high", `{"job_id": "query-%d", "text": "x"}`, n)
			left = slices.DeleteFunc(left, func(q query) bool { return s.finds(t, q) })
			if !slices.ContainsFunc(left, func(q query) bool { return mayBeEmpty[q.name] == "" }) {
				break
			}
			time.Sleep(time.Second)
		}
		for _, q := range left {
			if reason := mayBeEmpty[q.name]; reason != "" {
				t.Logf("%s: nothing, because %s", q.name, reason)
			} else {
				assert.Fail(t, "a query finds nothing", "%s: %s", q.name, q.expression)
			}
		}
	})
	t.Run("alerts fire, and clear", func(t *testing.T) {
		s := s.in(t)
		s.assertAlerts(map[string]string{"TargetDown": "backtest_worker_low", "ServiceMissing": "alert_worker"})
		for _, arguments := range [][]string{{"unpause", s.prefix + "_backtest_worker_low"}, {"start", s.prefix + "_alert_worker"}} {
			_, err := s.docker(arguments...)
			require.NoError(t, err)
		}
		s.assertAlerts(map[string]string{})
		assertTargetsUp(t, s, s.targets()...)
	})
}
