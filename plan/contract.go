package plan

import (
	"bytes"
	"encoding/json"
	"fmt"

	"trading-platform/catalog"
)

// What the reference app is for a service of the catalog.
const (
	apiRole     = "api"
	workerRole  = "worker"
	consoleRole = "console"
	loginRole   = "login"
)

// contractEntry is what the reference app knows of one service: of a service that it
// plays its variables and what it starts after, of any other where its health is.
type contractEntry struct {
	Name      string            `json:"name"`
	Role      string            `json:"role,omitempty"` // empty for a stock image, which the app does not play
	Health    string            `json:"health"`
	After     []string          `json:"after,omitempty"`
	Folders   []string          `json:"folders,omitempty"`   // volumes that it writes to
	Required  []string          `json:"required,omitempty"`  // variables that the user must set
	Variables map[string]string `json:"variables,omitempty"` // all of them, each with the catalog's value, which may name ${facts} of a stack
}

// ReferenceContract gives the contract that apps/reference embeds, as JSON.
func ReferenceContract() string {
	var entries []contractEntry
	for _, s := range catalog.Services() {
		e := contractEntry{Name: s.Name, Role: referenceRole(s), Health: referenceHealth(s)}
		if e.Role != "" {
			e.After, e.Variables = s.After, map[string]string{}
			for _, v := range s.Env {
				e.Variables[v.Name] = s.Fill(v.Value)
				if v.Required {
					e.Required = append(e.Required, v.Name)
				}
			}
			for _, m := range s.Mounts {
				if m.Volume != "" && !m.ReadOnly {
					e.Folders = append(e.Folders, m.Path)
				}
			}
		}
		entries = append(entries, e)
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	_ = encoder.Encode(entries) // plain structs of strings encode without an error
	return text.String()
}

// referenceRole says what the reference app is for a service; empty for a stock image.
func referenceRole(s catalog.Service) string {
	switch {
	case s.App == "":
		return ""
	case s.Tier == catalog.Workers:
		return workerRole
	case s.App == "web_console_ng":
		return consoleRole
	case s.App == "auth_service":
		return loginRole
	}
	return apiRole
}

// referenceHealth gives the address of a service's health. The platform's own workers
// serve none; the reference app's do.
func referenceHealth(s catalog.Service) string {
	if s.Tier == catalog.Workers && s.Port == 0 {
		return fmt.Sprintf("http://%s:9100/health", s.Name)
	}
	return s.Health()
}
