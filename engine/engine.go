// Package engine finds and opens the Docker engine that the docker command would
// talk to, so that checks, images and provider all use the same one, and knows one
// engine from another.
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

// Ref is one engine, and the way to it.
type Ref struct {
	// ID is what `docker info` calls ID, and the engine's folder where that is another than
	// usual. It stays when the address changes.
	ID   string `json:"id"`
	Host string `json:"host"` // the address, such as unix:///var/run/docker.sock
}

// String names the engine in messages.
func (r Ref) String() string {
	if r.ID == "" {
		return r.Host
	}
	return fmt.Sprintf("%s (ID %s)", r.Host, r.ID)
}

// usualRoot is where an engine keeps its data unless it is told otherwise.
const usualRoot = "/var/lib/docker"

// Identify asks an engine who it is. host is the address to remember it by.
func Identify(ctx context.Context, c client.APIClient, host string) (Ref, error) {
	info, err := c.Info(ctx, client.InfoOptions{})
	if err != nil {
		return Ref{}, fmt.Errorf("asking the engine at %s for its ID: %w", host, err)
	}
	ref := Ref{ID: info.Info.ID, Host: host}
	// Before Docker 23 the ID lies in /etc/docker, and two engines of one host share it.
	if folder := info.Info.DockerRootDir; folder != "" && folder != usualRoot {
		ref.ID += " in " + folder
	}
	return ref, nil
}

// Address gives the engine's address in the docker command's order: DOCKER_HOST,
// DOCKER_CONTEXT, the current context, the default socket. It is never empty, so
// that it can be handed to a provider that would otherwise look for itself.
func Address() (string, error) {
	e, err := endpoint("", "")
	return e.Host, err
}

// Open makes a client without reaching for the engine. host wins over name, a
// docker context; with neither it opens what Address names. TLS comes from the
// context, or from DOCKER_TLS_VERIFY and DOCKER_CERT_PATH.
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

// endpoint resolves an address, or a context with its TLS files.
func endpoint(host, name string) (docker.Endpoint, error) {
	if host == "" && name == "" {
		host, name = os.Getenv("DOCKER_HOST"), os.Getenv("DOCKER_CONTEXT")
	}
	if host != "" {
		return docker.Endpoint{EndpointMeta: docker.EndpointMeta{Host: host}}, nil
	}
	if name == "" {
		// Read anew each time: the library's own default is fixed when the process starts.
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
		return docker.Endpoint{}, fmt.Errorf("docker context %q names no Docker engine", name)
	}
	return docker.WithTLSData(contexts, name, meta)
}

// ConfigDir is where the docker command keeps config.json and its contexts.
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
