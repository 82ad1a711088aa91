package airgap

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// format is part of every hash: raise it when the code that turns a recipe into an image starts to make another image of
// the same recipe.
const format = 1

// recipe is what one image is made from, over the base layer.
type recipe struct {
	// name is the catalog service that runs the image.
	name string
	// version is the program's, for the tag and VersionLabel; empty for what is not released.
	version string
	// program, unless nil, is compiled on the host and put in the image.
	program *program
	// entries are the image's other files and folders, in the order in which they are written.
	entries []entry
	// config is what the engine runs and how, in the words of the OCI image specification.
	config ocispec.ImageConfig

	// reference names the image: filled in by load.
	reference string
	// base is the hash of the base layer: filled in by load.
	base string
}

// program is a static Linux binary that the host's Go compiles.
type program struct {
	// name of the binary.
	name string
	// module is the folder of its Go module, from the checkout's root.
	module string
	// pkg is its import path, or a path inside the module.
	pkg string
	// ldflags are linker flags besides those that strip it.
	ldflags string
	// path of the binary in the image.
	path string

	// hash of all that it is compiled from: filled in by load.
	hash string
}

// entry is one path of a layer: a file when From or Text is set, a symbolic link when Link is, else a folder.
type entry struct {
	Path string
	// Mode holds the permission bits, the sticky and set-id ones included, as chmod takes them.
	Mode int64
	// Owner is the number of both user and group.
	Owner int
	// From is a file of the checkout, from the package's folder.
	From string
	// Link is where a symbolic link points.
	Link string

	// content of From: filled in by load.
	content []byte
}

const (
	source     = "https://www.debian.org/releases/bookworm/"
	lokiSource = "https://github.com/grafana/loki"

	// Numbers of the users that base/build.sh makes.
	appUser      = 1000
	lokiUser     = 10001
	nobodyUser   = 65534
	postgresUser = 999
	redisUser    = 998
)

// recipes lists every image. Debian 12 settles the versions: its updates stay within PostgreSQL 15, Redis 7.0.15,
// Prometheus 2.42.0 and nginx 1.22.1.
func recipes() []recipe {
	lokiFlags := "-X github.com/grafana/loki/v3/pkg/util/build.Version=3.0.0"
	search := "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

	return []recipe{
		{
			name: "postgres", version: "15",
			entries: []entry{
				{Path: "usr/local/bin/docker-entrypoint.sh", Mode: 0o755, From: "postgres/docker-entrypoint.sh"},
				{Path: "docker-entrypoint-initdb.d", Mode: 0o755},
				{Path: "run/postgresql", Mode: 0o3777, Owner: postgresUser},
				{Path: "var/lib/postgresql", Mode: 0o755, Owner: postgresUser},
				{Path: "var/lib/postgresql/data", Mode: 0o700, Owner: postgresUser},
			},
			config: ocispec.ImageConfig{
				Env:          []string{search + ":/usr/lib/postgresql/15/bin", "LANG=en_US.utf8", "PG_MAJOR=15", "PGDATA=/var/lib/postgresql/data"},
				Entrypoint:   []string{"docker-entrypoint.sh"},
				Cmd:          []string{"postgres"},
				ExposedPorts: set("5432/tcp"),
				Volumes:      set("/var/lib/postgresql/data"),
				StopSignal:   "SIGINT", // a fast shutdown: clients are cut off, and a checkpoint is written
				Labels:       labels(source, "PostgreSQL"),
			},
		},
		{
			name: "redis", version: "7.0.15",
			entries: []entry{
				{Path: "usr/local/bin/docker-entrypoint.sh", Mode: 0o755, From: "redis/docker-entrypoint.sh"},
				{Path: "data", Mode: 0o755, Owner: redisUser},
			},
			config: ocispec.ImageConfig{
				Env:          []string{search, "REDIS_VERSION=7.0.15"},
				Entrypoint:   []string{"docker-entrypoint.sh"},
				Cmd:          []string{"redis-server"},
				WorkingDir:   "/data",
				ExposedPorts: set("6379/tcp"),
				Volumes:      set("/data"),
				Labels:       labels(source, "Redis"),
			},
		},
		{
			name: "prometheus", version: "2.42.0",
			entries: []entry{
				{Path: "prometheus", Mode: 0o755, Owner: nobodyUser},
			},
			config: ocispec.ImageConfig{
				Env:          []string{search},
				Entrypoint:   []string{"/bin/prometheus"},
				Cmd:          []string{"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"},
				WorkingDir:   "/prometheus",
				User:         "nobody",
				ExposedPorts: set("9090/tcp"),
				Volumes:      set("/prometheus"),
				Labels:       labels(source, "Prometheus"),
			},
		},
		{
			name: "nginx", version: "1.22.1",
			entries: []entry{
				{Path: "etc/nginx/nginx.conf", Mode: 0o644, From: "nginx/nginx.conf"},
				{Path: "etc/nginx/conf.d/default.conf", Mode: 0o644, From: "nginx/default.conf"},
				{Path: "var/cache/nginx", Mode: 0o755},
				{Path: "var/log/nginx", Mode: 0o755},
				{Path: "var/log/nginx/access.log", Link: "/dev/stdout"},
				{Path: "var/log/nginx/error.log", Link: "/dev/stderr"},
			},
			config: ocispec.ImageConfig{
				Env:          []string{search, "NGINX_VERSION=1.22.1"},
				Cmd:          []string{"nginx", "-g", "daemon off;"},
				ExposedPorts: set("80/tcp", "443/tcp"),
				StopSignal:   "SIGQUIT", // requests that are being answered are finished first
				Labels:       labels(source, "nginx"),
			},
		},
		{
			name: "loki_server", version: "3.0.0",
			program: &program{
				name: "loki", module: "airgap/logging", pkg: "github.com/grafana/loki/v3/cmd/loki",
				ldflags: lokiFlags, path: "usr/bin/loki",
			},
			entries: []entry{
				{Path: "etc/loki", Mode: 0o755},
				{Path: "etc/loki/local-config.yaml", Mode: 0o644, From: "loki_server/local-config.yaml"},
				{Path: "loki", Mode: 0o755, Owner: lokiUser},
			},
			config: ocispec.ImageConfig{
				Env:          []string{search},
				Entrypoint:   []string{"/usr/bin/loki"},
				Cmd:          []string{"-config.file=/etc/loki/local-config.yaml"},
				User:         "10001",
				ExposedPorts: set("3100/tcp"),
				Labels:       labels(lokiSource, "Grafana Loki"),
			},
		},
		{
			name: "promtail", version: "3.0.0",
			program: &program{
				name: "promtail", module: "airgap/logging", pkg: "github.com/grafana/loki/v3/clients/cmd/promtail",
				ldflags: lokiFlags, path: "usr/bin/promtail",
			},
			entries: []entry{
				{Path: "etc/promtail", Mode: 0o755},
				{Path: "etc/promtail/config.yml", Mode: 0o644, From: "promtail/config.yml"},
			},
			config: ocispec.ImageConfig{
				Env:        []string{search},
				Entrypoint: []string{"/usr/bin/promtail"},
				Cmd:        []string{"-config.file=/etc/promtail/config.yml"},
				Labels:     labels(lokiSource, "Grafana Promtail"),
			},
		},
		{
			name:    "reference",
			program: &program{name: "reference", module: "apps/reference", pkg: ".", path: "app/reference"},
			entries: []entry{
				{Path: "app", Mode: 0o755, Owner: appUser},
				{Path: "app/data", Mode: 0o755, Owner: appUser},
				{Path: "app/data/backtest_results", Mode: 0o755, Owner: appUser},
				{Path: "app/data/models", Mode: 0o755, Owner: appUser},
				{Path: "app/locks", Mode: 0o755, Owner: appUser},
			},
			config: ocispec.ImageConfig{
				Env:        []string{search},
				Entrypoint: []string{"/app/reference"},
				WorkingDir: "/app",
				User:       "1000",
				Labels:     labels("apps/reference of the checkout that made it", "Reference app of the trading platform"),
			},
		},
	}
}

