// Package engine finds the Docker engine that the docker command would use, so that
// checks, images and the provider all use the same one. It also identifies engines.
package engine

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/connhelper"
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
	Node string `json:"-"`    // its ID in the Swarm of which it is a manager, if it was asked; empty if it is none
	// Certs is a folder with ca.pem, cert.pem and key.pem, by which the engine and its clients know each other; empty for none.
	Certs string `json:"certs,omitempty"`
}

// String names the engine in messages.
func (r Ref) String() string {
	if r.ID == "" {
		return r.Host
	}
	return fmt.Sprintf("%s (ID %s)", r.Host, r.ID)
}

// Identify asks the engine at an address for its ID.
func Identify(ctx context.Context, c client.APIClient, at Ref) (Ref, error) {
	info, err := c.Info(ctx, client.InfoOptions{})
	if err != nil {
		return Ref{}, fmt.Errorf("asking the engine at %s for its ID: %w", at.Host, err)
	}
	ref := Ref{ID: info.Info.ID, Host: at.Host, Root: info.Info.DockerRootDir, Certs: at.Certs}
	if info.Info.Swarm.ControlAvailable {
		ref.Node = info.Info.Swarm.NodeID
	}
	// Before Docker 23 the ID is stored in /etc/docker, and two engines on one host share it.
	if ref.Root != "" && ref.Root != "/var/lib/docker" {
		ref.ID += " in " + ref.Root
	}
	return ref, nil
}

// Find returns the address of an engine, without asking it. An empty host stands for the engine that the docker command
// uses: that of DOCKER_HOST, DOCKER_CONTEXT, the current context or the default socket, in this order. The address is never
// empty, so that a provider that gets it does not look for one itself. certs is the folder of the TLS files; if it is empty,
// it is that of the context, or DOCKER_CERT_PATH.
func Find(host, certs string) (Ref, error) {
	ref := Ref{Host: cmp.Or(host, os.Getenv("DOCKER_HOST")), Certs: certs}
	if ref.Host == "" {
		if err := ref.fromContext(); err != nil {
			return ref, err
		}
	}
	if !strings.HasPrefix(ref.Host, "tcp://") {
		ref.Certs = ""
	} else if ref.Certs == "" {
		ref.Certs = os.Getenv("DOCKER_CERT_PATH")
	}
	return ref, nil
}

// fromContext takes the address and the TLS files from the docker context in use.
func (r *Ref) fromContext() error {
	// Read each time, because the library fixes its own default when the process starts.
	cli, err := config.Load(ConfigDir())
	if err != nil {
		return err
	}
	name := cmp.Or(os.Getenv("DOCKER_CONTEXT"), cli.CurrentContext, "default")
	if name == "default" {
		r.Host = client.DefaultDockerHost
		return nil
	}
	contexts := store.New(filepath.Join(ConfigDir(), "contexts"), store.NewConfig(
		func() any { return &map[string]any{} },
		store.EndpointTypeGetter(docker.DockerEndpoint, func() any { return &docker.EndpointMeta{} }),
	))
	found, err := contexts.GetMetadata(name)
	if err != nil {
		return fmt.Errorf("docker context %q: %w. Fix: `docker context ls` lists the contexts, `docker context use` chooses one", name, err)
	}
	meta, ok := found.Endpoints[docker.DockerEndpoint].(docker.EndpointMeta)
	if !ok {
		return fmt.Errorf("docker context %q has no Docker endpoint. Fix: `docker context use` chooses another", name)
	}
	r.Host = meta.Host
	if folder := filepath.Join(contexts.GetStorageInfo(name).TLSPath, docker.DockerEndpoint); r.Certs == "" {
		if _, err := os.Stat(folder); err == nil {
			r.Certs = folder
		}
	}
	return nil
}

// Open makes a client; it does not connect to the engine. The machine of an ssh:// address needs the docker command.
func (r Ref) Open() (*client.Client, error) {
	options := []client.Opt{client.WithHost(r.Host)}
	helper, err := connhelper.GetConnectionHelperWithSSHOpts(r.Host, SSHFlags())
	if helper != nil {
		options = []client.Opt{client.WithHost(helper.Host), client.WithDialContext(helper.Dialer)}
	} else if r.Certs != "" {
		options = append(options, client.WithTLSClientConfig(r.tlsFile("ca.pem"), r.tlsFile("cert.pem"), r.tlsFile("key.pem")))
	}
	var c *client.Client
	if err == nil {
		c, err = client.New(options...)
	}
	if err != nil {
		return nil, fmt.Errorf("docker engine %s: %w", r.Host, err)
	}
	return c, nil
}

func (r Ref) tlsFile(name string) string { return filepath.Join(r.Certs, name) }

// DockerFlags returns the flags by which the docker command uses the engine.
func (r Ref) DockerFlags() []string {
	flags := []string{"-H", r.Host}
	if r.Certs != "" {
		flags = append(flags, "--tlsverify", "--tlscacert", r.tlsFile("ca.pem"), "--tlscert", r.tlsFile("cert.pem"), "--tlskey", r.tlsFile("key.pem"))
	}
	return flags
}

// SSHFlags returns the flags for ssh that let the requests share a connection: an engine gets dozens at once, and an ssh server
// accepts about ten connections that have not logged in yet. They are nil where ssh cannot share one.
func SSHFlags() []string {
	cache, err := os.UserCacheDir()
	path := filepath.Join(cache, "trading-platform", "ssh-%C")
	// A socket's path is at most 104 bytes long on macOS. %C takes 40, and ssh appends 17.
	if err != nil || runtime.GOOS == "windows" || len(path) > 45 || os.MkdirAll(filepath.Dir(path), 0o700) != nil {
		return nil
	}
	return []string{"-o", "ControlMaster=auto", "-o", "ControlPath=" + path, "-o", "ControlPersist=60"}
}

// Machine returns the name or address of the machine that the engine runs on, or "" for this one.
func (r Ref) Machine() string {
	u, err := url.Parse(r.Host)
	if err != nil || u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback() {
		return ""
	}
	return u.Hostname()
}

// ConfigDir is the folder of the docker command's config.json and contexts.
func ConfigDir() string {
	home, _ := os.UserHomeDir() // without one, the folder is looked for in the current one, as the docker command does
	return cmp.Or(os.Getenv("DOCKER_CONFIG"), filepath.Join(home, ".docker"))
}
