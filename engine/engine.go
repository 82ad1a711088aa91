// Package engine finds the Docker engine that the docker command would use, so that
// checks, images and the provider all use the same one. It also identifies engines.
package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/moby/moby/client"
)

// Ref identifies an engine and has its address.
type Ref struct {
	// ID is the ID that `docker info` shows, followed by the engine's data folder if that is
	// not the default one. It does not change with the address.
	ID   string `json:"id"`
	Host string `json:"host"` // the address, such as unix:///var/run/docker.sock
	Root string `json:"-"`    // its data folder, if it was asked
}

// String names the engine in messages.
func (r Ref) String() string {
	if r.ID == "" {
		return r.Host
	}
	return fmt.Sprintf("%s (ID %s)", r.Host, r.ID)
}

// usualRoot is an engine's default data folder.
const usualRoot = "/var/lib/docker"

// Identify asks an engine for its ID. host is the address to record.
func Identify(ctx context.Context, c client.APIClient, host string) (Ref, error) {
	info, err := c.Info(ctx, client.InfoOptions{})
	if err != nil {
		return Ref{}, fmt.Errorf("asking the engine at %s for its ID: %w", host, err)
	}
	ref := Ref{ID: info.Info.ID, Host: host, Root: info.Info.DockerRootDir}
	// Before Docker 23 the ID is stored in /etc/docker, and two engines on one host share it.
	if ref.Root != "" && ref.Root != usualRoot {
		ref.ID += " in " + ref.Root
	}
	return ref, nil
}

// Address returns the engine's address. It looks where the docker command does, in the
// same order: DOCKER_HOST, DOCKER_CONTEXT, the current context, the default socket. It is
// never empty, so that a provider that gets it does not look for one itself.
func Address() (string, error) {
	e, err := endpoint("", "")
	return e.Host, err
}

// Open makes a client; it does not connect to the engine. host takes precedence over
// name, a docker context. If both are empty, it uses Address. The TLS settings are those
// of the context, or of DOCKER_TLS_VERIFY and DOCKER_CERT_PATH.
func Open(host, name string) (*client.Client, error) {
	e, err := endpoint(host, name)
	if err != nil {
		return nil, err
	}
	options, err := e.ClientOpts()
	if err != nil {
		return nil, fmt.Errorf("docker engine %s: %w", e.Host, err)
	}
	if e.TLSData == nil && !strings.HasPrefix(e.Host, "ssh://") {
		options = append([]client.Opt{client.WithTLSClientConfigFromEnv()}, options...)
	}
	c, err := client.New(options...)
	if err != nil {
		return nil, fmt.Errorf("docker engine %s: %w", e.Host, err)
	}
	return c, nil
}

// endpoint resolves an address, or a docker context with its TLS files.
func endpoint(host, name string) (docker.Endpoint, error) {
	if host == "" && name == "" {
		host, name = os.Getenv("DOCKER_HOST"), os.Getenv("DOCKER_CONTEXT")
	}
	if host != "" {
		return docker.Endpoint{EndpointMeta: docker.EndpointMeta{Host: host}}, nil
	}
	if name == "" {
		// Read each time, because the library fixes its own default when the process starts.
		cli, err := config.Load(ConfigDir())
		if err != nil {
			return docker.Endpoint{}, err
		}
		name = cli.CurrentContext
	}
	if name == "" || name == "default" {
		return docker.Endpoint{EndpointMeta: docker.EndpointMeta{Host: client.DefaultDockerHost}}, nil
	}
	contexts := store.New(filepath.Join(ConfigDir(), "contexts"), store.NewConfig(
		func() any { return &map[string]any{} },
		store.EndpointTypeGetter(docker.DockerEndpoint, func() any { return &docker.EndpointMeta{} }),
	))
	found, err := contexts.GetMetadata(name)
	if err != nil {
		return docker.Endpoint{}, fmt.Errorf("docker context %q: %w. Fix: `docker context ls` lists the contexts, `docker context use` chooses one", name, err)
	}
	meta, ok := found.Endpoints[docker.DockerEndpoint].(docker.EndpointMeta)
	if !ok {
		return docker.Endpoint{}, fmt.Errorf("docker context %q has no Docker endpoint. Fix: `docker context use` chooses another", name)
	}
	return docker.WithTLSData(contexts, name, meta)
}

// ConfigDir is the folder of the docker command's config.json and contexts.
func ConfigDir() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".docker")
}
