package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAddress(t *testing.T) {
	cases := map[string]struct {
		host    string
		context string
		env     map[string]string
		current string
		want    string
		err     string
	}{
		"nothing is set":                 {want: client.DefaultDockerHost},
		"the provider's host":            {host: "tcp://a:1", env: map[string]string{"DOCKER_HOST": "tcp://b:1"}, want: "tcp://a:1"},
		"the provider's context":         {context: "far", env: map[string]string{"DOCKER_HOST": "tcp://b:1"}, want: "tcp://far:2375"},
		"DOCKER_HOST":                    {env: map[string]string{"DOCKER_HOST": "tcp://b:1", "DOCKER_CONTEXT": "far"}, want: "tcp://b:1"},
		"DOCKER_CONTEXT":                 {env: map[string]string{"DOCKER_CONTEXT": "far"}, current: "none", want: "tcp://far:2375"},
		"the CLI's current context":      {current: "far", want: "tcp://far:2375"},
		"the CLI's default context":      {current: "default", want: client.DefaultDockerHost},
		"a context that is not there":    {context: "none", err: "docker context ls"},
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
			got, err := endpoint(c.host, c.context)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got.Host)
		})
	}
}

func TestAnEngineOverSSH(t *testing.T) {
	t.Parallel()
	c, err := Open("ssh://far", "")
	require.NoError(t, err)
	assert.NotContains(t, c.DaemonHost(), "unix://", "its ports and folders are not this host's")
}
