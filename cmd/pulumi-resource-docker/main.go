// Command pulumi-resource-docker is the offline docker provider as a Pulumi plugin.
// Pulumi starts it with the address of its engine as the last argument and reads the
// port from standard output.
package main

import (
	"fmt"
	"os"
	"strings"

	"trading-platform/provider"
)

func main() {
	address := ""
	if n := len(os.Args); n > 1 && !strings.HasPrefix(os.Args[n-1], "-") {
		address = os.Args[n-1]
	}
	if err := provider.Serve(address, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
