// Command platform prepares a machine for a stack, runs Pulumi on it, and does what
// Pulumi has no command for. What is applied to a stack, Pulumi applies.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"trading-platform/settings"
	"trading-platform/workspace"
)

func main() { os.Exit(run()) }

// run gives the exit code.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	var code exitCode
	var child *exec.ExitError
	switch {
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &child) && errors.Unwrap(err) == nil: // pulumi's, which has said why
		return max(1, child.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "platform: "+err.Error())
		return 1
	}
	return 0
}

// exitCode ends the command with a code of its own, without a message.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "platform",
		Short:         "Prepare, show and check the trading platform's stacks",
		SilenceErrors: true, SilenceUsage: true,
	}
	// Go records the tag or the commit that a program was built from.
	if info, ok := debug.ReadBuildInfo(); ok {
		cmd.Version = info.Main.Version
	}
	cmd.AddCommand(actCommands()...)
	cmd.AddCommand(dataCommands()...)
	cmd.AddCommand(initCommand(), planCommand(), previewAllCommand(), doctorCommand(), statusCommand(), certsCommand(), pulumiCommand(), envCommand())
	return cmd
}

// stackFlag adds the flag that every command about one stack has.
func stackFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("stack", "s", "dev", "the stack, named as in Pulumi.<stack>.yaml")
}

// here opens the workspace of the clone that the command is run in.
func here() (*workspace.Workspace, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "Pulumi.yaml")); err == nil {
			return workspace.Open(d)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if d == filepath.Dir(d) {
			return nil, fmt.Errorf("no Pulumi.yaml in %s or above it; run this in a clone of the project", dir)
		}
	}
}

// source opens the workspace and reads a stack's config as it would be at the next run.
func source(stack string) (*workspace.Workspace, settings.Source, error) {
	w, err := here()
	if err != nil {
		return nil, settings.Source{}, err
	}
	if err := w.Refresh(stack); err != nil {
		return nil, settings.Source{}, err
	}
	src, err := w.Source(stack)
	return w, src, err
}
