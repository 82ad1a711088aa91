// Package engine finds and opens the Docker engine that a person's docker command
// would talk to, so that the program's checks and its provider look at the same one.
package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/client"
)

// Open makes a client without reaching for the engine. host and context choose the
// engine as in Address. TLS comes from DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, as for
// the docker CLI.
func Open(host, context string) (*client.Client, error) {
	address, err := Address(host, context)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(address, "ssh://") {
		return nil, fmt.Errorf("engines over ssh cannot be reached (%s): "+
			"forward its socket (ssh -L /tmp/docker.sock:/var/run/docker.sock …) and set DOCKER_HOST=unix:///tmp/docker.sock", address)
	}
	options := []client.Opt{client.WithTLSClientConfigFromEnv(), client.WithAPIVersionFromEnv()}
	if address != "" {
		options = append(options, client.WithHost(address))
	}
	c, err := client.New(options...)
	if err != nil {
		return nil, fmt.Errorf("docker engine %s: %w", address, err)
	}
	return c, nil
}

// Address resolves in the docker CLI's order: the given host, the given context,
// DOCKER_HOST, DOCKER_CONTEXT, the CLI's current context. "" is the default socket.
func Address(host, context string) (string, error) {
	if host != "" {
		return host, nil
	}
	name := context
	if name == "" {
		if address := os.Getenv("DOCKER_HOST"); address != "" {
			return address, nil
		}
		name = os.Getenv("DOCKER_CONTEXT")
	}
	directory := ConfigDir()
	if name == "" {
		var cli struct {
			CurrentContext string `json:"currentContext"`
		}
		if err := ReadJSON(filepath.Join(directory, "config.json"), &cli); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		name = cli.CurrentContext
	}
	if name == "" || name == "default" {
		return "", nil
	}
	// The CLI names a context's folder after the hash of its name.
	hash := sha256.Sum256([]byte(name))
	var meta struct {
		Endpoints struct {
			Docker struct{ Host string } `json:"docker"`
		}
	}
	file := filepath.Join(directory, "contexts", "meta", hex.EncodeToString(hash[:]), "meta.json")
	if err := ReadJSON(file, &meta); err != nil {
		return "", fmt.Errorf("docker context %q: %w (`docker context ls` lists them)", name, err)
	}
	return meta.Endpoints.Docker.Host, nil
}

// ConfigDir is where the docker CLI keeps its config.json and contexts; empty when there is no home folder.
func ConfigDir() string {
	if directory := os.Getenv("DOCKER_CONFIG"); directory != "" {
		return directory
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".docker")
}

// ReadJSON reads one of the docker CLI's files.
func ReadJSON(file string, into any) error {
	bytes, err := os.ReadFile(file) //nolint:gosec // the user's own docker configuration, where the user says it is
	if err != nil {
		return err
	}
	if err := json.Unmarshal(bytes, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
