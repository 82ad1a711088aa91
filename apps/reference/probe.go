package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
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
	body, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d: %s", svc.name, res.StatusCode, strings.TrimSpace(string(body)))
	}
	return nil
}
