package airgap

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// checkout copies what references are made of, with a small program in the reference app's place.
func checkout(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(root, "airgap"), os.DirFS(".")))
	compile, err := filepath.Abs("../tools/compile")
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(root, "tools"), 0o755))
	require.NoError(t, os.Symlink(compile, filepath.Join(root, "tools/compile")))
	write(t, root, "apps/reference/go.mod", "module reference\n\ngo 1.26\n")
	write(t, root, "apps/reference/main.go", "package main\n\nfunc main() {}\n")
	return root
}

func write(t *testing.T, root, path, text string) {
	t.Helper()
	path = filepath.Join(root, path)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	require.NoError(t, err)
	_, err = file.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}

func TestReferences(t *testing.T) {
	root := checkout(t)
	first, err := References(root)
	require.NoError(t, err)
	for name, version := range map[string]string{
		"postgres": "15-", "redis": "7.0.15-", "prometheus": "2.42.0-", "nginx": "1.22.1-",
		"loki_server": "3.0.0-", "promtail": "3.0.0-", "reference": "", "node_exporter": "1.5.0-",
	} {
		assert.Regexp(t, fmt.Sprintf("^trading-platform-airgap/%s:%s[0-9a-f]{12}$", name, version), first[name])
	}
	second, err := References(root)
	require.NoError(t, err)
	assert.Equal(t, first, second, "the same checkout gives the same references")
	elsewhere, err := References(checkout(t))
	require.NoError(t, err)
	assert.Equal(t, first, elsewhere, "another clone gives the same references")
}

func TestReferencesChangeWithWhatTheyAreMadeOf(t *testing.T) {
	all, err := References(checkout(t))
	require.NoError(t, err)
	every := slices.Collect(maps.Keys(all))
	for edit, changed := range map[string][]string{
		"airgap/base/build.sh":                 every,
		"airgap/postgres/docker-entrypoint.sh": {"postgres"},
		"airgap/redis/docker-entrypoint.sh":    {"redis"},
		"airgap/nginx/default.conf":            {"nginx"},
		"airgap/loki_server/local-config.yaml": {"loki_server"},
		"airgap/promtail/config.yml":           {"promtail"},
		"airgap/logging/go.sum":                {"loki_server", "promtail"},
		"airgap/logging/stubs.txtar":           {"loki_server", "promtail"},
		"apps/reference/main.go":               {"reference"},
		"apps/reference/assets/page.html":      {"reference"},
		"apps/reference/main_test.go":          nil,
		"apps/reference/reference":             nil, // what `go build` leaves there
		"airgap/README.md":                     nil,
		"airgap/airgap.go":                     nil,
		"catalog/base.go":                      nil,
	} {
		t.Run(edit, func(t *testing.T) {
			t.Parallel()
			root := checkout(t)
			before, err := References(root)
			require.NoError(t, err)
			write(t, root, edit, "\n")
			after, err := References(root)
			require.NoError(t, err)
			var differ []string
			for name := range before {
				if before[name] != after[name] {
					differ = append(differ, name)
				}
			}
			assert.ElementsMatch(t, changed, differ)
		})
	}
}

func TestReferencesOfAnIncompleteCheckout(t *testing.T) {
	t.Run("the reference app is left out without its source", func(t *testing.T) {
		root := checkout(t)
		require.NoError(t, os.RemoveAll(filepath.Join(root, "apps")))
		references, err := References(root)
		require.NoError(t, err)
		assert.NotEmpty(t, references)
		assert.NotContains(t, references, "reference")
	})
	t.Run("a missing recipe file is named", func(t *testing.T) {
		root := checkout(t)
		require.NoError(t, os.Remove(filepath.Join(root, "airgap/redis/docker-entrypoint.sh")))
		_, err := References(root)
		require.ErrorContains(t, err, "air-gap images: the recipe of redis: ")
		require.ErrorContains(t, err, "docker-entrypoint.sh")
	})
	t.Run("a folder that is no checkout is refused", func(t *testing.T) {
		root := t.TempDir()
		_, err := References(root)
		require.ErrorContains(t, err, root+" must be a checkout of this project")
	})
}

func TestRecipesAreWhole(t *testing.T) {
	loaded, err := load("..")
	require.NoError(t, err)
	for name, recipe := range loaded {
		t.Run(name, func(t *testing.T) {
			assert.NotEmpty(t, recipe.Config.Labels["org.opencontainers.image.source"])
			assert.Equal(t, recipe.Version, recipe.Config.Labels[VersionLabel])
			assert.NotEmpty(t, slices.Concat(recipe.Config.Entrypoint, recipe.Config.Cmd), "something to run")
			for volume := range recipe.Config.Volumes {
				assert.True(t, slices.ContainsFunc(recipe.Files, func(f file) bool { return "/"+f.Path == volume }), "%s is made, so that a new volume gets its owner", volume)
			}
		})
	}
}

