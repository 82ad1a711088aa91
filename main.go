// The trading platform's local stack on Docker, as a Pulumi program.
package main

import (
	"os"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/preflight"
	"trading-platform/program"
)

func main() {
	pulumi.Run(func(ctx *pulumi.Context) error {
		return program.Run(ctx, program.Host{Getenv: os.Getenv, Engine: preflight.Connect, Export: program.Export})
	})
}
