package plan

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"trading-platform/catalog"
)

// contractPath is where the reference app reads what it must know of the service that it plays.
const contractPath = "/app/contract.json"

// The roles of the reference app. An api only answers for its health.
const (
	apiRole     = "api"
	workerRole  = "worker"
	consoleRole = "console"
	loginRole   = "login"
)

// contract is what the reference app is told of the service that it plays. It is a
// file of the container, and not part of the image: a service more in the catalog
// needs no other image, and no other edit.
type contract struct {
	Name      string            `json:"name"`
	Role      string            `json:"role"`
	Health    string            `json:"health"`
	Needs     map[string]string `json:"needs"`     // what it starts after, and where that is asked for its health
	Variables map[string]string `json:"variables"` // each with the catalog's value, which may name ${facts}
	Required  []string          `json:"required"`  // variables that the user must set
	Folders   []string          `json:"folders"`   // volumes that it writes to

	// What a console shows: the services of the stack, links to tools, and the queues that it may post to.
	Services []overview        `json:"services,omitempty"`
	Links    map[string]string `json:"links,omitempty"`
	Queues   []string          `json:"queues,omitempty"`
}

// overview is what the reference app's console shows of a service.
type overview struct {
	Name         string       `json:"name"`
	Tier         catalog.Tier `json:"tier"`
	Health       string       `json:"health"`
	Dependencies []string     `json:"dependencies"`
}

// contracts gives every service that the reference app plays its contract.
func (r *resolver) contracts(enabled []catalog.Service) {
	entry := map[string]catalog.Service{}
	for _, c := range enabled {
		entry[c.Name] = c
	}
	var services []overview
	var queues []string
	health := map[string]string{}
	for _, s := range r.plan.Services {
		health[s.Name] = s.Health
		if r.reference[s.Name] {
			health[s.Name] = referenceHealth(entry[s.Name])
		}
		services = append(services, overview{Name: s.Name, Tier: s.Tier, Health: health[s.Name], Dependencies: append([]string{}, s.After...)})
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
		c := contractOf(entry[s.Name])
		for _, name := range s.After {
			c.Needs[name] = health[name]
		}
		switch c.Role {
		case consoleRole:
			c.Services, c.Links, c.Queues = services, r.links(), queues
		case loginRole:
			// It writes the sessions that the console reads; the old stack told the console alone where.
			if console, ok := r.plan.Lookup("web_console_oauth2"); ok {
				s.Env = append(s.Env, Env{Name: "REDIS_SESSION_DB", Value: console.Value("REDIS_SESSION_DB")})
			}
		}
		text, _ := json.MarshalIndent(c, "", " ") // plain structs of strings encode without an error
		s.Files = append(s.Files, File{Path: contractPath, Content: string(text) + "\n"})
	}
}

// contractOf gives what the catalog alone says of a service.
func contractOf(s catalog.Service) contract {
	c := contract{Name: s.Name, Role: referenceRole(s), Health: referenceHealth(s), Needs: map[string]string{}, Variables: map[string]string{}}
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

// links are the tools of the stack that a person opens in a browser.
func (r *resolver) links() map[string]string {
	links := map[string]string{}
	urls := r.plan.URLs()
	for _, name := range []string{"grafana", "prometheus"} {
		if url, ok := urls[name]; ok {
			links[name] = url
		}
	}
	return links
}

// referenceRole says what the reference app does as a service.
func referenceRole(s catalog.Service) string {
	switch {
	case s.Tier == catalog.Workers:
		return workerRole
	case s.App == "web_console_ng":
		return consoleRole
	case s.App == "auth_service":
		return loginRole
	}
	return apiRole
}

// referenceHealth gives the address of a service's health page. The platform's own
// services may have none; the reference app's do.
func referenceHealth(s catalog.Service) string {
	switch {
	case s.Port == 0:
		return fmt.Sprintf("http://%s:9100/health", s.Name)
	case s.Probe.Path == "":
		return s.URL() + "/health"
	}
	return s.Health()
}
