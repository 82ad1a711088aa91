package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"trading-platform/catalog"
)

// roles has the role of the reference app in place of an app. In place of every other it is an api, which only serves its
// health endpoint, or a worker.
var roles = map[string]string{"web_console_ng": "console", "auth_service": "login"}

// contract tells the reference app about the service that it replaces. It is a file in
// the container and not part of the image, so that a new service in the catalog needs
// neither another image nor another edit.
type contract struct {
	Name      string            `json:"name"`
	Role      string            `json:"role"`
	Health    string            `json:"health"`
	Needs     map[string]string `json:"needs"`     // the services that it starts after, with the URLs of their health endpoints
	Variables map[string]string `json:"variables"` // each with the catalog's value, which may contain ${facts}
	Required  []string          `json:"required"`  // variables that the user must set
	Folders   []string          `json:"folders"`   // volumes that it writes to

	// Only a console has these: the services of the stack, links to tools, and the queues that it can send jobs to.
	Services []overview        `json:"services,omitempty"`
	Links    map[string]string `json:"links,omitempty"`
	Queues   []string          `json:"queues,omitempty"`
}

// overview is what the reference app's console shows about a service.
type overview struct {
	Name         string       `json:"name"`
	Tier         catalog.Tier `json:"tier"`
	Health       string       `json:"health"`
	Dependencies []string     `json:"dependencies"`
}

// contracts adds the contract to every service that runs the reference app. The services have the same order as those of the plan.
func (r *resolver) contracts(services []catalog.Service) {
	var overviews []overview
	var queues []string
	health := map[string]string{}
	for i, s := range r.plan.Services {
		if s.Once {
			continue // nobody can ask it
		}
		health[s.Name] = s.Health
		if r.reference[s.Name] {
			health[s.Name] = referenceHealth(services[i])
		}
		after := slices.DeleteFunc(append([]string{}, s.After...), func(name string) bool { _, asked := health[name]; return !asked })
		overviews = append(overviews, overview{Name: s.Name, Tier: s.Tier, Health: health[s.Name], Dependencies: after})
		for _, queue := range strings.FieldsFunc(s.Value("RQ_QUEUES"), func(c rune) bool { return c == ',' }) {
			if !slices.Contains(queues, queue) {
				queues = append(queues, queue)
			}
		}
	}
	for i := range r.plan.Services {
		s := &r.plan.Services[i]
		if !r.reference[s.Name] {
			continue
		}
		c := contractOf(services[i])
		for _, name := range s.After {
			if address, asked := health[name]; asked {
				c.Needs[name] = address
			}
		}
		switch c.Role {
		case "console":
			c.Services, c.Links, c.Queues = overviews, r.plan.URLs(), queues
			maps.DeleteFunc(c.Links, func(name, _ string) bool { return name != "grafana" && name != "prometheus" })
		case "login":
			// It writes the sessions that the console reads. In the Compose file only the console had this variable.
			if console, ok := r.plan.Lookup("web_console_oauth2"); ok {
				s.Env = append(s.Env, Env{Name: "REDIS_SESSION_DB", Value: console.Value("REDIS_SESSION_DB")})
			}
		}
		text, _ := json.MarshalIndent(c, "", " ") // plain structs of strings encode without an error
		s.Files = append(s.Files, File{Path: "/app/contract.json", Content: string(text) + "\n"})
	}
}

// contractOf returns the part of a contract that follows from the catalog alone.
func contractOf(s catalog.Service) contract {
	c := contract{
		Name: s.Name, Role: cmp.Or(roles[s.App], "api"), Health: referenceHealth(s),
		Needs: map[string]string{}, Variables: map[string]string{},
	}
	if s.Tier == catalog.Workers {
		c.Role = "worker"
	}
	for _, v := range s.Env {
		c.Variables[v.Name] = s.Fill(v.Value)
		if v.Required {
			c.Required = append(c.Required, v.Name)
		}
	}
	for _, m := range s.Mounts {
		if m.Volume != "" && !m.ReadOnly {
			c.Folders = append(c.Folders, m.Path)
		}
	}
	return c
}

// referenceHealth returns the URL of the health endpoint that the reference app serves in
// place of a service. The platform's own service may have none.
func referenceHealth(s catalog.Service) string {
	return fmt.Sprintf("http://%s:%d%s", s.Name, cmp.Or(s.Port, s.MetricsPort()), cmp.Or(s.Probe.Path, "/health"))
}
