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

func TestFind(t *testing.T) {
	cases := map[string]struct {
		host    string
		env     map[string]string
		current string
		want    string
		err     string
	}{
		"nothing is set":                 {want: client.DefaultDockerHost},
		"the provider's host":            {host: "tcp://a:1", env: map[string]string{"DOCKER_HOST": "tcp://b:1"}, want: "tcp://a:1"},
		"DOCKER_HOST":                    {env: map[string]string{"DOCKER_HOST": "tcp://b:1", "DOCKER_CONTEXT": "far"}, want: "tcp://b:1"},
		"DOCKER_CONTEXT":                 {env: map[string]string{"DOCKER_CONTEXT": "far"}, current: "none", want: "tcp://far:2375"},
		"the CLI's current context":      {current: "far", want: "tcp://far:2375"},
		"the CLI's default context":      {current: "default", want: client.DefaultDockerHost},
		"a context that is not there":    {env: map[string]string{"DOCKER_CONTEXT": "none"}, err: "docker context ls"},
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
			got, err := Find(c.host, "")
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
	ref, err := Find("ssh://far", "")
	require.NoError(t, err)
	assert.Equal(t, "far", ref.Machine())
	c, err := ref.Open()
	require.NoError(t, err)
	assert.NotContains(t, c.DaemonHost(), "unix://", "its ports and folders are not this host's")
}

func TestMachine(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"unix:///var/run/docker.sock": "", "npipe:////./pipe/docker_engine": "", "tcp://127.0.0.1:2375": "", "tcp://[::1]:2375": "", "tcp://localhost:2375": "",
		"tcp://far:2376": "far", "tcp://10.0.0.5:2376": "10.0.0.5", "ssh://me@far:2222": "far", "ssh://far": "far",
	} {
		assert.Equal(t, want, Ref{Host: host}.Machine(), host)
	}
}

func TestTLSFiles(t *testing.T) {
	directory := t.TempDir()
	t.Setenv("DOCKER_CONFIG", directory)
	t.Setenv("DOCKER_CERT_PATH", "/environment")
	for _, name := range []string{"DOCKER_HOST", "DOCKER_CONTEXT"} {
		t.Setenv(name, "")
	}
	hash := sha256.Sum256([]byte("far"))
	write := func(kind, file, text string) {
		path := filepath.Join(directory, "contexts", kind, hex.EncodeToString(hash[:]), file)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	certs := func(host, context, given string) string {
		t.Helper()
		t.Setenv("DOCKER_CONTEXT", context)
		ref, err := Find(host, given)
		require.NoError(t, err)
		return ref.Certs
	}
	write("meta", "meta.json", `{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2376"}}}`)
	assert.Equal(t, "/environment", certs("", "far", ""), "a context without files")
	write("tls", "docker/ca.pem", "")
	assert.Equal(t, filepath.Join(directory, "contexts", "tls", hex.EncodeToString(hash[:]), "docker"), certs("", "far", ""))
	assert.Equal(t, "/environment", certs("tcp://near:2376", "", ""))
	assert.Equal(t, "/given", certs("tcp://near:2376", "", "/given"))
	assert.Empty(t, certs("", "", ""), "a local socket has none")
	_, err := Ref{Host: "tcp://near:2376", Certs: "/given"}.Open()
	assert.ErrorContains(t, err, "docker engine tcp://near:2376: ", "the files do not exist")
}
