package main

import (
	"errors"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	engines "trading-platform/engine"
	"trading-platform/rehearse"
	"trading-platform/review"
)

func rehearseCommand() *cobra.Command {
	var base, seed, format, reports string
	cmd := stackCommand(&cobra.Command{
		Use:   "rehearse",
		Short: "Apply this checkout's change to a temporary stack with data and traffic, and measure what happens",
		Long: `Apply this checkout's change to a temporary stack with data and traffic, and measure
what happens.

It brings the base revision's stack up on the stack's engine, under names, ports and a
subnet of its own, puts data into it, calls each service's health endpoint four times a
second, runs a real up of this checkout, and then one of the base again. The report
compares what the plans predict with what was measured. Nothing is left behind; what a
killed rehearsal has left, the next one removes. The stack's own data is not touched.
Exit code: 0 no findings, 2 findings, 1 an error.`,
		Args: cobra.NoArgs,
	}, func(t target, _ []string) error {
		write, ok := review.Formats[format]
		if !ok {
			return errors.New("-o must be text, markdown, json or junit, not " + format)
		}
		return t.withEngine(func(engine *client.Client, here engines.Ref) error {
			report, err := rehearse.Run(t.cmd.Context(), rehearse.Options{
				Workspace: t.Workspace, Stack: t.stack, Base: base, Seed: seed, Engine: engine, Here: here, Say: say,
			})
			return t.writeReport(report, err, write, reports)
		})
	})
	cmd.Flags().StringVar(&base, "base", "main", "git revision that the change is applied to")
	cmd.Flags().StringVar(&seed, "seed", "", "file of `platform backup` with the data (default: the project's own rows and keys)")
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text, markdown, json or junit")
	cmd.Flags().StringVar(&reports, "reports", "", reportsUsage)
	return cmd
}
