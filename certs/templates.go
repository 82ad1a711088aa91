package certs

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
)

const organisation = "trading-platform (local)"

func caTemplate() *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{organisation}, CommonName: "trading-platform local CA"},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
}

func serverTemplate(names []string) *x509.Certificate {
	template := &x509.Certificate{
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for i, name := range names {
		if i == 0 {
			template.Subject = pkix.Name{Organization: []string{organisation}, CommonName: name}
		}
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return template
}

func clientTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{organisation}, CommonName: name},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
}

// notCovered gives the names that a server certificate is not good for.
func notCovered(crt *x509.Certificate, names []string) []string {
	var missing []string
	for _, name := range names {
		covered := crt.VerifyHostname(name) == nil
		for _, listed := range crt.DNSNames {
			// A wildcard is listed as it is; as a host name it would be invalid.
			covered = covered || listed == name
		}
		if !covered {
			missing = append(missing, name)
		}
	}
	return missing
}
