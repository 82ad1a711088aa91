// Command reference runs in the place of any of the trading platform's apps, so that a stack works before the trading code exists.
// It does not trade. What it must know of the service is in its contract.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// errLogged ends the program without another message, because the log holds the reason.
var errLogged = errors.New("see the log")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], cmp.Or(os.Getenv("CONTRACT"), contractPath), os.Environ(), os.Stdout)
	stop()
	if err != nil {
		if !errors.Is(err, errLogged) {
			fmt.Fprintln(os.Stderr, "reference:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, path string, environ []string, out io.Writer) error {
	if len(args) > 0 && args[0] == "forward" {
		return forward(ctx, args[1:], out)
	}
	if len(args) != 1 || args[0] != "serve" && args[0] != "once" && args[0] != "probe" {
		return errors.New("usage: reference serve; probe to ask the running service for its health; once to check the variables; forward [PORT HOST-PORT]")
	}
	c, err := readContract(path)
	if err != nil {
		return err
	}
	if args[0] == "probe" {
		return probe(ctx, "http://127.0.0.1:"+c.url().Port()+c.url().Path, c.Name)
	}
	if args[0] == "once" {
		return newService(c, out).readEnvironment(environ)
	}
	return serve(ctx, c, environ, out)
}

// probe is the service's healthcheck: it requests the service's own health page, and prints what is wrong.
func probe(ctx context.Context, address, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := checkAddress(ctx, http.DefaultClient, address)
	if bad, ok := errors.AsType[badAnswer](err); ok {
		return fmt.Errorf("%s answers %d: %s", name, bad.code, bad.text)
	} else if err != nil {
		return fmt.Errorf("%s does not answer: %w", name, err)
	}
	return nil
}

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
	text, err := os.ReadFile(path) //nolint:gosec // the user of this program names it
	if err != nil {
		return c, fmt.Errorf("the contract of the service: %w; the stack program puts it there when it creates the container", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	if u := c.url(); u == nil || u.Port() == "" {
		return c, fmt.Errorf("%s: health is not a URL with a port", path)
	}
	return c, nil
}

// url is where the service listens, with the path that answers 200 only while its dependencies answer.
func (c contract) url() *url.URL {
	u, _ := url.Parse(c.Health)
	return u
}
