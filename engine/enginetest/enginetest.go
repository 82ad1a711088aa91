// Package enginetest is a fake Docker engine for tests. It serves the part of the API
// that preflight and the platform command use, on a Unix socket as a local engine does.
package enginetest

import (
	"archive/tar"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/volume"
	"github.com/stretchr/testify/require"
)

// Engine is a fake engine and its content. Set the fields before Start.
type Engine struct {
	ID         string // its own ID
	API        string // its API version; default 1.41
	Root       string // its data folder on the host
	Arch       string // its architecture as Go names it
	Containers []container.Summary
	Networks   []network.Summary
	Volumes    []volume.Volume
	Images     map[string][]string          // environment by reference
	Files      map[string]map[string]string // by volume, the content of files by their path in it
	Health     map[string]string            // by container ID; a container without an entry has no healthcheck
	Env        map[string][]string          // by container ID
	Nodes      []swarm.Node                 // of the Swarm of which it is a manager
	Services   []swarm.Service              // of that Swarm
	Registry   bool                         // whether it can connect to a registry
	Broken     []string                     // paths without the API version, such as /networks, that answer with an error

	mux     *http.ServeMux
	mu      sync.Mutex
	created map[string]container.MountPoint // temporary containers that exist
	made    int
}

// Start serves the API until the test ends, and returns its address in the form of DOCKER_HOST.
func (e *Engine) Start(t *testing.T) string {
	t.Helper()
	if e.API == "" {
		e.API = "1.41"
	}
	e.mux, e.created = e.routes(), map[string]container.MountPoint{}
	dir, err := os.MkdirTemp("", "engine") //nolint:usetesting // a socket's path must be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "docker.sock")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(e)
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return "unix://" + socket
}

// Listen listens on a free port that a stack's portOffset can reach, and that is outside
// of the range from which the system chooses ports.
func Listen(t *testing.T) net.Listener {
	t.Helper()
	for port := 22000; port < 23500; port++ {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			t.Cleanup(func() { _ = l.Close() })
			return l
		}
	}
	require.Fail(t, "no free port")
	return nil
}

// Made returns how many containers were created, and how many of them still exist.
func (e *Engine) Made() (made, left int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.made, len(e.created)
}

var version = regexp.MustCompile(`^/v[0-9.]+`)

// ServeHTTP answers like the engine's API.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w.Header().Set("Api-Version", e.API)
	w.Header().Set("Content-Type", "application/json")
	r.URL.Path = version.ReplaceAllString(r.URL.Path, "")
	if slices.Contains(e.Broken, r.URL.Path) {
		fail(w, http.StatusInternalServerError, "the engine is broken")
		return
	}
	e.mux.ServeHTTP(w, r)
}

// routes returns the handlers of the API's paths, without the version.
func (e *Engine) routes() *http.ServeMux {
	mux := http.NewServeMux()
	get := func(path string, value func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { answer(w, value()) })
	}
	get("/info", func() any { return map[string]any{"ID": e.ID, "DockerRootDir": e.Root} })
	get("/version", func() any { return map[string]string{"Arch": e.Arch} })
	get("/containers/json", func() any { return append([]container.Summary{}, e.Containers...) })
	get("/networks", func() any { return append([]network.Summary{}, e.Networks...) })
	get("/volumes", func() any { return map[string]any{"Volumes": e.Volumes} })
	get("/images/json", e.listImages)
	get("/nodes", func() any { return e.Nodes })
	get("/services", func() any { return e.Services })
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "OK") })
	mux.HandleFunc("GET /volumes/{name}", e.inspectVolume)
	mux.HandleFunc("GET /images/{name...}", e.inspectImage)
	mux.HandleFunc("GET /containers/{id}/json", e.inspectContainer)
	mux.HandleFunc("GET /containers/{id}/archive", e.archive)
	mux.HandleFunc("GET /containers/{id}/logs", func(w http.ResponseWriter, _ *http.Request) { fail(w, http.StatusNotFound, "no log") })
	mux.HandleFunc("POST /containers/{id}/restart", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /containers/create", e.create)
	mux.HandleFunc("DELETE /containers/{id}", e.remove)
	if e.Registry {
		get("/distribution/{name...}", func() any { return map[string]any{"Descriptor": map[string]any{}} })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotImplemented, "the test's engine does not know "+r.Method+" "+r.URL.Path)
	})
	return mux
}

