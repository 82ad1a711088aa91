package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"trading-platform/catalog"
	"trading-platform/compose"
	"trading-platform/fault"
	"trading-platform/review"
)

func planCommand() *cobra.Command {
	var format, ref, files, reports string
	var all, check bool
	cmd := stackCommand(&cobra.Command{
		Use:   "plan",
		Short: "Print what a stack consists of, or what a change does to it; needs no engine",
		Long: `Print what a stack consists of; needs no engine.

With --diff, print what changes from a git revision to this checkout, including edits
that are not committed. Each plan is made by the code and the tracked stack files of its
revision; a stack's own settings on this machine are ignored. For what a
branch changes since it left main: --diff "$(git merge-base main HEAD)".
Exit code: 0 no change, 2 changes, 3 changes that touch data, 1 an error.

With --check, a rule of the catalog that the stack breaks is an error: an image without a
version; a port beyond loopback that no setting names; a service without a probe, a memory
limit or an owner; with --diff also a volume that is removed. An entry of the catalog can
have an exception, with a reason.`,
		Args: cobra.NoArgs,
	}, func(t target, _ []string) error {
		switch diff := t.cmd.Flags().Changed("diff"); {
		case all && !diff:
			return errors.New("--all needs --diff")
		case all:
			return t.printDiff(ref, format, "", reports, check)
		case diff:
			return t.printDiff(ref, format, t.stack, reports, check)
		}
		return t.printPlan(format, files, check)
	})
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text, json, mermaid or compose (a Compose file); with --diff text, markdown, json or junit")
	cmd.Flags().StringVar(&ref, "diff", "", "git revision to compare this checkout with, such as main or HEAD^1")
	cmd.Flags().BoolVar(&all, "all", false, "with --diff, compare every stack that has a file")
	cmd.Flags().BoolVar(&check, "check", false, "report the rules of the catalog that the stack breaks as errors")
	cmd.Flags().StringVar(&reports, "reports", "", reportsUsage)
	cmd.Flags().StringVar(&files, "files", "", "folder to write the containers' configuration files to, secret ones left out, as <service>/<path>")
	cmd.MarkFlagsMutuallyExclusive("stack", "all")
	cmd.MarkFlagsMutuallyExclusive("diff", "files")
	return cmd
}

const reportsUsage = "folder to write the report to as well, as report.md, report.json and report.xml (JUnit)"

// printPlan prints the stack's plan, and returns what is wrong with it as an error, with the rules that it breaks if check is set.
func (t target) printPlan(format, files string, check bool) error {
	p, set, err := t.resolve()
	if p == nil {
		return err
	}
	var faults fault.List
	_ = faults.Gather(err) // with a plan, it is a list
	if check {
		_ = faults.Gather(review.Check(p, set, catalog.Services()))
	}
	write := map[string]func(io.Writer) error{
		"text": p.Text, "json": p.JSON, "mermaid": p.Mermaid,
		"compose": func(out io.Writer) error { return compose.Write(p, out) },
	}[format]
	if write == nil {
		return errors.New("-o must be text, json, mermaid or compose, not " + format)
	}
	err = write(t.cmd.OutOrStdout())
	if files != "" {
		err = errors.Join(err, p.WriteFiles(files))
	}
	return errors.Join(err, faults.Err())
}

// printDiff compares a stack, or all, writes the report, and returns its exit code. If check is set, a newly broken rule is an error.
func (t target) printDiff(ref, format, stack, reports string, check bool) error {
	write, ok := review.Formats[format]
	if !ok {
		return errors.New("with --diff, -o must be text, markdown, json or junit, not " + format)
	}
	report, err := review.Diff(t.cmd.Context(), t.Root, ref, stack)
	if err == nil && check {
		err = report.BrokenRules()
	}
	return t.writeReport(report, err, write, reports)
}

// writeReport writes a report in a format, and in all of them into a folder if one is named, and returns its exit code.
func (t target) writeReport(report review.Report, err error, write func(review.Report, io.Writer) error, folder string) error {
	if report.Version != 0 {
		err = errors.Join(err, write(report, t.cmd.OutOrStdout()), report.WriteAll(folder))
	}
	if code := report.ExitCode(); err == nil && code != 0 {
		return exitCode(code)
	}
	return err
}

func previewAllCommand() *cobra.Command {
	var verbose bool
	cmd := cloneCommand(&cobra.Command{
		Use:   "preview-all",
		Short: "Preview every stack with an empty, temporary state; needs an engine",
		Long: `Run pulumi preview of every stack that has a file here, as if none of them existed yet.

State, secrets and certificates are generated for the run and deleted after it. Running
stacks do not conflict with it, whatever their names, ports and subnets. A stack's own
settings on this machine are ignored.`,
		Args: cobra.NoArgs,
	}, func(t target, _ []string) error {
		ok, err := review.PreviewAll(t.cmd.Context(), t.Root, verbose, t.cmd.OutOrStdout(), t.cmd.ErrOrStderr())
		if err == nil && !ok {
			return exitCode(1) // it has already printed the errors
		}
		return err
	})
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show pulumi's complete output")
	return cmd
}
