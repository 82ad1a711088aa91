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

	"trading-platform/fault"
	"trading-platform/observe"
	"trading-platform/settings"
	"trading-platform/stack"
)

// local gives a path in the folder of local state; empty for state that is elsewhere.
func (w *Workspace) local(parts ...string) string {
	folder := stack.LocalFolder(w.Backend)
	if folder == "" {
		return ""
	}
	return filepath.Join(append([]string{folder, ".pulumi"}, parts...)...)
}

// restrictState keeps others from reading the local state of the project's stacks, which
// Pulumi leaves to the umask: its secrets are only as safe as their passphrase.
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

// repairState puts Pulumi's own copy in the place of a state file that was cut short,
// as by a full disk. What the copy does not know is taken over from the engine.
func (r *run) repairState() error {
	file := r.local("stacks", settings.Project, r.stack+".json")
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
	// Pulumi's storage keeps a checksum beside the file.
	if err := removeIfThere(file + ".attrs"); err != nil {
		return err
	}
	copied, err := readFile(file + ".bak")
	if err != nil {
		return err
	}
	if !json.Valid(copied) {
		r.say(fmt.Sprintf("the state of stack %s was damaged, and is made anew from the engine; the damaged file is %s", r.stack, aside))
		return nil
	}
	r.say(fmt.Sprintf("the state of stack %s was damaged, and Pulumi's last copy takes its place; the damaged file is %s", r.stack, aside))
	return maybe.WriteFile(file, copied, 0o600)
}

// lock is what Pulumi writes into the lock file of local state.
type lock struct {
	PID       int       `json:"pid"`
	Username  string    `json:"username"`
	Hostname  string    `json:"hostname"`
	Timestamp time.Time `json:"timestamp"`
}

// clearLock removes the locks that killed runs left, and refuses to go on beside one
// that is alive. It knows the locks of local state alone; Pulumi tells of any other.
func (r *run) clearLock() error {
	folder := r.local("locks", "organization", settings.Project, r.stack)
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
			continue // not what we know
		}
		since := l.Timestamp.Local().Format("15:04:05 on 2 January")
		if len(text) > 0 && (l.Hostname != host || alive(l)) {
			return fault.List{{
				Where: "stack " + r.stack,
				What:  fmt.Sprintf("another run has it locked: process %d of %s on %s, since %s", l.PID, l.Username, l.Hostname, since),
				Fix:   "wait until it has ended; or, if it hangs: kill " + strconv.Itoa(l.PID) + " on that machine, then this again",
			}}
		}
		if err := errors.Join(os.Remove(file), removeIfThere(file+".attrs")); err != nil {
			return err
		}
		r.say(fmt.Sprintf("cleared the lock of a run that was killed (process %d, %s)", l.PID, since))
	}
	return nil
}

// clearPending takes the operations of a run that was cut short out of the state.
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
	r.say("the last run was cut short; the engine tells what became of it")
	return r.runCLI(ctx, bytes.NewReader(export), "stack", "import", "-s", r.stack)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// alive tells whether the process that took a lock on this host still runs. Another
// program may have got its number since.
func alive(l lock) bool {
	if !processExists(l.PID) {
		return false
	}
	// A zombie has ended: who started it has not asked how, as where process 1 is no init.
	found, err := exec.Command("ps", "-o", "stat=,comm=", "-p", strconv.Itoa(l.PID)).Output()
	if gone := new(exec.ExitError); errors.As(err, &gone) {
		return false
	}
	return err != nil || strings.Contains(string(found), "pulumi") && !strings.HasPrefix(string(found), "Z")
}
