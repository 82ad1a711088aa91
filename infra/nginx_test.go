package infra

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/certs"
)

// The tests in this file run nginx itself, on loopback, in front of a console that records its requests.

// proxy is nginx with the stack's configuration, with paths and ports that a test may use.
type proxy struct {
	dir                string
	https, plain, loop string // addresses
	metrics            string // address
	otherCA            string // folder of certificates that this nginx must not believe
}

func newProxy(t *testing.T, service string, n Nginx) *proxy {
	t.Helper()
	free := freeAddresses(t, 4)
	p := &proxy{dir: t.TempDir(), https: free[0], plain: free[1], loop: free[2], metrics: free[3], otherCA: t.TempDir()}
	names := []string{"console.example", "localhost"}
	for _, run := range []struct {
		dir, client string
		at          time.Time
	}{
		{p.certs(), "expired", time.Now().AddDate(0, 0, -400)},
		{p.certs(), "trader", time.Now()},
		{p.certs(), "second", time.Now()},
		{p.otherCA, "trader", time.Now()},
	} {
		_, err := certs.Ensure(run.dir, certs.Options{Stack: "test", Names: names, Clients: []string{run.client}, Now: run.at})
		require.NoError(t, err)
		if run.client == "expired" {
			// Outside of the folder, in which it would be renewed.
			require.NoError(t, os.MkdirAll(p.expired(), 0o700))
			require.NoError(t, os.Rename(filepath.Join(run.dir, "clients"), filepath.Join(p.expired(), "clients")))
		}
	}
	n.ClientCerts = service == "nginx_mtls"
	files, err := Files("nginx", with(func(v *Values) { v.Service, v.Nginx = service, n }))
	require.NoError(t, err)
	config := files["/etc/nginx/nginx.conf"]
	for ours, here := range map[string]string{
		"/etc/nginx/certs":            p.certs(),
		"listen 443 ssl":              "listen " + p.https + " ssl",
		"listen 80 ":                  "listen " + p.plain + " ",
		"listen 127.0.0.1:8081":       "listen " + p.loop,
		"listen 9113":                 "listen " + p.metrics,
		"access_log /dev/stdout json": "access_log " + p.file("access.log") + " json",
		// All other paths that nginx writes to, so that the test needs no access outside of its folder.
		"http {": strings.ReplaceAll(
			"http { client_body_temp_path DIR/b; proxy_temp_path DIR/p; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;", "DIR", p.dir),
	} {
		require.Contains(t, config, ours)
		config = strings.ReplaceAll(config, ours, here)
	}
	require.NoError(t, os.WriteFile(p.file("nginx.conf"), []byte(config), 0o600))
	return p
}

func (p *proxy) file(name string) string { return filepath.Join(p.dir, name) }
func (p *proxy) certs() string           { return p.file("certs") }
func (p *proxy) expired() string         { return p.file("expired") }

// errors is what nginx wrote to its error log.
func (p *proxy) errors(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.file("error.log"))
	require.NoError(t, err)
	return string(text)
}

func (p *proxy) arguments(more ...string) []string {
	return append([]string{"-p", p.dir, "-c", p.file("nginx.conf"), "-e", "stderr", "-g", "pid " + p.file("pid") + ";"}, more...)
}

// startProxy runs nginx until the test ends.
func startProxy(t *testing.T, service string, n Nginx) *proxy {
	t.Helper()
	p := newProxy(t, service, n)
	program, err := exec.LookPath("nginx")
	require.NoError(t, err, "this test needs nginx: apt-get install -y --no-install-recommends nginx-light")
	arguments := p.arguments()
	arguments[len(arguments)-1] += " daemon off;"
	command := exec.Command(program, arguments...)
	errorLog, err := os.Create(p.file("error.log"))
	require.NoError(t, err)
	defer errorLog.Close()
	command.Stderr = errorLog
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		assert.NoError(t, command.Process.Signal(syscall.SIGTERM))
		_ = command.Wait()
		if t.Failed() {
			t.Log(p.errors(t))
		}
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", p.https)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 10*time.Second, 20*time.Millisecond, "nginx does not listen")
	return p
}

