package certs

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
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
	renewal time.Duration // how long before its end a certificate is renewed
	ca      *pair         // nil when it has a fault
	files   []File
	faults  fault.List
}

func inspect(dir string, o Options, renewal time.Duration) *inspection {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	i := &inspection{Options: o, dir: dir, renewal: renewal}
	if i.inspectOptions(); len(i.faults) > 0 {
		return i
	}
	i.inspectCA()
	i.inspectLeaf("server", leafTemplate(x509.ExtKeyUsageServerAuth, i.Names...))
	i.inspectDHParam()
	i.inspectModes()
	return i
}

// clientName matches what is valid in a file name and, without escaping, in a subject.
var clientName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]*$`)

// dnsName matches a host name, or one with a wildcard as its first label.
var dnsName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

func (i *inspection) inspectOptions() {
	const names = "names of the server certificate"
	if len(i.Names) == 0 {
		i.faults.Add(names, "give at least one host name or address", "none is given")
	}
	for _, name := range i.Names {
		if net.ParseIP(name) == nil && !dnsName.MatchString(name) {
			i.faults.Add(names, "give host names and addresses, without scheme or port", "%q is neither a host name nor an address", name)
		}
	}
	for _, name := range i.Clients {
		if !clientName.MatchString(name) {
			i.faults.Add("client certificates", "use letters, digits and . _ @ -", "%q is not a valid name for one", name)
		}
	}
}

func (i *inspection) inspectCA() {
	ca := i.read("ca")
	switch {
	case ca == nil:
	case ca.crt == nil && ca.key == nil && !i.Force && exists(i.path("server.crt")):
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

// inspectLeaf inspects a certificate that the authority signs. It returns the pair, which is nil for a fault, and whether
// it was signed again.
func (i *inspection) inspectLeaf(name string, template *x509.Certificate) (leaf *pair, signed bool) {
	leaf = i.read(name)
	var why []string
	switch {
	case leaf == nil:
		return nil, false
	case leaf.crt == nil:
		why = []string{missing}
	case leaf.key == nil && name != "server" && i.ending(leaf.crt) == "": // its user has the key
		return leaf, false
	case leaf.key == nil:
		i.faults.Add(i.path(name+".key"), "put the key of "+filepath.Base(name)+".crt there, or issue both again: "+i.redo(name), missing)
		return nil, false
	case i.ca != nil && leaf.crt.CheckSignatureFrom(i.ca.crt) != nil:
		i.faults.Add(i.path(name+".crt"), i.redo(name), "it is not signed by ca.crt")
		return nil, false
	default:
		if ending := i.ending(leaf.crt); ending != "" {
			why = append(why, ending)
		}
		if name == "server" {
			why = append(why, notCovered(leaf.crt, i.Names)...)
		}
	}
	if len(why) > 0 {
		i.sign(leaf, template, strings.Join(why, ", and "))
	}
	return leaf, len(why) > 0
}

// notCovered returns the names that a server certificate does not cover.
func notCovered(crt *x509.Certificate, names []string) []string {
	uncovered := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		// A wildcard is listed as it is; as a host name it would be invalid.
		return crt.VerifyHostname(name) == nil || slices.Contains(crt.DNSNames, name)
	})
	if len(uncovered) == 0 {
		return nil
	}
	return []string{"it does not cover " + strings.Join(uncovered, ", ")}
}

// inspectClients inspects the clients that were asked for, and others whose keys are in the folder. A client that was not
// asked for causes no fault.
func (i *inspection) inspectClients() {
	for _, name := range i.Clients {
		i.inspectClient(name)
	}
	keys, _ := filepath.Glob(i.path("clients/*.key"))
	for _, key := range keys {
		name := strings.TrimSuffix(filepath.Base(key), ".key")
		other := *i
		if other.faults = nil; !slices.Contains(i.Clients, name) && clientName.MatchString(name) {
			other.inspectClient(name)
		}
		if len(other.faults) == 0 {
			i.files = other.files
		}
	}
}

// inspectClient inspects a client's pair and its PKCS#12 file, which browsers import.
func (i *inspection) inspectClient(name string) {
	base := "clients/" + name
	client, signed := i.inspectLeaf(base, leafTemplate(x509.ExtKeyUsageClientAuth, name))
	if client == nil || client.key == nil || i.ca == nil {
		return
	}
	why := "it holds an old certificate"
	if i.Force || !exists(i.path(base+".p12")) {
		why = missing
	} else if !signed {
		return
	}
	content, err := pkcs12.Modern2023.Encode(client.key, client.crt, []*x509.Certificate{i.ca.crt}, i.password(base+".p12.password"))
	if err != nil {
		i.faults.Add(i.path(base+".p12"), i.redo(base), "%v", err)
	}
	i.add(File{Name: base + ".p12", Why: why, content: content, mode: 0o600})
}

// password returns the password in a file, which is made if it is missing and stays the same through renewals.
func (i *inspection) password(name string) string {
	password := strings.TrimSpace(string(i.readFile(name)))
	if password == "" || i.Force {
		password = rand.Text()
		i.add(File{Name: name, Why: missing, content: []byte(password + "\n"), mode: 0o600})
	}
	return password
}

func (i *inspection) inspectDHParam() {
	const name = "dhparam.pem"
	if i.Force || !exists(i.path(name)) {
		i.add(File{Name: name, Why: missing, content: []byte(DHParam), mode: 0o644})
	} else if block, _ := pem.Decode(i.readFile(name)); block == nil || block.Type != "DH PARAMETERS" {
		i.faults.Add(i.path(name), fmt.Sprintf("rm -f %q && %s", i.path(name), i.fix()), "it holds no Diffie-Hellman group")
	}
}

// inspectModes finds the files that only their owner should read, and that other users can.
func (i *inspection) inspectModes() {
	for _, pattern := range []string{"*.key", "clients/*.key", "clients/*.p12", "clients/*.password"} {
		files, _ := filepath.Glob(i.path(pattern))
		for _, file := range files {
			name, relErr := filepath.Rel(i.dir, file)
			info, err := os.Stat(file)
			if err == nil && relErr == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
				i.add(File{Name: filepath.ToSlash(name), Why: "others than its owner can read it", mode: 0o600})
			}
		}
	}
}

func (i *inspection) add(f File) { i.files = append(i.files, f) }

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

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
