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

	engines "trading-platform/engine"
	"trading-platform/operate"
	"trading-platform/plan"
	"trading-platform/settings"
	"trading-platform/stack"
	"trading-platform/workspace"
)

func main() { os.Exit(run()) }

// run executes the command and returns its exit code.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	var code exitCode
	var child *exec.ExitError
	switch {
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &child) && errors.Unwrap(err) == nil: // pulumi has already printed the error
		return max(1, child.ExitCode())
	case err != nil:
		say(err.Error())
		return 1
	}
	return 0
}

// exitCode is an error that ends the command with this exit code and without a message.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// say prints a message for the user to standard error.
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
		upCommand(),
		pulumiStep("down", "Take a stack down; its volumes and their data stay", (*workspace.Workspace).Down),
		pulumiStep("preview", "Show what an up would change", (*workspace.Workspace).Preview),
		pulumiStep("refresh", "Record in the state what changed outside of Pulumi", (*workspace.Workspace).Refresh),
		backupCommand(), restoreCommand(), upgradeCommand(), purgeCommand(),
		initCommand(), planCommand(), previewAllCommand(), doctorCommand(), statusCommand(), forwardCommand(),
		logsCommand(), execCommand(), shellCommand(),
		changeCommand("restart", "Restart services, and wait until they are healthy", (*operate.Services).Restart),
		changeCommand("stop", "Stop services; `platform up` or `start` starts them again", (*operate.Services).Stop),
		changeCommand("start", "Start services that are stopped, and wait until they are healthy", (*operate.Services).Start),
		certsCommand(), pulumiCommand(), envCommand(),
	)
	return cmd
}

// target is the stack that a command is for, in the workspace of the current clone.
type target struct {
	*workspace.Workspace
	cmd   *cobra.Command
	stack string
}

// stackCommand makes a command for one stack: it adds the flag --stack.
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

// source reads the stack's config as the next run of Pulumi will see it.
func (t target) source() (settings.Source, error) {
	if err := t.MergeTracked(t.stack); err != nil {
		return settings.Source{}, err
	}
	return t.Source(t.stack)
}

// resolve reads the stack's config and resolves it, as stack.Resolve does.
func (t target) resolve() (*plan.Plan, *settings.Settings, error) {
	src, err := t.source()
	if err != nil {
		return nil, nil, err
	}
	return stack.Resolve(src)
}

// withEngine opens and identifies the stack's engine, calls use, and closes the engine.
func (t target) withEngine(use func(*client.Client, engines.Ref) error) error {
	engine, here, err := t.Engine(t.cmd.Context(), t.stack)
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }()
	return use(engine, here)
}

// here opens the workspace of the clone that contains the current folder.
func here() (*workspace.Workspace, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "Pulumi.yaml")); err == nil {
			w, err := workspace.Open(d)
			if err == nil {
				err = w.Renew()
			}
			return w, err
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if d == filepath.Dir(d) {
			return nil, fmt.Errorf("there is no Pulumi.yaml in %s or above it. Fix: run this command in a clone of the project", dir)
		}
	}
}
