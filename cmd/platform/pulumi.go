package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func pulumiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pulumi [arguments]",
		Short: "Run pulumi with this machine's state, passphrase and the stack's own file",
		// All arguments, including flags, are passed to pulumi.
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := here()
			if err != nil {
				return err
			}
			return w.Exec(cmd.Context(), args, say)
		},
	}
}

func envCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: `Print the shell commands that set up plain pulumi: eval "$(bin/platform env)"`,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := here()
			if err != nil {
				return err
			}
			path, err := w.Shim()
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "export PATH=%s:\"$PATH\"\n", path)
			}
			return err
		},
	}
}
