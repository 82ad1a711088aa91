package provider

import (
	"cmp"
	"os"
	"path/filepath"
	"testing"
	"time"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// checkout writes files into a new folder.
func checkout(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return root
}

var contextFiles = map[string]string{
	"Dockerfile": "FROM scratch\n", "main.go": "package main\n", "data/big": "1", "data/keep": "2", "logs/a.log": "3",
	".dockerignore": "data/*\n!data/keep\n**/*.log\nDockerfile\n",
}

func hashOf(t *testing.T, root, dockerfile string) string {
	t.Helper()
	resp, err := withEngine(t, nil).Check(p.CheckRequest{Urn: urnOf(imageType), Inputs: properties(map[string]any{
		"imageName": "app:dev", "skipPush": true, "buildOnPreview": false,
		"build": map[string]any{"context": root, "dockerfile": cmp.Or(dockerfile, filepath.Join(root, "Dockerfile"))},
	})})
	require.NoError(t, err)
	require.Empty(t, resp.Failures)
	return resp.Inputs.Get(contextHashKey).AsString()
}

func TestContextHashChangesWithTheBuild(t *testing.T) {
	t.Parallel()
	write := func(name, content string) func(t *testing.T, root string) {
		return func(t *testing.T, root string) {
			t.Helper()
			require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(content), 0o600))
		}
	}
	cases := map[string]struct {
		edit    func(t *testing.T, root string)
		changes bool
	}{
		"a file":                       {write("main.go", "package main // edited\n"), true},
		"a new file":                   {write("new.go", ""), true},
		"an ignored file":              {write("data/big", "11"), false},
		"a file that is taken back in": {write("data/keep", "22"), true},
		"an ignored pattern":           {write("logs/a.log", "33"), false},
		"an ignored Dockerfile, which is built from all the same": {write("Dockerfile", "FROM other\n"), true},
		"a time": {func(t *testing.T, root string) {
			t.Helper()
			require.NoError(t, os.Chtimes(filepath.Join(root, "main.go"), time.Now(), time.Now().Add(-time.Hour)))
		}, false},
		"an executable bit": {func(t *testing.T, root string) {
			t.Helper()
			require.NoError(t, os.Chmod(filepath.Join(root, "main.go"), 0o700))
		}, true},
		"a link": {func(t *testing.T, root string) {
			t.Helper()
			require.NoError(t, os.Symlink("main.go", filepath.Join(root, "link")))
		}, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := checkout(t, contextFiles)
			before := hashOf(t, root, "")
			c.edit(t, root)
			assert.Equal(t, c.changes, before != hashOf(t, root, ""))
		})
	}
}

func TestContextHashIsOfTheFilesAlone(t *testing.T) {
	t.Parallel()
	first, second := checkout(t, contextFiles), checkout(t, contextFiles)
	assert.Equal(t, hashOf(t, first, ""), hashOf(t, second, ""))
}

func TestDockerfilesOwnIgnoreFileWins(t *testing.T) {
	t.Parallel()
	root := checkout(t, merge(contextFiles, map[string]string{"apps/a/Dockerfile": "FROM a\n", "apps/a/Dockerfile.dockerignore": "*.go\n"}))
	dockerfile := filepath.Join(root, "apps/a/Dockerfile")
	before := hashOf(t, root, dockerfile)
	require.NoError(t, os.WriteFile(filepath.Join(root, "main.go"), []byte("x"), 0o600))
	assert.Equal(t, before, hashOf(t, root, dockerfile))
	require.NoError(t, os.WriteFile(filepath.Join(root, "data/big"), []byte("x"), 0o600))
	assert.NotEqual(t, before, hashOf(t, root, dockerfile))
}

func merge(a, b map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range []map[string]string{a, b} {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}
