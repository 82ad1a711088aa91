package certs

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"
)

// pair is a certificate and its key, each nil when it is missing. Files are named after it.
type pair struct {
	name string
	crt  *x509.Certificate
	key  crypto.Signer

	signed bool // the certificate was made by this run
}

// read reads a pair. When a file cannot be used, or the two do not belong together, the pair is nil and there is a fault.
// With Force existing files are ignored.
func (i *inspection) read(name string) *pair {
	p := &pair{name: name}
	if i.Force {
		return p
	}
	before := len(i.faults)
	crt, key := i.readFile(name+".crt"), i.readFile(name+".key")
	var err error
	if crt != nil {
		if p.crt, err = parse(crt, "CERTIFICATE", x509.ParseCertificate); err != nil {
			i.faults.Add(i.path(name+".crt"), i.redo(name), "it holds no certificate: %v", err)
		} else if i.Now.Before(p.crt.NotBefore) {
			i.faults.Add(i.path(name+".crt"), "set this machine's clock, or: "+i.redo(name), "it is not valid before %s", p.crt.NotBefore.Format(time.RFC3339))
		}
	}
	if key != nil && len(i.faults) == before {
		if err := p.parseKey(key, crt); err != nil {
			i.faults.Add(i.path(name+".key"), i.redo(name), "%v", err)
		}
	}
	if len(i.faults) > before {
		return nil
	}
	return p
}

// parse decodes what a text in PEM format begins with.
func parse[T any](text []byte, kind string, decode func(der []byte) (T, error)) (value T, err error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return value, errors.New("it is not in PEM format")
	}
	return decode(block.Bytes)
}

// parseKey reads a key in any form that nginx reads too. A key without a certificate is left by an interrupted run, and is
// in the form that sign writes.
func (p *pair) parseKey(text, crt []byte) error {
	var key any
	var err error
	if crt == nil {
		key, err = parse(text, "PRIVATE KEY", x509.ParsePKCS8PrivateKey)
	} else {
		var both tls.Certificate
		if both, err = tls.X509KeyPair(crt, text); err != nil {
			err = fmt.Errorf("it is not the key of %s.crt, or it has a password: %w", filepath.Base(p.name), err)
		}
		key = both.PrivateKey
	}
	var signs bool
	if p.key, signs = key.(crypto.Signer); err == nil && !signs {
		err = fmt.Errorf("a %T cannot sign", key)
	}
	return err
}

// sign makes a pair's certificate, and its key when it has none. The authority signs itself.
func (i *inspection) sign(p *pair, template *x509.Certificate, why string) {
	crt := File{Name: p.name + ".crt", Why: why, mode: 0o644}
	switch {
	case i.ca == nil: // it has a fault of its own, with a fix that comes first
		return
	case i.ca.crt != nil && i.ca.key == nil:
		i.faults.Add(i.path(crt.Name), "let the authority sign it, or make a local authority: "+i.redo("ca"), "it needs to be made (%s), and ca.key is not there to sign it", why)
		return
	}
	if p.key == nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		der, derErr := x509.MarshalPKCS8PrivateKey(key)
		if err := errors.Join(err, derErr); err != nil {
			i.faults.Add(i.path(p.name+".key"), i.redo("ca"), "it cannot be made: %v", err)
			return
		}
		p.key = key
		i.add(File{Name: p.name + ".key", Why: why, content: encode("PRIVATE KEY", der), mode: 0o600})
	}
	if err := p.signBy(i.ca, template, i.Now); err != nil {
		i.faults.Add(i.path(crt.Name), i.redo("ca"), "it cannot be signed: %v", err)
		return
	}
	crt.content, crt.Expires, p.signed = encode("CERTIFICATE", p.crt.Raw), p.crt.NotAfter, true
	i.add(crt)
}

// signBy makes the pair's certificate from a template. It expires no later than the authority's.
func (p *pair) signBy(ca *pair, template *x509.Certificate, now time.Time) error {
	template.NotBefore, template.NotAfter = now.Add(-clockSkew), now.Add(caLife)
	parent := template
	if p != ca {
		parent, template.NotAfter = ca.crt, now.Add(leafLife)
		if template.NotAfter.After(parent.NotAfter) {
			template.NotAfter = parent.NotAfter
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, p.key.Public(), ca.key)
	if err != nil {
		return err
	}
	p.crt, err = x509.ParseCertificate(der)
	return err
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// leafTemplate returns what a certificate for some uses says, before it is signed.
func leafTemplate(name string, uses ...x509.ExtKeyUsage) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"trading-platform (local)"}, CommonName: name},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           uses,
		BasicConstraintsValid: true,
	}
}

func caTemplate() *x509.Certificate {
	template := leafTemplate("trading-platform local CA")
	template.KeyUsage, template.IsCA, template.MaxPathLenZero = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, true, true
	return template
}

// serverTemplate returns a certificate that lists all names, because that is where clients look for them.
func serverTemplate(names []string) *x509.Certificate {
	template := leafTemplate(cmp.Or(names...), x509.ExtKeyUsageServerAuth)
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return template
}
