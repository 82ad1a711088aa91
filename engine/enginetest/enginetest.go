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
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
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
	Registry   bool                         // whether it can connect to a registry
	Broken     []string                     // paths without the API version, such as /networks, that answer with an error

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
	e.created = map[string]container.MountPoint{}
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

// ServeHTTP answers like the engine's API.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w.Header().Set("Api-Version", e.API)
	w.Header().Set("Content-Type", "application/json")
	path := r.URL.Path
	if rest, ok := strings.CutPrefix(path, "/v"); ok {
		_, rest, _ = strings.Cut(rest, "/")
		path = "/" + rest
	}
	for _, broken := range e.Broken {
		if path == broken {
			fail(w, http.StatusInternalServerError, "the engine is broken")
			return
		}
	}
	switch kind, name := split(path); {
	case path == "/info":
		answer(w, map[string]any{"ID": e.ID, "DockerRootDir": e.Root})
	case path == "/_ping":
		_, _ = fmt.Fprint(w, "OK")
	case path == "/version":
		answer(w, map[string]string{"Arch": e.Arch})
	case path == "/containers/json":
		answer(w, append([]container.Summary{}, e.Containers...))
	case path == "/networks":
		answer(w, append([]network.Summary{}, e.Networks...))
	case path == "/volumes":
		answer(w, map[string]any{"Volumes": e.Volumes})
	case kind == "volumes":
		e.inspectVolume(w, name)
	case path == "/images/json":
		e.listImages(w)
	case kind == "images":
		e.inspectImage(w, strings.TrimSuffix(name, "/json"))
	case kind == "distribution" && e.Registry:
		answer(w, map[string]any{"Descriptor": map[string]any{}})
	case path == "/containers/create":
		e.create(w, r)
	case kind == "containers" && r.Method == http.MethodDelete:
		if r.URL.Query().Get("v") == "1" { // otherwise the image's anonymous volumes would remain
			delete(e.created, name)
		}
		w.WriteHeader(http.StatusNoContent)
	case kind == "containers" && strings.HasSuffix(name, "/archive"):
		e.archive(w, strings.TrimSuffix(name, "/archive"), r.URL.Query().Get("path"))
	case kind == "containers" && strings.HasSuffix(name, "/json"):
		e.inspectContainer(w, strings.TrimSuffix(name, "/json"))
	default:
		fail(w, http.StatusNotImplemented, "the test's engine does not know "+r.Method+" "+path)
	}
}

func split(path string) (kind, name string) {
	kind, name, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return kind, name
}

func answer(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

func fail(w http.ResponseWriter, code int, message string) {
	w.WriteHeader(code)
	answer(w, map[string]string{"message": message})
}

func (e *Engine) inspectVolume(w http.ResponseWriter, name string) {
	for _, v := range e.Volumes {
		if v.Name == name {
			answer(w, v)
			return
		}
	}
	fail(w, http.StatusNotFound, "no such volume: "+name)
}

func (e *Engine) inspectImage(w http.ResponseWriter, reference string) {
	env, ok := e.Images[reference]
	if !ok {
		fail(w, http.StatusNotFound, "No such image: "+reference)
		return
	}
	answer(w, map[string]any{"Id": "sha256:" + reference, "Config": map[string]any{"Env": env}})
}

func (e *Engine) listImages(w http.ResponseWriter) {
	list := []map[string]any{}
	for reference := range e.Images {
		list = append(list, map[string]any{"Id": "sha256:" + reference, "RepoTags": []string{reference}})
	}
	answer(w, list)
}

func (e *Engine) inspectContainer(w http.ResponseWriter, id string) {
	state := map[string]any{"Status": "running", "Running": true}
	if health := e.Health[id]; health != "" {
		state["Health"] = map[string]any{"Status": health}
	}
	answer(w, map[string]any{"Id": id, "State": state, "Config": map[string]any{"Env": e.Env[id]}})
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

func (e *Engine) archive(w http.ResponseWriter, id, path string) {
	var mounts []container.MountPoint
	if m, ok := e.created[id]; ok {
		mounts = append(mounts, m)
	}
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