// freeAddresses gives addresses on loopback that nobody listens on. All are held until the last is found: let go one by
// one, the kernel may give the same twice.
func freeAddresses(t *testing.T, count int) []string {
	t.Helper()
	var addresses []string
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close()
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses
}

var lastSource atomic.Int32

// client is a separate browser. Its address has not been used before, so that rate limits start from zero.
// certificate is the folder and the name of its client certificate, if it has one.
func (p *proxy) client(t *testing.T, certificate ...string) *http.Client {
	t.Helper()
	return p.clientFrom(t, net.IPv4(127, 0, 1, byte(lastSource.Add(1))), certificate...)
}

// clientFrom is a client that comes from an address.
func (p *proxy) clientFrom(t *testing.T, address net.IP, certificate ...string) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(p.certs(), "ca.crt"))
	require.NoError(t, err)
	require.True(t, roots.AppendCertsFromPEM(ca))
	config := &tls.Config{RootCAs: roots, ServerName: "console.example"}
	if len(certificate) == 2 {
		base := filepath.Join(certificate[0], "clients", certificate[1])
		pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
		require.NoError(t, err)
		// Sent even to a server that asks for another authority's, because the server must refuse it.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	source := &net.TCPAddr{IP: address}
	transport := &http.Transport{
		TLSClientConfig:   config,
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			target := p.https
			if strings.HasSuffix(address, ":80") {
				target = p.plain
			}
			return (&net.Dialer{LocalAddr: source}).DialContext(ctx, network, target)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// get requests a URL, with headers as name, value, name, value.
func get(t *testing.T, client *http.Client, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		// With this spelling: Set would change it to the canonical one.
		request.Header[headers[i]] = []string{headers[i+1]}
	}
	response, err := client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response, string(body)
}

// console records the requests that reach it.
type console struct {
	*httptest.Server
	hits    atomic.Int32
	mu      sync.Mutex
	last    *http.Request
	release chan struct{}
}

func newConsole(t *testing.T) *console {
	t.Helper()
	c := &console{release: make(chan struct{})}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.hits.Add(1)
		c.mu.Lock()
		c.last = r
		c.mu.Unlock()
		switch r.URL.Path {
		case "/missing":
			http.NotFound(w, r)
		case "/own-policy":
			w.Header().Set("Content-Security-Policy", "script-src 'nonce-x'")
			w.Header().Set("X-Frame-Options", "ALLOWALL")
		case "/hang":
			<-c.release
		case "/ws":
			conn, buffer, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprintf(buffer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\nConnection: %s\r\n\r\n", r.Header.Get("Upgrade"), r.Header.Get("Connection"))
			_ = buffer.Flush()
			line, _ := buffer.ReadString('\n')
			fmt.Fprintf(buffer, "echo %s", line)
			_ = buffer.Flush()
		default:
			fmt.Fprint(w, "hello")
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *console) address() string { return c.Listener.Addr().String() }

func (c *console) seen() *http.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

func mtlsValues(c *console) Nginx {
	return Nginx{Upstreams: map[string]string{"web_console_ng": c.address()}, HTTPSPort: 10443, ServerNames: []string{"console.example", "127.0.0.1", "::1", "localhost"}}
}

func oauth2Values(c, auth *console) Nginx {
	return Nginx{
		Upstreams: map[string]string{"web_console_ng": c.address(), "auth_service": auth.address()},
		HTTPSPort: 443, ServerNames: []string{"console.example"},
	}
}

// guarded asserts the security headers that every response has.
func guarded(t *testing.T, r *http.Response) {
	t.Helper()
	assert.Equal(t, []string{"max-age=31536000"}, r.Header.Values("Strict-Transport-Security"))
	assert.Equal(t, []string{"DENY"}, r.Header.Values("X-Frame-Options"))
	assert.Equal(t, []string{"nosniff"}, r.Header.Values("X-Content-Type-Options"))
	assert.Equal(t, []string{"same-origin"}, r.Header.Values("Referrer-Policy"))
	assert.Len(t, r.Header.Values("Content-Security-Policy"), 1)
	assert.Len(t, r.Header.Values("X-Request-Id"), 1)
	assert.Equal(t, "nginx", r.Header.Get("Server"), "no version")
}

const forged = "CN=forged"

var identityHeaders = []string{"X-SSL-Client-Verify", "X-SSL-Client-S-DN", "X-SSL-Client-I-DN", "X-SSL-Client-Serial", "X-SSL-Client-Fingerprint"}

func forgedHeaders() []string {
	var headers []string
	for _, name := range identityHeaders {
		headers = append(headers, name, forged, strings.ToLower(name), forged, strings.ReplaceAll(name, "-", "_"), forged)
	}
	return headers
}

func TestMTLSForwardsTheClientItVerified(t *testing.T) {
	c := newConsole(t)
	p := startProxy(t, "nginx_mtls", mtlsValues(c))
	for protocol, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(protocol, func(t *testing.T) {
			client := p.client(t, p.certs(), "trader")
			client.Transport.(*http.Transport).ForceAttemptHTTP2 = http2
			// HTTP/2 has lower-case names only; Go's client lowers them.
			headers := append(forgedHeaders(), "X-Forwarded-For", "10.9.9.9", "X-Real-Ip", "10.9.9.9", "X-Request-Id", "mine", "Forwarded", "for=10.9.9.9", "X-Forwarded-Proto", "http")
			response, body := get(t, client, "https://console.example/page?x=1", headers...)
			require.Equal(t, 200, response.StatusCode)
			assert.Equal(t, protocol, response.Proto)
			assert.Equal(t, "hello", body)
			guarded(t, response)

			crt := parsed(t, filepath.Join(p.certs(), "clients/trader.crt"))
			fingerprint := sha1.Sum(crt.Raw)
			seen := c.seen()
			for name, want := range map[string]string{
				"X-SSL-Client-Verify":      "SUCCESS",
				"X-SSL-Client-S-DN":        "CN=trader,O=trading-platform (local)",
				"X-SSL-Client-I-DN":        "CN=trading-platform local CA,O=trading-platform (local)",
				"X-SSL-Client-Serial":      strings.ToUpper(fmt.Sprintf("%0*x", (crt.SerialNumber.BitLen()+7)/8*2, crt.SerialNumber)),
				"X-SSL-Client-Fingerprint": hex.EncodeToString(fingerprint[:]),
				"X-Request-Id":             response.Header.Get("X-Request-Id"),
				"X-Forwarded-Proto":        "https",
				"X-Forwarded-Host":         "console.example",
				"X-Forwarded-Port":         "10443",
			} {
				assert.Equal(t, []string{want}, seen.Header.Values(name), name)
			}
			assert.Equal(t, "console.example", seen.Host)
			assert.Equal(t, "/page?x=1", seen.URL.String())
			assert.Regexp(t, `^127\.0\.1\.\d+$`, seen.Header.Get("X-Forwarded-For"))
			assert.Equal(t, seen.Header.Get("X-Forwarded-For"), seen.Header.Get("X-Real-Ip"))
			assert.Empty(t, seen.Header.Values("Forwarded"))
			assert.NotContains(t, fmt.Sprint(seen.Header), forged)
		})
	}
}

func TestMTLSRefusesEveryoneElse(t *testing.T) {
	c := newConsole(t)
	p := startProxy(t, "nginx_mtls", mtlsValues(c))
	for name, certificate := range map[string][]string{
		"no certificate":                   nil,
		"a certificate of another CA":      {p.otherCA, "trader"},
		"an expired certificate":           {p.expired(), "expired"},
		"no certificate but forged header": nil,
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/", "/healthz", "/ws", "/.well-known/x"} {
				response, body := get(t, p.client(t, certificate...), "https://console.example"+path, forgedHeaders()...)
				assert.Equal(t, 400, response.StatusCode)
				assert.Contains(t, body, "certificate")
				guarded(t, response)
			}
		})
	}
	assert.Zero(t, c.hits.Load(), "nothing reached the console")
}

