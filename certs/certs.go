// Package certs issues, renews and checks the certificates of a secured stack, in one folder: a local certificate
// authority, the server certificate of nginx, and client certificates for users.
//
//	ca.crt ca.key                            the authority; ca.key never leaves the folder
//	server.crt server.key dhparam.pem        what nginx serves with
//	clients/<name>.{crt,key,p12,p12.password}  what a user imports into a browser or passes to curl
//
// All keys are ECDSA on P-256. The authority is valid for 5 years, and what it signs for 397 days, the most that browsers
// accept of a server. Renewal keeps the key, so that a certificate and its key always match.
package certs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2/maybe"
)

const (
	caLife   = 5 * 365 * 24 * time.Hour
	leafLife = 397 * 24 * time.Hour
	// renewBefore is how long before its end Ensure renews a certificate.
	renewBefore = 30 * 24 * time.Hour
	// clockSkew is how far in the past a certificate begins, for clients whose clock is behind.
	clockSkew = 5 * time.Minute
)

// served are the files that nginx reads.
var served = []string{"ca.crt", "dhparam.pem", "server.crt", "server.key"}

// Options say which certificates Ensure has to provide, and Check to find.
type Options struct {
	// Stack is named in the commands that errors give as the fix.
	Stack string
	// Names are the DNS names and IP addresses, at least one, that the server certificate covers. A name may begin
	// with "*.". An existing certificate that does not cover all of them is renewed.
	Names []string
	// Clients are the users or machines that get a client certificate, by the name that becomes its subject's common
	// name: letters, digits and . _ @ -. Other client certificates in the folder are renewed too, if their keys are
	// there. A key that was moved to its user is not an error.
	Clients []string
	// Force issues everything again, the authority included: client certificates that were given out before stop working.
	Force bool
	// Now is the current time; the zero time stands for the clock's.
	Now time.Time
}

// File is one file that Ensure wrote, or whose access it restricted to its owner.
type File struct {
	Name    string    // relative to the folder
	Why     string    // why it was written, for example "it is missing"
	Expires time.Time // the end of a certificate; zero for other files

	content []byte // nil when only the mode changes
	mode    fs.FileMode
}

// Report tells what Ensure did.
type Report struct {
	Dir   string // absolute
	Files []File // in the order of writing; empty when nothing had to be done
}

// String returns the report as lines for the user, without a newline at the end.
func (r Report) String() string {
	if len(r.Files) == 0 {
		return "certificates in " + r.Dir + " are good: nothing to do"
	}
	text := "certificates in " + r.Dir + ":"
	for _, f := range r.Files {
		what := "new"
		if f.Why != missing {
			what = "fixed: " + f.Why
		}
		text += fmt.Sprintf("\n  %-24s %s", f.Name, what)
		if !f.Expires.IsZero() {
			text += ", good until " + f.Expires.Format(time.DateOnly)
		}
	}
	return text
}

// Ensure creates missing files, and renews certificates that expire within 30 days or do not cover the names. It leaves
// everything else as it is. Files that do not belong together are an error and are not overwritten, except with Force.
//
// If anything is wrong, Ensure writes nothing and returns a fault.List of all faults. Each file is written atomically, and
// the next run completes an interrupted one.
func Ensure(dir string, o Options) (Report, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Report{}, err
	}
	i := inspect(dir, o, renewBefore)
	i.inspectClients()
	if err := i.faults.Err(); err != nil {
		return Report{}, err
	}
	for _, f := range i.files {
		if err := f.write(i.path(f.Name)); err != nil {
			return Report{}, fmt.Errorf("certs: %w", err)
		}
	}
	return Report{Dir: dir, Files: i.files}, nil
}

// Check finds what is wrong with the certificates in a folder for the server of a stack: missing, expired or not yet
// valid, not signed by the authority, keys that belong to another certificate, names not covered, keys that other users
// can read. It returns nil, or a fault.List of all faults, each with its fix. It changes nothing, and ignores Clients.
func Check(dir string, o Options) error {
	i := inspect(dir, o, 0)
	for _, f := range i.files {
		if f.content == nil || slices.Contains(served, f.Name) {
			i.faults.Add(i.path(f.Name), i.command, "%s", f.Why)
		}
	}
	return i.faults.Err()
}

// Load reads the files that nginx reads, by their base names. Check reports whether they are valid.
func Load(dir string) (map[string]string, error) {
	files := map[string]string{}
	var failed error
	for _, name := range served {
		content, err := os.ReadFile(filepath.Join(dir, name))
		files[name], failed = string(content), errors.Join(failed, err)
	}
	return files, failed
}

// write replaces a file atomically. Only the owner can read the folders that it creates.
func (f File) write(path string) error {
	if f.content == nil {
		return os.Chmod(path, f.mode)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// The library keeps the mode of a file that exists.
	if err := os.Chmod(path, f.mode); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return maybe.WriteFile(path, f.content, f.mode)
}
