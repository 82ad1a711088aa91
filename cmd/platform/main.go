// Command platform prepares a machine for a stack, runs Pulumi on it, and does what
// Pulumi has no command for. It changes a stack's resources only through Pulumi.
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

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"trading-platform/plan"
	"trading-platform/settings"
	"trading-platform/stack"
	"trading-platform/workspace"
)

func main() { os.Exit(run()) }

// run returns the exit code.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	var code exitCode
	var child *exec.ExitError
	switch {
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &child) && errors.Unwrap(err) == nil: // an exit code of pulumi, which has printed the reason
		return max(1, child.ExitCode())
	case err != nil:
		say(err.Error())
		return 1
	}
	return 0
}

// exitCode ends the command with a code of its own, without a message.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// say shows progress to the user, separate from a command's output.
func say(line string) { fmt.Fprintln(os.Stderr, "platform: "+line) }

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
	cmd.AddCommand(
		pulumiStep("up", "Bring a stack up; when it ends with 0, every service is healthy", (*workspace.Workspace).Up),
		pulumiStep("down", "Take a stack down; its volumes and their data stay", (*workspace.Workspace).Down),
		pulumiStep("preview", "Show what an up would change", (*workspace.Workspace).Preview),
		pulumiStep("refresh", "Record in the state what changed outside of Pulumi", (*workspace.Workspace).Reread),
		backupCommand(), restoreCommand(), upgradeCommand(), purgeCommand(),
		initCommand(), planCommand(), previewAllCommand(), doctorCommand(), statusCommand(), certsCommand(), pulumiCommand(), envCommand(),
	)
	return cmd
}

// target is the stack that a command is about, in the workspace of the clone that the command is run in.
type target struct {
	*workspace.Workspace
	cmd   *cobra.Command
	stack string
}

// stackCommand returns a command about one stack.
func stackCommand(cmd *cobra.Command, run func(t target, args []string) error) *cobra.Command {
	stack := cmd.Flags().StringP("stack", "s", "dev", "the stack, named as in Pulumi.<stack>.yaml")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		w, err := here()
		if err != nil {
			return err
		}
		return run(target{w, cmd, *stack}, args)
	}
	return cmd
}

// source reads the stack's config as it would be at the next run.
func (t target) source() (settings.Source, error) {
	if err := t.Refresh(t.stack); err != nil {
		return settings.Source{}, err
	}
	return t.Source(t.stack)
}

// resolve is stack.Resolve of the stack's config.
func (t target) resolve() (*plan.Plan, *settings.Settings, error) {
	src, err := t.source()
	if err != nil {
		return nil, nil, err
	}
	return stack.Resolve(src)
}

// withEngine opens the stack's engine for as long as use runs.
func (t target) withEngine(use func(*client.Client) error) error {
	engine, err := t.Engine(t.cmd.Context(), t.stack)
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }()
	return use(engine)
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
