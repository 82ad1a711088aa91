package main

import (
	"context"
	"errors"
	"os/exec"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	engines "trading-platform/engine"
	"trading-platform/operate"
	"trading-platform/plan"
)

// serviceCommand makes a command for services of a stack, whose names the shell completes.
func serviceCommand(cmd *cobra.Command, run func(t target, p *plan.Plan, args []string) error) *cobra.Command {
	cmd = stackCommand(cmd, func(t target, args []string) error {
		p, _, err := t.resolve()
		if p == nil {
			return err
		}
		return run(t, p, args)
	})
	cmd.ValidArgsFunction = func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		w, err := here()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		t := target{w, cmd, cmd.Flag("stack").Value.String()}
		p, _, err := t.resolve()
		if p == nil {
			cobra.CompErrorln(err.Error())
			return nil, cobra.ShellCompDirectiveError
		}
		return operate.Names(p), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// withServices opens the stack's engine and calls use with the named services of the plan, or with all.
func (t target) withServices(p *plan.Plan, names []string, use func(*operate.Services, engines.Ref) error) error {
	return t.withEngine(func(engine *client.Client, here engines.Ref) error {
		services, err := operate.Select(engine, p, names)
		if err != nil {
			return err
		}
		return use(services, here)
	})
}

// changeCommand makes a command that changes the named services, at least one.
func changeCommand(use, short string, change func(*operate.Services, context.Context) error) *cobra.Command {
	return serviceCommand(&cobra.Command{Use: use + " service…", Short: short, Args: cobra.MinimumNArgs(1)}, func(t target, p *plan.Plan, args []string) error {
		return t.withServices(p, args, func(s *operate.Services, _ engines.Ref) error { return change(s, t.cmd.Context()) })
	})
}

func logsCommand() *cobra.Command {
	var options operate.LogOptions
	cmd := serviceCommand(&cobra.Command{
		Use: "logs [service…]", Short: "Print the logs of services, or of all, in the order of time",
	}, func(t target, p *plan.Plan, args []string) error {
		return t.withServices(p, args, func(s *operate.Services, _ engines.Ref) error {
			return s.Logs(t.cmd.Context(), options, t.cmd.OutOrStdout())
		})
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
	}, runIn)
	cmd.Flags().SetInterspersed(false) // the flags after the service are those of its command
	return cmd
}

func shellCommand() *cobra.Command {
	return serviceCommand(&cobra.Command{
		Use: "shell service", Short: "Open a shell in a service's container", Args: cobra.ExactArgs(1),
	}, func(t target, p *plan.Plan, args []string) error {
		return runIn(t, p, []string{args[0], "sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"})
	})
}

// runIn runs a command in the first container of a service.
func runIn(t target, p *plan.Plan, args []string) error {
	return t.withServices(p, args[:1], func(s *operate.Services, here engines.Ref) error {
		err := s.Exec(t.cmd.Context(), here, args[1:])
		if ended := (*exec.ExitError)(nil); errors.As(err, &ended) {
			return exitCode(ended.ExitCode()) // the command has said why
		}
		return err
	})
}
