package infra

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// dashboardFolder is where the dashboards lie in the container. Not under /var/lib/grafana, which is a volume: what is
// uploaded there would vanish under it.
const dashboardFolder = "/etc/grafana/dashboards"

func grafana(v Values) (map[string]string, error) {
	files := map[string]string{}
	for folder, root := range map[string]string{
		"files/grafana/datasources": "/etc/grafana/provisioning/datasources",
		"files/grafana/dashboards":  "/etc/grafana/provisioning/dashboards",
		"files/grafana/json":        dashboardFolder,
	} {
		part, err := tree(folder, root, v)
		if err != nil {
			return nil, err
		}
		if root == dashboardFolder {
			if err := withoutMissing(part, v); err != nil {
				return nil, err
			}
		}
		maps.Copy(files, part)
	}
	return files, nil
}

// withoutMissing takes the panels and variables out of the dashboards whose datasource is not in the stack: they would
// show nothing but an error.
func withoutMissing(dashboards map[string]string, v Values) error {
	if v.LokiEnabled && v.PrometheusEnabled {
		return nil
	}
	present := map[string]bool{"prometheus": v.PrometheusEnabled, "loki": v.LokiEnabled}
	missing := func(part any) bool {
		datasource, ok := part.(map[string]any)["datasource"].(map[string]any)
		return ok && !present[datasource["uid"].(string)]
	}
	for name, text := range dashboards {
		var dashboard map[string]any
		if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		dashboard["panels"] = slices.DeleteFunc(dashboard["panels"].([]any), missing)
		templating := dashboard["templating"].(map[string]any)
		templating["list"] = slices.DeleteFunc(templating["list"].([]any), missing)
		var out bytes.Buffer
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(dashboard); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		dashboards[name] = out.String()
	}
	return nil
}
