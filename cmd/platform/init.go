package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func initCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Put in place what a stack needs on this machine: Pulumi, state, provider, images, secrets",
		Args:  cobra.NoArgs,
	}
	stack := stackFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		w, err := here()
		if err != nil {
			return err
		}
		return w.Init(cmd.Context(), *stack, say)
	}
	return cmd
}

// say tells a person what is going on, beside a command's output.
func say(line string) { fmt.Fprintln(os.Stderr, "platform: "+line) }
