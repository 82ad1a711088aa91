// Package infra holds the configuration files of Prometheus, Loki, Promtail, Grafana and nginx. They are embedded in the
// program, and package components uploads them into the containers.
//
// Each folder of files is laid out as the root of a container. A file whose name ends in .tmpl is a template
// (text/template with the delimiters [[ and ]], because Prometheus and Promtail have templates of their own in {{ and
// }}), and is left out if its output is empty; every other file is used as it is.
package infra

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"text/template"
	"time"
)

//go:embed files
var embedded embed.FS

// Values are the data of the templates. Package plan makes them.
type Values struct {
	// Service is the service whose files are rendered.
	Service string
	// NamePrefix is the first part of all container names, and the Compose project's name in their labels.
	NamePrefix string
	// URLs has the URLs of the stack's services that listen on a port, by service. Data sources, panels and alerts that
	// need a service which the stack does not have are left out.
	URLs map[string]string
	// Targets are what Prometheus scrapes: the services of all stacks, because it is not told which of them this one has.
	Targets []Target
	// Replicas has the number of containers of each service of the stack that Prometheus scrapes.
	Replicas map[string]int
	// Nginx is the zero value unless the service is an nginx.
	Nginx Nginx
}

// Target is a service that Prometheus scrapes, with all its replicas.
type Target struct {
	Service   string        // the job's name, the label `service`, and the name of its containers on a network that Prometheus is on
	Port      int           // of the metrics
	Path      string        // URL path of the metrics
	Tier      string        // the label `tier`
	Component string        // the label `component`
	Interval  time.Duration // between two scrapes; 0 is the global interval, 15 s
	Replicas  bool          // it can have several containers, which the label `instance` has to tell apart
}

// Files returns the files of a folder under files, by their absolute path inside the container. The same values always
// give the same bytes.
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

// render reads one embedded file, and executes it if it is a template.
func render(name string, v Values) (string, error) {
	if !strings.HasSuffix(name, ".tmpl") {
		text, err := embedded.ReadFile(name)
		return string(text), err
	}
	parsed, err := template.New(path.Base(name)).Delims("[[", "]]").Option("missingkey=error").ParseFS(embedded, name)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = parsed.Execute(&out, v)
	return out.String(), err
}
