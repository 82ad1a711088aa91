package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"trading-platform/workspace"
)

func initCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Put in place what a stack needs on this machine: Pulumi, state, provider, images, secrets",
		Args:  cobra.NoArgs,
	}
	stack := stackFlag(cmd)
	move := cmd.Flags().Bool("move-engine", false, "move the stack from the engine that it lives on to the one that docker leads to now; its data stays behind")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		w, err := here()
		if err != nil {
			return err
		}
		return w.Init(cmd.Context(), *stack, workspace.InitOptions{MoveEngine: *move}, say)
	}
	return cmd
}

// say tells a person what is going on, beside a command's output.
func say(line string) { fmt.Fprintln(os.Stderr, "platform: "+line) }
