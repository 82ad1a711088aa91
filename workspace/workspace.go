// Package workspace provides what `pulumi` needs on one machine: the CLI itself if there
// is none, a backend, a passphrase, and for each stack its own stack file, which is used in
// place of the tracked one and merged with it.
//
// All of it is stored beside Pulumi's local state, so that all clones of a user share the
// same stacks, secrets and decisions, and no file of a clone is changed.
package workspace

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"al.essio.dev/pkg/shellescape"
	"github.com/google/renameio/v2/maybe"

	"trading-platform/fault"
	"trading-platform/plan"
	"trading-platform/settings"
	"trading-platform/stack"
	"trading-platform/timing"
)

// Workspace is one clone's view of the machine.
type Workspace struct {
	Root string // the clone: where Pulumi.yaml is
	Home string // Pulumi's own folder, PULUMI_HOME or ~/.pulumi
	// Worktree is git's folder of a linked worktree, whose stacks run beside those of other checkouts; empty for another checkout.
	Worktree string
	// Backend is the URL of the backend that stores the state.
	Backend string
	// Pulumi is the path of the CLI; empty until it is built.
	Pulumi string
	// Installed says that the user has installed the CLI; otherwise `make` has built it.
	Installed bool
	// Timing is the folder that Run writes a timing report to; empty for none.
	Timing   string
	recorder *timing.Recorder
	// current says that this process was built from the present sources of the clone; see Renew.
	current bool
}

// Open finds the backend and the CLI of this machine. It changes nothing.
func Open(root string) (*Workspace, error) {
	home, err := stack.Home()
	if err != nil {
		return nil, err
	}
	w := &Workspace{Root: root, Home: home, Backend: stack.Backend(home)}
	w.enterWorktree()
	w.Pulumi, w.Installed = w.findPulumi()
	return w, nil
}

// findPulumi searches PATH, without our own shim, and then the folder that tools/build writes to.
func (w *Workspace) findPulumi() (path string, installed bool) {
	built := filepath.Join(w.Root, "tools", "bin")
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if dir == w.ShimDir() || dir == built {
			continue
		}
		if path, err := exec.LookPath(filepath.Join(dir, "pulumi")); err == nil && filepath.IsAbs(path) {
			return path, true
		}
	}
	path, _ = exec.LookPath(filepath.Join(built, "pulumi"))
	return path, false
}

// ShimDir is the folder, for a shell's PATH, of a `pulumi` command that runs through this workspace.
func (w *Workspace) ShimDir() string { return filepath.Join(w.Root, "bin", "shim") }

// Shim writes the `pulumi` command in ShimDir, and returns the folders that a shell's PATH
// should begin with, quoted for a shell.
func (w *Workspace) Shim() (path string, err error) {
	bin := filepath.Join(w.Root, "bin")
	shim := fmt.Sprintf("#!/bin/sh\nexec %s pulumi \"$@\"\n", shellescape.Quote(filepath.Join(bin, "platform")))
	if err := os.MkdirAll(w.ShimDir(), 0o750); err != nil {
		return "", err
	}
	err = os.WriteFile(filepath.Join(w.ShimDir(), "pulumi"), []byte(shim), 0o755) //nolint:gosec // a command
	return shellescape.Quote(w.ShimDir() + ":" + bin), err
}

// notInNames matches the characters of a URL that a folder's name should not have.
var notInNames = regexp.MustCompile(`[^A-Za-z0-9]+`)

// sharedDir is the folder beside the state for the files that all stacks share. The
// passphrase of local state is there, independent of PULUMI_HOME.
func (w *Workspace) sharedDir() string {
	home := w.Home
	if folder := stack.LocalFolder(w.Backend); folder != "" {
		home = filepath.Join(folder, ".pulumi")
	}
	return filepath.Join(home, "trading-platform")
}

// stackDir is the folder of the stack files of this backend.
func (w *Workspace) stackDir() string {
	return filepath.Join(w.sharedDir(), strings.Trim(notInNames.ReplaceAllString(w.Backend, "-"), "-"))
}

// StackFile is the path of the stack's own config file, which is used in place of the tracked one.
func (w *Workspace) StackFile(stack string) string {
	return filepath.Join(w.stackDir(), "Pulumi."+stack+".yaml")
}

// CertsDir is the default folder of the stack's certificates.
func (w *Workspace) CertsDir(stack string) string { return filepath.Join(w.stackDir(), "certs", stack) }

// trackedFile is the path of the stack's file in the clone.
func (w *Workspace) trackedFile(stack string) string {
	return filepath.Join(w.Root, "Pulumi."+stack+".yaml")
}

// ConfigFile is the path of the file to read a stack's config from: its own if it exists, or else the tracked one.
func (w *Workspace) ConfigFile(stack string) string {
	if own := w.StackFile(stack); exists(own) {
		return own
	}
	return w.trackedFile(stack)
}

// Source reads a stack's config as the Pulumi program would receive it.
func (w *Workspace) Source(name string) (settings.Source, error) {
	src, err := settings.FromFiles(name, w.Root, w.ConfigFile(name))
	if err == nil && w.Worktree != "" && !exists(w.StackFile(name)) {
		src, err = w.trackedSource(name)
	}
	if err == nil && src.Config["identity"] == "" {
		src.Config["identity"] = stack.DefaultIdentity(w.Backend, "organization", name)
	}
	return src, err
}

// Resolve reads a stack's config and resolves it, as stack.Resolve does.
func (w *Workspace) Resolve(name string) (*plan.Plan, *settings.Settings, error) {
	src, err := w.Source(name)
	if err != nil {
		return nil, nil, err
	}
	return stack.Resolve(src)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// selfManaged reports whether the backend does not encrypt secrets itself, so that a passphrase is needed.
func (w *Workspace) selfManaged() bool {
	u, err := url.Parse(w.Backend)
	return err == nil && u.Scheme != "https" && u.Scheme != "http"
}

// passphraseFile is the path of the generated passphrase.
func (w *Workspace) passphraseFile() string { return filepath.Join(w.sharedDir(), "passphrase") }

// ensurePassphrase generates a passphrase if the user has none, readable by the owner only.
// If the stack exists already, its passphrase is elsewhere, and the error says so.
func (r *run) ensurePassphrase(context.Context) error {
	_, set := os.LookupEnv("PULUMI_CONFIG_PASSPHRASE")
	if set || os.Getenv("PULUMI_CONFIG_PASSPHRASE_FILE") != "" || !r.selfManaged() || exists(r.passphraseFile()) {
		return nil
	}
	if r.state != nil {
		return fault.List{{
			Where: "stack " + r.stack,
			What:  fmt.Sprintf("its state in %s is encrypted, and the passphrase is not in %s", r.Backend, r.passphraseFile()),
			Fix:   "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE as when it was made",
		}}
	}
	r.say("created a passphrase for the secrets in the state: " + r.passphraseFile())
	return writeFile(r.passphraseFile(), []byte(RandomSecret()))
}

// RandomSecret returns 32 random bytes in base64: a password, or a key for AES-256.
func RandomSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails, according to its documentation
	return base64.StdEncoding.EncodeToString(b)
}

// writeFile replaces a file atomically, readable by the owner only.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// The library keeps the mode of an existing file.
	return errors.Join(maybe.WriteFile(path, content, 0o600), os.Chmod(path, 0o600))
}

// readFile is os.ReadFile, except that it returns nil for a file that does not exist.
func readFile(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}
