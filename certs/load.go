package certs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Load reads the four files of a folder that nginx reads, by their bare names: ca.crt, dhparam.pem, server.crt and
// server.key. Check says whether they are any good.
func Load(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	var faults []error
	for _, name := range []string{"ca.crt", "dhparam.pem", "server.crt", "server.key"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			faults = append(faults, fmt.Errorf("certs: %w", err))
			continue
		}
		files[name] = content
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return files, nil
}
