// Command pulumi-resource-docker is the offline docker provider as a Pulumi plugin.
// Pulumi starts it with the address of its engine as the last argument and reads the
// port from standard output.
package main

import (
	"context"
	"fmt"
	"os"

	"trading-platform/provider"
)

func main() {
	if err := provider.Serve(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
