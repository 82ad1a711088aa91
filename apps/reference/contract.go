package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
)

// contractPath is where the stack program puts the contract when it creates the container.
const contractPath = "/app/contract.json"

// The roles of services; a service with any other role only reports its health.
const (
	workerRole  = "worker"  // takes jobs from the queues in RQ_QUEUES
	consoleRole = "console" // shows the page
	loginRole   = "login"   // signs people in for the consoles of auth type oauth2
)

// contract is what the catalog says of the service; package plan of the main module writes it.
type contract struct {
	Name   string            `json:"name"`
	Role   string            `json:"role"`
	Health string            `json:"health"` // the URL of its health for other services
	Needs  map[string]string `json:"needs"`  // the health URLs of the services that it starts after
	// Variables holds the default of each variable of the service, which may contain ${facts} of the stack; it is empty if there is no default.
	Variables map[string]string `json:"variables"`
	Required  []string          `json:"required"` // variables that must be set
	Folders   []string          `json:"folders"`  // volumes that it writes to

	// What a console shows:
	Services []stackService    `json:"services"`
	Links    map[string]string `json:"links"`
	Queues   []string          `json:"queues"` // of the stack's workers
}

// stackService is one of the services of the stack.
type stackService struct {
	Name         string   `json:"name"`
	Tier         string   `json:"tier"`
	Health       string   `json:"health"` // tcp://host:port or http://host:port/path; empty for a service without a port
	Dependencies []string `json:"dependencies"`
}

func readContract(path string) (c contract, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("the contract of the service: %w; the stack program puts it there when it creates the container", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	if c.port() == "" {
		return c, fmt.Errorf("%s: health is not a URL with a port", path)
	}
	return c, nil
}

// port is where the service listens, and readiness the path that answers 200 only while its dependencies answer.
func (c contract) port() string      { return c.healthURL().Port() }
func (c contract) readiness() string { return c.healthURL().Path }

func (c contract) healthURL() *url.URL {
	u, err := url.Parse(c.Health)
	if err != nil {
		return &url.URL{}
	}
	return u
}
