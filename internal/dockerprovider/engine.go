package dockerprovider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/client"
)

// engine is the part of the Docker client that the resources use.
type engine interface {
	ClientVersion() string
	DaemonHost() string
	Events(ctx context.Context, options client.EventsListOptions) client.EventsResult
	Ping(ctx context.Context, options client.PingOptions) (client.PingResult, error)

	ContainerCreate(ctx context.Context, options client.ContainerCreateOptions) (client.ContainerCreateResult, error)
	ContainerInspect(ctx context.Context, id string, options client.ContainerInspectOptions) (client.ContainerInspectResult, error)
	ContainerList(ctx context.Context, options client.ContainerListOptions) (client.ContainerListResult, error)
	ContainerLogs(ctx context.Context, id string, options client.ContainerLogsOptions) (client.ContainerLogsResult, error)
	ContainerRemove(ctx context.Context, id string, options client.ContainerRemoveOptions) (client.ContainerRemoveResult, error)
	ContainerStart(ctx context.Context, id string, options client.ContainerStartOptions) (client.ContainerStartResult, error)
	ContainerStop(ctx context.Context, id string, options client.ContainerStopOptions) (client.ContainerStopResult, error)
	ContainerUpdate(ctx context.Context, id string, options client.ContainerUpdateOptions) (client.ContainerUpdateResult, error)
	CopyToContainer(ctx context.Context, id string, options client.CopyToContainerOptions) (client.CopyToContainerResult, error)

	ImageBuild(ctx context.Context, source io.Reader, options client.ImageBuildOptions) (client.ImageBuildResult, error)
	ImageInspect(ctx context.Context, id string, options ...client.ImageInspectOption) (client.ImageInspectResult, error)
	ImagePull(ctx context.Context, reference string, options client.ImagePullOptions) (client.ImagePullResponse, error)
	ImageRemove(ctx context.Context, id string, options client.ImageRemoveOptions) (client.ImageRemoveResult, error)

	NetworkConnect(ctx context.Context, id string, options client.NetworkConnectOptions) (client.NetworkConnectResult, error)
	NetworkCreate(ctx context.Context, name string, options client.NetworkCreateOptions) (client.NetworkCreateResult, error)
	NetworkInspect(ctx context.Context, id string, options client.NetworkInspectOptions) (client.NetworkInspectResult, error)
	NetworkRemove(ctx context.Context, id string, options client.NetworkRemoveOptions) (client.NetworkRemoveResult, error)

	VolumeCreate(ctx context.Context, options client.VolumeCreateOptions) (client.VolumeCreateResult, error)
	VolumeInspect(ctx context.Context, name string, options client.VolumeInspectOptions) (client.VolumeInspectResult, error)
	VolumeRemove(ctx context.Context, name string, options client.VolumeRemoveOptions) (client.VolumeRemoveResult, error)
}

var _ engine = (*client.Client)(nil)

// engineConfig is the provider resource's configuration.
type engineConfig struct {
	// Host is the engine's address, such as unix:///var/run/docker.sock or tcp://10.0.0.5:2375.
	Host string `json:"host" rule:"update"`
	// Context is the name of a docker CLI context. Host wins over it.
	Context string `json:"context" rule:"update"`
	// Version and PluginDownloadURL are what Pulumi itself records with a provider.
	Version           string `json:"version" rule:"update"`
	PluginDownloadURL string `json:"pluginDownloadURL" rule:"update"`
}

// connect makes a client for the configured engine without reaching for it. TLS comes
// from DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, as for the docker CLI.
func connect(config engineConfig) (engine, error) {
	address, err := engineAddress(config)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(address, "ssh://") {
		return nil, fmt.Errorf("the offline docker provider does not reach engines over ssh (%s): "+
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

// engineAddress resolves in the docker CLI's order: what is set for the provider,
// DOCKER_HOST, DOCKER_CONTEXT, the CLI's current context. "" is the default socket.
func engineAddress(config engineConfig) (string, error) {
	if config.Host != "" {
		return config.Host, nil
	}
	name := config.Context
	if name == "" {
		if address := os.Getenv("DOCKER_HOST"); address != "" {
			return address, nil
		}
		name = os.Getenv("DOCKER_CONTEXT")
	}
	directory := dockerConfigDir()
	if name == "" {
		var cli struct {
			CurrentContext string `json:"currentContext"`
		}
		if err := readJSON(filepath.Join(directory, "config.json"), &cli); err != nil && !errors.Is(err, os.ErrNotExist) {
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
	if err := readJSON(file, &meta); err != nil {
		return "", fmt.Errorf("docker context %q: %w (`docker context ls` lists them)", name, err)
	}
	return meta.Endpoints.Docker.Host, nil
}

func dockerConfigDir() string {
	if directory := os.Getenv("DOCKER_CONFIG"); directory != "" {
		return directory
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".docker")
}

func readJSON(file string, into any) error {
	bytes, err := os.ReadFile(file) //nolint:gosec // the user's own docker configuration, where the user says it is
	if err != nil {
		return err
	}
	if err := json.Unmarshal(bytes, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
