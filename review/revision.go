package review

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"golang.org/x/sync/errgroup"

	"trading-platform/plan"
	"trading-platform/settings"
	"trading-platform/workspace"
)

// unplanned are the places that decide what Pulumi makes of a plan: an edit there
// shows in no plan.
var unplanned = []string{"components", "program", "provider", "main.go", "go.mod"}

// Diff returns what changes from a git revision to the checkout as it is, edits that are
// not committed included. Each side's plans come from its own code, because the catalog
// is Go code, and from its own tracked stack files; this machine's settings of a stack
// are ignored on both. With no stack it compares every stack that has a file on either side.
func Diff(ctx context.Context, root, ref, stack string) (Report, error) {
	temp, err := os.MkdirTemp("", "platform-diff-*")
	if err != nil {
		return Report{}, err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	base, commit, err := CheckOut(ctx, root, ref, filepath.Join(temp, "base"))
	if err != nil {
		return Report{}, err
	}
	head := &Revision{Name: checkoutName(ctx, root), Root: root, temp: filepath.Join(temp, "head")}
	base.Env, head.Env = Isolated(filepath.Join(temp, "base")), Isolated(filepath.Join(temp, "head"))
	stacks := union(base.stacks(), head.stacks())
	slices.Sort(stacks)
	if stack != "" {
		if !slices.Contains(stacks, stack) {
			return Report{}, fmt.Errorf("neither %s nor this checkout has a file Pulumi.%s.yaml; stacks here: %s", ref, stack, strings.Join(head.stacks(), ", "))
		}
		stacks = []string{stack}
	}
	edited, err := editedFiles(ctx, root, commit)
	if err != nil {
		return Report{}, err
	}
	var was, is map[string]*Snapshot
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { was, err = base.plans(groupCtx, stacks); return err })
	group.Go(func() (err error) { is, err = head.plans(groupCtx, stacks); return err })
	if err := group.Wait(); err != nil {
		return Report{}, err
	}
	report := Report{Version: Version, Base: base.Name, Head: head.Name}
	for _, name := range stacks {
		if s := is[name]; s != nil {
			if s.Edited, err = editedBuilds(s.Services, root, edited); err != nil {
				return Report{}, err
			}
		}
		report.Stacks = append(report.Stacks, Compare(name, was[name], is[name]))
	}
	report.Unplanned = slices.DeleteFunc(edited, func(file string) bool {
		return strings.HasSuffix(file, "_test.go") || !slices.ContainsFunc(unplanned, func(place string) bool {
			return file == place || strings.HasPrefix(file, place+"/")
		})
	})
	return report, nil
}

// git runs git in a folder, with additional environment. It takes no optional locks, so that the
// user's index is not changed.
func git(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "GIT_OPTIONAL_LOCKS=0"), env...)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(exit.Stderr))
	}
	return strings.TrimRight(string(out), "\n"), err
}

// editedFiles lists the files of the project that differ between a commit and the checkout.
func editedFiles(ctx context.Context, root, commit string) ([]string, error) {
	tracked, err := git(ctx, root, nil, "diff", "--name-only", "--no-renames", "--relative", "-z", commit, "--")
	added, addedErr := git(ctx, root, nil, "ls-files", "--others", "--exclude-standard", "-z")
	files := slices.DeleteFunc(strings.Split(tracked+added, "\x00"), func(f string) bool { return f == "" })
	slices.Sort(files)
	return files, errors.Join(err, addedErr)
}

// MarkEdited notes which files that the snapshot's images are built from differ between a commit and the checkout.
func (s *Snapshot) MarkEdited(ctx context.Context, root, commit string) error {
	edited, err := editedFiles(ctx, root, commit)
	if err == nil {
		s.Edited, err = editedBuilds(s.Services, root, edited)
	}
	return err
}

