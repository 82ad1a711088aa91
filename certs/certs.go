// Package certs makes, renews and checks the certificates of a secured stack, in one folder: a local certificate
// authority, the server certificate of nginx, and client certificates for people.
//
//	ca.crt ca.key                            the authority; ca.key never leaves the folder
//	server.crt server.key dhparam.pem        what nginx shows
//	clients/<name>.{crt,key,p12,p12.password}  what a person puts into a browser or hands to curl
//
// All keys are ECDSA on P-256. The authority lives 5 years, what it signs 397 days: the most that browsers accept of a
// server. Renewal keeps the key, so that no moment has a certificate beside a key that is not its own.
package certs

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"trading-platform/fault"
)

const (
	caLife   = 5 * 365 * 24 * time.Hour
	leafLife = 397 * 24 * time.Hour
	// renewBefore is how long before its end a certificate is renewed.
	renewBefore = 30 * 24 * time.Hour
	// clockSkew is how far in the past a certificate begins, for clients whose clock is behind.
	clockSkew = 5 * time.Minute
)

// Options say what Ensure is to have in the folder.
type Options struct {
	// Stack is named in the commands that errors give as the fix.
	Stack string
	// Names are the DNS names and IP addresses that the server certificate covers. At least one. A name may begin with
	// "*.". When the certificate that is there covers fewer, it is renewed with these.
	Names []string
	// Clients are the people or machines that get a client certificate, by the name that becomes its subject's common
	// name: letters, digits and . _ @ -. Those of others that are in the folder are renewed too, when their keys are there:
	// a key that was handed out and taken away is no fault.
	Clients []string
	// Force makes everything anew, the authority included: every client certificate given out before stops working.
	Force bool
	// Now is the time to go by; the zero time means the clock's.
	Now time.Time
}

// Made is one file that Ensure wrote or closed to others.
type Made struct {
	// File is its path, relative to the folder.
	File string
	// Why says what called for it, for example "new" or "expires 2027-01-31".
	Why string
	// Expires is the end of a certificate; zero for other files.
	Expires time.Time
}

// Report tells what Ensure did.
type Report struct {
	// Dir is the folder, absolute.
	Dir string
	// Made are the files written, in the order of writing. Empty when all was well.
	Made []Made
}

