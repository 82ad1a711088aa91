// Package infra holds the files that the containers read: what Prometheus scrapes, what Loki keeps, what Grafana shows,
// how nginx guards the web console. They are embedded, and uploaded into the containers by the components.
//
// Each folder of files is laid out as the root of a container. A file whose name ends in .tmpl is a template
// (text/template with the delimiters [[ and ]], because Prometheus and Promtail have templates of their own in {{ and
// }}), and is left out where it comes out empty; every other file goes as it is.
package infra

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"text/template"
	"time"
)

//go:embed files
var embedded embed.FS

// Values fill the templates. The plan makes them.
type Values struct {
	// Service is the service whose files are rendered.
	Service string
	// NamePrefix is the first part of all container names, and the Compose project's name in their labels.
	NamePrefix string
	// URLs has the services of the stack that listen on a port, by name. Where one of them is missing, so are the
	// datasources, panels and alerts that need it.
	URLs map[string]string
	// Targets are what Prometheus scrapes, in the plan's order.
	Targets []Target
	// Nginx is zero unless the service is an nginx.
	Nginx Nginx
}

// Target is a service that Prometheus scrapes, with all its replicas.
type Target struct {
	Service   string        // the job's name, and the label `service`
	Address   string        // host:port on a network that Prometheus is on
	Path      string        // URL path of the metrics
	Tier      string        // the label `tier`
	Component string        // the label `component`
	Interval  time.Duration // between two scrapes; 0 is the global interval, 15 s
}

// Files gives the files of a folder under files, by their absolute path inside the container. The same values give the
// same bytes.
func Files(folder string, v Values) (map[string]string, error) {
	files := map[string]string{}
	root := "files/" + folder
	err := fs.WalkDir(embedded, root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := render(name, v)
		if err == nil && strings.HasPrefix(name, root+dashboards) {
			text, err = withoutMissing(text, v)
		}
		if strings.TrimSpace(text) != "" {
			files[strings.TrimSuffix(strings.TrimPrefix(name, root), ".tmpl")] = text
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("infra: files of %s: %w", v.Service, err)
	}
	return files, nil
}

// render reads one embedded file, and fills it in when it is a template.
func render(name string, v Values) (string, error) {
	text, err := embedded.ReadFile(name)
	if err != nil || !strings.HasSuffix(name, ".tmpl") {
		return string(text), err
	}
	parsed, err := template.New(path.Base(name)).
		Delims("[[", "]]").
		Option("missingkey=error").
		Funcs(template.FuncMap{"quote": quote}).
		Parse(string(text))
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = parsed.Execute(&out, v)
	return out.String(), err
}

// quote writes a string the way both YAML and JSON read it back, whatever it holds.
func quote(s string) (string, error) {
	text, err := json.Marshal(s)
	return string(text), err
}