func labels(source, title string) map[string]string {
	return map[string]string{ocispec.AnnotationSource: source, ocispec.AnnotationTitle: title}
}

func set(names ...string) map[string]struct{} {
	members := make(map[string]struct{}, len(names))
	for _, name := range names {
		members[name] = struct{}{}
	}
	return members
}

// load returns the recipes of the checkout at root by name, with their references. The reference app's is left out where
// the checkout lacks its source.
func load(root string) (map[string]recipe, error) {
	base, err := hashFolder(filepath.Join(root, "airgap", "base"))
	if err != nil {
		return nil, fmt.Errorf("air-gap images: %w; %s must be a checkout of this project", err, root)
	}
	base = hash("base", runtime.GOARCH, base)

	loaded := map[string]recipe{}
	for _, recipe := range recipes() {
		err := recipe.load(root, base)
		if recipe.name == "reference" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("air-gap images: the recipe of %s: %w", recipe.name, err)
		}
		loaded[recipe.name] = recipe
	}
	return loaded, nil
}

// load reads what the recipe is made from and names the image after it.
func (r *recipe) load(root, base string) error {
	if r.version != "" {
		r.config.Labels[VersionLabel] = r.version
	}
	plain, err := json.Marshal([]any{r.entries, r.config})
	if err != nil {
		return err
	}
	parts := []string{r.name, r.version, base, string(plain)}
	for i := range r.entries {
		from := r.entries[i].From
		if from == "" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(root, "airgap", filepath.FromSlash(from)))
		if err != nil {
			return err
		}
		r.entries[i].content = content
		parts = append(parts, string(content))
	}
	if r.program != nil {
		sources, err := hashFolder(filepath.Join(root, filepath.FromSlash(r.program.module)))
		if err != nil {
			return err
		}
		r.program.hash = hash(runtime.GOARCH, r.program.pkg, r.program.ldflags, sources)
		parts = append(parts, r.program.hash)
	}
	r.base = base

	tag := hash(parts...)
	if r.version != "" {
		tag = r.version + "-" + tag
	}
	r.reference = "trading-platform-airgap/" + r.name + ":" + tag
	return nil
}

// hash returns the first 12 hex digits of the SHA-256 of its parts and of where each ends.
func hash(parts ...string) string {
	text := strconv.Itoa(format)
	for _, part := range parts {
		text += fmt.Sprintf(" %d:%s", len(part), part)
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:12]
}

// hashFolder hashes the names and contents of a folder's files; tests and the binary that `go build` leaves there do not
// count.
func hashFolder(folder string) (string, error) {
	var parts []string
	files := os.DirFS(folder)
	err := fs.WalkDir(files, ".", func(name string, found fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !found.Type().IsRegular() || strings.HasSuffix(name, "_test.go") || name == path.Base(filepath.ToSlash(folder)) {
			return nil
		}
		content, err := fs.ReadFile(files, name)
		parts = append(parts, name, string(content))
		return err
	})
	if err != nil {
		return "", err
	}
	return hash(parts...), nil
}

func sortedKeys(recipes map[string]recipe) []string {
	return slices.Sorted(maps.Keys(recipes))
}
