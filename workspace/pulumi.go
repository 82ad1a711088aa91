package workspace

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// takesConfigFile lists the commands of the CLI that have the flag --config-file.
var takesConfigFile = []string{"up", "update", "preview", "pre", "destroy", "down", "dn", "refresh", "config", "import", "watch", "logs"}

// pulumiArgs adds --config-file with the stack's own file to a pulumi command that has this flag.
func (w *Workspace) pulumiArgs(stack string, args []string) []string {
	i := slices.IndexFunc(args, func(a string) bool { return slices.Contains(takesConfigFile, a) })
	given := slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--config-file") })
	if i > 0 && slices.Contains(args[:i], "stack") { // `pulumi stack import` does not have it
		return args
	}
	if i < 0 || given || stack == "" || !exists(w.StackFile(stack)) {
		return args
	}
	return slices.Insert(slices.Clone(args), i+1, "--config-file", w.StackFile(stack))
}

// stackOf returns the stack that a pulumi command names, or "" if it names none.
func stackOf(args []string) string {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	flags.Usage = func() {}
	stack := flags.StringP("stack", "s", os.Getenv("PULUMI_STACK"), "")
	_ = flags.Parse(args) // the CLI says what is wrong with them
	return *stack
}

// selected returns the stack that `pulumi stack select` has selected, or "" if there is none.
func (w *Workspace) selected(ctx context.Context) string {
	out, _ := w.output(ctx, "stack", "--show-name", "--non-interactive")
	return strings.TrimSpace(string(out))
}

// Parallel is how many steps of an up run at a time. The CLI's default of four for each CPU is right for containers that start:
// more of them only take the CPUs from each other. With few CPUs a little more keeps those busy that wait.
// docs/growth.md has the measurements.
func Parallel() int { return max(12, 4*runtime.NumCPU()) }

// Environ returns the process environment with the variables that pulumi needs in this
// workspace. It keeps those that the user has set.
func (w *Workspace) Environ() []string {
	env := os.Environ()
	// A program may use the first of two variables with the same name.
	put := func(name, value string) {
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		env = append(env, name+"="+value)
	}
	add := func(name, value string) {
		if os.Getenv(name) == "" {
			put(name, value)
		}
	}
	add("PULUMI_BACKEND_URL", w.Backend)
	if w.Worktree != "" {
		put("PULUMI_BACKEND_URL", w.Backend)
	}
	add("PULUMI_PARALLEL", strconv.Itoa(Parallel()))
	if _, set := os.LookupEnv("PULUMI_CONFIG_PASSPHRASE"); !set && w.selfManaged() {
		add("PULUMI_CONFIG_PASSPHRASE_FILE", w.passphraseFile())
	}
	// `go run` caches the linked program, so that a run without an edit takes 1.3 s instead of 3.4 s.
	add("PULUMI_GO_USE_RUN", "true")
	// As the Makefile builds the other programs, so that what they share is compiled once, for all clones.
	add("CGO_ENABLED", "0")
	put("GOFLAGS", strings.TrimSpace(os.Getenv("GOFLAGS")+" "+BuildFlags))
	if !w.Installed {
		// A machine that had to build its CLI cannot download anything else either, so do not wait for it.
		add("PULUMI_SKIP_UPDATE_CHECK", "true")
		add("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "true")
	}
	// The language host is beside the CLI, and Pulumi must also find it when our shim runs it.
	put("PATH", filepath.Dir(w.Pulumi)+string(os.PathListSeparator)+os.Getenv("PATH"))
	return env
}

// command prepares a run of the CLI in the clone.
func (w *Workspace) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.Pulumi, args...)
	cmd.Dir, cmd.Env = w.Root, w.Environ()
	return cmd
}

// runCLI runs the CLI without showing its output. The error includes its standard error.
func (w *Workspace) runCLI(ctx context.Context, stdin io.Reader, args ...string) error {
	cmd := w.command(ctx, args...)
	cmd.Stdin = stdin
	_, err := outputOf(cmd)
	return err
}

// output runs the CLI like runCLI, and returns its standard output.
func (w *Workspace) output(ctx context.Context, args ...string) ([]byte, error) {
	return outputOf(w.command(ctx, args...))
}

func outputOf(cmd *exec.Cmd) ([]byte, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("pulumi %s: %w\n%s", strings.Join(cmd.Args[1:], " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
