package certs

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"time"
)

// Check finds what is wrong with the certificates in a folder for the server of a stack: missing, expired or not yet
// valid, not signed by the authority, keys of something else, names not covered, keys that others can read. It gives nil,
// or a fault.List of all of it, each with its fix. It changes nothing.
func Check(dir, stack string, names []string) error {
	return check(dir, stack, names, time.Now())
}

func check(dir, stack string, names []string, now time.Time) error {
	f := &folder{dir: dir, stack: stack}
	ca, server := f.read("ca"), f.read("server")
	if ca != nil {
		fix := f.fix()
		if server == nil || server.crt != nil {
			// A new authority has not signed what is there.
			fix = "put back the one that signed server.crt, or: " + f.redo("ca")
		}
		f.checkLife(ca, now, fix)
		if ca.crt != nil && !ca.crt.IsCA {
			f.faults.Add(f.path("ca.crt"), f.redo("ca"), "it is no certificate of an authority")
		}
	}
	if server != nil {
		f.checkLife(server, now, f.fix())
		switch {
		case server.key == nil && server.crt == nil:
			f.faults.Add(f.path("server.key"), f.fix(), "it is missing")
		case server.key == nil:
			f.faults.Add(f.path("server.key"), f.redo("server"), "it is missing")
		}
		if server.crt != nil {
			f.checkServer(server.crt, ca, names)
		}
	}
	f.checkDHParam()
	for _, name := range f.openKeys() {
		f.faults.Add(f.path(name), f.fix(), "others than its owner can read it")
	}
	return f.faults.Err()
}

// checkLife finds a certificate that is not there, which has its own fix, or is not valid at this time.
func (f *folder) checkLife(p *pair, now time.Time, missing string) {
	place := f.path(p.name + ".crt")
	switch {
	case p.crt == nil:
		f.faults.Add(place, missing, "it is missing")
	case now.After(p.crt.NotAfter):
		f.faults.Add(place, f.fix(), "it expired on %s", p.crt.NotAfter.Format(time.DateOnly))
	case now.Before(p.crt.NotBefore):
		f.faults.Add(place, "set this machine's clock, or: "+f.redo(p.name), "it is not valid before %s", p.crt.NotBefore.Format(time.RFC3339))
	}
}

func (f *folder) checkServer(crt *x509.Certificate, ca *pair, names []string) {
	if ca != nil && ca.crt != nil && crt.CheckSignatureFrom(ca.crt) != nil {
		f.faults.Add(f.path("server.crt"), f.redo("server"), "it is not signed by ca.crt")
	}
	if missing := notCovered(crt, names); len(missing) > 0 {
		f.faults.Add(f.path("server.crt"), f.fix(), "it does not cover %s", strings.Join(missing, ", "))
	}
}

func (f *folder) checkDHParam() {
	text, err := os.ReadFile(f.path("dhparam.pem"))
	if os.IsNotExist(err) {
		f.faults.Add(f.path("dhparam.pem"), f.fix(), "it is missing")
		return
	}
	if block, _ := pem.Decode(text); err != nil || block == nil || block.Type != "DH PARAMETERS" {
		f.faults.Add(f.path("dhparam.pem"), fmt.Sprintf("rm -f %q && %s", f.path("dhparam.pem"), f.fix()), "it holds no Diffie-Hellman group")
	}
}