func TestBuildRefusesUnknownNames(t *testing.T) {
	engine, err := client.New(client.WithHost("tcp://127.0.0.1:1")) // nothing answers there: it must not be asked
	require.NoError(t, err)
	err = Build(t.Context(), engine, checkout(t), []string{"grafana", "mysql", "grafana"}, nil)
	require.Error(t, err)
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, 2)
	assert.Regexp(t, `^air-gap images: there is no recipe for "grafana"; there are recipes for alertmanager, .*, reference$`, lines[0])
	assert.Regexp(t, `^there is no recipe for "mysql"; there are recipes for alertmanager, .*, reference$`, lines[1])
}

func TestBuildSaysThatTheEngineDoesNotAnswer(t *testing.T) {
	engine, err := client.New(client.WithHost("tcp://127.0.0.1:1"))
	require.NoError(t, err)
	err = Build(t.Context(), engine, checkout(t), []string{"redis"}, nil)
	require.ErrorContains(t, err, "air-gap images: asking the engine for trading-platform-airgap/redis:7.0.15-")
}

// testBuilder is a builder with a cache of its own, and the lines that it says.
func testBuilder(t *testing.T, root string) (*builder, *[]string) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	var lines []string
	b, err := newBuilder(root, func(line string) { lines = append(lines, line) })
	require.NoError(t, err)
	t.Cleanup(b.close)
	return b, &lines
}

func TestPrepareMakesPartsOnce(t *testing.T) {
	root := checkout(t)
	require.NoError(t, os.WriteFile(filepath.Join(root, "airgap/base/build.sh"), []byte("#!/bin/sh\necho made >\"$1\"\n"), 0o755))
	loaded, err := load(root)
	require.NoError(t, err)
	recipes := []recipe{loaded["redis"], loaded["reference"]}

	b, lines := testBuilder(t, root)
	require.NoError(t, b.prepare(t.Context(), recipes))
	assert.FileExists(t, b.basePath(recipes[0]))
	assert.FileExists(t, b.programPath(recipes[1].Program))
	steps := slices.DeleteFunc(slices.Clone(*lines), func(line string) bool {
		return !strings.Contains(line, "once") // how far a slow step is, and that it is done
	})
	assert.ElementsMatch(t, []string{"making the shared Debian 12 file system, once (about 1 minute)", "compiling reference, once (up to 6 minutes)"}, steps)

	*lines = nil
	require.NoError(t, b.prepare(t.Context(), recipes))
	assert.Empty(t, *lines, "what is in the cache is not made again")
}

func TestTheCacheForgetsWhatIsNotUsed(t *testing.T) {
	b, _ := testBuilder(t, "..")
	for name, hours := range map[string]int{"loki-used": 6 * 24, "loki-old": 8 * 24, "making-killed": 8 * 24, "making-running": 6 * 24} {
		write(t, b.cache, name+"/part", "")
		when := time.Now().Add(-time.Duration(hours) * time.Hour)
		require.NoError(t, os.Chtimes(filepath.Join(b.cache, name), when, when))
	}
	again, err := newBuilder("..", func(string) {})
	require.NoError(t, err)
	defer again.close()
	assert.NoDirExists(t, filepath.Join(b.cache, "loki-old"))
	assert.NoDirExists(t, filepath.Join(b.cache, "making-killed"))
	assert.DirExists(t, filepath.Join(b.cache, "loki-used"))
	assert.DirExists(t, filepath.Join(b.cache, "making-running"))
	assert.DirExists(t, b.scratch, "a run that goes on keeps its own")
}

