package main

import (
	"fmt"
	"os"
	"path/filepath"

	"al.essio.dev/pkg/shellescape"
	"github.com/spf13/cobra"
)

func pulumiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pulumi [arguments]",
		Short: "Run pulumi with this machine's state, passphrase and the stack's own file",
		// The arguments are pulumi's.
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
		Short: `Print what a shell needs for plain pulumi commands: eval "$(bin/platform env)"`,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := here()
			if err != nil {
				return err
			}
			shim := fmt.Sprintf("#!/bin/sh\nexec %s pulumi \"$@\"\n", shellescape.Quote(filepath.Join(w.Root, "bin", "platform")))
			if err := os.MkdirAll(w.ShimDir(), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(w.ShimDir(), "pulumi"), []byte(shim), 0o755); err != nil { //nolint:gosec // a command
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "export PATH=%s:\"$PATH\"\n", shellescape.Quote(w.ShimDir()+":"+filepath.Join(w.Root, "bin")))
			return err
		},
	}
}
