package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"trading-platform/plan/diff"
)

// revision is one side of a comparison: the project at one place in its history.
type revision struct {
	name   string // for people
	commit string // empty for the checkout as it is
	root   string // the project's folder
	temp   string // a folder for what is made on the way; not there yet
}

// checkOut writes the project as it was at a git revision into a folder of its
// own. Neither the work tree nor the index is touched: git fills an index of its own.
func checkOut(ctx context.Context, root, ref, temp string) (*revision, error) {
	commit, err := git(ctx, root, nil, "rev-parse", "--verify", "--quiet", "--end-of-options", ref+"^{commit}")
	if err != nil {
		if _, notARepository := git(ctx, root, nil, "rev-parse", "--git-dir"); notARepository != nil {
			return nil, fmt.Errorf("%s is no git clone, so there is no revision to compare with: %w", root, notARepository)
		}
		return nil, fmt.Errorf("no revision %q in this clone; git log shows what there is, and git fetch origin <branch> brings a branch (a shallow clone of CI may lack it)", ref)
	}
	prefix, err := git(ctx, root, nil, "rev-parse", "--show-prefix")
	if err != nil {
		return nil, err
	}
	tree := filepath.Join(temp, "tree")
	if err := os.MkdirAll(tree, 0o700); err != nil {
		return nil, err
	}
	index := []string{"GIT_INDEX_FILE=" + filepath.Join(temp, "index")}
	if _, err := git(ctx, root, index, "read-tree", commit); err != nil {
		return nil, err
	}
	if _, err := git(ctx, root, index, "checkout-index", "--all", "--prefix="+tree+string(os.PathSeparator)); err != nil {
		return nil, err
	}
	r := &revision{name: ref + " (" + commit[:7] + ")", commit: commit, root: filepath.Join(tree, prefix), temp: temp}
	if _, err := os.Stat(filepath.Join(r.root, "cmd", "platform")); err != nil {
		return nil, fmt.Errorf("revision %s has no cmd/platform, which is what prints its plan: it is older than this command; name a later one", r.name)
	}
	return r, nil
}

// git runs git in a folder, with more environment. It takes no locks that it can
// do without, so that the user's index stays as it is.
func git(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GIT_OPTIONAL_LOCKS=0"), env...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return strings.TrimRight(string(out), "\n"), nil
}

// describe names the checkout's commit, and says when there are edits on top.
func describe(ctx context.Context, root string) string {
	text, err := git(ctx, root, nil, "describe", "--always", "--exclude=*", "--dirty=, with edits", "--abbrev=7")
	if err != nil {
		return ""
	}
	return " (" + text + ")"
}

// changedFiles lists the files under some paths that differ between a commit and the checkout.
func changedFiles(ctx context.Context, root, commit string, paths []string) ([]string, error) {
	out, err := git(ctx, root, nil, append([]string{"diff", "--name-only", "--relative", "-z", commit, "--"}, paths...)...)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(strings.Split(out, "\x00"), func(f string) bool {
		return f == "" || strings.HasSuffix(f, "_test.go")
	}), nil
}

// stacks lists the stacks that the revision has a tracked file of.
func (r *revision) stacks() []string {
	files, _ := filepath.Glob(filepath.Join(r.root, "Pulumi.*.yaml"))
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "Pulumi."), ".yaml"))
	}
	return names
}

// plans has the revision's own code print the plan of each stack that it has.
func (r *revision) plans(ctx context.Context, stacks []string, into map[string]*diff.Snapshot) error {
	if err := os.MkdirAll(r.temp, 0o700); err != nil {
		return err
	}
	binary := filepath.Join(r.temp, "platform")
	// Without the stamp of version control, which asks git for its state.
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", binary, "./cmd/platform")
	build.Dir = r.root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%s does not build, so it has no plan: %w\n%s", r.name, err, out)
	}
	have := r.stacks()
	for _, stack := range stacks {
		if !slices.Contains(have, stack) {
			continue
		}
		snapshot, err := r.plan(ctx, binary, stack)
		if err != nil {
			return err
		}
		into[stack] = snapshot
	}
	return nil
}

