package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
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
		temp, err := os.MkdirTemp("", "platform-preview-*")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(temp) }()
		program := filepath.Join(temp, "preview")
		// Without the stamp of version control, which asks git for its state.
		build := exec.CommandContext(cmd.Context(), "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "./review/preview")
		build.Dir = w.Root
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building the program: %w\n%s", err, out)
		}
		preview := exec.CommandContext(cmd.Context(), program)
		if *verbose {
			preview.Args = append(preview.Args, "-v")
		}
		preview.Dir, preview.Stdout, preview.Stderr = w.Root, cmd.OutOrStdout(), cmd.ErrOrStderr()
		preview.Cancel = func() error { return preview.Process.Signal(os.Interrupt) } // it cleans up
		preview.WaitDelay = 20 * time.Second
		if err := preview.Run(); err != nil {
			return exitCode(1) // it has said why
		}
		return nil
	}
	return cmd
}
