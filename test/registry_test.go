//go:build live || official

package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"trading-platform/catalog"
	"trading-platform/certs"
	"trading-platform/settings"
)

const (
	mirror = "127.0.0.1:5000" // without TLS, which an engine accepts on loopback
	locked = "192.0.2.1"      // with TLS and a password
)

// registry is an image registry, and an engine that reaches no other one and holds no image. It serves the air-gap images
// under the stock names, as a mirror of Docker Hub. What it has under cut/ it breaks off in the middle.
type registry struct {
	*ownEngine
	http *http.Client
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{ownEngine: newOwnEngine(t, map[string]any{"registry-mirrors": []string{"http://" + mirror}, "max-download-attempts": 1})}
	runIn(t, "registry", nil, "go", "build", "-o", filepath.Join(r.dir, "registry"), ".")

	socket := filepath.Join(r.dir, "registry.sock")
	r.serve("plain", nil, "http: {net: unix, addr: "+socket+"}")
	through := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	r.http = &http.Client{Transport: through}
	front := &http.Server{ReadHeaderTimeout: time.Minute, Handler: &httputil.ReverseProxy{
		Transport: through,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: mirror})
			p.Out.Host = p.In.Host
		},
		ModifyResponse: func(answer *http.Response) error {
			if strings.HasPrefix(answer.Request.URL.Path, "/v2/cut/") && answer.Request.Method == http.MethodGet {
				answer.Body = io.NopCloser(io.LimitReader(answer.Body, 100_000)) // with the length of all of it
			}
			return nil
		},
	}}
	listener := r.listen(mirror)
	go func() { _ = front.Serve(listener) }()
	t.Cleanup(func() { _ = front.Close() })

	runIn(t, r.dir, nil, "ip", "-n", r.netns, "address", "add", locked+"/32", "dev", "lo")
	_, err := certs.Ensure(r.dir, certs.Options{Stack: "test", Names: []string{locked}, Now: time.Now()})
	require.NoError(t, err)
	hash, err := bcrypt.GenerateFromPassword([]byte("only-in-this-test"), bcrypt.MinCost)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "htpasswd"), append([]byte("reader:"), hash...), 0o600))
	r.serve("locked", []string{"nsenter", "--net=/run/netns/" + r.netns}, "http: {addr: '"+locked+":443', tls: {certificate: server.crt, key: server.key}}\nauth: {htpasswd: {realm: test, path: htpasswd}}")

	for _, s := range catalog.Services() {
		if made := references[s.Name]; made != "" && s.Image != "" {
			named, err := reference.ParseNormalizedNamed(s.Image)
			require.NoError(t, err)
			r.load(made)
			r.push(made, mirror+"/"+reference.Path(named)+":"+named.(reference.Tagged).Tag())
		}
	}
	r.docker("system", "prune", "--all", "--force")
	require.Empty(t, r.docker("images", "--quiet"))
	return r
}

// serve runs a registry over the folder that all of them share.
func (r *registry) serve(name string, command []string, config string) {
	r.t.Helper()
	file := filepath.Join(r.dir, name+".yml")
	config = "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: " + filepath.Join(r.dir, "images") + "}}\n" + config
	require.NoError(r.t, os.WriteFile(file, []byte(config), 0o600))
	command = append(command, filepath.Join(r.dir, "registry"), "serve", file)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = r.dir, append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	require.NoError(r.t, cmd.Start())
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// push returns the registry an image of the engine under a name, and takes it from the engine.
func (r *registry) push(image, name string) {
	r.t.Helper()
	r.docker("tag", image, name)
	r.docker("push", name)
	r.docker("rmi", image, name)
}

// build makes an image of redis and a line of Dockerfile, and pushes it.
func (r *registry) build(name, line string) {
	r.t.Helper()
	build := exec.Command("docker", "-H", r.host(), "build", "-q", "-t", name, "-")
	build.Stdin = strings.NewReader("FROM redis:7-alpine\n" + line + "\n")
	out, err := build.CombinedOutput()
	require.NoError(r.t, err, string(out))
	r.docker("push", name)
	r.docker("rmi", name)
}

// foreign puts a name beside redis that has it for another kind of processor alone.
func (r *registry) foreign(name string) {
	r.t.Helper()
	const kind = "application/vnd.docker.distribution.manifest."
	ask := func(method, tag, media string, body []byte) []byte {
		request, err := http.NewRequest(method, "http://"+mirror+"/v2/library/redis/manifests/"+tag, bytes.NewReader(body))
		require.NoError(r.t, err)
		request.Header.Set("Accept", media)
		request.Header.Set("Content-Type", media)
		answer, err := r.http.Do(request)
		require.NoError(r.t, err)
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		require.NoError(r.t, err)
		require.Less(r.t, answer.StatusCode, 300, string(text))
		return text
	}
	manifest := ask(http.MethodGet, "7-alpine", kind+"v2+json", nil)
	list, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": kind + "list.v2+json", "manifests": []any{map[string]any{
		"mediaType": kind + "v2+json", "size": len(manifest), "digest": fmt.Sprintf("sha256:%x", sha256.Sum256(manifest)),
		"platform": map[string]string{"os": "linux", "architecture": "s390x"},
	}}})
	require.NoError(r.t, err)
	ask(http.MethodPut, name, kind+"list.v2+json", list)
}

