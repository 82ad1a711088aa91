//go:build live

package test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMTLS(t *testing.T) {
	t.Parallel()
	// Two years ago somebody had a certificate of this very CA; today's are made beside it.
	dir := makeCerts(t, time.Now().AddDate(-2, 0, 0), "former")
	expired := clientCert(t, dir, "former")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "clients")))
	ensureCerts(t, dir, time.Now(), "alice")

	s := newSite(t, newStack(t, "mtls", map[string]any{"certsDir": dir, "env": secrets}), dir)
	s.up()
	assertHealthy(t, s.stack)
	assert.Subset(t, s.names(), []string{"postgres", "redis", "web_console_mtls", "nginx_mtls"})
	s.unchanged("a preview after up")
	alice := s.client(clientCert(t, dir, "alice"))

	t.Run("nginx's key is root's alone", func(t *testing.T) {
		assert.Equal(t, "600 root", s.in(t).exec("nginx_mtls", "stat", "-c", "%a %U", "/etc/nginx/certs/server.key"))
	})
	t.Run("a good certificate's subject is on the console", func(t *testing.T) {
		page := s.get(t, alice, "/")
		require.Equal(t, http.StatusOK, page.status, page.body)
		assert.Contains(t, page.body, `<code id="subject">CN=alice,O=trading-platform (local)</code>`)
	})
	t.Run("any other client is refused", func(t *testing.T) {
		foreign := clientCert(t, makeCerts(t, time.Now(), "alice"), "alice")
		for name, c := range map[string]*http.Client{
			"without a certificate": s.client(nil), "with another CA's": s.client(foreign), "with an expired one": s.client(expired),
		} {
			for _, path := range []string{"/", "/healthz", "/static/console.css", "/nothing"} {
				a, err := ask(t, c, http.MethodGet, s.https(path), "X-SSL-Client-Verify", "SUCCESS", "X-SSL-Client-S-DN", "CN=mallory")
				if err != nil {
					assert.ErrorContains(t, err, "tls", "%s, %s", name, path)
					continue
				}
				assert.Equal(t, http.StatusBadRequest, a.status, "%s, %s", name, path)
				assert.NotContains(t, a.body, "mallory")
			}
		}
	})
	forged := []string{
		"X-SSL-Client-Verify", "SUCCESS", "X-SSL-Client-S-DN", "CN=mallory", "X-SSL-Client-I-DN", "CN=mallory",
		"X-SSL-Client-Serial", "666", "X-SSL-Client-Fingerprint", "666", "X-Real-IP", "10.0.0.1",
		"X-Forwarded-For", "10.0.0.1", "Forwarded", "for=10.0.0.1",
	}
	t.Run("forged headers through nginx are nobody's identity", func(t *testing.T) {
		for name, headers := range map[string][]string{
			"as nginx spells them": forged,
			"in lower case":        {"x-ssl-client-verify", "SUCCESS", "x-ssl-client-s-dn", "CN=mallory"},
			"with underscores":     {"X_SSL_Client_Verify", "SUCCESS", "X_SSL_Client_S_DN", "CN=mallory"},
			"sent twice":           {"X-SSL-Client-S-DN", "CN=mallory", "X-SSL-Client-S-DN", "CN=mallory"},
		} {
			page := s.get(t, alice, "/", headers...)
			assert.Equal(t, http.StatusOK, page.status, name)
			assert.Contains(t, page.body, "CN=alice,", name)
			assert.NotContains(t, page.body, "mallory", name)
		}
	})
	t.Run("forged headers straight to the console are nobody's identity", func(t *testing.T) {
		nginx := s.inspectEnv("web_console_mtls")["TRUSTED_PROXY_IPS"]
		headers := append([]string{"X-Forwarded-For", nginx, "X-Real-IP", nginx, "Forwarded", "for=" + nginx}, forged...)
		for _, network := range []string{"trading_platform", "default"} {
			for _, path := range []string{"/", "/live", "/api/stack"} {
				out := s.fromInside(t, network, "web_console_mtls", 8080, path, headers...)
				assert.Contains(t, out, "403 Forbidden", "%s, %s", network, path)
				assert.NotContains(t, out, "mallory", "%s, %s", network, path)
			}
		}
	})
	t.Run("forged headers from the host to the console's own address are nobody's identity", func(t *testing.T) {
		networks := s.inspect("web_console_mtls").NetworkSettings.Networks
		require.Len(t, networks, 2)
		for name, endpoint := range networks {
			a, err := ask(t, http.DefaultClient, http.MethodGet, "http://"+endpoint.IPAddress.String()+":8080/", forged...)
			require.NoError(t, err, name)
			assert.Equal(t, http.StatusForbidden, a.status, name)
		}
	})
	t.Run("the console's metrics and readiness are not for clients", func(t *testing.T) {
		assert.Equal(t, http.StatusNotFound, s.get(t, alice, "/metrics").status)
		assert.Equal(t, http.StatusNotFound, s.get(t, alice, "/readyz").status)
	})
	t.Run("every Prometheus target is up, and nginx's log is in Loki", func(t *testing.T) {
		assertTargetsUp(t, s.stack, s.targets()...)
		assertLogged(t, s.stack, "nginx_mtls")
	})
	assertGuarded(t, s, alice)
}

