package certs

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"trading-platform/fault"
)

// missing is why a file that does not exist is written.
const missing = "it is missing"

// inspection is the result of inspecting a folder: the files to be written, which are in memory, and the faults that only the
// user can fix. Ensure writes the files; Check reports them as faults.
type inspection struct {
	Options
	dir     string
	command string        // that issues the certificates of the stack
	renewal time.Duration // how long before its end a certificate is renewed
	ca      *pair         // nil when it has a fault
	files   []File
	faults  fault.List
}

func inspect(dir string, o Options, renewal time.Duration) *inspection {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	i := &inspection{Options: o, dir: dir, command: "platform certs -s " + o.Stack, renewal: renewal}
	i.inspectCA()
	i.inspectLeaf("server", serverTemplate(i.Names))
	const group = "dhparam.pem"
	if text := i.readFile(group); text == nil || i.Force {
		i.add(File{Name: group, Why: missing, content: []byte(dhParam), mode: 0o644})
	} else if block, _ := pem.Decode(text); block == nil || block.Type != "DH PARAMETERS" {
		i.faults.Add(i.path(group), fmt.Sprintf("rm -f %q && %s", i.path(group), i.command), "it holds no Diffie-Hellman group")
	}
	i.inspectModes()
	return i
}

func (i *inspection) inspectCA() {
	ca := i.read("ca")
	switch {
	case ca == nil:
	case ca.crt == nil && ca.key == nil && !i.Force && i.readFile("server.crt") != nil:
		// A new authority has not signed the existing certificates.
		i.faults.Add(i.path("ca.crt"), "put back the one that signed server.crt, or: "+i.redo("ca"), missing)
	case ca.crt == nil:
		i.ca = ca
		i.sign(ca, caTemplate(), missing)
	case !ca.crt.IsCA:
		i.faults.Add(i.path("ca.crt"), i.redo("ca"), "it is not the certificate of an authority")
	case ca.key == nil && i.Now.After(ca.crt.NotAfter):
		i.faults.Add(i.path("ca.crt"), "put the authority's new certificate there, or for a local one: "+i.redo("ca"), "%s, and ca.key is not there to renew it", i.ending(ca.crt))
	default:
		i.ca = ca
		if why := i.ending(ca.crt); why != "" && ca.key != nil {
			template := caTemplate()
			// The subject is copied byte for byte, because certificates that are signed already name their issuer so.
			template.RawSubject = ca.crt.RawSubject
			i.sign(ca, template, why)
		}
	}
}

// inspectLeaf inspects a certificate that the authority signs. It returns the pair, which is nil for a fault.
func (i *inspection) inspectLeaf(name string, template *x509.Certificate) *pair {
	leaf := i.read(name)
	var why []string
	switch {
	case leaf == nil:
		return nil
	case leaf.crt == nil:
		why = []string{missing}
	case leaf.key == nil && name != "server" && i.ending(leaf.crt) == "": // its user has the key
		return leaf
	case leaf.key == nil:
		i.faults.Add(i.path(name+".key"), "put the key of "+filepath.Base(name)+".crt there, or issue both again: "+i.redo(name), missing)
		return nil
	case i.ca != nil && leaf.crt.CheckSignatureFrom(i.ca.crt) != nil:
		i.faults.Add(i.path(name+".crt"), i.redo(name), "it is not signed by ca.crt")
		return nil
	default:
		if ending := i.ending(leaf.crt); ending != "" {
			why = append(why, ending)
		}
		uncovered := slices.DeleteFunc(slices.Clone(i.Names), func(wanted string) bool {
			// A wildcard is listed as it is; as a host name it would be invalid.
			return name != "server" || leaf.crt.VerifyHostname(wanted) == nil || slices.Contains(leaf.crt.DNSNames, wanted)
		})
		if len(uncovered) > 0 {
			why = append(why, "it does not cover "+strings.Join(uncovered, ", "))
		}
	}
	if len(why) > 0 {
		i.sign(leaf, template, strings.Join(why, ", and "))
	}
	return leaf
}