func TestOAuth2RoutesRequests(t *testing.T) {
	c, auth := newConsole(t), newConsole(t)
	p := startProxy(t, "nginx_oauth2", oauth2Values(c, auth))
	client := p.client(t)
	for path, to := range map[string]*console{
		"/login": auth, "/callback": auth, "/refresh": auth, "/logout": auth, "/csp-report": auth,
		"/": c, "/login/x": c, "/loginx": c, "/healthz": c, "/auth/login": c,
	} {
		response, _ := get(t, client, "https://console.example"+path+"?code=c0de", forgedHeaders()...)
		require.Equal(t, 200, response.StatusCode, path)
		guarded(t, response)
		seen := to.seen()
		require.NotNil(t, seen, path)
		assert.Equal(t, path+"?code=c0de", seen.URL.String())
		for _, name := range identityHeaders {
			assert.Empty(t, seen.Header.Values(name), name)
		}
		assert.NotContains(t, fmt.Sprint(seen.Header), forged)
	}
	assert.EqualValues(t, 5, auth.hits.Load())
	assert.EqualValues(t, 5, c.hits.Load())
}

func TestNginxShowsItsConnections(t *testing.T) {
	p := startProxy(t, "nginx_mtls", full().Nginx)
	for path, status := range map[string]int{"/metrics": 200, "/": 404} {
		response, body := get(t, http.DefaultClient, "http://"+p.metrics+path)
		assert.Equal(t, status, response.StatusCode)
		if status == 200 {
			assert.Regexp(t, `\A# TYPE nginx_connections gauge\n(nginx_connections\{state="[a-z]+"\} \d+\n){3}`+
				`# TYPE nginx_connections_opened_total counter\nnginx_connections_opened_total [1-9]\d*\n\z`, body)
		}
	}
	log, err := os.ReadFile(p.file("access.log"))
	require.NoError(t, err)
	assert.Empty(t, log, "a scrape is not in the log")
}