func answer(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

func fail(w http.ResponseWriter, code int, message string) {
	w.WriteHeader(code)
	answer(w, map[string]string{"message": message})
}

func (e *Engine) inspectVolume(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if i := slices.IndexFunc(e.Volumes, func(v volume.Volume) bool { return v.Name == name }); i >= 0 {
		answer(w, e.Volumes[i])
	} else {
		fail(w, http.StatusNotFound, "no such volume: "+name)
	}
}

func (e *Engine) inspectImage(w http.ResponseWriter, r *http.Request) {
	reference := strings.TrimSuffix(r.PathValue("name"), "/json")
	if env, ok := e.Images[reference]; ok {
		answer(w, map[string]any{"Id": "sha256:" + reference, "Config": map[string]any{"Env": env}})
	} else {
		fail(w, http.StatusNotFound, "No such image: "+reference)
	}
}

func (e *Engine) listImages() any {
	list := []map[string]any{}
	for reference := range e.Images {
		list = append(list, map[string]any{"Id": "sha256:" + reference, "RepoTags": []string{reference}})
	}
	return list
}

func (e *Engine) inspectContainer(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	state := map[string]any{"Status": "running", "Running": true}
	if health := e.Health[id]; health != "" {
		state["Health"] = map[string]any{"Status": health}
	}
	var labels map[string]string
	for _, c := range e.Containers {
		if slices.Contains(c.Names, "/"+id) {
			id, labels = c.ID, c.Labels
		}
	}
	answer(w, map[string]any{"Id": id, "State": state, "Config": map[string]any{"Env": e.Env[id], "Labels": labels}})
}

func (e *Engine) create(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Image      string
		HostConfig struct{ Binds []string }
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if _, ok := e.Images[body.Image]; !ok {
		fail(w, http.StatusNotFound, "No such image: "+body.Image)
		return
	}
	e.made++
	id := fmt.Sprintf("temporary%d", e.made)
	e.created[id] = container.MountPoint{}
	for _, bind := range body.HostConfig.Binds {
		parts := strings.Split(bind, ":")
		e.created[id] = container.MountPoint{Name: parts[0], Destination: parts[1]}
	}
	w.WriteHeader(http.StatusCreated)
	answer(w, map[string]any{"Id": id})
}

func (e *Engine) remove(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("v") == "1" { // otherwise the image's anonymous volumes would remain
		delete(e.created, r.PathValue("id"))
	}
	w.WriteHeader(http.StatusNoContent)
}

func (e *Engine) archive(w http.ResponseWriter, r *http.Request) {
	id, path := r.PathValue("id"), r.URL.Query().Get("path")
	mounts := []container.MountPoint{e.created[id]}
	for _, c := range e.Containers {
		if c.ID == id {
			mounts = append(mounts, c.Mounts...)
		}
	}
	for _, m := range mounts {
		content, ok := e.Files[m.Name][strings.TrimPrefix(path, m.Destination+"/")]
		if !ok {
			continue
		}
		stat, _ := json.Marshal(container.PathStat{Name: filepath.Base(path), Size: int64(len(content)), Mode: 0o600})
		w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(stat))
		archive := tar.NewWriter(w)
		_ = archive.WriteHeader(&tar.Header{Name: filepath.Base(path), Size: int64(len(content)), Mode: 0o600, Typeflag: tar.TypeReg})
		_, _ = archive.Write([]byte(content))
		_ = archive.Close()
		return
	}
	fail(w, http.StatusNotFound, "no such file: "+path)
}