// TestRegistry runs stacks on an engine that has to pull every image.
func TestRegistry(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	l := newLive(t, prepareClone(t), map[string]any{"images": nil, "disabled": []string{"grafana"}})
	l.moveTo(r.ownEngine)

	t.Run("plain pulumi with the stock images", func(t *testing.T) {
		l.t = t
		pulumi := func(arguments ...string) {
			runIn(t, l.dir, l.env, append([]string{"pulumi", "--non-interactive"}, arguments...)...)
		}
		pulumi("stack", "init", l.name)
		pulumi("up", "-s", l.name, "--yes")
		assertHealthy(t, l.stack)
		for _, service := range l.plan().Services {
			s, _ := catalog.Lookup(service.Name)
			assert.Equal(t, s.Image, l.inspect(service.Name).Config.Image)
		}
		pulumi("preview", "-s", l.name, "--expect-no-changes")
		pulumi("destroy", "-s", l.name, "--yes")
		assert.Empty(t, l.names())
	})
	l.t = t
	l.configure(databases)
	l.configure(map[string]any{"provider": provider})
	up := l.platform("up")
	require.NoError(t, up.err, up.out)

	r.build(mirror+"/cut/redis:cut", "RUN head -c 1000000 /dev/urandom >/large")
	r.foreign("foreign")
	for name, fault := range map[string]struct {
		images map[string]any
		says   string // the engine
		fix    string
		hidden bool // the official plugin keeps what the engine says to itself
	}{
		"no such tag": {
			map[string]any{"redis": mirror + "/library/redis:missing", "postgres": mirror + "/library/postgres:missing"},
			"manifest unknown", "name an image that " + mirror + " has (`images.<service>` in the stack's settings)", false,
		},
		"cut in the middle": {
			map[string]any{"redis": mirror + "/cut/redis:cut"},
			"unexpected EOF", "docker pull " + mirror + "/cut/redis:cut shows the cause", true,
		},
		"a login is wanted": {
			map[string]any{"redis": locked + "/library/redis:7-alpine", "postgres": locked + "/library/postgres:missing"},
			"no basic auth credentials", "docker login " + locked, false,
		},
		"another kind of processor": {
			map[string]any{"redis": mirror + "/library/redis:foreign"},
			"no matching manifest for linux/", "name an image that is built for the engine's architecture", true,
		},
		"nothing answers": {
			map[string]any{"redis": "127.0.0.1:1/redis:missing", "postgres": "127.0.0.1:1/postgres:missing"},
			"connection refused", "check the engine's connection to 127.0.0.1:1", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l.t = t
			before := l.ids()
			l.configure(map[string]any{"images": fault.images})
			up := l.platform("up")
			require.Error(t, up.err)
			if fault.hidden && provider == settings.Official {
				fault.says, fault.fix = "unable to find or pull image", fmt.Sprintf("docker pull %s shows the cause", fault.images["redis"])
			}
			assert.Contains(t, up.out, fault.says)
			told := up.out[strings.LastIndex(up.out, "Diagnostics:"):] // what comes before is the progress
			assert.Equal(t, 1, strings.Count(told, "Fix: "+fault.fix), told)
			assert.Equal(t, before, l.ids(), "what runs goes on")
		})
	}

	t.Run("with TLS and a password", func(t *testing.T) {
		l.t = t
		login := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, locked, base64.StdEncoding.EncodeToString([]byte("reader:only-in-this-test")))
		require.NoError(t, os.WriteFile(filepath.Join(r.dir, "config.json"), []byte(login), 0o600))
		l.env = append(l.env, "DOCKER_CONFIG="+r.dir)
		before := l.ids()
		l.configure(map[string]any{"images": map[string]any{"redis": locked + "/library/redis:7-alpine"}})
		up := l.platform("up")
		require.NoError(t, up.err, up.out)
		assert.Equal(t, []string{"redis"}, l.replaced(before))
		state, err := os.ReadFile(l.stateFile())
		require.NoError(t, err)
		assert.NotContains(t, string(state), "only-in-this-test")
		assert.NotContains(t, string(state), base64.StdEncoding.EncodeToString([]byte("reader:only-in-this-test")))
		preview := l.platform("preview -- --diff")
		assert.Contains(t, preview.out, "unchanged", preview.err)
	})
	t.Run("a tag that moved", func(t *testing.T) {
		l.t = t
		moved := mirror + "/library/redis:moving"
		r.build(moved, "LABEL edition=first")
		l.configure(map[string]any{"images": map[string]any{"redis": moved}})
		up := l.platform("up")
		require.NoError(t, up.err, up.out)
		before := l.ids()
		r.build(moved, "LABEL edition=second")
		r.docker("pull", moved)
		require.NoError(t, l.platform("refresh").err)
		up = l.platform("up")
		require.NoError(t, up.err, up.out)
		assert.Equal(t, []string{"redis"}, l.replaced(before))
		assert.Equal(t, "second", l.inspect("redis").Config.Labels["edition"])
	})
	l.t = t
}
