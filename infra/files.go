// Package infra holds the files that the containers read: what Prometheus scrapes, what Loki keeps, what Grafana shows,
// how nginx guards the web console. They are embedded, and uploaded into the containers by the components.
//
// A file whose name ends in .tmpl is a template (text/template with the delimiters [[ and ]], because Prometheus and
// Promtail have templates of their own in {{ and }}); every other file goes as it is.
package infra

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"strings"
	"text/template"
	"time"
)

//go:embed files
var embedded embed.FS

// Target is one scrape target of Prometheus.
type Target struct {
	// Service is the service's bare name. It names the job, and is the target's label `service`.
	Service string
	// Address is host:port, where the host is a DNS name on a network that Prometheus is on.
	Address string
	// Path is the URL path of the metrics, by default /metrics.
	Path string
	// Tier is the target's label `tier`: the layer of the stack that the service belongs to.
	Tier string
	// Component is the target's label `component`: what the service is for.
	Component string
	// Interval is the time between two scrapes. 0 is the global one, 15 s.
	Interval time.Duration
}

// Values fill the templates. The plan makes them.
type Values struct {
	// NamePrefix is the first part of all container names, and the Compose project's name in their labels; for example
	// trading_platform.
	NamePrefix string
	// Targets are what Prometheus scrapes, in the plan's order. Targets of one service form one job, and must agree in
	// all but the address.
	Targets []Target
	// LokiEnabled and PrometheusEnabled say whether these services are in the stack. Grafana's datasources and panels,
	// and Prometheus' alert rules on logs, are left out with them.
	LokiEnabled, PrometheusEnabled bool
	// Nginx is zero unless an nginx service is in the stack.
	Nginx Nginx
}

// Nginx fills the configuration of nginx_mtls and nginx_oauth2.
type Nginx struct {
	// Console is the web console as host:port, for example web_console_mtls:8080.
	Console string
	// Auth is auth_service as host:port. It is read for nginx_oauth2 alone.
	Auth string
	// HTTPSPort is the port of the host that leads to container port 443. Port 80 redirects to it; 443 is left out of
	// the URL.
	HTTPSPort int
	// CSPReportOnly has browsers report what the content security policy forbids instead of blocking it.
	CSPReportOnly bool
	// ServerNames are the names and addresses that the server answers to; a name may begin with "*.". A request for any
	// other gets 421. None means any. The first is where port 80 redirects a request for an unknown name.
	ServerNames []string
	// TrustedProxySubnet, in CIDR notation, is where a proxy in front of nginx may stand: from there, and from nowhere
	// else, X-Forwarded-For is believed. Empty means from nowhere.
	TrustedProxySubnet string
	// Gateway is the gateway of nginx's network, which is never believed: the engine brings what arrives at the host's
	// own ports from there, so that anyone could name any address as theirs and slip under the limits.
	Gateway netip.Addr
}

// Files gives the files of a service by their absolute path inside the container. It gives nil for a service that reads
// none. The same values give the same bytes.
//
// It fails on values that the service's own program would refuse; each error names the service and the value.
func Files(service string, v Values) (map[string]string, error) {
	files, err := render(service, v)
	if err != nil {
		return nil, fmt.Errorf("infra: files of %s: %w", service, err)
	}
	return files, nil
}

func render(service string, v Values) (map[string]string, error) {
	switch service {
	case "prometheus":
		return prometheus(v)
	case "loki_server":
		return tree("files/loki_server", "/etc/loki", nil)
	case "promtail":
		if !v.LokiEnabled {
			return nil, errors.New("it sends to loki_server alone, which is not in the stack: add promtail to `disabled` too")
		}
		return tree("files/promtail", "/etc/promtail", v)
	case "grafana":
		return grafana(v)
	case "nginx_mtls", "nginx_oauth2":
		return nginx(service, v.Nginx)
	}
	return nil, nil
}

// tree renders every file under an embedded folder to its place under root in the container.
func tree(folder, root string, data any) (map[string]string, error) {
	files := map[string]string{}
	err := fs.WalkDir(embedded, folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		target := path.Join(root, strings.TrimPrefix(name, folder))
		files[strings.TrimSuffix(target, ".tmpl")], err = file(name, data)
		return err
	})
	return files, err
}

// file reads one embedded file, and renders it when it is a template.
func file(name string, data any) (string, error) {
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
	if err := parsed.Execute(&out, data); err != nil {
		return "", err
	}
	return out.String(), nil
}

// quote writes a string the way both YAML and JSON read it back, whatever it holds.
func quote(s string) (string, error) {
	text, err := json.Marshal(s)
	return string(text), err
}