// faultLine is a line of a fault.List with what is wrong; the line after it has the mend.
var faultLine = regexp.MustCompile(`(?m)^ {2}[0-9]+\. (.*)$`)

func (r *revision) plan(ctx context.Context, binary, stack string) (*diff.Snapshot, error) {
	files := filepath.Join(r.temp, "files", stack)
	cmd := exec.CommandContext(ctx, binary, "plan", "-s", stack, "-o", "json", "--files", files)
	cmd.Dir = r.root
	// An empty home of Pulumi's has no settings of this machine that could cover the tracked file.
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "PULUMI_")
	}), "PULUMI_HOME="+filepath.Join(r.temp, "home"))
	var printed, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &printed, &said
	failed := cmd.Run()
	// The same folder is elsewhere at each revision.
	here := r.root + string(os.PathSeparator)
	text := strings.ReplaceAll(printed.String(), here, "")
	complaint := strings.ReplaceAll(said.String(), here, "")
	snapshot, err := diff.Read([]byte(text))
	if err != nil {
		// What is merely wrong with a stack comes after its plan; here there is none.
		return nil, fmt.Errorf("%s gives no plan of stack %s: %w\n%s", r.name, stack, errors.Join(failed, err), complaint)
	}
	for _, found := range faultLine.FindAllStringSubmatch(complaint, -1) {
		snapshot.Faults = append(snapshot.Faults, found[1])
	}
	if snapshot.Files, err = readFiles(files); err != nil {
		return nil, err
	}
	snapshot.Sources = map[string]map[string]string{}
	for _, folder := range snapshot.BuildContexts() {
		if filepath.IsAbs(folder) {
			continue // outside of the project: the same at both revisions
		}
		if snapshot.Sources[folder], err = r.sources(ctx, folder); err != nil {
			return nil, err
		}
	}
	return snapshot, nil
}

// readFiles reads what `plan --files` wrote: a folder for each service with the container's files.
func readFiles(dir string) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	written := os.DirFS(dir)
	err := fs.WalkDir(written, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(written, path)
		if err != nil {
			return err
		}
		service, inContainer, _ := strings.Cut(path, "/")
		if out[service] == nil {
			out[service] = map[string]string{}
		}
		out[service]["/"+inContainer] = string(content)
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	return out, err
}

// sources gives the hash of each file that an image is built from: what the
// revision tracks, or in the checkout would track, less what .dockerignore leaves out.
func (r *revision) sources(ctx context.Context, folder string) (map[string]string, error) {
	paths, err := r.tracked(ctx, folder)
	if err != nil {
		return nil, err
	}
	ignored, err := dockerignore(filepath.Join(r.root, folder))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, path := range paths {
		relative, err := filepath.Rel(folder, path)
		if err != nil {
			return nil, err
		}
		if skip, err := ignored.MatchesOrParentMatches(relative); err != nil || skip {
			continue
		}
		content, err := os.ReadFile(filepath.Join(r.root, path))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted in the work tree
		} else if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(content)
		out[path] = hex.EncodeToString(sum[:])
	}
	return out, nil
}

// tracked lists the files under a folder, as paths under the project.
func (r *revision) tracked(ctx context.Context, folder string) ([]string, error) {
	if r.commit == "" {
		out, err := git(ctx, r.root, nil, "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", folder)
		return slices.DeleteFunc(strings.Split(out, "\x00"), func(f string) bool { return f == "" }), err
	}
	var paths []string
	err := filepath.WalkDir(filepath.Join(r.root, folder), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		relative, err := filepath.Rel(r.root, path)
		paths = append(paths, filepath.ToSlash(relative))
		return err
	})
	return paths, err
}

// dockerignore reads what a build leaves out of a folder.
func dockerignore(dir string) (*patternmatcher.PatternMatcher, error) {
	file, err := os.Open(filepath.Join(dir, ".dockerignore"))
	if errors.Is(err, fs.ErrNotExist) {
		return patternmatcher.New(nil)
	} else if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	patterns, err := ignorefile.ReadAll(file)
	if err != nil {
		return nil, err
	}
	return patternmatcher.New(patterns)
}
