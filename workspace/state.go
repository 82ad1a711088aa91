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
	// Pulumi's file storage keeps a checksum beside the file.
	if err := removeIfThere(file + ".attrs"); err != nil {
		return err
	}
	copied, err := readFile(file + ".bak")
	if err != nil {
		return err
	}
	if !json.Valid(copied) {
		r.say(fmt.Sprintf("the state of stack %s was damaged, and is rebuilt from the engine; the damaged file is %s", r.stack, aside))
		return nil
	}
	r.say(fmt.Sprintf("the state of stack %s was damaged, and Pulumi's last copy takes its place; the damaged file is %s", r.stack, aside))
	return maybe.WriteFile(file, copied, 0o600)
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

// lock is the content of Pulumi's lock file for local state.
type lock struct {
	PID       int       `json:"pid"`
	Username  string    `json:"username"`
	Hostname  string    `json:"hostname"`
	Timestamp time.Time `json:"timestamp"`
}

// lockFolder is the folder of the locks of the stack's local state.
func (r *run) lockFolder() string {
	return r.local("locks", "organization", settings.Project, r.stack)
}

// clearLock removes the locks of runs that were killed, and returns an error if another
// run is active. It handles local state only; Pulumi itself reports other locks.
func (r *run) clearLock() error {
	folder := r.lockFolder()
	if folder == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := readFile(file)
		if err != nil {
			return err
		}
		var l lock
		if json.Unmarshal(text, &l) != nil && len(text) > 0 {
			continue // not a lock file that we know
		}
		since := l.Timestamp.Local().Format("15:04:05 on 2 January")
		if len(text) > 0 && (l.Hostname != host || alive(l)) {
			return fault.List{{
				Where: "stack " + r.stack,
				What:  fmt.Sprintf("another run has it locked: process %d of %s on %s, since %s", l.PID, l.Username, l.Hostname, since),
				Fix:   "wait until it has ended; or, if it hangs: kill " + strconv.Itoa(l.PID) + " on that machine, then run this command again",
			}}
		}
		if err := errors.Join(os.Remove(file), removeIfThere(file+".attrs")); err != nil {
			return err
		}
		r.say(fmt.Sprintf("cleared the lock of a run that was killed (process %d, %s)", l.PID, since))
	}
	return nil
}

// clearPending removes the pending operations of an interrupted run from the state.
func (r *run) clearPending(ctx context.Context) error {
	if !r.state.Pending {
		return nil
	}
	export, err := r.output(ctx, "stack", "export", "-s", r.stack)
	if err == nil {
		export, err = observe.WithoutPending(export)
	}
	if err != nil {
		return err
	}
	r.say("the last run was interrupted; the engine shows which of its operations were completed")
	return r.runCLI(ctx, bytes.NewReader(export), "stack", "import", "-s", r.stack)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// alive reports whether the process that took a lock on this host is still running. Its
// process ID may belong to another program by now.
func alive(l lock) bool {
	if !processExists(l.PID) {
		return false
	}
	// A zombie has ended. Its parent has not waited for it, as when process 1 is not an init.
	found, err := exec.Command("ps", "-o", "stat=,comm=", "-p", strconv.Itoa(l.PID)).Output()
	if gone := new(exec.ExitError); errors.As(err, &gone) {
		return false
	}
	return err != nil || strings.Contains(string(found), "pulumi") && !strings.HasPrefix(string(found), "Z")
}
