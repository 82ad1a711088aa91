package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func pulumiCommand() *cobra.Command {
	return cloneCommand(&cobra.Command{
		Use:                "pulumi [arguments]",
		Short:              "Run pulumi with this machine's state, passphrase and the stack's own file",
		DisableFlagParsing: true, // all arguments are for pulumi
	}, func(t target, args []string) error { return t.Exec(t.cmd.Context(), args, say) })
}

func envCommand() *cobra.Command {
	return cloneCommand(&cobra.Command{
		Use:   "env",
		Short: `Print the shell commands that set up plain pulumi: eval "$(bin/platform env)"`,
		Args:  cobra.NoArgs,
	}, func(t target, _ []string) error {
		path, err := t.Shim()
		if err == nil {
			_, err = fmt.Fprintf(t.cmd.OutOrStdout(), "export PATH=%s:\"$PATH\"\n", path)
		}
		return err
	})
}