// String gives the report as lines for a person, without a newline at the end.
func (r Report) String() string {
	if len(r.Made) == 0 {
		return "certificates in " + r.Dir + " are good: nothing to do"
	}
	lines := []string{"certificates in " + r.Dir + ":"}
	for _, m := range r.Made {
		line := fmt.Sprintf("  %-24s %s", m.File, m.Why)
		if !m.Expires.IsZero() {
			line += ", good until " + m.Expires.Format(time.DateOnly)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// clientName is what may stand in a file name and, as it is, in a subject.
var clientName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]*$`)

// dnsName is a host name, or one with a wildcard for its first label.
var dnsName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

// Ensure makes what the folder lacks and renews what ends within 30 days, or no longer covers the names. It leaves
// everything else as it is; files that do not fit together are a fault, not a reason to overwrite them, unless Force.
//
// Nothing is written when anything is at fault: a fault.List tells all of it. Each file appears whole or not at all, and
// a run that was cut off is finished by the next.
func Ensure(dir string, o Options) (Report, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Report{}, err
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	m := &maker{folder: folder{dir: dir, stack: o.Stack}, Options: o}
	m.decide()
	if err := m.faults.Err(); err != nil {
		return Report{}, err
	}
	report := Report{Dir: dir}
	for _, step := range m.steps {
		made, err := step()
		report.Made = append(report.Made, made...)
		if err != nil {
			return report, err
		}
	}
	return report, nil
}

// maker collects what to do before it does any of it.
type maker struct {
	folder
	Options
	ca    *pair
	steps []func() ([]Made, error)
}

func (m *maker) decide() {
	if len(m.Names) == 0 {
		m.faults.Add("names of the server certificate", "give at least one host name or address", "none is given")
	}
	for _, name := range m.Names {
		if net.ParseIP(name) == nil && !dnsName.MatchString(name) {
			m.faults.Add("names of the server certificate", "give host names and addresses, without scheme or port", "%q is neither a host name nor an address", name)
		}
	}
	for _, name := range m.Clients {
		if !clientName.MatchString(name) {
			m.faults.Add("client certificates", "use letters, digits and . _ @ -", "%q cannot be the name of one", name)
		}
	}
	if len(m.faults) > 0 {
		return
	}
	m.decideCA()
	if m.ca == nil {
		return
	}
	m.decideLeaf("server", serverTemplate(m.Names), func(crt *x509.Certificate) string {
		if missing := notCovered(crt, m.Names); len(missing) > 0 {
			return "did not cover " + strings.Join(missing, ", ")
		}
		return ""
	})
	for _, name := range slices.Concat(m.Clients, m.otherClients()) {
		m.decideClient(name)
	}
	m.decideDHParam()
	m.closeKeys()
}

// existing reads a pair, unless it is to be made anew whatever it is.
func (m *maker) existing(name string) *pair {
	if m.Force {
		return &pair{name: name}
	}
	return m.read(name)
}

// decideCA leaves the authority in m.ca, or a fault.
func (m *maker) decideCA() {
	ca := m.existing("ca")
	if ca == nil {
		return
	}
	why := ""
	switch {
	case ca.crt == nil:
		why = m.newOrForced()
	case !ca.crt.IsCA:
		m.faults.Add(m.path("ca.crt"), m.fix("--force"), "it is no certificate of an authority")
		return
	case ca.key != nil:
		why = m.ending(ca.crt)
	case m.Now.After(ca.crt.NotAfter):
		m.faults.Add(m.path("ca.crt"), "put the authority's new certificate there, or for a local one: "+m.fix("--force"), "it expired on %s, and ca.key is not there to renew it", ca.crt.NotAfter.Format(time.DateOnly))
		return
	}
	m.ca = ca
	if why != "" {
		m.steps = append(m.steps, func() ([]Made, error) {
			template := caTemplate()
			if ca.crt != nil {
				// Byte for byte: what is signed already names its issuer so.
				template.RawSubject = ca.crt.RawSubject
			}
			return m.sign(ca, template, caLife, why)
		})
	}
}

// decideLeaf plans a certificate that the authority signs. It returns the pair and whether it will be signed anew; nil
// for a fault.
func (m *maker) decideLeaf(name string, template *x509.Certificate, unfit func(*x509.Certificate) string) (*pair, bool) {
	leaf := m.existing(name)
	if leaf == nil {
		return nil, false
	}
	why := ""
	switch {
	case leaf.crt == nil:
		why = m.newOrForced()
	case leaf.key == nil && unfit == nil && m.ending(leaf.crt) == "":
		// A person's, who has the key.
	case leaf.key == nil:
		m.faults.Add(m.path(name+".key"), "put the key of "+filepath.Base(name)+".crt there, or make both anew: "+m.redo(name), "it is missing")
		return nil, false
	case m.ca.crt == nil || leaf.crt.CheckSignatureFrom(m.ca.crt) != nil:
		m.faults.Add(m.path(name+".crt"), m.redo(name), "it is not signed by ca.crt")
		return nil, false
	default:
		why = m.ending(leaf.crt)
		if why == "" && unfit != nil {
			why = unfit(leaf.crt)
		}
	}
	if why == "" {
		return leaf, false
	}
	if m.ca.crt != nil && m.ca.key == nil {
		m.faults.Add(m.path(name+".crt"), "let the authority sign it, or make a local authority: "+m.fix("--force"), "it needs to be made (%s), and ca.key is not there to sign it", why)
		return nil, false
	}
	m.steps = append(m.steps, func() ([]Made, error) { return m.sign(leaf, template, leafLife, why) })
	return leaf, true
}

// otherClients are those in the folder that nobody asked for, and that can be renewed.
func (m *maker) otherClients() []string {
	// The pattern is ours, so that it cannot be malformed.
	places, _ := filepath.Glob(m.path("clients/*.crt"))
	var names []string
	for _, place := range places {
		name := strings.TrimSuffix(filepath.Base(place), ".crt")
		if slices.Contains(m.Clients, name) || !clientName.MatchString(name) {
			continue
		}
		// Read apart: what is wrong with it is no fault of what was asked for.
		p := (&folder{dir: m.dir}).read("clients/" + name)
		whole := p != nil && p.crt != nil && p.key != nil && m.ca.crt != nil && p.crt.CheckSignatureFrom(m.ca.crt) == nil
		if m.Force || whole && (m.ca.key != nil || m.ending(p.crt) == "") {
			names = append(names, name)
		}
	}
	return names
}

func (m *maker) decideClient(name string) {
	base := "clients/" + name
	leaf, anew := m.decideLeaf(base, clientTemplate(name), nil)
	if leaf == nil || leaf.key == nil && !anew {
		return
	}
	if why := m.missing(base + ".p12"); anew || why != "" {
		if why == "" {
			why = "holds the new certificate"
		}
		m.steps = append(m.steps, func() ([]Made, error) { return m.bundle(leaf, why) })
	}
}

func (m *maker) decideDHParam() {
	why := m.missing("dhparam.pem")
	if m.Force {
		why = m.newOrForced()
	}
	if why != "" {
		m.steps = append(m.steps, func() ([]Made, error) {
			return []Made{{File: "dhparam.pem", Why: why + ", the group ffdhe2048 of RFC 7919"}}, m.write("dhparam.pem", []byte(DHParam), 0o644)
		})
	}
}

// closeKeys plans to take the rights of others off the keys that are there.
func (m *maker) closeKeys() {
	for _, name := range m.openKeys() {
		m.steps = append(m.steps, func() ([]Made, error) {
			made := []Made{{File: name, Why: "closed to others than its owner"}}
			return made, os.Chmod(m.path(name), 0o600)
		})
	}
}

func (m *maker) newOrForced() string {
	if m.Force {
		return "made anew (--force)"
	}
	return "new"
}

// missing is "new" when a file is not there, else empty.
func (m *maker) missing(name string) string {
	if _, err := os.Lstat(m.path(name)); errors.Is(err, fs.ErrNotExist) {
		return "new"
	}
	return ""
}

// ending says when a certificate ends, if that is near or past.
func (m *maker) ending(crt *x509.Certificate) string {
	day := crt.NotAfter.Format(time.DateOnly)
	switch {
	case m.Now.After(crt.NotAfter):
		return "renewed, expired on " + day
	case m.Now.Add(renewBefore).After(crt.NotAfter):
		return "renewed, was to expire on " + day
	}
	return ""
}

// sign makes a pair's certificate, and its key when it has none. The authority signs itself.
func (m *maker) sign(p *pair, template *x509.Certificate, life time.Duration, why string) ([]Made, error) {
	var made []Made
	if p.key == nil {
		key, pem, err := newKey()
		if err != nil {
			return nil, err
		}
		if err := m.write(p.name+".key", pem, 0o600); err != nil {
			return nil, err
		}
		p.key = key
		made = append(made, Made{File: p.name + ".key", Why: why})
	}
	template.NotBefore = m.Now.Add(-clockSkew)
	template.NotAfter = m.Now.Add(life)
	parent := template
	if p != m.ca {
		parent = m.ca.crt
		if template.NotAfter.After(parent.NotAfter) {
			template.NotAfter = parent.NotAfter
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, p.key.Public(), m.ca.key)
	if err != nil {
		return made, fmt.Errorf("certs: %s: %w", m.path(p.name+".crt"), err)
	}
	if p.crt, err = x509.ParseCertificate(der); err != nil {
		return made, err
	}
	if err := m.write(p.name+".crt", encode("CERTIFICATE", der), 0o644); err != nil {
		return made, err
	}
	return append(made, Made{File: p.name + ".crt", Why: why, Expires: p.crt.NotAfter}), nil
}

// folder is where the files lie, and what is wrong with them.
type folder struct {
	dir, stack string
	faults     fault.List
}

// path gives the place of a file by its slash-separated name.
func (f *folder) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

// fix is the command that makes the certificates of the stack.
func (f *folder) fix(arguments ...string) string {
	return strings.Join(append([]string{"platform certs -s " + f.stack}, arguments...), " ")
}

// redo is the command that makes one pair anew. That of the authority takes everything else along.
func (f *folder) redo(name string) string {
	if name == "ca" {
		return f.fix("--force")
	}
	return fmt.Sprintf("rm -f %q %q && %s", f.path(name+".crt"), f.path(name+".key"), f.fix())
}

// pair is a certificate and its key, as far as they are there. Files are named after it.
type pair struct {
	name string
	crt  *x509.Certificate
	key  crypto.Signer
}