func TestHeadersAreOnErrorsToo(t *testing.T) {
	c, auth := newConsole(t), newConsole(t)
	p := startProxy(t, "nginx_oauth2", oauth2Values(c, auth))
	auth.Close()
	for name, x := range map[string]struct {
		url    string
		header []string
		status int
	}{
		"not found":       {"https://console.example/missing", nil, 404},
		"upstream away":   {"https://console.example/login", nil, 502},
		"malformed":       {"https://console.example/", []string{"Cookie", strings.Repeat("x", 20000)}, 400},
		"console's own":   {"https://console.example/own-policy", nil, 200},
		"a good answer":   {"https://console.example/", nil, 200},
		"an unknown host": {"https://console.example/", []string{"Host", "other.example"}, 421},
	} {
		t.Run(name, func(t *testing.T) {
			client := p.client(t)
			request, err := http.NewRequest(http.MethodGet, x.url, nil)
			require.NoError(t, err)
			if len(x.header) == 2 && x.header[0] == "Host" {
				request.Host = x.header[1]
			} else if len(x.header) == 2 {
				request.Header.Set(x.header[0], x.header[1])
			}
			// nginx ends an HTTP/2 connection whose headers are too long without an answer.
			client.Transport.(*http.Transport).ForceAttemptHTTP2 = false
			response, err := client.Do(request)
			require.NoError(t, err)
			response.Body.Close()
			assert.Equal(t, x.status, response.StatusCode)
			guarded(t, response)
		})
	}
}

func TestContentSecurityPolicy(t *testing.T) {
	for name, x := range map[string]struct {
		service    string
		reportOnly bool
		present    string
		absent     string
		reports    bool
	}{
		"mtls":               {"nginx_mtls", false, "Content-Security-Policy", "Content-Security-Policy-Report-Only", false},
		"oauth2":             {"nginx_oauth2", false, "Content-Security-Policy", "Content-Security-Policy-Report-Only", true},
		"oauth2 report only": {"nginx_oauth2", true, "Content-Security-Policy-Report-Only", "Content-Security-Policy", true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newConsole(t)
			values := oauth2Values(c, c)
			values.CSPReportOnly = x.reportOnly
			p := startProxy(t, x.service, values)
			client := p.client(t, p.certs(), "trader")
			response, _ := get(t, client, "https://console.example/")
			assert.Contains(t, response.Header.Get(x.present), "default-src 'self'")
			assert.Contains(t, response.Header.Get(x.present), "frame-ancestors 'none'")
			assert.Equal(t, x.reports, strings.Contains(response.Header.Get(x.present), "report-uri /csp-report"))
			assert.Empty(t, response.Header.Get(x.absent))

			response, _ = get(t, client, "https://console.example/own-policy")
			assert.Equal(t, []string{"script-src 'nonce-x'"}, response.Header.Values("Content-Security-Policy"), "a console's own policy stands alone")
			assert.Empty(t, response.Header.Get("Content-Security-Policy-Report-Only"))
		})
	}
}

