package main

import (
	"context"

	"github.com/spf13/cobra"

	"trading-platform/workspace"
)

// actCommands are the commands that act on a stack. Each is init, the pulumi command
// of its name, and what that cannot do itself.
func actCommands() []*cobra.Command {
	type act func(w *workspace.Workspace, ctx context.Context, stack string, args []string, say func(string)) error
	command := func(use, short string, act act) *cobra.Command {
		cmd := &cobra.Command{Use: use + " [flags] [-- arguments for pulumi]", Short: short}
		stack := stackFlag(cmd)
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			w, err := here()
			if err != nil {
				return err
			}
			return act(w, cmd.Context(), *stack, args, say)
		}
		return cmd
	}
	return []*cobra.Command{
		command("up", "Bring a stack up; when it ends with 0, every service is healthy", (*workspace.Workspace).Up),
		command("down", "Take a stack down; its volumes and their data stay", (*workspace.Workspace).Down),
		command("preview", "Show what an up would change", (*workspace.Workspace).Preview),
		command("refresh", "Take over into the state what happened outside of Pulumi", (*workspace.Workspace).Reread),
	}
}
