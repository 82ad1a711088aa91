package workspace

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"trading-platform/observe"
	"trading-platform/plan"
	"trading-platform/settings"
)

// upRecord is the path of the file that says what the stack's last up was made from, and what state it left.
func (r *run) upRecord() string { return r.StackFile(r.stack) + ".up" }

// unchanged reports whether an up has nothing to do: it would be made from the same as the last one, and the
// state and the engine are as that one left them, with all containers healthy. The CLI takes a second to find the same.
func (r *run) unchanged(ctx context.Context, p *plan.Plan, found *observe.Findings, inputs string) bool {
	now := r.record(inputs)
	if now == "" || !found.None() {
		return false
	}
	last, err := readFile(r.upRecord())
	return err == nil && string(last) == now && r.allHealthy(ctx, p)
}

// recordUp writes down an up that has succeeded: its inputs, from before it began, and the record of them with the state that it left.
// If an input was edited meanwhile, nobody knows which of both it was made from. Without a record, the CLI runs the next one.
func (r *run) recordUp(inputs, record string) error {
	if p, _, wrong := r.Resolve(r.stack); record == "" || wrong != nil || inputs != r.inputs(p) {
		return os.RemoveAll(r.upRecord())
	}
	return writeFile(r.upRecord(), []byte(record))
}

// record returns the content of upRecord for these inputs and the present state. It is "" without inputs.
func (r *run) record(inputs string) string {
	state, err := os.ReadFile(r.stateFile())
	if err != nil || inputs == "" {
		return ""
	}
	return fmt.Sprintf("%s %x\n", inputs, sha256.Sum256(state))
}

// reportUnchanged says what Pulumi would say about a stack that it does not change.
func (r *run) reportUnchanged(p *plan.Plan, command string) {
	r.say(fmt.Sprintf("nothing to change: the stack is as its last up left it, and all %d containers are healthy (to have pulumi compare each resource: make %s STACK=%s ARGS=--diff)",
		len(p.Containers()), command, r.stack))
	if command == "preview" {
		return
	}
	for _, open := range p.Open {
		r.say("warning: " + open)
	}
	r.sayURLs(p)
	r.sayAddresses(p)
}

// sayURLs tells where users open the stack's services.
func (r *run) sayURLs(p *plan.Plan) {
	urls := p.URLs()
	for _, service := range slices.Sorted(maps.Keys(urls)) {
		r.say(service + ": " + urls[service])
	}
}

// inputs returns a hash of all that an up is made from: the plan with its secrets, the stack's own file, the folders that
// images are built from, the way to the engine, and the programs that take part. It is "" where an up cannot be compared with
// the last one: its state is not a file on this machine, the program is built anew in each run, or something cannot be read.
func (r *run) inputs(p *plan.Plan) string {
	if !r.current || r.local() == "" || !exists(r.stateFile()) || exists(r.stateFile()+".gz") {
		return ""
	}
	config, err1 := os.ReadFile(r.StackFile(r.stack))
	program, err2 := os.Executable()
	if err1 != nil || err2 != nil {
		return ""
	}
	plugin := r.offlineBinary() // not the installed one, whose time another clone can change
	if p.Provider == settings.Official {
		plugin = r.plugin(OfficialVersion)
	}
	here := settings.Source{Root: r.Root}
	paths := []string{program, r.Pulumi, plugin}
	for _, s := range p.Services {
		if build := s.Image.Build; build != nil {
			for _, b := range append(slices.Clone(build.Contexts), *build) {
				paths = append(paths, here.Absolute(b.Context), here.Absolute(b.Dockerfile))
			}
		}
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%s %s %s %s", p.Fingerprint(), config, r.here.Host, r.here.Certs)
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		if err := addTree(hash, path); err != nil {
			return ""
		}
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// addTree adds the names, sizes, modes and times of a file, or of all files of a folder, to a hash. Their content would take longer
// to read than the CLI takes.
func addTree(hash io.Writer, root string) error {
	if target, err := filepath.EvalSymlinks(root); err == nil {
		root = target
	}
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // for example a plugin that is elsewhere on PATH
		} else if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			fmt.Fprintln(hash, path, info.Size(), info.Mode(), info.ModTime().UnixNano())
		}
		return err
	})
}
