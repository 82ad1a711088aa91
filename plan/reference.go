package plan

import (
	"encoding/json"
	"strings"

	"trading-platform/catalog"
)

// overview is what the reference app's console shows of a service.
type overview struct {
	Name         string       `json:"name"`
	Tier         catalog.Tier `json:"tier"`
	Health       string       `json:"health"`
	Dependencies []string     `json:"dependencies"`
}

// referenceEnv adds the variables by which the reference app, and it alone,
// learns of its place in the stack: the edges that its health answers for, and
// for a console what there is to show.
func (r *resolver) referenceEnv(enabled []catalog.Service) {
	entry := map[string]catalog.Service{}
	for _, c := range enabled {
		entry[c.Name] = c
	}
	var services []overview
	for _, s := range r.plan.Services {
		o := overview{Name: s.Name, Tier: s.Tier, Health: s.Health, Dependencies: append([]string{}, s.After...)}
		if s.Tier == catalog.Workers && r.reference[s.Name] {
			o.Health = referenceHealth(entry[s.Name])
		}
		services = append(services, o)
	}
	links := map[string]string{}
	urls := r.plan.URLs()
	for _, name := range []string{"grafana", "prometheus"} {
		if url, ok := urls[name]; ok {
			links[name] = url
		}
	}
	for i := range r.plan.Services {
		s := &r.plan.Services[i]
		if !r.reference[s.Name] {
			continue
		}
		s.Env = append(s.Env, Env{Name: "STACK_DEPENDENCIES", Value: strings.Join(s.After, ",")})
		switch referenceRole(entry[s.Name]) {
		case consoleRole:
			s.Env = append(s.Env,
				Env{Name: "STACK_SERVICES", Value: mustJSON(services)},
				Env{Name: "STACK_LINKS", Value: mustJSON(links)})
		case loginRole:
			// It writes the sessions that the console reads; the old stack told the console alone where.
			if console, ok := r.plan.Lookup("web_console_oauth2"); ok {
				s.Env = append(s.Env, Env{Name: "REDIS_SESSION_DB", Value: console.Value("REDIS_SESSION_DB")})
			}
		}
	}
}

// mustJSON encodes plain structs of strings, which cannot fail.
func mustJSON(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}