// clientName matches what is valid in a file name and, without escaping, in a subject.
var clientName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]*$`)

// inspectClients inspects the clients that were asked for, and others whose keys are in the folder. A client that was not
// asked for causes no fault.
func (i *inspection) inspectClients() {
	for _, name := range i.Clients {
		i.inspectClient(name)
	}
	keys, _ := filepath.Glob(i.path("clients/*.key"))
	for _, key := range keys {
		name := strings.TrimSuffix(filepath.Base(key), ".key")
		if slices.Contains(i.Clients, name) {
			continue
		}
		other := *i
		other.faults = nil
		if other.inspectClient(name); len(other.faults) == 0 {
			i.files = other.files
		}
	}
}

// inspectClient inspects a client's pair and its PKCS#12 file, which browsers import. The password of that file stays the
// same through renewals.
func (i *inspection) inspectClient(name string) {
	if !clientName.MatchString(name) {
		i.faults.Add("client certificates", "use letters, digits and . _ @ -", "%q is not a valid name for one", name)
		return
	}
	base := "clients/" + name
	client := i.inspectLeaf(base, leafTemplate(name, x509.ExtKeyUsageClientAuth))
	if client == nil || client.key == nil || i.ca == nil {
		return
	}
	why := "it holds an old certificate"
	if i.Force || i.readFile(base+".p12") == nil {
		why = missing
	} else if !client.signed {
		return
	}
	password := strings.TrimSpace(string(i.readFile(base + ".p12.password")))
	if password == "" || i.Force {
		password = rand.Text()
		i.add(File{Name: base + ".p12.password", Why: missing, content: []byte(password + "\n"), mode: 0o600})
	}
	content, err := pkcs12.Modern2023.Encode(client.key, client.crt, []*x509.Certificate{i.ca.crt}, password)
	if err != nil {
		i.faults.Add(i.path(base+".p12"), i.redo(base), "%v", err)
	}
	i.add(File{Name: base + ".p12", Why: why, content: content, mode: 0o600})
}

// inspectModes finds the files that only their owner should read, and that other users can.
func (i *inspection) inspectModes() {
	for _, pattern := range []string{"*.key", "clients/*.key", "clients/*.p12", "clients/*.password"} {
		names, _ := fs.Glob(os.DirFS(i.dir), pattern)
		for _, name := range names {
			if info, err := os.Stat(i.path(name)); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
				i.add(File{Name: name, Why: "others than its owner can read it", mode: 0o600})
			}
		}
	}
}

func (i *inspection) add(f File) { i.files = append(i.files, f) }

// path returns the place of a file by its slash-separated name.
func (i *inspection) path(name string) string { return filepath.Join(i.dir, filepath.FromSlash(name)) }

// readFile returns a file's content; nil for one that does not exist, or that cannot be read, which is a fault.
func (i *inspection) readFile(name string) []byte {
	content, err := os.ReadFile(i.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		i.faults.Add(i.path(name), "make it readable for this user", "%v", err)
	}
	return content
}

// redo returns the command that issues one pair again. A new authority means that everything else is issued again too.
func (i *inspection) redo(pair string) string {
	if pair == "ca" {
		return i.command + " --force"
	}
	return fmt.Sprintf("rm -f %q %q && %s", i.path(pair+".crt"), i.path(pair+".key"), i.command)
}

// ending says that a certificate has expired or will expire soon; it is empty otherwise.
func (i *inspection) ending(crt *x509.Certificate) string {
	day := crt.NotAfter.Format(time.DateOnly)
	switch {
	case i.Now.After(crt.NotAfter):
		return "it expired on " + day
	case i.Now.Add(i.renewal).After(crt.NotAfter):
		return "it expires on " + day
	}
	return ""
}
