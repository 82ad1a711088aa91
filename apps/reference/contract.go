package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

//go:generate go -C ../.. test ./plan -run ^TestReferenceContract$ -update
//go:embed contract.json
var contractText []byte

// contract lists every service of the catalog.
var contract = parseContract(contractText)

// The roles that this program plays.
const (
	workerRole  = "worker"  // takes jobs from the queues in RQ_QUEUES
	consoleRole = "console" // shows the page
	loginRole   = "login"   // signs people in for the consoles of auth type oauth2
)

// contractEntry is what the catalog says of a service; package plan of the main module writes it.
type contractEntry struct {
	Name     string   `json:"name"`
	Role     string   `json:"role"`   // empty for a stock image, which this program does not play
	Health   string   `json:"health"` // where peers ask, as a URL or tcp://host:port
	After    []string `json:"after"`
	Folders  []string `json:"folders"`  // volumes that it writes to
	Required []string `json:"required"` // variables that must be set
	// Variables holds the default of each variable of the service, with ${facts} of the stack; empty for none.
	Variables map[string]string `json:"variables"`
}

type contractEntries []contractEntry

// parseContract panics on a contract that was not generated, since no service can run with it.
func parseContract(text []byte) (entries contractEntries) {
	if err := json.Unmarshal(text, &entries); err != nil {
		panic(err)
	}
	return entries
}

func (c contractEntries) playable() (names []string) {
	for _, e := range c {
		if e.Role != "" {
			names = append(names, e.Name)
		}
	}
	return names
}

func (c contractEntries) find(name string) (contractEntry, error) {
	if i := slices.IndexFunc(c, func(e contractEntry) bool { return e.Name == name && e.Role != "" }); i >= 0 {
		return c[i], nil
	}
	return contractEntry{}, fmt.Errorf("there is no service %q; the contract has %s", name, strings.Join(c.playable(), ", "))
}

// health gives the address of a service's health; empty for an unknown service.
func (c contractEntries) health(name string) string {
	if i := slices.IndexFunc(c, func(e contractEntry) bool { return e.Name == name }); i >= 0 {
		return c[i].Health
	}
	return ""
}

// port is where the service listens, and readiness the path that answers 200 only while its dependencies answer.
func (e contractEntry) port() string      { return e.healthURL().Port() }
func (e contractEntry) readiness() string { return e.healthURL().Path }

func (e contractEntry) healthURL() *url.URL {
	u, err := url.Parse(e.Health)
	if err != nil {
		return &url.URL{}
	}
	return u
}
