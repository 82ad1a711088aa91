// Command pulumi-resource-docker is the offline docker provider as a Pulumi plugin.
// Pulumi starts it with the address of its engine as the last argument and reads the
// port from standard output.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"

	"trading-platform/provider"
)

func main() {
	// The process lives for one run, and it starts faster when garbage is collected rarely.
	debug.SetGCPercent(400)
	if err := provider.Serve(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
