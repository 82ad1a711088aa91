package backup

import (
	"archive/zip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// saved writes a backup with two entries.
func saved(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data.zip")
	w, err := create(path, Manifest{Format: format, Stack: "dev"})
	require.NoError(t, err)
	for name, method := range map[string]uint16{"stored": zip.Store, "deflated": zip.Deflate} {
		require.NoError(t, w.add(Entry{Name: name}, method, func(to io.Writer) error {
			_, err := io.WriteString(to, "the content of "+name)
			return err
		}))
	}
	assert.NoFileExists(t, path, "before it is complete")
	require.NoError(t, w.finish())
	return path
}

func TestAFileIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	f, err := Open(saved(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	assert.Equal(t, "dev", f.Manifest.Stack)
	assert.Len(t, f.Manifest.Entries, 2)
	for _, e := range f.Manifest.Entries {
		require.NoError(t, f.read(e, func(r io.Reader) error {
			content, err := io.ReadAll(r)
			assert.Equal(t, "the content of "+e.Name, string(content))
			return err
		}))
	}
}

// TestNoDamagePasses flips a bit of each byte of a backup in turn. Either it is refused, or what is restored is what was saved.
func TestNoDamagePasses(t *testing.T) {
	t.Parallel()
	path := saved(t)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	refused := 0
	for i := range whole {
		whole[i] ^= 1 << (i % 8)
		require.NoError(t, os.WriteFile(path, whole, 0o600))
		whole[i] ^= 1 << (i % 8)
		f, err := Open(path)
		if err != nil {
			refused++
			continue
		}
		require.Len(t, f.Manifest.Entries, 2)
		for _, e := range f.Manifest.Entries {
			require.NoError(t, f.read(e, func(r io.Reader) error {
				content, err := io.ReadAll(r)
				require.Equal(t, "the content of "+e.Name, string(content), "byte %d", i)
				return err
			}))
		}
		require.NoError(t, f.Close())
	}
	// Times and the like, which nothing is restored from, may differ.
	assert.Greater(t, refused, len(whole)/2, "most of the damage is seen")
}

func TestAFileThatIsCutShortIsRefused(t *testing.T) {
	t.Parallel()
	path := saved(t)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for length := range whole {
		require.NoError(t, os.WriteFile(path, whole[:length], 0o600))
		_, err := Open(path)
		require.ErrorContains(t, err, "is not a complete backup", "%d of %d bytes", length, len(whole))
	}
}

func TestAnInterruptedFileLeavesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data.zip")
	w, err := create(path, Manifest{})
	require.NoError(t, err)
	require.ErrorIs(t, w.add(Entry{Name: "half"}, zip.Store, func(io.Writer) error { return io.ErrUnexpectedEOF }), io.ErrUnexpectedEOF)
	require.NoError(t, w.discard())
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestNewer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b  string
		parts int
		want  bool
	}{
		{"16.4 (Debian 16.4-1)", "15", 1, true},
		{"15.20", "15", 1, false},
		{"13", "15", 1, false},
		{"7.2.5", "7.0.15", 2, true},
		{"7.0.15", "7.0.4", 2, false},
		{"6.2", "7.0", 2, false},
	} {
		assert.Equal(t, test.want, newer(test.a, test.b, test.parts), "%s and %s", test.a, test.b)
	}
}
