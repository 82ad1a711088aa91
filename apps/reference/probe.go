package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// probe is a service's healthcheck: it asks the service's own health page over loopback, and says what is wrong.
func probe(ctx context.Context, svc service, environ []string) error {
	port := svc.port
	if value := valueOf(environ, "MODEL_REGISTRY_PORT"); value != "" && svc.name == "model_registry" {
		port = value
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	url := "http://127.0.0.1:" + port + svc.readiness
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", svc.name, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusOK {
		return nil
	}
	var answer healthAnswer
	if err := json.NewDecoder(io.LimitReader(res.Body, bodyLimit)).Decode(&answer); err != nil {
		return fmt.Errorf("%s answers %d", svc.name, res.StatusCode)
	}
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(answer.Dependencies)) {
		if state := answer.Dependencies[name]; state.State != "up" {
			missing = append(missing, name+" does not answer ("+state.Error+")")
		}
	}
	return fmt.Errorf("%s is %s: %s", svc.name, answer.Status, strings.Join(missing, ", "))
}