// editedBuilds finds the edited files that images are built from, by their folder: all files of the
// folder except those that its .dockerignore excludes. A folder outside of the project is the
// same at both revisions.
func editedBuilds(services []plan.Service, root string, edited []string) (map[string][]string, error) {
	builds := map[string][]string{}
	for _, o := range services {
		if o.Image.Build == nil || builds[o.Image.Build.Context] != nil {
			continue
		}
		folder := o.Image.Build.Context
		text, _ := os.ReadFile(filepath.Join(root, folder, ".dockerignore"))
		patterns, err := ignorefile.ReadAll(bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		for _, file := range edited {
			if inside, ok := strings.CutPrefix(file, folder+"/"); ok {
				ignored, err := patternmatcher.MatchesOrParentMatches(inside, patterns)
				if err != nil {
					return nil, err
				}
				if !ignored {
					builds[folder] = append(builds[folder], file)
				}
			}
		}
	}
	return builds, nil
}

// Revision is one side of a comparison: the project at one place in its history.
type Revision struct {
	Name string   // in the report
	Root string   // the project's folder
	Env  []string // the environment of its platform command
	temp string   // a temporary folder
}

// Isolated returns the environment without the settings of this machine: with a home and a backend in a folder, as a main
// checkout has them, and without the file of local services.
func Isolated(temp string) []string {
	return append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "PULUMI_") }),
		settings.TrackedOnly+"=true", workspace.AsMainVariable+"=1",
		"PULUMI_HOME="+filepath.Join(temp, "home"), "PULUMI_BACKEND_URL=file://"+filepath.Join(temp, "state"))
}

func checkoutName(ctx context.Context, root string) string {
	name := "this checkout"
	if text, err := git(ctx, root, nil, "describe", "--always", "--exclude=*", "--dirty=, with edits", "--abbrev=7"); err == nil {
		name += " (" + text + ")"
	}
	return name
}

// Here is, for CheckOut, the checkout as it is, with edits that are not committed.
const Here = "."

// CheckOut writes the project as it was at a git revision, or as it is Here, into a folder of its own.
// Neither the work tree nor the index is touched, and git's own data only read: git fills an index of its own, and what it has to
// store for a checkout with edits goes to a folder of its own too.
func CheckOut(ctx context.Context, root, ref, temp string) (r *Revision, commit string, err error) {
	revision := ref
	if ref == Here {
		revision = "HEAD"
	}
	commit, err = git(ctx, root, nil, "rev-parse", "--verify", "--end-of-options", revision+"^{commit}")
	if err != nil {
		return nil, "", fmt.Errorf("no revision %q in this clone; git log shows what there is, and git fetch origin <branch> brings a branch (a shallow clone of CI may lack it): %w", ref, err)
	}
	tree, stored := filepath.Join(temp, "tree"), filepath.Join(temp, "objects")
	prefix, err1 := git(ctx, root, nil, "rev-parse", "--show-prefix")
	objects, err2 := git(ctx, root, nil, "rev-parse", "--path-format=absolute", "--git-path", "objects")
	if err := errors.Join(err1, err2, os.MkdirAll(stored, 0o700)); err != nil {
		return nil, "", err
	}
	own := []string{"GIT_INDEX_FILE=" + filepath.Join(temp, "index"), "GIT_OBJECT_DIRECTORY=" + stored, "GIT_ALTERNATE_OBJECT_DIRECTORIES=" + objects}
	_, err = git(ctx, root, own, "read-tree", commit)
	if err == nil && ref == Here {
		_, err = git(ctx, root, own, "add", "--all")
	}
	if err == nil {
		_, err = git(ctx, root, own, "checkout-index", "--all", "--prefix="+tree+string(os.PathSeparator))
	}
	if err != nil {
		return nil, "", err
	}
	r = &Revision{Name: ref + " (" + commit[:7] + ")", Root: filepath.Join(tree, prefix), temp: temp}
	if ref == Here {
		r.Name = checkoutName(ctx, root)
	}
	if _, err := os.Stat(filepath.Join(r.Root, "cmd", "platform")); err != nil {
		return nil, "", fmt.Errorf("revision %s has no cmd/platform, which is what prints its plan: it is older than this command; name a later one", r.Name)
	}
	return r, commit, nil
}

