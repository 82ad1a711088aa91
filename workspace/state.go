package workspace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2/maybe"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"

	"trading-platform/fault"
	"trading-platform/observe"
	"trading-platform/settings"
	"trading-platform/stack"
)

// local returns a path in the folder of local state, or "" for another backend.
func (w *Workspace) local(parts ...string) string {
	folder := stack.LocalFolder(w.Backend)
	if folder == "" {
		return ""
	}
	return filepath.Join(append([]string{folder, ".pulumi"}, parts...)...)
}

// stateFile is the path of the stack's local state.
func (r *run) stateFile() string { return r.local("stacks", settings.Project, r.stack+".json") }

// restrictState makes the local state of the project's stacks readable by its owner only.
// Pulumi uses the umask, and only the passphrase protects the secrets in the state.
func (w *Workspace) restrictState() error {
	for _, kind := range []string{"stacks", "history", "backups"} {
		folder := w.local(kind, settings.Project)
		if folder == "" {
			return nil
		}
		if err := errors.Join(os.MkdirAll(folder, 0o700), os.Chmod(folder, 0o700)); err != nil { //nolint:gosec // a folder
			return err
		}
	}
	return nil
}

// readState reads the stack's state, after it has repaired a damaged one. The state of a stack that does not exist is nil.
func (r *run) readState(ctx context.Context) error {
	if err := r.repairState(); err != nil {
		return err
	}
	export, err := r.export(ctx)
	if err == nil {
		r.state, err = observe.ReadState(export)
	} else if strings.Contains(err.Error(), "no stack named") {
		return nil
	}
	return err
}

// repairState replaces a truncated state file, as a full disk leaves it, by Pulumi's own
// backup copy. Objects that are not in the copy are adopted from the engine later.
func (r *run) repairState() error {
	file := r.stateFile()
	if file == "" {
		return nil
	}
	text, err := readFile(file)
	if err != nil || text == nil || json.Valid(text) {
		return err
	}
	aside := file + ".damaged-" + time.Now().UTC().Format("20060102T150405Z")
	if err := os.Rename(file, aside); err != nil {
		return err
	}
	copied, err := readFile(file + ".bak")
	// Pulumi's file storage keeps a checksum beside the file.
	if err := errors.Join(err, os.RemoveAll(file+".attrs")); err != nil {
		return err
	}
	remedy := "is rebuilt from the engine"
	if json.Valid(copied) {
		remedy = "Pulumi's last copy takes its place"
		if err := maybe.WriteFile(file, copied, 0o600); err != nil {
			return err
		}
	}
	r.say(fmt.Sprintf("the state of stack %s was damaged, and %s; the damaged file is %s", r.stack, remedy, aside))
	return nil
}

// export returns the stack's state as `pulumi stack export` prints it. It reads local state
// from its file, because starting the CLI takes 0.2 s.
func (r *run) export(ctx context.Context) ([]byte, error) {
	var file struct {
		Version    int
		Features   []string
		Checkpoint struct{ Latest json.RawMessage }
	}
	path := r.stateFile()
	if path != "" && !exists(path+".gz") { // PULUMI_DIY_BACKEND_GZIP
		text, err := readFile(path)
		if err == nil && json.Unmarshal(text, &file) == nil && len(file.Checkpoint.Latest) > 0 {
			return json.Marshal(apitype.UntypedDeployment{Version: file.Version, Features: file.Features, Deployment: file.Checkpoint.Latest})
		}
	}
	return r.output(ctx, "stack", "export", "-s", r.stack)
}

// lockFiles returns the locks that Pulumi has on the stack's local state.
func (r *run) lockFiles() []string {
	files, _ := filepath.Glob(filepath.Join(r.local("locks", "organization", settings.Project, r.stack), "*.json")) // the pattern is valid
	return files
}

// clearLock removes the locks of runs that were killed, and returns an error if another
// run is active. It handles local state only; Pulumi itself reports other locks.
func (r *run) clearLock() error {
	if r.local() == "" {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	for _, file := range r.lockFiles() {
		text, err := readFile(file)
		if err != nil {
			return err
		}
		var lock struct { // as Pulumi writes it
			PID                int
			Username, Hostname string
			Timestamp          time.Time
		}
		if json.Unmarshal(text, &lock) != nil && len(text) > 0 {
			continue // not a lock file that we know
		}
		since := lock.Timestamp.Local().Format("15:04:05 on 2 January")
		if len(text) > 0 && (lock.Hostname != host || alive(lock.PID)) {
			return fault.List{{
				Where: "stack " + r.stack,
				What:  fmt.Sprintf("another run has it locked: process %d of %s on %s, since %s", lock.PID, lock.Username, lock.Hostname, since),
				Fix:   fmt.Sprintf("wait until it has ended; or, if it hangs: kill %d on that machine, then run this command again", lock.PID),
			}}
		}
		if err := errors.Join(os.Remove(file), os.RemoveAll(file+".attrs")); err != nil {
			return err
		}
		r.say(fmt.Sprintf("cleared the lock of a run that was killed (process %d, %s)", lock.PID, since))
	}
	return nil
}

// clearPending removes the pending operations of an interrupted run from the state.
func (r *run) clearPending(ctx context.Context) error {
	if !r.state.Pending {
		return nil
	}
	export, err := r.export(ctx)
	if err == nil {
		export, err = observe.WithoutPending(export)
	}
	if err != nil {
		return err
	}
	r.say("the last run was interrupted; the engine shows which of its operations were completed")
	return r.runCLI(ctx, bytes.NewReader(export), "stack", "import", "-s", r.stack)
}

// alive reports whether the process that took a lock on this host is still running. Its
// process ID may belong to another program by now.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil || errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone) {
		return false
	}
	// A zombie has ended. Its parent has not waited for it, as when process 1 is not an init.
	found, err := exec.Command("ps", "-o", "stat=,comm=", "-p", strconv.Itoa(pid)).Output()
	if gone := new(exec.ExitError); errors.As(err, &gone) {
		return false
	}
	return err != nil || strings.Contains(string(found), "pulumi") && !strings.HasPrefix(string(found), "Z")
}
