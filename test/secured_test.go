//go:build live

package test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/settings"
)

// clientCert reads a client certificate and its key.
func clientCert(t *testing.T, dir, name string) *tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "clients", name+".crt"), filepath.Join(dir, "clients", name+".key"))
	require.NoError(t, err)
	return &pair
}

// site is a secured stack as its users see it: nginx, by its public name.
type site struct {
	*stack
	nginx string // the service
	roots *x509.CertPool
}

func newSite(t *testing.T, s *stack, certsDir string) *site {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(certsDir, "ca.crt"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca))
	return &site{stack: s, nginx: "nginx_" + s.name, roots: roots}
}

// https is an address of the site, as the user's browser has it.
func (s *site) https(path string) string {
	return fmt.Sprintf("https://%s:%d%s", settings.PublicHost, 443+s.offset, path)
}

// client reaches the site by its public name, trusts its CA, and follows no redirect.
func (s *site) client(certificate *tls.Certificate) *http.Client {
	config := &tls.Config{RootCAs: s.roots}
	if certificate != nil {
		// Whatever the server asks for: a client may send one that it does not want.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, _ := net.SplitHostPort(address)
		if host == settings.PublicHost {
			host = "127.0.0.1"
		}
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(host, port))
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is what a request came back with.
type answer struct {
	status int
	header http.Header
	body   string
}

func ask(t *testing.T, c *http.Client, method, address string, header ...string) (answer, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			request.Host = header[i+1]
			continue
		}
		// Not canonical: a forger writes a name as it suits.
		request.Header[header[i]] = append(request.Header[header[i]], header[i+1])
	}
	response, err := c.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(body)}, err
}

// get asks for an address of the site and must be answered.
func (s *site) get(t *testing.T, c *http.Client, path string, header ...string) answer {
	t.Helper()
	a, err := ask(t, c, http.MethodGet, s.https(path), header...)
	require.NoError(t, err)
	return a
}

