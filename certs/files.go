package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// read reads a certificate and its key. What is not there is nil in the pair; what cannot be read, or does not fit
// together, is a fault, and then the pair is nil.
func (f *folder) read(name string) *pair {
	p := &pair{name: name}
	before := len(f.faults)
	if block := f.block(name, ".crt"); block != nil {
		var err error
		if p.crt, err = x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
			f.faults.Add(f.path(name+".crt"), f.redo(name), "it holds no certificate")
		}
	}
	if block := f.block(name, ".key"); block != nil {
		var err error
		if p.key, err = parseKey(block.Bytes); err != nil {
			f.faults.Add(f.path(name+".key"), f.redo(name), "it holds no private key without a password")
		}
	}
	if len(f.faults) > before {
		return nil
	}
	if p.crt != nil && p.key != nil {
		public, ok := p.crt.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !public.Equal(p.key.Public()) {
			f.faults.Add(f.path(name+".key"), f.redo(name), "it is not the key of %s.crt", filepath.Base(name))
			return nil
		}
	}
	return p
}

// block gives the first PEM block of a file of a pair; nil when the file is not there. A file that has none is a fault.
func (f *folder) block(pair, suffix string) *pem.Block {
	name := pair + suffix
	text, err := os.ReadFile(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		f.faults.Add(f.path(name), "make it readable for this user", "%v", err)
		return nil
	}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			f.faults.Add(f.path(name), f.redo(pair), "it is not in PEM format")
			return nil
		}
		// OpenSSL writes the curve before an EC key.
		if block.Type != "EC PARAMETERS" {
			return block
		}
	}
}

// parseKey reads a private key in any of the forms that nginx reads too.
func parseKey(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	return x509.ParsePKCS1PrivateKey(der)
}

// newKey makes a private key, and gives it in PEM too.
func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, encode("PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// openKeys lists the files that only their owner should read, and that others can.
func (f *folder) openKeys() []string {
	var open []string
	for _, pattern := range []string{"*.key", "clients/*.key", "clients/*.p12", "clients/*.password"} {
		// The pattern is ours, so that it cannot be malformed.
		places, _ := filepath.Glob(f.path(pattern))
		for _, place := range places {
			if info, err := os.Stat(place); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
				name, err := filepath.Rel(f.dir, place)
				if err == nil {
					open = append(open, filepath.ToSlash(name))
				}
			}
		}
	}
	return open
}

// write puts a file in place whole: a reader sees the old one or the new one, also after a crash. Folders that are not
// there are made for the owner alone.
func (f *folder) write(name string, content []byte, mode fs.FileMode) (err error) {
	place := f.path(name)
	if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(place), "."+strings.TrimPrefix(filepath.Base(place), ".")+".*")
	if err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("certs: %s: %w", place, errors.Join(err, os.Remove(temporary.Name())))
		}
	}()
	_, err = temporary.Write(content)
	if err == nil {
		err = temporary.Chmod(mode)
	}
	if err == nil {
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), place)
}
