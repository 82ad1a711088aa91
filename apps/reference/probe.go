package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// probe is a service's healthcheck: it asks the service's own health page over loopback, and says what that says is wrong.
func probe(ctx context.Context, entry contractEntry) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+entry.port()+entry.readiness(), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", entry.Name, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusOK {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return err
	}
	return fmt.Errorf("%s answers %d: %s", entry.Name, res.StatusCode, text)
}
