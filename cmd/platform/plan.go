package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"trading-platform/plan"
	"trading-platform/review"
	"trading-platform/stack"
)

func planCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Print what a stack consists of, or what a change does to it; needs no engine",
		Long: `Print what a stack consists of; needs no engine.

With --diff, print what changes from a git revision to this checkout as it is, edits
that are not committed included. Both plans come from the revision's own code and
tracked stack files; what this machine has set for a stack does not count. For what a
branch changes since it left main: --diff "$(git merge-base main HEAD)".
Exit code: 0 no change, 2 changes, 3 changes that touch data, 1 an error.`,
		Args: cobra.NoArgs,
	}
	name := stackFlag(cmd)
	format := cmd.Flags().StringP("output", "o", "text", "text, json or mermaid; with --diff text, markdown or json")
	ref := cmd.Flags().String("diff", "", "git revision to compare this checkout with, such as main or HEAD^1")
	all := cmd.Flags().Bool("all", false, "with --diff, compare every stack that has a file")
	files := cmd.Flags().String("files", "", "folder to write the containers' configuration files to, secret ones left out, as <service>/<path>")
	cmd.MarkFlagsMutuallyExclusive("stack", "all")
	cmd.MarkFlagsMutuallyExclusive("diff", "files")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("diff") {
			if *all {
				*name = ""
			}
			return printDiff(cmd, *ref, *name, *format)
		}
		if *all {
			return errors.New("--all goes with --diff")
		}
		_, src, err := source(*name)
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
		if *files != "" {
			err = errors.Join(err, writeFiles(p, *files))
		}
		return errors.Join(err, faults)
	}
	return cmd
}

// printDiff compares, writes the report, and turns what it says into the exit code.
func printDiff(cmd *cobra.Command, ref, stack, format string) error {
	write, ok := review.Formats[format]
	if !ok {
		return errors.New("with --diff, -o takes text, markdown or json, not " + format)
	}
	w, err := here()
	if err != nil {
		return err
	}
	report, err := review.Diff(cmd.Context(), w.Root, ref, stack)
	if err == nil {
		err = write(report, cmd.OutOrStdout())
	}
	if code := report.ExitCode(); err == nil && code != 0 {
		return exitCode(code)
	}
	return err
}

// writeFiles writes the configuration files of all services that are no secret.
func writeFiles(p *plan.Plan, dir string) error {
	for _, s := range p.Services {
		for _, f := range s.Files {
			if f.Secret {
				continue
			}
			path := filepath.Join(dir, s.Name, f.Path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, []byte(f.Content), 0o644); err != nil { //nolint:gosec // no secret in it
				return err
			}
		}
	}
	return nil
}
