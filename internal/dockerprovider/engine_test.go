package dockerprovider

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEngineAddress(t *testing.T) {
	cases := map[string]struct {
		config  engineConfig
		env     map[string]string
		current string
		want    string
		err     string
	}{
		"nothing is set":                 {},
		"the provider's host":            {config: engineConfig{Host: "tcp://a:1"}, env: map[string]string{"DOCKER_HOST": "tcp://b:1"}, want: "tcp://a:1"},
		"the provider's context":         {config: engineConfig{Context: "far"}, env: map[string]string{"DOCKER_HOST": "tcp://b:1"}, want: "tcp://far:2375"},
		"DOCKER_HOST":                    {env: map[string]string{"DOCKER_HOST": "tcp://b:1", "DOCKER_CONTEXT": "far"}, want: "tcp://b:1"},
		"DOCKER_CONTEXT":                 {env: map[string]string{"DOCKER_CONTEXT": "far"}, current: "none", want: "tcp://far:2375"},
		"the CLI's current context":      {current: "far", want: "tcp://far:2375"},
		"the CLI's default context":      {current: "default"},
		"a context that is not there":    {config: engineConfig{Context: "none"}, err: "docker context ls"},
		"an unknown context of the CLIs": {current: "none", err: `docker context "none"`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			hash := sha256.Sum256([]byte("far"))
			meta := filepath.Join(directory, "contexts", "meta", hex.EncodeToString(hash[:]))
			require.NoError(t, os.MkdirAll(meta, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(meta, "meta.json"),
				[]byte(`{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2375"}}}`), 0o600))
			if c.current != "" {
				require.NoError(t, os.WriteFile(filepath.Join(directory, "config.json"), []byte(`{"currentContext":"`+c.current+`"}`), 0o600))
			}
			for _, name := range []string{"DOCKER_HOST", "DOCKER_CONTEXT"} {
				t.Setenv(name, c.env[name])
			}
			t.Setenv("DOCKER_CONFIG", directory)
			got, err := engineAddress(c.config)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestSSHIsRefusedWithAWayOut(t *testing.T) {
	t.Parallel()
	_, err := connect(engineConfig{Host: "ssh://far"})
	require.ErrorContains(t, err, "forward its socket")
}

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
