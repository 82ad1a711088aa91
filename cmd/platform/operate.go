package main

import (
	"context"
	"errors"
	"math"
	"os/exec"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	engines "trading-platform/engine"
	"trading-platform/observe"
	"trading-platform/operate"
	"trading-platform/plan"
)

// serviceRun does what a command does with its services.
type serviceRun func(t target, s *operate.Services, args []string) error

// serviceCommand makes a command for the services that its first arguments name, most of them, or for all services if there are
// no arguments. The shell completes the names.
func serviceCommand(cmd *cobra.Command, most int, run serviceRun) *cobra.Command {
	cmd = stackCommand(cmd, func(t target, args []string) error {
		return t.withPlan(func(engine *client.Client, here engines.Ref, p *plan.Plan) error {
			err := observe.OnThisNode(t.cmd.Context(), engine, p)
			if err != nil {
				return err
			}
			services, err := operate.Select(engine, here, p, args[:min(most, len(args))])
			if err != nil {
				return err
			}
			return run(t, services, args)
		})
	})
	cmd.ValidArgsFunction = func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		w, err := here()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		p, _, err := target{w, cmd, cmd.Flag("stack").Value.String()}.resolve()
		if p == nil {
			cobra.CompErrorln(err.Error())
			return nil, cobra.ShellCompDirectiveError
		}
		return operate.Names(p), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// anyNumber is the number of services that a command may name where there is no limit.
const anyNumber = math.MaxInt

// changeCommand makes a command that changes the named services, at least one.
func changeCommand(use, short string, change func(*operate.Services, context.Context) error) *cobra.Command {
	return serviceCommand(&cobra.Command{Use: use + " service…", Short: short, Args: cobra.MinimumNArgs(1)}, anyNumber,
		func(t target, s *operate.Services, _ []string) error {
			return change(s, t.cmd.Context())
		})
}

func logsCommand() *cobra.Command {
	var options operate.LogOptions
	cmd := serviceCommand(&cobra.Command{
		Use: "logs [service…]", Short: "Print the logs of services, or of all, in the order of time",
	}, anyNumber, func(t target, s *operate.Services, _ []string) error {
		return s.Logs(t.cmd.Context(), options, t.cmd.OutOrStdout())
	})
	cmd.Flags().BoolVarP(&options.Follow, "follow", "f", false, "go on with new lines, also of containers that are replaced meanwhile")
	cmd.Flags().StringVar(&options.Since, "since", "", "a time such as 2026-01-02T15:04:05Z, or a duration such as 10m")
	cmd.Flags().StringVarP(&options.Tail, "tail", "n", "1000", "the number of lines from the end of each log, or all")
	cmd.Flags().BoolVar(&options.JSON, "json", false, "one JSON object for each line")
	return cmd
}

func execCommand() *cobra.Command {
	cmd := serviceCommand(&cobra.Command{
		Use: "exec service command…", Short: "Run a command in a service's container, with the docker command", Args: cobra.MinimumNArgs(2),
	}, 1, func(t target, s *operate.Services, args []string) error {
		return t.runIn(s, args[1:]...)
	})
	cmd.Flags().SetInterspersed(false) // the flags after the service are those of its command
	return cmd
}

func shellCommand() *cobra.Command {
	return serviceCommand(&cobra.Command{
		Use: "shell service", Short: "Open a shell in a service's container", Args: cobra.ExactArgs(1),
	}, 1, func(t target, s *operate.Services, _ []string) error {
		return t.runIn(s, "sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")
	})
}

// runIn runs a command in the first container of a service.
func (t target) runIn(s *operate.Services, command ...string) error {
	err := s.Exec(t.cmd.Context(), command)
	if ended := (*exec.ExitError)(nil); errors.As(err, &ended) {
		return exitCode(ended.ExitCode()) // the command has said why
	}
	return err
}