// fromInside asks from a container of its own on one of the stack's networks, as an
// intruder there would, and gives the raw answer.
func (s *stack) fromInside(t *testing.T, network, host string, port int, path string, header ...string) string {
	t.Helper()
	request := "GET " + path + " HTTP/1.0\r\nHost: " + host + "\r\n"
	for i := 0; i < len(header); i += 2 {
		request += header[i] + ": " + header[i+1] + "\r\n"
	}
	out, err := exec.CommandContext(t.Context(), "docker", "run", "--rm", "--label", runLabel+"="+runID, "--network", s.prefix+"_"+network, "--entrypoint", "bash", references["postgres"],
		"-c", `exec 3<>"/dev/tcp/$0/$1" && printf %s "$2" >&3 && cat <&3`, host, strconv.Itoa(port), request+"\r\n").CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

// assertGuarded asserts what nginx owes the site in either mode. c is a client that is let in.
func assertGuarded(t *testing.T, s *site, c *http.Client) {
	t.Run("TLS 1.1 is refused, 1.2 and 1.3 are not", func(t *testing.T) {
		for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
			conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", 443+s.offset), &tls.Config{
				RootCAs: s.roots, ServerName: settings.PublicHost, MinVersion: version, MaxVersion: version,
			})
			if ok {
				require.NoError(t, err, tls.VersionName(version))
				require.NoError(t, conn.Close())
			} else {
				require.ErrorContains(t, err, "protocol version", tls.VersionName(version))
			}
		}
	})
	t.Run("the security headers are on every answer", func(t *testing.T) {
		insecure := fmt.Sprintf("http://127.0.0.1:%d/", 80+s.offset)
		answers := map[string]answer{
			"page": s.get(t, c, "/"), "not found": s.get(t, c, "/nothing/here"), "static file": s.get(t, c, "/static/console.css"),
			"no client certificate, or no session": s.get(t, s.client(nil), "/"),
		}
		var err error
		answers["method"], err = ask(t, c, http.MethodDelete, s.https("/"))
		require.NoError(t, err)
		answers["unknown host"], err = ask(t, c, http.MethodGet, s.https("/"), "Host", "evil.example")
		require.NoError(t, err)
		answers["redirect from port 80"], err = ask(t, c, http.MethodGet, insecure)
		require.NoError(t, err)
		for name, a := range answers {
			h := a.header
			assert.Equal(t, "DENY", h.Get("X-Frame-Options"), name)
			assert.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), name)
			assert.Equal(t, "same-origin", h.Get("Referrer-Policy"), name)
			assert.NotEmpty(t, h.Get("Content-Security-Policy"), name)
			assert.NotEmpty(t, h.Get("X-Request-Id"), name)
			assert.NotContains(t, h.Get("Server"), "/", "%s: no version", name)
			if name == "redirect from port 80" {
				assert.Empty(t, h.Get("Strict-Transport-Security"), "HSTS means nothing over plain HTTP")
			} else {
				assert.Equal(t, "max-age=31536000", h.Get("Strict-Transport-Security"), name)
			}
			for _, header := range []string{"X-Frame-Options", "Content-Security-Policy", "X-Content-Type-Options"} {
				assert.Len(t, h.Values(header), 1, "%s: %s once", name, header)
			}
		}
		assert.Equal(t, http.StatusNotFound, answers["not found"].status)
		assert.Equal(t, http.StatusMisdirectedRequest, answers["unknown host"].status)
		assert.GreaterOrEqual(t, answers["method"].status, 400)
	})
	t.Run("port 80 leads to https on the right port", func(t *testing.T) {
		a, err := ask(t, c, http.MethodGet, fmt.Sprintf("http://%s:%d/live?x=1", settings.PublicHost, 80+s.offset))
		require.NoError(t, err)
		assert.Equal(t, http.StatusMovedPermanently, a.status)
		assert.Equal(t, s.https("/live?x=1"), a.header.Get("Location"))
	})
	t.Run("nothing but nginx and the base is reachable from the host", func(t *testing.T) {
		want := map[string][]int{s.nginx: {443, 80}, "postgres": {5433}, "redis": {6379}, "prometheus": {9090}, "loki_server": {3100}}
		for _, name := range s.names() {
			var got, expected []int
			for _, bindings := range s.inspect(name).HostConfig.PortBindings {
				for _, b := range bindings {
					assert.True(t, b.HostIP.IsLoopback(), name)
					var port int
					_, err := fmt.Sscan(b.HostPort, &port)
					require.NoError(t, err)
					got = append(got, port-s.offset)
				}
			}
			expected = append(expected, want[name]...)
			assert.ElementsMatch(t, expected, got, "host ports of %s", name)
		}
	})
	t.Run("nginx sits at its fixed address", func(t *testing.T) {
		endpoint := s.inspect(s.nginx).NetworkSettings.Networks[s.prefix+"_trading_platform"]
		require.NotNil(t, endpoint)
		assert.Equal(t, s.inspectEnv("web_console_" + s.name)["TRUSTED_PROXY_IPS"], endpoint.IPAddress.String())
	})
	t.Run("over the limit is 429, with the headers", func(t *testing.T) {
		statuses := s.flood(t, c, "/static/icon.svg", 150)
		assert.Positive(t, statuses[http.StatusOK])
		assert.Positive(t, statuses[http.StatusTooManyRequests], "%v", statuses)
		assert.Len(t, statuses, 2, "%v", statuses)
		time.Sleep(3 * time.Second) // the bucket drains
		assert.Equal(t, http.StatusOK, s.get(t, c, "/static/icon.svg").status, "and then it is over")
	})
}

// flood sends many requests at once, each of which says that it comes from somewhere else, and counts the answers by status.
func (s *site) flood(t *testing.T, c *http.Client, path string, requests int) map[int]int {
	t.Helper()
	var wait sync.WaitGroup
	var mutex sync.Mutex
	statuses := map[int]int{}
	for i := range requests {
		wait.Go(func() {
			a, err := ask(t, c, http.MethodGet, s.https(path), "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i))
			mutex.Lock()
			defer mutex.Unlock()
			if !assert.NoError(t, err) {
				return
			}
			statuses[a.status]++
			if a.status == http.StatusTooManyRequests && statuses[a.status] == 1 {
				assert.Equal(t, "DENY", a.header.Get("X-Frame-Options"))
				assert.NotEmpty(t, a.header.Get("Strict-Transport-Security"))
				assert.NotEmpty(t, a.header.Get("Content-Security-Policy"))
			}
		})
	}
	wait.Wait()
	return statuses
}

// inspectEnv returns the variables of a service's running container.
func (s *stack) inspectEnv(service string) map[string]string {
	s.t.Helper()
	env := map[string]string{}
	for _, e := range s.inspect(service).Config.Env {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	return env
}

// restart restarts a service's container and waits until it is healthy again.
func (s *stack) restart(t *testing.T, service string) {
	t.Helper()
	_, err := engine.ContainerRestart(t.Context(), s.prefix+"_"+service, client.ContainerRestartOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.health(service) == "healthy" }, time.Minute, 200*time.Millisecond, "%s is healthy after a restart", service)
}
