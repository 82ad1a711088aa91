package workspace

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"
	"go.yaml.in/yaml/v3"

	"trading-platform/preflight"
	"trading-platform/settings"
	"trading-platform/stack"
)

// AsMainVariable is an environment variable that, if it is not empty, makes a worktree use the stacks of the main checkout.
const AsMainVariable = "TRADING_PLATFORM_AS_MAIN"

// worktreeFile is the name of the file that describes a Worktree, beside the state of its stacks.
const worktreeFile = ".pulumi/trading-platform/worktree.json"

// Worktree is a checkout that `git worktree add` has made, and that has stacks.
type Worktree struct {
	preflight.Place        // of its stacks, unless their files say otherwise
	Git             string // git's folder of it, such as main/.git/worktrees/feature, which stays the same when it is moved
	Root            string // where it is, or was
	State           string `json:"-"` // the folder of the state and the secrets of its stacks
}

// enterWorktree gives a worktree a state of its own, below that of the other checkouts.
func (w *Workspace) enterWorktree() {
	text, _ := os.ReadFile(filepath.Join(w.Root, ".git")) // a folder in any other checkout
	dir, linked := strings.CutPrefix(strings.TrimSpace(string(text)), "gitdir: ")
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(w.Root, dir)
	}
	if !linked || os.Getenv(AsMainVariable) != "" || missing(filepath.Join(dir, "commondir")) { // a submodule has no such file
		return
	}
	w.Worktree = filepath.Clean(dir)
	own := filepath.Join("worktrees", w.worktreeName())
	if !strings.HasSuffix(stack.LocalFolder(w.Backend), own) { // which a parent process may have set
		w.Backend = "file://" + filepath.Join(w.sharedDir(), own)
	}
}

// seed is what all choices for a worktree start from, so that they are the same if they are made again.
func (w *Workspace) seed() uint32 { return crc32.ChecksumIEEE([]byte(w.Worktree)) }

// worktreeName is git's name of the worktree as the engine accepts it, with a sum that tells it from one of another repository.
func (w *Workspace) worktreeName() string {
	name := strings.ToLower(notInNames.ReplaceAllString(filepath.Base(w.Worktree), "-"))
	return fmt.Sprintf("%s-%04x", cmp.Or(strings.Trim(fmt.Sprintf("%.30s", name), "-"), "worktree"), w.seed()>>16)
}

// tracked returns the content of the stack's file in the clone, or nil if there is none. In a worktree it is completed by the
// settings by which its stacks differ from those of other checkouts.
func (w *Workspace) tracked(name string) ([]byte, error) {
	text, err := readFile(w.trackedFile(name))
	if err != nil || text == nil || w.Worktree == "" {
		return text, err
	}
	place := map[string]any{}
	chosen, err1 := readFile(filepath.Join(stack.LocalFolder(w.Backend), worktreeFile))
	content, err2 := decode(text)
	if err := errors.Join(err1, err2, yaml.Unmarshal(chosen, &place)); err != nil { // JSON is YAML
		return nil, err
	}
	place["namePrefix"] = settings.DefaultPrefix + "-" + w.worktreeName()
	place["ignoreCompose"] = []any{"*"} // the main checkout is the one that takes over old data
	for _, key := range []string{"namePrefix", "portOffset", "subnet", "ignoreCompose"} {
		if file := stackFile(content); file.get(key) == nil && place[key] != nil {
			file.set(key, place[key])
		}
	}
	return yaml.Marshal(content)
}

// trackedSource is Source for a worktree's stack that has no file of its own yet.
func (w *Workspace) trackedSource(name string) (settings.Source, error) {
	project, err1 := os.ReadFile(filepath.Join(w.Root, "Pulumi.yaml"))
	text, err2 := w.tracked(name)
	if err := errors.Join(err1, err2); err != nil {
		return settings.Source{}, err
	}
	return settings.FromYAML(name, w.Root, project, text)
}

// choosePlace chooses, once, the ports and the subnet of a worktree's stacks.
func (r *run) choosePlace(ctx context.Context) error {
	own := filepath.Join(stack.LocalFolder(r.Backend), worktreeFile)
	if r.Worktree == "" || exists(own) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(own), 0o700); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(r.worktreesDir(), "lock")) // another worktree may choose at the same time
	if err := lock.Lock(); err != nil {
		return err
	}
	defer func() { _ = lock.Unlock() }()
	worktrees, err := r.Worktrees()
	if err != nil {
		return err
	}
	others := []preflight.Place{{Subnet: settings.DefaultSubnet}} // the main checkout's, whether it is up or not
	for _, other := range worktrees {
		others = append(others, other.Place)
	}
	place, err := preflight.FreePlace(ctx, r.engine, r.here, r.seed(), others)
	if err != nil {
		return err
	}
	text, _ := json.Marshal(Worktree{Place: place, Git: r.Worktree, Root: r.Root}) // texts and a number
	r.say(fmt.Sprintf("this is a worktree, so its stacks have names, ports and a subnet of their own: %s-%s, %d added to each port, %s",
		settings.DefaultPrefix, r.worktreeName(), place.PortOffset, place.Subnet))
	return writeFile(own, text)
}

// worktreesDir is the folder of the states of all worktrees.
func (w *Workspace) worktreesDir() string {
	if w.Worktree != "" {
		return filepath.Dir(stack.LocalFolder(w.Backend))
	}
	return filepath.Join(w.sharedDir(), "worktrees")
}

// Worktrees returns the worktrees of all clones that have stacks, and those that had some and were removed.
func (w *Workspace) Worktrees() (all []Worktree, err error) {
	files, _ := filepath.Glob(filepath.Join(w.worktreesDir(), "*", worktreeFile)) // the pattern is valid
	for _, file := range files {
		t := Worktree{State: strings.TrimSuffix(file, worktreeFile)}
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &t)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w. Fix: delete this file; the next up in its worktree writes it again", file, err)
		}
		if at, err := os.ReadFile(filepath.Join(t.Git, "gitdir")); err == nil {
			t.Root = filepath.Dir(strings.TrimSpace(string(at)))
		}
		all = append(all, t)
	}
	return all, nil
}

// Owns reports whether all of these identities are of stacks of the worktree.
func (t Worktree) Owns(identities []string) bool {
	files, _ := filepath.Glob(filepath.Join(t.State, ".pulumi", "trading-platform", "*", "Pulumi.*.yaml"))
	own := map[any]bool{}
	for _, file := range files {
		text, _ := readFile(file) // what cannot be read is not known
		content, _ := decode(text)
		own[stackFile(content).get("identity")] = true
	}
	return !slices.ContainsFunc(identities, func(id string) bool { return !own[id] })
}

// Gone reports whether the worktree was certainly removed. If its repository is away as well, or git has it locked, only its disk
// may be away.
func (t Worktree) Gone() bool {
	return missing(t.Root) && exists(filepath.Dir(filepath.Dir(t.Git))) && missing(filepath.Join(t.Git, "locked"))
}

func missing(path string) bool {
	_, err := os.Stat(path) //nolint:gosec // of the user's own clone
	return errors.Is(err, fs.ErrNotExist)
}
