package test

import (
	"net/http"
	"os"
	"path/filepath"
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
	assert.ElementsMatch(t, []string{"postgres", "redis", "prometheus", "loki_server", "promtail", "web_console_mtls", "nginx_mtls"}, s.names())
	s.unchanged("a preview after up")
	alice := s.client(clientCert(t, dir, "alice"))

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
	t.Run("the console's metrics and readiness are not for clients", func(t *testing.T) {
		assert.Equal(t, http.StatusNotFound, s.get(t, alice, "/metrics").status)
		assert.Equal(t, http.StatusNotFound, s.get(t, alice, "/readyz").status)
	})
	t.Run("every Prometheus target is up, and nginx's log is in Loki", func(t *testing.T) {
		assertTargetsUp(t, s.stack, "prometheus", "loki_server", "promtail")
		assertLogged(t, s.stack, "nginx_mtls")
	})
	assertGuarded(t, s, alice)
}
