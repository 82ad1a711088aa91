package provider

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRegistryLogin(t *testing.T) {
	directory := t.TempDir()
	t.Setenv("DOCKER_CONFIG", directory)
	t.Setenv("PATH", directory+":"+os.Getenv("PATH"))
	login := func(image string) string {
		header, err := registryAuth(image)
		require.NoError(t, err)
		return header
	}
	user := func(domain string) string {
		found, err := credentials(domain)
		require.NoError(t, err)
		return found.Username + ":" + found.Password
	}
	assert.Empty(t, login("alpine"), "no config is an anonymous pull")
	require.NoError(t, os.WriteFile(filepath.Join(directory, "docker-credential-fake"), []byte(
		`#!/bin/sh
read domain; echo '{"ServerURL":"'$domain'","Username":"helper","Secret":"for '$domain'"}'
`), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(directory, "config.json"), []byte(
		`{"auths":{"https://index.docker.io/v1/":{"auth":"aHVidXNlcjpodWJwYXNz"},"r.example.com":{"auth":"dXNlcjpwYXNzd29yZA=="}},`+
			`"credHelpers":{"h.example.com":"fake","gone.example.com":"none"}}`), 0o600))
	assert.Equal(t, "hubuser:hubpass", user("docker.io"))
	assert.Equal(t, "hubuser:hubpass", user("registry-1.docker.io"), "as BuildKit calls it")
	assert.Equal(t, "user:password", user("r.example.com"))
	assert.Equal(t, "helper:for h.example.com", user("h.example.com"))
	assert.NotEmpty(t, login("h.example.com/app:1"))
	assert.Empty(t, login("other.example.com/app:1"))
	_, err := registryAuth("gone.example.com/app:1")
	require.ErrorContains(t, err, "docker-credential-none")
	require.ErrorContains(t, err, "Fix: `docker login`")
}

func TestSchemaIsOfWhatIsServed(t *testing.T) {
	t.Parallel()
	resp, err := withEngine(t, nil).GetSchema(p.GetSchemaRequest{})
	require.NoError(t, err)
	var schema struct {
		Name      string
		Resources map[string]struct{ RequiredInputs []string }
	}
	require.NoError(t, json.Unmarshal([]byte(resp.Schema), &schema))
	assert.Equal(t, "docker", schema.Name)
	assert.Len(t, schema.Resources, 8)
	assert.Equal(t, []string{"name", "image"}, schema.Resources[containerToken].RequiredInputs)
}
