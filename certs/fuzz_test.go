package certs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/fault"
)

// FuzzCheck puts anything in the place of each file that nginx reads: it is checked, or refused with where it is.
func FuzzCheck(f *testing.F) {
	good := f.TempDir()
	_, err := Ensure(good, Options{Stack: "test", Names: []string{"localhost"}, Now: time.Now()})
	require.NoError(f, err)
	names := []string{"ca.crt", "server.crt", "server.key", "dhparam.pem"}
	for i, name := range names {
		content, err := os.ReadFile(filepath.Join(good, name))
		require.NoError(f, err)
		f.Add(uint8(i), content)
		f.Add(uint8(i), content[:len(content)/2])
		f.Add(uint8(i), append([]byte("\xef\xbb\xbf"), content...))
	}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add(uint8(2), []byte("-----BEGIN PRIVATE KEY-----\n\n-----END PRIVATE KEY-----\n"))
	f.Add(uint8(3), []byte("-----BEGIN DH PARAMETERS-----\nMAYCAQACAQI=\n-----END DH PARAMETERS-----\n"))
	dir := f.TempDir()
	require.NoError(f, os.CopyFS(dir, os.DirFS(good)))
	f.Fuzz(func(t *testing.T, which uint8, content []byte) {
		name := names[int(which)%len(names)]
		path := filepath.Join(dir, name)
		was, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		defer func() { require.NoError(t, os.WriteFile(path, was, 0o600)) }()
		if err := Check(dir, Options{Stack: "test", Names: []string{"localhost"}}); err != nil {
			var list fault.List
			require.ErrorAs(t, err, &list)
			for _, one := range list {
				assert.True(t, one.Where != "" && one.What != "" && one.Fix != "", "%+v", one)
			}
		}
		files, err := Load(dir)
		require.NoError(t, err)
		assert.Equal(t, string(content), files[name])
	})
}
