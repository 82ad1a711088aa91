package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"trading-platform/review"
)

func previewAllCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "preview-all",
		Short: "Preview every stack for real, from nothing, and leave nothing behind; needs an engine",
		Long: `Run pulumi preview of every stack that has a file here, as if none of it existed yet.

State, secrets and certificates are made up for the run and gone after it; names, ports
and subnet are such that a running stack is not in the way. What this machine has set
for a stack does not count.`,
		Args: cobra.NoArgs,
	}
	verbose := cmd.Flags().BoolP("verbose", "v", false, "print all that pulumi prints")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		w, err := here()
		if err != nil {
			return err
		}
		var failed []string
		err = review.Previews(cmd.Context(), w, say, func(r review.Preview) {
			if r.Err != nil {
				failed = append(failed, r.Stack)
			}
			if *verbose && r.Err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), r.Output)
			}
			fmt.Fprintln(cmd.OutOrStdout(), r)
		})
		if err == nil && len(failed) > 0 {
			err = errors.New("the preview failed for: " + strings.Join(failed, ", "))
		}
		return err
	}
	return cmd
}