// burst sends requests concurrently and counts the responses by status.
func burst(t *testing.T, client *http.Client, url string, count int) map[int]int {
	t.Helper()
	var mu sync.Mutex
	var wait sync.WaitGroup
	statuses := map[int]int{}
	for range count {
		wait.Go(func() {
			response, err := client.Get(url)
			if !assert.NoError(t, err) {
				return
			}
			defer response.Body.Close()
			_, _ = io.Copy(io.Discard, response.Body)
			mu.Lock()
			defer mu.Unlock()
			statuses[response.StatusCode]++
		})
	}
	wait.Wait()
	return statuses
}

func TestLimitsAnswer429(t *testing.T) {
	c, auth := newConsole(t), newConsole(t)
	mtls, oauth2 := startProxy(t, "nginx_mtls", mtlsValues(c)), startProxy(t, "nginx_oauth2", oauth2Values(c, auth))

	t.Run("per address", func(t *testing.T) {
		client := oauth2.client(t)
		// One after the other, so that the limit on connections does not apply.
		statuses := map[int]int{}
		for range 100 {
			response, _ := get(t, client, "https://console.example/")
			statuses[response.StatusCode]++
			if response.StatusCode == http.StatusTooManyRequests {
				guarded(t, response)
			}
		}
		assert.Equal(t, 100, statuses[200]+statuses[429], "%v", statuses)
		assert.GreaterOrEqual(t, statuses[200], 41)
		assert.Greater(t, statuses[429], 10)
	})
	t.Run("per subject, whatever the address", func(t *testing.T) {
		statuses := map[int]int{}
		for range 20 {
			client := mtls.client(t, mtls.certs(), "second")
			for range 5 {
				response, _ := get(t, client, "https://console.example/")
				statuses[response.StatusCode]++
			}
		}
		assert.Equal(t, 100, statuses[200]+statuses[429], "%v", statuses)
		assert.Greater(t, statuses[429], 10)
		response, _ := get(t, mtls.client(t, mtls.certs(), "trader"), "https://console.example/")
		assert.Equal(t, 200, response.StatusCode, "another subject is not held up")
	})
	t.Run("logins", func(t *testing.T) {
		client := oauth2.client(t)
		statuses := map[int]int{}
		for range 30 {
			response, _ := get(t, client, "https://console.example/login")
			statuses[response.StatusCode]++
		}
		assert.Equal(t, 30, statuses[200]+statuses[429], "%v", statuses)
		assert.Greater(t, statuses[429], 10)
		response, _ := get(t, client, "https://console.example/")
		assert.Equal(t, 200, response.StatusCode, "the console is not held up by it")
	})
	t.Run("connections", func(t *testing.T) {
		client := oauth2.client(t)
		time.AfterFunc(2*time.Second, func() { close(c.release) })
		statuses := burst(t, client, "https://console.example/hang", 40)
		assert.Equal(t, map[int]int{200: 30, 429: 10}, statuses)
	})
}

func TestTLSVersionsAndCiphers(t *testing.T) {
	c := newConsole(t)
	p := startProxy(t, "nginx_oauth2", oauth2Values(c, c))
	for name, x := range map[string]struct {
		version uint16
		suites  []uint16
		good    bool
	}{
		"TLS 1.0":              {tls.VersionTLS10, nil, false},
		"TLS 1.1":              {tls.VersionTLS11, nil, false},
		"TLS 1.2":              {tls.VersionTLS12, nil, true},
		"TLS 1.3":              {tls.VersionTLS13, nil, true},
		"TLS 1.2 with CBC":     {tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}, false},
		"TLS 1.2 with no ECDH": {tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}, false},
	} {
		t.Run(name, func(t *testing.T) {
			config := p.client(t).Transport.(*http.Transport).TLSClientConfig.Clone()
			config.MinVersion, config.MaxVersion, config.CipherSuites = x.version, x.version, x.suites
			conn, err := tls.Dial("tcp", p.https, config)
			if !x.good {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			conn.Close()
		})
	}
}