func TestPrepareFailures(t *testing.T) {
	const makes = "#!/bin/sh\necho made >\"$1\"\n"
	for name, failure := range map[string]struct {
		base, program, path string
		want                []string
	}{
		"the file system": {
			base: "#!/bin/sh\nhead -c 10 /dev/zero >\"$1\"\necho 'E: no route to mirror' >&2\nexit 3\n", program: "package main\n\nfunc main() {}\n",
			want: []string{"the shared Debian file system could not be made", "it needs http://deb.debian.org", "exit status 3", "E: no route to mirror"},
		},
		"a program": {
			base: makes, program: "package main\n\nfunc main() { undefined() }\n",
			want: []string{"compiling reference failed", "set GOPROXY", "undefined: undefined"},
		},
		"no Go": {
			base: makes, program: "package main\n\nfunc main() {}\n", path: "/nonexistent",
			want: []string{"compiling reference: there is no go on PATH. Fix: install Go: https://go.dev/dl/"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := checkout(t)
			require.NoError(t, os.WriteFile(filepath.Join(root, "airgap/base/build.sh"), []byte(failure.base), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(root, "apps/reference/main.go"), []byte(failure.program), 0o644))
			if failure.path != "" {
				t.Setenv("PATH", failure.path)
			}
			loaded, err := load(root)
			require.NoError(t, err)
			b, _ := testBuilder(t, root)
			err = b.prepare(t.Context(), []recipe{loaded["reference"]})
			for _, want := range failure.want {
				require.ErrorContains(t, err, want)
			}
			b.close()
			left, err := filepath.Glob(filepath.Join(b.cache, "making-*"))
			require.NoError(t, err)
			assert.Empty(t, left, "nothing half-made stays behind")
		})
	}
}

// The archive is the same whenever and wherever it is made, and holds the base layer once.
func TestSave(t *testing.T) {
	loaded, err := load("..")
	require.NoError(t, err)
	recipes := []recipe{loaded["postgres"], loaded["redis"]}
	made := func() []byte {
		b, _ := testBuilder(t, "..")
		write(t, b.cache, filepath.Base(b.basePath(recipes[0])), "the base layer")
		var archive bytes.Buffer
		require.NoError(t, b.save(&archive, recipes))
		return archive.Bytes()
	}
	first := made()
	assert.True(t, bytes.Equal(first, made()))

	files := map[string]string{}
	for reader := tar.NewReader(bytes.NewReader(first)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		content, err := io.ReadAll(reader)
		require.NoError(t, err)
		files[header.Name] = string(content)
	}
	assert.Len(t, files, 2+3+1, "configurations, layers and the manifest")
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	require.NoError(t, json.Unmarshal([]byte(files["manifest.json"]), &manifest))
	require.Len(t, manifest, 2)
	postgres, redis := manifest[0], manifest[1]
	assert.Equal(t, []string{recipes[0].reference}, postgres.RepoTags)
	assert.Equal(t, postgres.Layers[0], redis.Layers[0])
	assert.Equal(t, "the base layer", files[postgres.Layers[0]])
	var image ocispec.Image
	require.NoError(t, json.Unmarshal([]byte(files[postgres.Config]), &image))
	assert.Equal(t, recipes[0].Config, image.Config)
	assert.Equal(t, "linux/"+runtime.GOARCH, image.OS+"/"+image.Architecture)
	require.Len(t, image.RootFS.DiffIDs, 2)
	for i, layer := range postgres.Layers {
		assert.Equal(t, digest.FromString(files[layer]), image.RootFS.DiffIDs[i])
	}
	assert.Equal(t, []string{
		"usr/local/bin/docker-entrypoint.sh 755 0",
		"docker-entrypoint-initdb.d/ 755 0",
		"run/postgresql/ 3777 999",
		"var/lib/postgresql/ 755 999",
		"var/lib/postgresql/data/ 700 999",
	}, entries(t, strings.NewReader(files[postgres.Layers[1]])))
}

// entries lists a tar file.
func entries(t *testing.T, from io.Reader) (found []string) {
	t.Helper()
	for reader := tar.NewReader(from); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		require.NoError(t, err)
		found = append(found, fmt.Sprintf("%s %o %d", header.Name, header.Mode, header.Uid))
	}
}

func TestLoadImagesReadsTheEngineAnswer(t *testing.T) {
	for answer, want := range map[string]string{
		`{"stream":"Loaded image: one:1\n"}{"stream":"Loaded image: two:1\n"}`:                                                      "",
		`{"stream":"Loaded image: one:1\n"}{"errorDetail":{"message":"no space left on device"},"error":"no space left on device"}`: "the engine did not load them: no space left on device. Fix: if its disk is full, `docker system df` shows what uses the space",
		`{"stream":`: "the engine did not load them: unexpected EOF",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, answer)
		}))
		defer server.Close()
		engine, err := client.New(client.WithHost(strings.Replace(server.URL, "http", "tcp", 1)), client.WithAPIVersion("1.44"))
		require.NoError(t, err)
		err = loadImages(t.Context(), engine, func(io.Writer) error { return nil })
		if want == "" {
			assert.NoError(t, err)
		} else {
			assert.ErrorContains(t, err, want)
		}
	}
}
