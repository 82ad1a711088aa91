// Command reference runs in the place of any of the trading platform's apps, so that a stack works before the trading code exists.
// It does not trade. What it must know of the service is in its contract, see contract.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// errLogged ends the program without another message, because the log holds the reason.
var errLogged = errors.New("see the log")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], contractPath, os.Environ(), os.Stdout)
	stop()
	if err != nil {
		if !errors.Is(err, errLogged) {
			fmt.Fprintln(os.Stderr, "reference:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, path string, environ []string, out io.Writer) error {
	if len(args) != 1 || args[0] != "serve" && args[0] != "probe" {
		return errors.New("usage: reference serve, or reference probe to ask the running service for its health")
	}
	c, err := readContract(path)
	if err != nil {
		return err
	}
	if args[0] == "probe" {
		return probe(ctx, "http://127.0.0.1:"+c.port()+c.readiness(), c.Name)
	}
	return serve(ctx, c, environ, out)
}

// probe is the service's healthcheck: it requests the service's own health page, and prints what is wrong.
func probe(ctx context.Context, address, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", name, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusOK {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return err
	}
	return fmt.Errorf("%s answers %d: %s", name, res.StatusCode, text)
}
