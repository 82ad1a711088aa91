package dockerprovider

import (
	"encoding/base64"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"

	engines "trading-platform/internal/engine"
)

// dockerHub is the key under which the docker CLI files Docker Hub's credentials.
const dockerHub = "https://index.docker.io/v1/"

// credentials are what `docker login` stored for a registry in the docker CLI's
// config.json. Credential helpers are not asked; without an entry it is the empty
// config, that is an anonymous pull.
func credentials(domain string) registry.AuthConfig {
	var cli struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			IdentityToken string `json:"identitytoken"`
		} `json:"auths"`
	}
	if err := engines.ReadJSON(filepath.Join(engines.ConfigDir(), "config.json"), &cli); err != nil {
		return registry.AuthConfig{}
	}
	keys := []string{domain, "https://" + domain}
	if domain == "docker.io" || domain == "registry-1.docker.io" {
		keys = append(keys, dockerHub)
	}
	for _, key := range keys {
		entry, ok := cli.Auths[key]
		if !ok {
			continue
		}
		decoded, err := base64.StdEncoding.DecodeString(entry.Auth)
		if err != nil {
			continue
		}
		user, password, _ := strings.Cut(string(decoded), ":")
		return registry.AuthConfig{
			Username: user, Password: password, IdentityToken: entry.IdentityToken, ServerAddress: key,
		}
	}
	return registry.AuthConfig{}
}

// registryAuth is the header that pulls an image; "" pulls it anonymously.
func registryAuth(image string) string {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return ""
	}
	found := credentials(reference.Domain(named))
	if found == (registry.AuthConfig{}) {
		return ""
	}
	header, err := authconfig.Encode(found)
	if err != nil {
		return ""
	}
	return header
}
