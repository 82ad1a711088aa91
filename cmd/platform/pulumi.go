package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"trading-platform/internal/workspace"
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
			if w.Pulumi == "" {
				return errors.New("no pulumi here yet; run: make init")
			}
			stack := workspace.StackOf(args)
			if stack == "" {
				stack = w.Selected(cmd.Context())
			}
			if stack != "" {
				if err := w.Refresh(stack); err != nil {
					return err
				}
			}
			// Taken over by pulumi altogether: signals, terminal and exit code are its own.
			return syscall.Exec(w.Pulumi, append([]string{"pulumi"}, w.PulumiArgs(stack, args)...), w.Environ())
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
			shim := fmt.Sprintf("#!/bin/sh\nexec %q pulumi \"$@\"\n", filepath.Join(w.Root, "bin", "platform"))
			if err := os.MkdirAll(w.ShimDir(), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(w.ShimDir(), "pulumi"), []byte(shim), 0o755); err != nil { //nolint:gosec // a command
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "export PATH=%q\n", w.ShimDir()+":"+filepath.Join(w.Root, "bin")+":"+os.Getenv("PATH"))
			return err
		},
	}
}
