package infra

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

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

			type datasource struct{ UID, Type string }
			var dashboard struct {
				UID    string
				Panels []struct {
					ID         int
					Title      string
					Datasource datasource
					Targets    []struct{ Datasource datasource }
				}
				Templating struct {
					List []struct{ Datasource *datasource }
				}
			}
			require.NoError(t, json.Unmarshal([]byte(files[dashboards+"stack-health.json"]), &dashboard))
			assert.Equal(t, "stack-health", dashboard.UID)
			ids := map[int]bool{}
			for _, p := range dashboard.Panels {
				assert.False(t, ids[p.ID], "panel id %d is taken twice", p.ID)
				ids[p.ID] = true
				assert.NotEmpty(t, p.Targets, p.Title)
				for _, target := range p.Targets {
					assert.Equal(t, p.Datasource, target.Datasource, p.Title)
				}
				assert.Equal(t, types[p.Datasource.UID], p.Datasource.Type, p.Title)
				assert.NotEmpty(t, p.Datasource.Type, p.Title)
			}
			for _, variable := range dashboard.Templating.List {
				if variable.Datasource != nil {
					assert.NotEmpty(t, types[variable.Datasource.UID])
				}
			}
			if len(v.URLs) == 2 {
				assert.Greater(t, len(dashboard.Panels), 10)
			}
		})
	}
}
