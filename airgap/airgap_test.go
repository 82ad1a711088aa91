package airgap

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// checkout copies what references are made of, with a small program in the reference app's place.
func checkout(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(root, "airgap"), os.DirFS(".")))
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
		"loki_server": "3.0.0-", "promtail": "3.0.0-", "reference": "",
	} {
		assert.Regexp(t, fmt.Sprintf("^trading-platform-airgap/%s:%s[0-9a-f]{12}$", name, version), first[name])
	}
	assert.Len(t, first, 7)

	second, err := References(root)
	require.NoError(t, err)
	assert.Equal(t, first, second, "the same checkout gives the same references")
	elsewhere, err := References(checkout(t))
	require.NoError(t, err)
	assert.Equal(t, first, elsewhere, "another clone gives the same references")
}

func TestReferencesChangeWithWhatTheyAreMadeOf(t *testing.T) {
	for edit, changed := range map[string][]string{
		"airgap/base/build.sh":                 {"loki_server", "nginx", "postgres", "prometheus", "promtail", "redis", "reference"},
		"airgap/postgres/docker-entrypoint.sh": {"postgres"},
		"airgap/redis/docker-entrypoint.sh":    {"redis"},
		"airgap/nginx/default.conf":            {"nginx"},
		"airgap/loki_server/local-config.yaml": {"loki_server"},
		"airgap/promtail/config.yml":           {"promtail"},
		"airgap/logging/go.sum":                {"loki_server", "promtail"},
		"apps/reference/main.go":               {"reference"},
		"apps/reference/assets/page.html":      {"reference"},
		"apps/reference/main_test.go":          nil,
		"apps/reference/reference":             nil, // what `go build` leaves there
		"airgap/README.md":                     nil,
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
		assert.Len(t, references, 6)
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
			assert.NotEmpty(t, recipe.config.Labels["org.opencontainers.image.source"])
			assert.Equal(t, recipe.version, recipe.config.Labels[VersionLabel])
			assert.NotEmpty(t, slices.Concat(recipe.config.Entrypoint, recipe.config.Cmd), "something to run")
			for volume := range recipe.config.Volumes {
				assert.True(t, slices.ContainsFunc(recipe.entries, func(e entry) bool { return "/"+e.Path == volume }), "%s is made, so that a new volume gets its owner", volume)
			}
		})
	}
}

func TestBuildRefusesUnknownNames(t *testing.T) {
	engine, err := client.New(client.WithHost("tcp://127.0.0.1:1")) // nothing answers there: it must not be asked
	require.NoError(t, err)
	err = Build(t.Context(), engine, checkout(t), []string{"grafana", "mysql", "grafana"}, nil)
	require.EqualError(t, err, `air-gap images: there is no recipe for "grafana"; those there are: loki_server, nginx, postgres, prometheus, promtail, redis, reference
air-gap images: there is no recipe for "mysql"; those there are: loki_server, nginx, postgres, prometheus, promtail, redis, reference`)
}

func TestBuildSaysThatTheEngineDoesNotAnswer(t *testing.T) {
	engine, err := client.New(client.WithHost("tcp://127.0.0.1:1"))
	require.NoError(t, err)
	err = Build(t.Context(), engine, checkout(t), []string{"redis"}, nil)
	require.ErrorContains(t, err, "air-gap images: asking the engine for trading-platform-airgap/redis:7.0.15-")
}

// bench opens a workshop with a cache of its own.
func bench(t *testing.T, root string) (*workshop, *[]string) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	var lines []string
	workshop, err := openWorkshop(root, func(line string) { lines = append(lines, line) })
	require.NoError(t, err)
	t.Cleanup(workshop.close)
	return workshop, &lines
}

func TestPrepareMakesPartsOnce(t *testing.T) {
	root := checkout(t)
	base := filepath.Join(root, "airgap/base/build.sh")
	require.NoError(t, os.WriteFile(base, []byte("#!/bin/sh\necho made >\"$1\"\n"), 0o755))
	loaded, err := load(root)
	require.NoError(t, err)
	recipes := []recipe{loaded["redis"], loaded["reference"]}

	workshop, lines := bench(t, root)
	workshop.progress = serialised(workshop.progress)
	require.NoError(t, workshop.prepare(t.Context(), recipes))
	assert.FileExists(t, workshop.basePath(recipes[0]))
	assert.FileExists(t, workshop.programPath(recipes[1].program))
	assert.Contains(t, *lines, "making the shared Debian 12 file system, once (about 1 minute)")
	assert.Contains(t, *lines, "compiling reference, once (under 1 minute)")
	steps := slices.DeleteFunc(slices.Clone(*lines), func(line string) bool {
		return !strings.Contains(line, "once") && !strings.Contains(line, "done") // how far a slow step is
	})
	assert.Len(t, steps, 4, "each step says that it starts and that it is done: %v", *lines)

	*lines = nil
	require.NoError(t, workshop.prepare(t.Context(), recipes))
	assert.Empty(t, *lines, "what is in the cache is not made again")
}

func TestTheCacheKeepsTheLatestOfEachPart(t *testing.T) {
	workshop, _ := bench(t, "..")
	for age, name := range []string{"loki-new", "loki-recent", "loki-old", "loki-oldest", "promtail-oldest"} {
		write(t, workshop.cache, name, "")
		when := time.Now().Add(-time.Duration(age+1) * time.Hour)
		require.NoError(t, os.Chtimes(filepath.Join(workshop.cache, name), when, when))
	}
	workshop.used(filepath.Join(workshop.cache, "loki-oldest"))
	left, err := filepath.Glob(filepath.Join(workshop.cache, "*-[nor]*"))
	require.NoError(t, err)
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	assert.ElementsMatch(t, []string{"loki-new", "loki-recent", "loki-oldest", "promtail-oldest"}, left)
}

