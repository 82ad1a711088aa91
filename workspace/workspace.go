// Package workspace is what `pulumi` needs around it on one machine: the CLI
// itself where there is none, a backend, a passphrase, and for each stack a
// stack file of its own that is laid over the tracked one.
//
// All of it lies beside Pulumi's local state, so that every clone of a user
// finds the same stacks with the same secrets and choices, and none is dirtied.
package workspace

import (
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
	"trading-platform/stack"
)

// Workspace is one clone's view of the machine.
type Workspace struct {
	Root string // the clone: where Pulumi.yaml is
	Home string // Pulumi's own folder, PULUMI_HOME or ~/.pulumi
	// Backend is the URL of the state's place.
	Backend string
	// Pulumi is the CLI's path; empty until one is built.
	Pulumi string
	// Own says that the CLI is the user's, not one that `make` built.
	Own bool
}

// Open finds out what this machine has. It changes nothing.
func Open(root string) (*Workspace, error) {
	home, err := stack.Home(os.Getenv)
	if err != nil {
		return nil, err
	}
	w := &Workspace{Root: root, Home: home, Backend: stack.Backend(os.Getenv, home)}
	w.Pulumi, w.Own = w.findPulumi()
	return w, nil
}

// findPulumi looks on PATH, past our own shim, then where tools/build puts it.
func (w *Workspace) findPulumi() (path string, own bool) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if dir == w.ShimDir() || dir == filepath.Join(w.Root, "tools", "bin") {
			continue
		}
		if path, err := exec.LookPath(filepath.Join(dir, "pulumi")); err == nil && filepath.IsAbs(path) {
			return path, true
		}
	}
	if path, err := exec.LookPath(filepath.Join(w.Root, "tools", "bin", "pulumi")); err == nil {
		return path, false
	}
	return "", false
}

// ShimDir holds a `pulumi` that runs through this workspace, for a shell's PATH.
func (w *Workspace) ShimDir() string { return filepath.Join(w.Root, "bin", "shim") }

// Shim puts a `pulumi` that runs through this workspace into ShimDir, and gives the
// folders that a shell's PATH should begin with, quoted for a shell.
func (w *Workspace) Shim() (path string, err error) {
	bin := filepath.Join(w.Root, "bin")
	shim := fmt.Sprintf("#!/bin/sh\nexec %s pulumi \"$@\"\n", shellescape.Quote(filepath.Join(bin, "platform")))
	if err := os.MkdirAll(w.ShimDir(), 0o755); err != nil { //nolint:gosec // it holds a command and no secret
		return "", err
	}
	err = os.WriteFile(filepath.Join(w.ShimDir(), "pulumi"), []byte(shim), 0o755) //nolint:gosec // a command
	return shellescape.Quote(w.ShimDir() + ":" + bin), err
}

// notInNames is what a URL has and a folder's name should not.
var notInNames = regexp.MustCompile(`[^A-Za-z0-9]+`)

// place is the folder beside the state for what belongs with it: local state can be
// read with the passphrase that lies there, whatever PULUMI_HOME says.
func (w *Workspace) place() string {
	home := w.Home
	if folder := stack.LocalFolder(w.Backend); folder != "" {
		home = filepath.Join(folder, ".pulumi")
	}
	return filepath.Join(home, "trading-platform")
}

// dir is where the stacks of this backend have their files.
func (w *Workspace) dir() string {
	return filepath.Join(w.place(), strings.Trim(notInNames.ReplaceAllString(w.Backend, "-"), "-"))
}

// StackFile is the stack's own config file, over the tracked one.
func (w *Workspace) StackFile(stack string) string {
	return filepath.Join(w.dir(), "Pulumi."+stack+".yaml")
}

// CertsDir is where the stack's certificates lie unless its settings say otherwise.
func (w *Workspace) CertsDir(stack string) string { return filepath.Join(w.dir(), "certs", stack) }

// trackedFile is the stack's file in the clone.
func (w *Workspace) trackedFile(stack string) string {
	return filepath.Join(w.Root, "Pulumi."+stack+".yaml")
}

// ConfigFile is the file to read a stack's config from: its own where there is one, else the tracked one.
func (w *Workspace) ConfigFile(stack string) string {
	if own := w.StackFile(stack); exists(own) {
		return own
	}
	return w.trackedFile(stack)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// selfManaged tells whether the backend keeps no secrets for us, so that a passphrase must.
func (w *Workspace) selfManaged() bool {
	u, err := url.Parse(w.Backend)
	return err == nil && u.Scheme != "https" && u.Scheme != "http"
}

// passphraseFile is where the generated passphrase lies.
func (w *Workspace) passphraseFile() string { return filepath.Join(w.place(), "passphrase") }

// ensurePassphrase makes a passphrase where the user has none, readable by the owner
// alone. A stack that exists was encrypted with one that is somewhere else then.
func (w *Workspace) ensurePassphrase(name string, made bool) error {
	_, set := os.LookupEnv("PULUMI_CONFIG_PASSPHRASE")
	if set || os.Getenv("PULUMI_CONFIG_PASSPHRASE_FILE") != "" || !w.selfManaged() || exists(w.passphraseFile()) {
		return nil
	}
	if !made {
		return writeFile(w.passphraseFile(), []byte(Random()))
	}
	find := "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE as when it was made"
	if old := filepath.Join(w.Home, "trading-platform", "passphrase"); exists(old) {
		find = fmt.Sprintf("mkdir -p %s && cp -a %s/. %s", shellescape.Quote(w.place()), shellescape.Quote(filepath.Dir(old)), shellescape.Quote(w.place()))
	}
	return fault.List{{
		Where: "stack " + name,
		What:  fmt.Sprintf("its state in %s is encrypted, and the passphrase is not in %s", w.Backend, w.passphraseFile()),
		Fix:   find,
	}}
}

// SetConfig sets one key of the stack's own file, in one step: whole or not at all.
func (w *Workspace) SetConfig(stack, key string, value any) error {
	f, err := w.load(stack)
	if err != nil {
		return err
	}
	f.set(key, value)
	return w.save(stack, f)
}

// Random gives 32 random bytes in base64: a password, or a key for AES-256.
func Random() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails, says its documentation
	return base64.StdEncoding.EncodeToString(b)
}

// writeFile writes a file for the owner alone, whole or not at all.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// The library keeps the mode of a file that is there.
	return errors.Join(maybe.WriteFile(path, content, 0o600), os.Chmod(path, 0o600))
}

// readFile is os.ReadFile that gives nothing for a file that is not there.
func readFile(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}
