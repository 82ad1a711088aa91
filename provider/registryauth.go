package provider

import (
	"context"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"google.golang.org/grpc"

	engines "trading-platform/engine"
)

// credentials are what `docker login` stored for a registry, in the docker CLI's
// config.json or its credential helper. Without an entry they are empty, and the pull
// is anonymous.
func credentials(domain string) (registry.AuthConfig, error) {
	file, err := config.Load(engines.ConfigDir())
	if err != nil {
		return registry.AuthConfig{}, err
	}
	if domain == "registry-1.docker.io" { // BuildKit's name for Docker Hub
		domain = "docker.io"
	}
	found, err := file.GetAuthConfig(domain)
	if err != nil {
		return registry.AuthConfig{}, fmt.Errorf("credentials of %s: %w\nFix: `docker login`, or correct %s", domain, err, file.GetFilename())
	}
	return registry.AuthConfig(found), nil
}

// registryAuth returns the header with the credentials for a pull; an empty one makes the pull anonymous.
func registryAuth(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", err
	}
	found, err := credentials(reference.Domain(named))
	if err != nil || found.Username == "" && found.IdentityToken == "" && found.RegistryToken == "" {
		return "", err
	}
	return authconfig.Encode(found)
}

// registryLogin gives BuildKit the credentials that `docker login` stored.
type registryLogin struct{ auth.UnimplementedAuthServer }

// Register adds it to the session.
func (r registryLogin) Register(server *grpc.Server) { auth.RegisterAuthServer(server, r) }

// Credentials of a registry; empty ones make the pull anonymous.
func (registryLogin) Credentials(_ context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	found, err := credentials(strings.TrimPrefix(strings.TrimPrefix(req.GetHost(), "https://"), "http://"))
	if found.IdentityToken != "" {
		return &auth.CredentialsResponse{Secret: found.IdentityToken}, nil
	}
	return &auth.CredentialsResponse{Username: found.Username, Secret: found.Password}, err
}
