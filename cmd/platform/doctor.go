package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"trading-platform/fault"
	"trading-platform/preflight"
	"trading-platform/stack"
)

func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find everything that would keep a stack from coming up",
		Args:  cobra.NoArgs,
	}
	name := stackFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		w, src, err := source(*name)
		if err != nil {
			return err
		}
		// The plan's own folders, such as apps/reference, start at the clone.
		if err := os.Chdir(src.Root); err != nil {
			return err
		}
		var faults fault.List
		p, set, err := stack.Resolve(src)
		if err := faults.Gather(err); err != nil {
			return err
		}
		engine, err := w.Engine(cmd.Context(), *name)
		if err == nil {
			defer func() { _ = engine.Close() }()
			err = preflight.Check(cmd.Context(), engine, p, set, nil)
		}
		if err := faults.Gather(err); err != nil {
			return err
		}
		if err := faults.Err(); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Nothing stands in the way of stack %s (%d services).\n", *name, len(p.Services))
		return nil
	}
	return cmd
}
