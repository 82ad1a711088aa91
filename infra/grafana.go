package infra

import (
	"bytes"
	"encoding/json"
	"slices"
)

// dashboards is the folder of Grafana's dashboards. It is not below /var/lib/grafana: a volume is mounted there, which
// would hide uploaded files.
const dashboards = "/etc/grafana/dashboards/"

// withoutMissing removes the panels and variables from a dashboard whose data source is not in the stack: they would
// only show an error.
func withoutMissing(text string, v Values) (string, error) {
	present := map[string]bool{"prometheus": v.URLs["prometheus"] != "", "loki": v.URLs["loki_server"] != ""}
	if present["prometheus"] && present["loki"] {
		return text, nil
	}
	var dashboard map[string]any
	if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
		return "", err
	}
	missing := func(part any) bool {
		datasource, ok := part.(map[string]any)["datasource"].(map[string]any)
		return ok && !present[datasource["uid"].(string)]
	}
	dashboard["panels"] = slices.DeleteFunc(dashboard["panels"].([]any), missing)
	templating := dashboard["templating"].(map[string]any)
	templating["list"] = slices.DeleteFunc(templating["list"].([]any), missing)
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(dashboard)
	return out.String(), err
}
