package infra

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

type datasource struct{ UID, Type string }

// dashboard is what Grafana's schema of dashboards requires, and what the tests look at.
type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Panels        []struct {
		ID                       int
		Type, Title, Description string
		GridPos                  struct{ X, Y, W, H int }
		Datasource               datasource
		Targets                  []struct{ RefID, Expr, QueryType string }
	}
	Templating struct {
		List []struct {
			Name, Type string
			Datasource *datasource
		}
	}
}

// A panel with an unknown data source shows only an error, so the data source of each must be provisioned.
func TestDashboardsUseProvisionedDatasources(t *testing.T) {
	for name, v := range map[string]Values{
		"both":       full(),
		"prometheus": without("loki_server"),
		"loki":       without("prometheus"),
		"neither":    without("loki_server", "prometheus"),
	} {
		t.Run(name, func(t *testing.T) {
			files, err := Files("grafana", v)
			require.NoError(t, err)
			var provisioned struct {
				Datasources []struct{ UID, Type, URL string }
			}
			require.NoError(t, yaml.Unmarshal([]byte(files["/etc/grafana/provisioning/datasources/datasources.yml"]), &provisioned))
			types := map[string]string{}
			for _, d := range provisioned.Datasources {
				types[d.UID] = d.Type
			}
			assert.Equal(t, v.URLs["prometheus"] != "", types["prometheus"] != "")
			assert.Equal(t, v.URLs["loki_server"] != "", types["loki"] != "")
			for path, d := range parseDashboards(t, files) {
				for _, p := range d.Panels {
					assert.NotEmpty(t, p.Datasource.Type, "%s: %s", path, p.Title)
					assert.Equal(t, types[p.Datasource.UID], p.Datasource.Type, "%s: %s", path, p.Title)
				}
				for _, variable := range d.Templating.List {
					if variable.Datasource != nil {
						assert.NotEmpty(t, types[variable.Datasource.UID], "%s: %s", path, variable.Name)
					}
				}
				if len(types) != 1 { // host.json has nothing from Loki
					assert.Equal(t, len(types) == 0, len(d.Panels) == 0, path)
				}
			}
		})
	}
}

func parseDashboards(t *testing.T, files map[string]string) map[string]dashboard {
	t.Helper()
	all := map[string]dashboard{}
	for path, text := range files {
		if strings.HasPrefix(path, dashboards) {
			var d dashboard
			require.NoError(t, json.Unmarshal([]byte(text), &d), path)
			all[path] = d
		}
	}
	require.NotEmpty(t, all)
	return all
}

// Grafana has no image here, so this is what its schema and its rules of provisioning ask for. That each query has an
// answer is tested on a live stack.
func TestDashboardsAreWellFormed(t *testing.T) {
	files, err := Files("grafana", full())
	require.NoError(t, err)
	all := parseDashboards(t, files)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		d := all[path]
		t.Run(d.UID, func(t *testing.T) {
			assert.Equal(t, filepath.Base(path), d.UID+".json", "so that no two have one uid")
			assert.NotEmpty(t, d.Title)
			assert.Equal(t, 39, d.SchemaVersion, "that of Grafana 10.4")
			ids, taken := map[int]bool{}, map[[2]int]string{}
			for _, p := range d.Panels {
				assert.False(t, ids[p.ID] || p.ID == 0, "%s: id %d is taken", p.Title, p.ID)
				ids[p.ID] = true
				assert.Contains(t, []string{"stat", "timeseries", "state-timeline", "logs"}, p.Type, p.Title)
				assert.NotEmpty(t, p.Title)
				assert.NotEmpty(t, p.Description, p.Title)
				g := p.GridPos
				assert.True(t, g.W > 0 && g.H > 0 && g.X >= 0 && g.Y >= 0 && g.X+g.W <= 24, "%s is not on the grid of 24 columns", p.Title)
				for x := g.X; x < g.X+g.W; x++ {
					for y := g.Y; y < g.Y+g.H; y++ {
						assert.Empty(t, taken[[2]int{x, y}], "%s lies on it", p.Title)
						taken[[2]int{x, y}] = p.Title
					}
				}
				references := map[string]bool{}
				require.NotEmpty(t, p.Targets, p.Title)
				for _, target := range p.Targets {
					assert.NotEmpty(t, target.Expr, p.Title)
					assert.False(t, references[target.RefID] || target.RefID == "", "%s: refId %q is taken", p.Title, target.RefID)
					references[target.RefID] = true
					assert.Equal(t, p.Datasource.UID == "loki", target.QueryType != "", "%s: only a query for Loki has a queryType", p.Title)
				}
			}
			variables := map[string]bool{}
			for _, v := range d.Templating.List {
				assert.Contains(t, files[path], "$"+v.Name, "a variable without a use")
				variables[v.Name] = true
			}
			for _, name := range []string{"service", "log_service", "search"} {
				assert.Equal(t, strings.Contains(files[path], "$"+name), variables[name], "$%s", name)
			}
		})
	}
}
