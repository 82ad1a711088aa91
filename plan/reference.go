package plan

import (
	"encoding/json"
	"slices"
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
	services := make([]overview, len(r.plan.Services))
	for i, s := range r.plan.Services {
		services[i] = overview{Name: s.Name, Tier: s.Tier, Health: s.Health, Dependencies: append([]string{}, s.After...)}
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
		c := enabled[slices.IndexFunc(enabled, func(c catalog.Service) bool { return c.Name == s.Name })]
		if _, isReference := r.image(c); !isReference {
			continue
		}
		s.Env = append(s.Env, Env{Name: "STACK_DEPENDENCIES", Value: strings.Join(s.After, ",")})
		if c.App == "web_console_ng" {
			s.Env = append(s.Env,
				Env{Name: "STACK_SERVICES", Value: mustJSON(services)},
				Env{Name: "STACK_LINKS", Value: mustJSON(links)})
		}
	}
}

// mustJSON encodes plain structs of strings, which cannot fail.
func mustJSON(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}