func TestPrepareFailures(t *testing.T) {
	for name, failure := range map[string]struct {
		base, program, path string
		want                []string
	}{
		"the file system": {
			base: "#!/bin/sh\nhead -c 10 /dev/zero >\"$1\"\necho 'E: no route to mirror' >&2\nexit 3\n", program: "package main\n\nfunc main() {}\n",
			want: []string{"the shared Debian file system could not be made", "it needs http://deb.debian.org", "exit status 3", "E: no route to mirror"},
		},
		"a program": {
			base: "#!/bin/sh\necho made >\"$1\"\n", program: "package main\n\nfunc main() { undefined() }\n",
			want: []string{"compiling reference failed", "set GOPROXY", "undefined: undefined"},
		},
		"no Go": {
			base: "#!/bin/sh\necho made >\"$1\"\n", program: "package main\n\nfunc main() {}\n", path: "/nonexistent",
			want: []string{"compiling reference: no go on PATH; install Go: https://go.dev/dl/"},
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
			workshop, _ := bench(t, root)
			workshop.progress = serialised(workshop.progress)
			err = workshop.prepare(t.Context(), []recipe{loaded["reference"]})
			for _, want := range failure.want {
				require.ErrorContains(t, err, want)
			}
			workshop.close()
			left, err := filepath.Glob(filepath.Join(workshop.cache, "making-*"))
			require.NoError(t, err)
			assert.Empty(t, left, "nothing half-made stays behind")
		})
	}
}

func TestOpenWorkshopRemovesWhatAKilledRunLeft(t *testing.T) {
	workshop, _ := bench(t, "..")
	old := filepath.Join(workshop.cache, "making-old")
	require.NoError(t, os.Mkdir(old, 0o755))
	require.NoError(t, os.Chtimes(old, time.Time{}, time.Now().Add(-25*time.Hour)))
	again, err := openWorkshop("..", nil)
	require.NoError(t, err)
	defer again.close()
	assert.NoDirExists(t, old)
	assert.DirExists(t, workshop.scratch, "a run that goes on keeps its own")
}

func TestOwnLayer(t *testing.T) {
	loaded, err := load("..")
	require.NoError(t, err)
	workshop, _ := bench(t, "..")
	first, err := workshop.ownLayer(loaded["postgres"])
	require.NoError(t, err)
	content, err := os.ReadFile(first.path)
	require.NoError(t, err)
	assert.Equal(t, digest.FromBytes(content), first.id)
	second, err := workshop.ownLayer(loaded["postgres"])
	require.NoError(t, err)
	assert.Equal(t, first.id, second.id, "made again, it is the same")

	var found []string
	for reader := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		found = append(found, fmt.Sprintf("%s %o %d", header.Name, header.Mode, header.Uid))
	}
	assert.Equal(t, []string{
		"usr/local/bin/docker-entrypoint.sh 755 0",
		"docker-entrypoint-initdb.d/ 755 0",
		"run/postgresql/ 3777 999",
		"var/lib/postgresql/ 755 999",
		"var/lib/postgresql/data/ 700 999",
	}, found)
}

func TestArchiveHoldsEachLayerOnce(t *testing.T) {
	root := t.TempDir()
	var layers []layer
	for _, name := range []string{"base", "one", "two"} {
		write(t, root, name, "layer "+name)
		id, err := fileDigest(filepath.Join(root, name))
		require.NoError(t, err)
		layers = append(layers, layer{path: filepath.Join(root, name), id: id})
	}
	manifests := []manifest{
		{Config: "1.json", RepoTags: []string{"one:1"}, Layers: []string{layers[0].name(), layers[1].name()}},
		{Config: "2.json", RepoTags: []string{"two:1"}, Layers: []string{layers[0].name(), layers[2].name()}},
	}
	var archive bytes.Buffer
	require.NoError(t, writeArchive(&archive, layers, map[string][]byte{"1.json": []byte("{}"), "2.json": []byte("{}")}, manifests))

	files := map[string]string{}
	for reader := tar.NewReader(&archive); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.NotContains(t, files, header.Name)
		content, err := io.ReadAll(reader)
		require.NoError(t, err)
		files[header.Name] = string(content)
	}
	assert.Equal(t, "layer base", files[layers[0].name()])
	assert.Len(t, files, 6)
	var read []manifest
	require.NoError(t, json.Unmarshal([]byte(files["manifest.json"]), &read))
	assert.Equal(t, manifests, read)
}

func TestLoadedReadsTheEngineAnswer(t *testing.T) {
	assert.NoError(t, loaded(strings.NewReader(`{"stream":"Loaded image: one:1\n"}{"stream":"Loaded image: two:1\n"}`)))
	require.EqualError(t, loaded(strings.NewReader(`{"stream":"Loaded image: one:1\n"}{"errorDetail":{},"error":"no space left on device"}`)),
		"air-gap images: the engine did not take them: no space left on device; when its disk is full, docker system df shows what fills it")
	require.ErrorContains(t, loaded(strings.NewReader(`{"stream":`)), "the engine's answer")
}