func TestPort80RedirectsToHTTPS(t *testing.T) {
	c := newConsole(t)
	mtls, oauth2 := startProxy(t, "nginx_mtls", mtlsValues(c)), startProxy(t, "nginx_oauth2", oauth2Values(c, c))
	for name, x := range map[string]struct {
		proxy *proxy
		url   string
		want  string
	}{
		"another port":   {mtls, "http://console.example/a?b=c", "https://console.example:10443/a?b=c"},
		"by address":     {mtls, "http://127.0.0.1/", "https://127.0.0.1:10443/"},
		"the usual port": {oauth2, "http://console.example/", "https://console.example/"},
		"IPv6":           {mtls, "http://[::1]/", "https://[::1]:10443/"},
		"unknown host":   {oauth2, "http://evil.example/", "https://console.example/"},
	} {
		t.Run(name, func(t *testing.T) {
			response, _ := get(t, x.proxy.client(t), x.url)
			assert.Equal(t, 301, response.StatusCode)
			assert.Equal(t, x.want, response.Header.Get("Location"))
			assert.Equal(t, "DENY", response.Header.Get("X-Frame-Options"))
			assert.Empty(t, response.Header.Get("Strict-Transport-Security"), "has no meaning over plain HTTP")
		})
	}
	assert.Zero(t, c.hits.Load())
}

func TestNoHSTSForLocalhost(t *testing.T) {
	c := newConsole(t)
	p := startProxy(t, "nginx_mtls", mtlsValues(c))
	response, _ := get(t, p.client(t, p.certs(), "trader"), "https://localhost/")
	assert.Equal(t, 200, response.StatusCode)
	assert.Empty(t, response.Header.Get("Strict-Transport-Security"))
	assert.Equal(t, "DENY", response.Header.Get("X-Frame-Options"))
}

func TestWebSocketUpgrade(t *testing.T) {
	c := newConsole(t)
	p := startProxy(t, "nginx_oauth2", oauth2Values(c, c))
	config := p.client(t).Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"http/1.1"}
	conn, err := tls.Dial("tcp", p.https, config)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: console.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	require.NoError(t, err)
	require.Equal(t, 101, response.StatusCode)
	assert.Equal(t, "websocket", response.Header.Get("Upgrade"))
	fmt.Fprint(conn, "ping\n")
	line, err := reader.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "echo ping\n", line)
}

func TestProbe(t *testing.T) {
	c := newConsole(t)
	p := startProxy(t, "nginx_mtls", mtlsValues(c))
	probe := func(path string) int {
		response, err := http.Get("http://" + p.loop + path)
		require.NoError(t, err)
		response.Body.Close()
		return response.StatusCode
	}
	assert.Equal(t, 200, probe("/healthz"))
	assert.Equal(t, "/healthz", c.seen().URL.Path)
	assert.Equal(t, 404, probe("/"), "the probe's door leads nowhere else")
	c.Close()
	assert.Equal(t, 502, probe("/healthz"), "a console that is away shows")
}

