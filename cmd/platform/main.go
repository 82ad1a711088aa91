// Command platform prepares a machine for a stack, runs Pulumi on it, and does what
// Pulumi has no command for. It changes a stack's resources only through Pulumi.
package main

//go:generate go test . -run ^TestReference$ -write

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/moby/moby/client"
	pulumi "github.com/pulumi/pulumi/sdk/v3/go/common/workspace"
	"github.com/spf13/cobra"

	engines "trading-platform/engine"
	"trading-platform/operate"
	"trading-platform/plan"
	"trading-platform/settings"
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
		runCommand("up", "Bring a stack up; exit code 0 means that every service is healthy"),
		runCommand("down", "Take a stack down; its volumes and their data stay"),
		runCommand("preview", "Show what an up would change"),
		runCommand("refresh", "Record in the state what changed outside of Pulumi"),
		backupCommand(), restoreCommand(), upgradeCommand(), purgeCommand(),
		initCommand(), planCommand(), previewAllCommand(), rehearseCommand(), doctorCommand(), statusCommand(), forwardCommand(),
		logsCommand(), execCommand(), shellCommand(), watchCommand(), handOverCommand(), takeBackCommand(),
		changeCommand("restart", "Restart services, and wait until they are healthy", (*operate.Services).Restart),
		changeCommand("stop", "Stop services; `platform up` or `start` starts them again", (*operate.Services).Stop),
		changeCommand("start", "Start services that are stopped, and wait until they are healthy", (*operate.Services).Start),
		stacksCommand(), snapshotCommand(), forkCommand(), openCommand(), mcpCommand(),
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

// cloneCommand makes a command for the clone that contains the current folder.
func cloneCommand(cmd *cobra.Command, run func(t target, args []string) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		w, err := here()
		if err != nil {
			return err
		}
		return run(target{Workspace: w, cmd: cmd}, args)
	}
	return cmd
}

// stackCommand makes a command for one stack: it adds the flag --stack.
func stackCommand(cmd *cobra.Command, run func(t target, args []string) error) *cobra.Command {
	stack := cmd.Flags().StringP("stack", "s", "dev", "the stack, named as in Pulumi.<stack>.yaml")
	return cloneCommand(cmd, func(t target, args []string) error {
		t.stack = *stack
		return run(t, args)
	})
}

// resolve reads the stack's config as the next run of Pulumi will see it, and resolves it as stack.Resolve does.
func (t target) resolve() (*plan.Plan, *settings.Settings, error) {
	if err := t.MergeTracked(t.stack); err != nil {
		return nil, nil, err
	}
	return t.Resolve(t.stack)
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

// withPlan is withEngine with the stack's plan. It ignores what is wrong with the settings, if there is a plan nevertheless.
func (t target) withPlan(use func(*client.Client, engines.Ref, *plan.Plan) error) error {
	p, _, err := t.resolve()
	if p == nil {
		return err
	}
	if err := t.refuse(p); err != nil {
		return err
	}
	return t.withEngine(func(engine *client.Client, here engines.Ref) error { return use(engine, here, p) })
}

// here opens the workspace of the clone that contains the current folder.
func here() (*workspace.Workspace, error) {
	project, err := pulumi.DetectProjectPath()
	if errors.Is(err, pulumi.ErrProjectNotFound) {
		dir, _ := os.Getwd()
		return nil, fmt.Errorf("there is no Pulumi.yaml in %s or above it. Fix: run this command in a clone of the project", dir)
	} else if err != nil {
		return nil, err
	}
	w, err := workspace.Open(filepath.Dir(project))
	if err != nil {
		return nil, err
	}
	return w, w.Renew()
}
