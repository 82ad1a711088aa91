// Command reference plays each of the trading platform's services by name, so that the stack is real before the trading code is
// there. It trades nothing: prices are made up, orders are stored and never sent, alerts are recorded and never delivered.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const usage = `usage: reference serve <service>   run a service
       reference probe <service>   ask a running service on this host for its health
Without <service> it is the one that SERVICE_NAME names.

services: `

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdout)
	stop()
	if err != nil {
		if !errors.Is(err, errLogged) {
			fmt.Fprintln(os.Stderr, "reference:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args, environ []string, out io.Writer) error {
	command, name := "serve", ""
	switch len(args) {
	case 0:
		name = valueOf(environ, "SERVICE_NAME")
	case 1:
		command, name = args[0], valueOf(environ, "SERVICE_NAME")
	case 2:
		command, name = args[0], args[1]
	}
	svc, err := findService(name)
	if err != nil {
		return err
	}
	switch command {
	case "serve":
		return serve(ctx, svc, environ, out)
	case "probe":
		return probe(ctx, svc, environ)
	}
	return errors.New(usage + strings.Join(serviceNames(), ", "))
}

func valueOf(environ []string, name string) string {
	for _, entry := range environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}