// stacks lists the stacks that the revision has a tracked file of.
func (r *Revision) stacks() []string { return (&workspace.Workspace{Root: r.Root}).Stacks() }

// plans has the revision's own code print the plan of each stack that it has.
func (r *Revision) plans(ctx context.Context, stacks []string) (map[string]*Snapshot, error) {
	binary := filepath.Join(r.temp, "platform")
	if err := r.Build(ctx, binary); err != nil {
		return nil, err
	}
	plans := map[string]*Snapshot{}
	var err error
	for _, stack := range r.stacks() {
		if slices.Contains(stacks, stack) && err == nil {
			plans[stack], err = r.Plan(ctx, binary, stack)
		}
	}
	return plans, err
}

// Build compiles the revision's platform command.
func (r *Revision) Build(ctx context.Context, binary string) error {
	if err := build(ctx, r.Root, binary, "./cmd/platform"); err != nil {
		return fmt.Errorf("%s does not build, so it has no plan: %w", r.Name, err)
	}
	return nil
}

// build compiles a program of the project.
func build(ctx context.Context, root, binary, program string) error {
	// Without version information, for which go would ask git.
	args := slices.Concat([]string{"build", "-buildvcs=false", "-ldflags=-s -w"}, strings.Fields(workspace.BuildFlags), []string{"-o", binary, program})
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// PreviewAll previews every stack of the project. It gives false when a preview failed, which its output explains.
func PreviewAll(ctx context.Context, root string, verbose bool, stdout, stderr io.Writer) (ok bool, err error) {
	temp, err := os.MkdirTemp("", "platform-preview-*")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	program := filepath.Join(temp, "preview")
	if err := build(ctx, root, program, "./review/preview"); err != nil {
		return false, fmt.Errorf("building the program: %w", err)
	}
	cmd := exec.CommandContext(ctx, program)
	if verbose {
		cmd.Args = append(cmd.Args, "-v")
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it cleans up
	cmd.WaitDelay = 20 * time.Second
	return cmd.Run() == nil, nil
}

// faultLine is a line of a fault.List with what is wrong; the line after it has the fix.
var faultLine = regexp.MustCompile(`(?m)^ {2}[0-9]+\. (.*)$`)

// Plan has a compiled platform command of the revision print the plan of a stack.
func (r *Revision) Plan(ctx context.Context, binary, stack string) (*Snapshot, error) {
	files := filepath.Join(r.temp, "files", stack)
	var printed, said strings.Builder
	ask := func(more ...string) error {
		printed.Reset()
		said.Reset()
		cmd := exec.CommandContext(ctx, binary, append([]string{"plan", "-s", stack, "-o", "json", "--files", files}, more...)...)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.Root, r.Env, &printed, &said
		return cmd.Run()
	}
	failed := ask("--check")
	if strings.Contains(said.String(), "unknown flag: --check") { // it is from before there were rules
		failed = ask()
	}
	// The same folder is at another place at each revision.
	here := strings.NewReplacer(r.Root+string(os.PathSeparator), "")
	snapshot, err := Read([]byte(here.Replace(printed.String())), os.DirFS(files))
	if err != nil {
		// What is merely wrong with a stack comes after its plan; here there is none.
		return nil, fmt.Errorf("%s gives no plan of stack %s: %w\n%s", r.Name, stack, errors.Join(failed, err), here.Replace(said.String()))
	}
	for _, found := range faultLine.FindAllStringSubmatch(here.Replace(said.String()), -1) {
		snapshot.Faults = append(snapshot.Faults, found[1])
	}
	return snapshot, nil
}
