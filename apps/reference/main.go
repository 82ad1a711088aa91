// Command reference plays any of the trading platform's app services by name, so that the stack is real before the trading code
// is there. It trades nothing. What it must know of a service it reads from the catalog's contract: see contract.go.
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

// errLogged ends the program without another message, because the log holds the reason.
var errLogged = errors.New("see the log")

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
	if len(args) != 2 || args[0] != "serve" && args[0] != "probe" {
		return errors.New("usage: reference serve <service>, or reference probe <service> to ask a running one on this host for its health\nservices: " +
			strings.Join(contract.playable(), ", "))
	}
	entry, err := contract.find(args[1])
	if err != nil {
		return err
	}
	if args[0] == "probe" {
		return probe(ctx, entry)
	}
	return serve(ctx, entry, environ, out)
}