func TestCertificatesThatDoNotHold(t *testing.T) {
	t.Parallel()
	good := makeCerts(t, time.Now())
	copied := func(t *testing.T) string {
		t.Helper()
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS(good)))
		require.NoError(t, os.Chmod(filepath.Join(dir, "server.key"), 0o600))
		require.NoError(t, os.Chmod(filepath.Join(dir, "ca.key"), 0o600))
		return dir
	}
	// swap puts files of another authority's folder in place of ours.
	swap := func(t *testing.T, dir string, files ...string) {
		t.Helper()
		foreign := makeCerts(t, time.Now())
		for _, file := range files {
			text, err := os.ReadFile(filepath.Join(foreign, file))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, file), text, 0o600))
		}
	}
	s := newStack(t, "mtls", map[string]any{"env": secrets})
	for name, test := range map[string]struct {
		folder func(t *testing.T) string
		want   []string
	}{
		"missing": {
			func(t *testing.T) string { return t.TempDir() },
			[]string{"4 things are wrong", "ca.crt: it is missing", "server.crt: it is missing", "server.key: it is missing", "dhparam.pem: it is missing", "Fix: platform certs -s mtls"},
		},
		"expired": {
			func(t *testing.T) string { return makeCerts(t, time.Now().AddDate(-2, 0, 0)) },
			[]string{"server.crt: it expired on " + time.Now().AddDate(-2, 0, 397).Format("2006"), "Fix: platform certs -s mtls"},
		},
		"with the key of another": {
			func(t *testing.T) string {
				dir := copied(t)
				swap(t, dir, "server.key")
				return dir
			},
			[]string{"server.key: it is not the key of server.crt", "&& platform certs -s mtls"},
		},
		"signed by another authority": {
			func(t *testing.T) string {
				dir := copied(t)
				swap(t, dir, "server.crt", "server.key")
				return dir
			},
			[]string{"server.crt: it is not signed by ca.crt", "&& platform certs -s mtls"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.configure(map[string]any{"certsDir": test.folder(t)})
			out, err := s.try("up", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
			require.Error(t, err)
			for _, want := range test.want {
				assert.Contains(t, out, want)
			}
		})
	}
	t.Run("open to others, and mtls and oauth2 in one stack", func(t *testing.T) {
		dir := copied(t)
		require.NoError(t, os.Chmod(filepath.Join(dir, "server.key"), 0o644))
		s.configure(map[string]any{"certsDir": dir, "profiles": []string{"mtls", "oauth2"}})
		out, err := s.try("up", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
		require.Error(t, err)
		assert.Contains(t, out, "server.key: others than its owner can read it")
		assert.Contains(t, out, "mtls and oauth2 cannot be in one stack: both publish host ports 80 and 443 and want nginx's fixed address")
		assert.Contains(t, out, "Fix: use two stacks, one of them with another namePrefix, portOffset and subnet: pulumi up -s mtls, pulumi up -s oauth2")
	})
	assert.Empty(t, s.names(), "nothing was made")
	assert.Empty(t, s.networks())
	assert.Empty(t, s.volumes())
}

// TestMakeUpOfASecuredStack is what a person does on a machine that never ran Pulumi: `make up STACK=mtls` in a clean
// clone. Only the names and ports are this test's.
func TestMakeUpOfASecuredStack(t *testing.T) {
	t.Parallel()
	s := newPlace(t, "mtls", filepath.Join(t.TempDir(), "clone"))
	s.clone()
	env := cleanMachine(t)
	t.Cleanup(func() { s.makeDown(env) })

	out := runIn(t, s.dir, env, "make", "up", "STACK=mtls")
	place := ownFile(t, out)
	s.own = place
	assertHealthy(t, s)
	assert.Subset(t, s.names(), []string{"postgres", "redis", "web_console_mtls", "nginx_mtls"})
	assert.Empty(t, runIn(t, s.dir, env, "git", "status", "--porcelain"), "the clone stays clean")
	file, err := os.ReadFile(place)
	require.NoError(t, err)
	for _, name := range []string{"POSTGRES_PASSWORD", "WEB_CONSOLE_PASSWORD"} {
		assert.Regexp(t, `generated secrets of stack mtls: .*`+name, out)
		assert.Regexp(t, `trading-platform:`+name+`:\n\s+secure: v1:`, string(file), "encrypted")
	}
	password := s.inspectEnv("postgres")["POSTGRES_PASSWORD"]
	assert.Greater(t, len(password), 30)
	assert.NotContains(t, string(file)+out, password)

	said := regexp.MustCompile(`certificates in (\S+):`).FindStringSubmatch(out)
	require.NotNil(t, said, out)
	certificates := said[1]
	for _, made := range []string{"ca.key", "ca.crt", "server.key", "server.crt", "clients/admin.key", "clients/admin.crt", "clients/admin.p12", "dhparam.pem"} {
		assert.Regexp(t, regexp.QuoteMeta(made)+` +new`, out)
		if info, err := os.Stat(filepath.Join(certificates, made)); assert.NoError(t, err) && strings.HasSuffix(made, ".key") {
			assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), made)
		}
	}
	site := newSite(t, s, certificates)
	assert.Contains(t, site.get(t, site.client(clientCert(t, certificates, "admin")), "/").body, "CN=admin,")

	before := s.ids()
	out = runIn(t, s.dir, env, "make", "up", "STACK=mtls")
	assert.NotContains(t, out, "generated secrets")
	assert.NotContains(t, out, "certificates in")
	assert.Equal(t, before, s.ids(), "a second run makes nothing anew")
	after, err := os.ReadFile(place)
	require.NoError(t, err)
	assert.YAMLEq(t, string(file), string(after))
}