func TestLogsAreJSONWithoutSecrets(t *testing.T) {
	c, auth := newConsole(t), newConsole(t)
	p := startProxy(t, "nginx_oauth2", oauth2Values(c, auth))
	client := p.client(t)
	get(t, client, "https://console.example/page?token=s3cret", "Referer", "https://x/?code=s3cret", "Authorization", "s3cret")
	get(t, client, "https://console.example/missing/%22quoted%22?token=s3cret")
	auth.Close()
	response, _ := get(t, client, "https://console.example/callback?code=s3cret&state=s3cret")
	for range 40 {
		get(t, client, "https://console.example/callback?code=s3cret")
	}

	var entries []map[string]any
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(p.file("access.log"))
		require.NoError(t, err)
		assert.NotContains(t, string(text), "s3cret")
		entries = nil
		for line := range strings.Lines(string(text)) {
			var entry map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &entry), line)
			entries = append(entries, entry)
		}
		return len(entries) == 43
	}, 5*time.Second, 20*time.Millisecond)
	assert.NotContains(t, p.errors(t), "s3cret")

	byPath := map[any]map[string]any{}
	for _, entry := range entries {
		if _, ok := byPath[entry["path"]]; !ok {
			byPath[entry["path"]] = entry
		}
		_, err := time.Parse(time.RFC3339Nano, entry["timestamp"].(string))
		assert.NoError(t, err)
		assert.Equal(t, "nginx_oauth2", entry["service"])
		assert.Regexp(t, `^127\.0\.1\.\d+$`, entry["client"])
		assert.IsType(t, 0.0, entry["request_time"])
	}
	assert.Equal(t, "info", byPath["/page"]["level"])
	assert.Equal(t, "GET /page 200", byPath["/page"]["message"])
	assert.Contains(t, byPath, `/missing/"quoted"`)
	failed := byPath["/callback"]
	assert.Equal(t, "error", failed["level"])
	assert.EqualValues(t, 502, failed["status"])
	assert.Equal(t, response.Header.Get("X-Request-Id"), failed["trace_id"])
}

func TestForwardedForIsAcceptedFromTrustedProxiesOnly(t *testing.T) {
	for name, x := range map[string]struct {
		subnet netip.Prefix
		want   string
	}{
		"in the subnet":  {netip.MustParsePrefix("127.0.0.0/16"), "10.9.9.9"},
		"elsewhere":      {netip.MustParsePrefix("172.28.0.0/24"), ""},
		"with no subnet": {netip.Prefix{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newConsole(t)
			values := mtlsValues(c)
			values.TrustedProxies = x.subnet
			p := startProxy(t, "nginx_mtls", values)
			get(t, p.client(t, p.certs(), "trader"), "https://console.example/", "X-Forwarded-For", "1.1.1.1, 10.9.9.9")
			if x.want == "" {
				assert.Regexp(t, `^127\.0\.1\.\d+$`, c.seen().Header.Get("X-Forwarded-For"))
			} else {
				assert.Equal(t, x.want, c.seen().Header.Get("X-Forwarded-For"))
			}
		})
	}
}

// Whatever subnet is trusted, a client with the gateway's address cannot set X-Forwarded-For.
func TestTheGatewayIsNeverATrustedProxy(t *testing.T) {
	for name, x := range map[string]struct {
		trusted, gateway string
		believed         []string // addresses that are
	}{
		"in the middle of a /24":      {"127.0.2.0/24", "127.0.2.65", []string{"127.0.2.66", "127.0.2.64", "127.0.2.1"}},
		"of a /26":                    {"127.0.2.64/26", "127.0.2.65", []string{"127.0.2.66", "127.0.2.74"}},
		"of a part":                   {"127.0.2.64/30", "127.0.2.65", []string{"127.0.2.66"}},
		"of everything":               {"0.0.0.0/0", "127.0.2.65", []string{"127.0.2.66", "127.0.3.1"}},
		"alone":                       {"127.0.2.65/32", "127.0.2.65", nil},
		"where another part is meant": {"127.0.2.128/25", "127.0.2.65", []string{"127.0.2.129"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newConsole(t)
			values := mtlsValues(c)
			values.TrustedProxies, values.Gateway = netip.MustParsePrefix(x.trusted), netip.MustParseAddr(x.gateway)
			p := startProxy(t, "nginx_mtls", values)
			from := func(address string) string {
				get(t, p.clientFrom(t, net.ParseIP(address), p.certs(), "trader"), "https://console.example/", "X-Forwarded-For", "10.9.9.9")
				return c.seen().Header.Get("X-Forwarded-For")
			}
			assert.Equal(t, x.gateway, from(x.gateway))
			for _, address := range x.believed {
				assert.Equal(t, "10.9.9.9", from(address), address)
			}
		})
	}
}

func parsed(t *testing.T, place string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(place, strings.TrimSuffix(place, ".crt")+".key")
	require.NoError(t, err)
	return pair.Leaf
}
