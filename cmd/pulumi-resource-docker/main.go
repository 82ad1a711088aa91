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
	// The process runs only for one Pulumi command: less garbage collection makes it faster.
	debug.SetGCPercent(400)
	if err := provider.Serve(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
