package dockerprovider

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRegistryLogin(t *testing.T) {
	directory := t.TempDir()
	t.Setenv("DOCKER_CONFIG", directory)
	assert.Empty(t, registryAuth("alpine"), "no config is an anonymous pull")
	// user:password
	require.NoError(t, os.WriteFile(filepath.Join(directory, "config.json"), []byte(
		`{"auths":{"https://index.docker.io/v1/":{"auth":"aHVidXNlcjpodWJwYXNz"},"r.example.com":{"auth":"dXNlcjpwYXNzd29yZA=="}}}`), 0o600))
	assert.Equal(t, "hubuser", credentials("docker.io").Username)
	assert.Equal(t, "password", credentials("r.example.com").Password)
	assert.NotEmpty(t, registryAuth("r.example.com/app:1"))
	assert.Empty(t, registryAuth("other.example.com/app:1"))
}

func TestSchemaIsOfWhatIsServed(t *testing.T) {
	t.Parallel()
	resp, err := New().GetSchema(t.Context(), plugin.GetSchemaRequest{})
	require.NoError(t, err)
	var schema struct {
		Name      string
		Resources map[string]struct{ RequiredInputs []string }
	}
	require.NoError(t, json.Unmarshal(resp.Schema, &schema))
	assert.Equal(t, "docker", schema.Name)
	assert.Len(t, schema.Resources, 5)
	assert.Equal(t, []string{"name", "image"}, schema.Resources[containerToken].RequiredInputs)
}

func TestPluginInfo(t *testing.T) {
	t.Parallel()
	info, err := New().GetPluginInfo(t.Context())
	require.NoError(t, err)
	assert.Equal(t, Version, info.Version.String())
}
