package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"trading-platform/certs"
	engines "trading-platform/engine"
	"trading-platform/fault"
	"trading-platform/observe"
	"trading-platform/operate"
	"trading-platform/plan"
	"trading-platform/preflight"
	"trading-platform/workspace"
)

// runCommand makes a command that runs init, then the pulumi command, and does what
// Pulumi cannot do itself.
func runCommand(name, short string) *cobra.Command {
	var timing string
	cmd := stackCommand(&cobra.Command{Use: name + " [flags] [-- arguments for pulumi]", Short: short}, func(t target, args []string) error {
		t.Timing = timing
		return t.Run(t.cmd.Context(), name, t.stack, args, say)
	})
	cmd.Flags().StringVar(&timing, "timing", "", "print where the time went, and write it to this folder, also as a picture and as a trace for Chrome")
	return cmd
}

func initCommand() *cobra.Command {
	var moveEngine bool
	cmd := stackCommand(&cobra.Command{
		Use:   "init",
		Short: "Set up what a stack needs on this machine: Pulumi, state, provider, images, secrets",
		Args:  cobra.NoArgs,
	}, func(t target, _ []string) error {
		return t.Init(t.cmd.Context(), t.stack, moveEngine, say)
	})
	cmd.Flags().BoolVar(&moveEngine, "move-engine", false, "move the stack from the engine that it runs on to the one that docker connects to now; its data stays on the old engine")
	return cmd
}

func doctorCommand() *cobra.Command {
	return stackCommand(&cobra.Command{
		Use:   "doctor",
		Short: "Find everything that prevents a stack from coming up",
		Args:  cobra.NoArgs,
	}, func(t target, _ []string) error {
		// The plan's relative paths, such as apps/reference, start at the clone.
		if err := os.Chdir(t.Root); err != nil {
			return err
		}
		var faults fault.List
		p, set, err := t.resolve()
		if err := faults.Gather(err); err != nil {
			return err
		}
		err = t.withEngine(func(engine *client.Client, here engines.Ref) error {
			return preflight.Check(t.cmd.Context(), engine, here, p, set, nil)
		})
		if err := faults.Gather(err); err != nil {
			return err
		}
		if err := faults.Err(); err != nil {
			return err
		}
		_, err = fmt.Fprintf(t.cmd.OutOrStdout(), "No problems found for stack %s (%d services).\n", t.stack, len(p.Services))
		return err
	})
}

func statusCommand() *cobra.Command {
	var live bool
	cmd := stackCommand(&cobra.Command{
		Use:   "status",
		Short: "Show how a stack's containers are doing; exit code 1 unless all are healthy",
		Args:  cobra.NoArgs,
	}, func(t target, _ []string) error {
		return t.withPlan(func(engine *client.Client, here engines.Ref, p *plan.Plan) error {
			if live {
				all, _ := operate.Select(engine, here, p, nil) // an error is one of a name
				return watch(t.cmd.Context(), all)
			}
			statuses, err := observe.Statuses(t.cmd.Context(), engine, p)
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(t.cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "SERVICE\tCONTAINER\tHEALTH\tSTATE\tURL")
			urls := p.URLs()
			for _, s := range statuses {
				if service, _ := p.Lookup(s.Service); service.Host != nil && s.State != "" {
					s.State = fmt.Sprintf("on this host, port %d: platform take-back %s", service.Host.Port, s.Service)
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", s.Service, s.Container, s.Health, cmp.Or(s.State, "run: make up STACK="+t.stack), urls[s.Service])
			}
			err = table.Flush()
			if err == nil && slices.ContainsFunc(statuses, func(s observe.Status) bool { return s.Health != "healthy" && s.Health != observe.Completed }) {
				return exitCode(1)
			}
			return err
		})
	})
	cmd.Flags().BoolVarP(&live, "watch", "w", false, "a live table with restarts, drift, who waits for whom, and the last line of each log; keys restart a service or show its log")
	return cmd
}

func forwardCommand() *cobra.Command {
	return stackCommand(&cobra.Command{
		Use:   "forward",
		Short: "Make the ports of a stack on another machine reachable here, by ssh, until it is interrupted",
		Args:  cobra.NoArgs,
	}, func(t target, _ []string) error {
		return t.withPlan(func(_ *client.Client, here engines.Ref, p *plan.Plan) error {
			return workspace.Forward(t.cmd.Context(), here, p)
		})
	})
}

func certsCommand() *cobra.Command {
	var o certs.Options
	cmd := stackCommand(&cobra.Command{
		Use:   "certs",
		Short: "Create a local certificate authority, nginx's certificate and client certificates; renew those that expire soon",
		Args:  cobra.NoArgs,
	}, func(t target, _ []string) error {
		_, set, err := t.resolve()
		if set == nil {
			return err
		}
		o.Stack, o.Names = t.stack, set.ServerNames()
		report, err := certs.Ensure(cmp.Or(set.CertsDir, t.CertsDir(t.stack)), o)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(t.cmd.OutOrStdout(), report)
		return err
	})
	cmd.Flags().StringSliceVar(&o.Clients, "client", []string{"admin"}, "users or machines that get a client certificate")
	cmd.Flags().BoolVar(&o.Force, "force", false, "create everything again; earlier client certificates stop working")
	return cmd
}
