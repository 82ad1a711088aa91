package certs

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// bundle writes a client's certificate, key and authority as one PKCS#12 file, which browsers import. Its password lies
// beside it, and stays the same through renewals.
func (m *maker) bundle(client *pair, why string) ([]Made, error) {
	var made []Made
	passwordFile := client.name + ".p12.password"
	text, err := os.ReadFile(m.path(passwordFile))
	password := strings.TrimSpace(string(text))
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("certs: %w", err)
	case err != nil, password == "", m.Force:
		password = rand.Text()
		if err := m.write(passwordFile, []byte(password+"\n"), 0o600); err != nil {
			return nil, err
		}
		made = append(made, Made{File: passwordFile, Why: m.newOrForced()})
	}
	content, err := pkcs12.Modern2023.Encode(client.key, client.crt, []*x509.Certificate{m.ca.crt}, password)
	if err != nil {
		return made, fmt.Errorf("certs: %s: %w", m.path(client.name+".p12"), err)
	}
	return append(made, Made{File: client.name + ".p12", Why: why}), m.write(client.name+".p12", content, 0o600)
}
