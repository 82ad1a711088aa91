package main

import (
	"errors"

	"github.com/spf13/cobra"

	"trading-platform/internal/stack"
)

func planCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Print what a stack consists of; needs no engine",
		Args:  cobra.NoArgs,
	}
	name := stackFlag(cmd)
	format := cmd.Flags().StringP("output", "o", "text", "text, json or mermaid")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		src, err := source(*name)
		if err != nil {
			return err
		}
		p, _, faults := stack.Resolve(src)
		if p == nil {
			return faults
		}
		// A plan with faults is printed as far as it goes, and the faults after it.
		out := cmd.OutOrStdout()
		switch *format {
		case "text":
			err = p.Text(out)
		case "json":
			err = p.JSON(out)
		case "mermaid":
			err = p.Mermaid(out)
		default:
			return errors.New("-o takes text, json or mermaid, not " + *format)
		}
		return errors.Join(err, faults)
	}
	return cmd
}
