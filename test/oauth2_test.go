//go:build live

package test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/settings"
	"trading-platform/test/openid"
)

// TestOAuth2 runs alone: a browser drops its requests when the host's networks change, as other tests' stacks make them do.
func TestOAuth2(t *testing.T) {
	dir := makeCerts(t, time.Now())
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	stack := newStack(t, "oauth2", nil)
	subnet := netip.MustParsePrefix(stack.subnet)
	nginx := subnet.Addr().As4()
	nginx[3] = 77
	// The network's gateway is this host: the one address that the browser and auth_service both reach.
	issuer := netip.AddrPortFrom(subnet.Addr().Next(), uint16(stack.offset)).String()
	stack.configure(map[string]any{
		"certsDir": dir, "nginxAddress": netip.AddrFrom4(nginx).String(), "disabled": databases["disabled"],
		"env": with(secrets, map[string]any{
			"AUTH0_DOMAIN": "http://" + issuer, "AUTH0_CLIENT_ID": "console", "AUTH0_CLIENT_SECRET": "of-the-test-provider",
			"OAUTH2_ALLOWED_SUBS": openid.Subject("alice") + "," + openid.Subject("bob"), "SESSION_ENCRYPTION_KEY": base64.StdEncoding.EncodeToString(key),
		}),
	})
	s := newSite(t, stack, dir)
	s.up()
	assertHealthy(t, s.stack)
	assert.Subset(t, s.names(), []string{"postgres", "redis", "auth_service", "web_console_oauth2", "nginx_oauth2"})
	s.unchanged("a preview after up")
	provider, err := openid.Start(openid.Config{
		Address: issuer, ClientID: "console", ClientSecret: "of-the-test-provider",
		Redirects: []string{s.https("/callback")}, Logouts: []string{s.https("")},
		Users:      map[string]string{"alice": "wonderland", "bob": "builder", "mallory": "malice"},
		AccessLife: 30 * time.Second, // so short that the page renews it at once
	})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, provider.Close()) })

	t.Run("values that follow others do, inside the containers", func(t *testing.T) {
		auth, console := s.inspectEnv("auth_service"), s.inspectEnv("web_console_oauth2")
		for name, env := range map[string]map[string]string{"auth_service": auth, "web_console_oauth2": console} {
			assert.Equal(t, s.https("/callback"), env["OAUTH2_REDIRECT_URI"], name)
			assert.Equal(t, netip.AddrFrom4(nginx).String(), env["TRUSTED_PROXY_IPS"], name)
		}
		assert.Equal(t, s.https(""), auth["OAUTH2_LOGOUT_REDIRECT_URI"])
		assert.Equal(t, s.https("/logout"), console["OAUTH2_LOGOUT_REDIRECT_URI"])
		assert.Equal(t, strings.TrimPrefix(settings.PublicHost, "web-console"), auth["COOKIE_DOMAIN"])
		assert.Equal(t, s.subnet, s.inspectEnv("nginx_oauth2")["TRUSTED_PROXY_SUBNET"])
		config := s.exec("nginx_oauth2", "cat", "/etc/nginx/nginx.conf")
		assert.Contains(t, config, fmt.Sprintf("X-Forwarded-Port %d;", 443+s.offset))
		assert.Contains(t, config, "The subnet "+s.subnet+" without its gateway")
		assert.Equal(t, netip.AddrFrom4(nginx), s.inspect("nginx_oauth2").NetworkSettings.Networks[s.prefix+"_trading_platform"].IPAddress)
	})
	t.Run("a person's browser: login, page, refresh, logout", func(t *testing.T) { testBrowser(t, s, provider, dir) })
	t.Run("logins that do not hold are refused", func(t *testing.T) { testLogins(t, s) })
	t.Run("sessions that do not hold are refused", func(t *testing.T) { testSessions(t, s, provider, key) })
	t.Run("nobody is sent to another site", func(t *testing.T) {
		for _, next := range []string{"https://evil.example", "//evil.example", `/\evil.example`, `\\evil.example`, "/%09/evil.example", "javascript:alert(1)", "evil.example"} {
			a := s.visitor(t).get("/login?next=" + strings.ReplaceAll(url.QueryEscape(next), "%2509", "%09"))
			assert.Equal(t, http.StatusBadRequest, a.status, next)
			assert.Empty(t, a.header.Get("Location"), next)
		}
		v := s.visitor(t)
		a := v.get(v.login("/login?next=/api/stack", "bob", nil))
		assert.Equal(t, "/api/stack", a.header.Get("Location"), "a page of our own is fine")
	})
	t.Run("breaches of the content security policy are logged", func(t *testing.T) {
		report := `{"csp-report": {"effective-directive": "script-src", "blocked-uri": "https://evil.example/x.js?token=canary"}}`
		response, err := s.client(nil).Post(s.https("/csp-report"), "application/csp-report", strings.NewReader(report))
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		assert.Equal(t, http.StatusNoContent, response.StatusCode)
		logged := s.logs(s.prefix+"_auth_service", "all")
		assert.Contains(t, logged, "https://evil.example/x.js")
		assert.NotContains(t, logged, "canary", "queries stay out of the log")
	})
	t.Run("from inside the network nobody is let in without a session", func(t *testing.T) {
		for _, network := range []string{"default", "trading_platform"} {
			out := s.fromInside(t, network, "web_console_oauth2", 8080, "/", "X-SSL-Client-Verify", "SUCCESS", "X-SSL-Client-S-DN", "CN=mallory", "X-User", "mallory")
			assert.Contains(t, out, "303 See Other")
			assert.NotContains(t, out, "mallory")
			out = s.fromInside(t, network, "auth_service", 8001, "/refresh", "X-Internal-Refresh-Secret", "")
			assert.NotContains(t, out, "200 OK")
		}
	})

	v := s.visitor(t)
	require.Equal(t, "/", v.get(v.login("/login", "alice", nil)).header.Get("Location"))
	assertGuarded(t, s, v.client)
	t.Run("logins over the limit are 429", func(t *testing.T) {
		statuses := s.flood(t, s.client(nil), "/login", 40)
		assert.Positive(t, statuses[http.StatusSeeOther], "%v", statuses)
		assert.Greater(t, statuses[http.StatusTooManyRequests], 20, "%v", statuses)
	})
}

func TestRequiredSecrets(t *testing.T) {
	t.Parallel()
	s := newStack(t, "oauth2", nil)
	refused := func() string {
		out, err := s.try("up", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
		require.Error(t, err)
		assert.Empty(t, s.names(), "nothing was made")
		assert.Empty(t, s.networks())
		return out
	}
	out := refused()
	for name, fix := range map[string]string{
		"AUTH0_DOMAIN":           "Fix: pulumi config set -s oauth2 AUTH0_DOMAIN <value>",
		"AUTH0_CLIENT_ID":        "Fix: pulumi config set -s oauth2 AUTH0_CLIENT_ID <value>",
		"AUTH0_CLIENT_SECRET":    "Fix: pulumi config set -s oauth2 --secret AUTH0_CLIENT_SECRET",
		"SESSION_ENCRYPTION_KEY": "platform init -s oauth2 generates one, or: pulumi config set -s oauth2 --secret SESSION_ENCRYPTION_KEY",
		"WEB_CONSOLE_PASSWORD":   "platform init -s oauth2 generates one, or: pulumi config set -s oauth2 --secret WEB_CONSOLE_PASSWORD",
		"WEB_CONSOLE_USER":       "platform init -s oauth2 generates one, or: pulumi config set -s oauth2 WEB_CONSOLE_USER <value>",
		"POSTGRES_PASSWORD":      "platform init -s oauth2 generates one, or: pulumi config set -s oauth2 --secret POSTGRES_PASSWORD",
	} {
		assert.Contains(t, out, "trading-platform:"+name+": ")
		assert.Contains(t, out, fix)
	}
	assert.Contains(t, out, "required by web_console_oauth2, auth_service, but not set")
	assert.Contains(t, out, "certsDir: nginx needs certificates, but the stack has no folder with certificates")
	assert.Contains(t, out, "Fix: platform init -s oauth2, or: ")
	assert.Contains(t, out, "postgres would run with its public default, and profile oauth2 is for stacks that others can reach")

	s.configure(map[string]any{"env": with(secrets, map[string]any{
		"AUTH0_DOMAIN": "tenant.example.com", "AUTH0_CLIENT_ID": "console", "AUTH0_CLIENT_SECRET": "a-secret", "SESSION_ENCRYPTION_KEY": "",
	})})
	out = refused()
	assert.Contains(t, out, "SESSION_ENCRYPTION_KEY")
	assert.NotContains(t, out, "trading-platform:AUTH0_", "what is set is not asked for")
}

// networkChanged is what Chromium says when an interface of the host came or went meanwhile; a page that it hit loads again.
const networkChanged = "ERR_NETWORK_CHANGED"

// testBrowser is a person with a browser that knows nothing of the test but the site's name and certificate.
func testBrowser(t *testing.T, s *site, provider *openid.Provider, certsDir string) {
	text, err := os.ReadFile(filepath.Join(certsDir, "server.crt"))
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	require.NotNil(t, block)
	server, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	pin := sha256.Sum256(server.RawSubjectPublicKeyInfo)
	allocator, stop := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, // root has none
		chromedp.Flag("host-resolver-rules", "MAP "+settings.PublicHost+" 127.0.0.1"),
		chromedp.Flag("ignore-certificate-errors-spki-list", base64.StdEncoding.EncodeToString(pin[:])),
		chromedp.UserDataDir(t.TempDir()),
	)...)
	defer stop()
	browser, closeBrowser := chromedp.NewContext(allocator)
	defer closeBrowser()
	browser, cancel := context.WithTimeout(browser, 90*time.Second)
	defer cancel()
	var mutex sync.Mutex
	var complaints []string
	require.NoError(t, chromedp.Listen(browser, func(event any) {
		if e, ok := event.(*log.EventEntryAdded); ok && e.Entry.Level == log.EntryLevelError && !strings.Contains(e.Entry.Text, networkChanged) {
			mutex.Lock()
			defer mutex.Unlock()
			complaints = append(complaints, e.Entry.Text+" "+e.Entry.URL)
		}
	}))
	see := func(what chromedp.Action[string]) string {
		t.Helper()
		text, err := chromedp.Run(browser, what)
		require.NoError(t, err)
		return text
	}
	do := func(name string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		err := chromedp.Do(browser, actions...)
		for range 5 {
			if err == nil || !strings.Contains(err.Error(), networkChanged) {
				break
			}
			time.Sleep(time.Second)
			err = chromedp.Do(browser, actions...)
		}
		if err != nil {
			require.NoError(t, err, "%s: at %s\n%s", name, see(chromedp.Location()), see(chromedp.OuterHTML("html")))
		}
	}

	do("the site", chromedp.Navigate(s.https("/")), chromedp.WaitVisible("#password"))
	assert.True(t, strings.HasPrefix(see(chromedp.Location()), provider.Issuer()+"/login"), "a stranger is sent to the provider")
	do("login", chromedp.SendKeys("#user", "alice"), chromedp.SendKeys("#password", "wonderland"), chromedp.Click("#submit"), chromedp.WaitVisible("#signout"))
	assert.Equal(t, s.https("/"), see(chromedp.Location()))
	assert.Equal(t, "Test user local|alice", see(chromedp.Text("#user")))
	title, err := chromedp.Run(browser, chromedp.AttributeValue("#user", "title"))
	require.NoError(t, err)
	assert.Equal(t, "OpenID Connect: local|alice", title.Value)
	kept, err := chromedp.CallBrowser(browser, storage.GetCookies, storage.GetCookiesParams{})
	require.NoError(t, err)
	found := false
	for _, c := range kept.Cookies {
		if c.Name == "__Secure-session" {
			found = true
			assert.Equal(t, ".trading-platform.local", c.Domain)
			assert.True(t, c.Secure && c.HTTPOnly)
			assert.Equal(t, network.CookieSameSiteLax, c.SameSite)
		}
	}
	assert.True(t, found, "the browser keeps the session's cookie")

	require.Eventually(t, func() bool { return provider.Renewals() > 0 }, 20*time.Second, 100*time.Millisecond, "the page renews its tokens by itself")
	do("the page again", chromedp.Reload(), chromedp.WaitVisible("#signout"))

	s.restart(t, "auth_service")
	renewals := provider.Renewals()
	do("the page after a restart of auth_service", chromedp.Reload(), chromedp.WaitVisible("#signout"))
	require.Eventually(t, func() bool { return provider.Renewals() > renewals }, 20*time.Second, 100*time.Millisecond, "and renews them still")

	assert.Equal(t, 1, provider.Sessions())
	do("logout", chromedp.Click("#signout"), chromedp.WaitVisible("#password"))
	assert.Zero(t, provider.Sessions(), "the provider's session is over too")
	// Back on the site, which asks for a login, where the provider asks for the password again.
	assert.True(t, strings.HasPrefix(see(chromedp.Location()), provider.Issuer()+"/login"))
	mutex.Lock()
	defer mutex.Unlock()
	assert.Empty(t, complaints, "the browser's console")
}

// visitor is a browser without its window: it keeps cookies, and is sent on only when the test says so.
type visitor struct {
	t      *testing.T
	s      *site
	client *http.Client
}

func (s *site) visitor(t *testing.T) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	c := s.client(nil)
	c.Jar = jar
	return &visitor{t: t, s: s, client: c}
}

// get asks for a path of the site or for any address, as often as the site's limit wants.
func (v *visitor) get(address string, header ...string) answer {
	return v.do(http.MethodGet, address, header...)
}

func (v *visitor) do(method, address string, header ...string) answer {
	v.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = v.s.https(address)
	}
	for {
		a, err := ask(v.t, v.client, method, address, header...)
		require.NoError(v.t, err)
		if a.status != http.StatusTooManyRequests {
			return a
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// login begins a login at a path and goes through with it at the provider. It gives the address
// that the provider sends the browser back to, which is not yet asked for. change, where
// given, falsifies what the site asks of the provider.
func (v *visitor) login(path, user string, change func(url.Values)) string {
	v.t.Helper()
	a := v.get(path)
	require.Equal(v.t, http.StatusSeeOther, a.status, a.body)
	asked, err := url.Parse(a.header.Get("Location"))
	require.NoError(v.t, err)
	query := asked.Query()
	if change != nil {
		change(query)
	}
	asked.RawQuery = query.Encode()
	a = v.get(asked.String())
	require.Equal(v.t, http.StatusFound, a.status, a.body)
	form := asked.ResolveReference(&url.URL{Path: "/login"}).String() + a.header.Get("Location")[len("/login"):]
	passwords := map[string]string{"alice": "wonderland", "bob": "builder", "mallory": "malice"}
	response, err := v.client.PostForm(form, url.Values{"user": {user}, "password": {passwords[user]}})
	require.NoError(v.t, err)
	require.NoError(v.t, response.Body.Close())
	require.Equal(v.t, http.StatusFound, response.StatusCode)
	next, err := response.Location()
	require.NoError(v.t, err)
	a = v.get(next.String())
	require.Equal(v.t, http.StatusFound, a.status, a.body)
	return a.header.Get("Location")
}

// signedIn reports whether the console shows the visitor its page.
func (v *visitor) signedIn() bool {
	v.t.Helper()
	a := v.get("/")
	if a.status == http.StatusOK {
		return true
	}
	assert.Equal(v.t, http.StatusSeeOther, a.status)
	assert.Equal(v.t, "/login?next=%2F", a.header.Get("Location"))
	assert.Equal(v.t, http.StatusUnauthorized, v.get("/api/stack").status)
	return false
}

func testLogins(t *testing.T, s *site) {
	set := func(name, value string) func(url.Values) {
		return func(query url.Values) { query.Set(name, value) }
	}
	for name, test := range map[string]struct {
		user   string
		change func(url.Values)
		status int
	}{
		"a subject that is not on the list": {"mallory", nil, http.StatusForbidden},
		"a nonce of another login":          {"alice", set("nonce", "of-another-login"), http.StatusForbidden},
		"a challenge of another verifier":   {"alice", set("code_challenge", strings.Repeat("x", 43)), http.StatusForbidden},
		"a state that we did not give out":  {"alice", set("state", strings.Repeat("x", 43)), http.StatusBadRequest},
		"a state that is none":              {"alice", set("state", "x"), http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			v := s.visitor(t)
			a := v.get(v.login("/login", test.user, test.change))
			assert.Equal(t, test.status, a.status, a.body)
			assert.False(t, v.signedIn())
		})
	}
	t.Run("a state that was used", func(t *testing.T) {
		v := s.visitor(t)
		back := v.login("/login", "alice", nil)
		require.Equal(t, http.StatusSeeOther, v.get(back).status)
		require.True(t, v.signedIn())
		assert.Equal(t, http.StatusBadRequest, v.get(back).status)
	})
	t.Run("somebody else's browser", func(t *testing.T) {
		back := s.visitor(t).login("/login", "alice", nil)
		v := s.visitor(t)
		assert.Equal(t, http.StatusBadRequest, v.get(back).status)
		assert.False(t, v.signedIn())
	})
	t.Run("a code that was changed", func(t *testing.T) {
		v := s.visitor(t)
		back, err := url.Parse(v.login("/login", "alice", nil))
		require.NoError(t, err)
		query := back.Query()
		query.Set("code", "x"+query.Get("code"))
		back.RawQuery = query.Encode()
		assert.Equal(t, http.StatusForbidden, v.get(back.String()).status)
		assert.False(t, v.signedIn())
	})
}

func testSessions(t *testing.T, s *site, provider *openid.Provider, key []byte) {
	enter := func(t *testing.T) (*visitor, string) {
		t.Helper()
		v := s.visitor(t)
		require.Equal(t, http.StatusSeeOther, v.get(v.login("/login", "bob", nil)).status)
		require.True(t, v.signedIn())
		site, err := url.Parse(s.https("/"))
		require.NoError(t, err)
		for _, c := range v.client.Jar.Cookies(site) {
			if c.Name == "__Secure-session" {
				return v, c.Value
			}
		}
		require.Fail(t, "no session cookie")
		return nil, ""
	}
	cookie := func(value string) []string { return []string{"Cookie", "__Secure-session=" + value} }
	t.Run("a tampered cookie", func(t *testing.T) {
		_, id := enter(t)
		stranger := s.visitor(t)
		require.Equal(t, http.StatusOK, stranger.get("/", cookie(id)...).status, "the cookie is the session")
		last := byte('A')
		if id[len(id)-1] == last {
			last = 'B'
		}
		for _, forged := range []string{id[:len(id)-1] + string(last), id + "A", id[1:], "", "admin", "../session", storedUnder(id)} {
			assert.Equal(t, http.StatusSeeOther, stranger.get("/", cookie(forged)...).status, forged)
			assert.Equal(t, http.StatusUnauthorized, stranger.do(http.MethodPost, "/refresh", cookie(forged)...).status, forged)
		}
	})
	t.Run("a tampered session in Redis", func(t *testing.T) {
		v, id := enter(t)
		sealed := s.redis(t, nil, "GET", storedUnder(id))
		assert.NotContains(t, string(sealed), "local|bob", "it is encrypted")
		sealed[len(sealed)-1] ^= 1
		s.redis(t, sealed, "-x", "SET", storedUnder(id))
		assert.False(t, v.signedIn())
	})
	t.Run("another person's session under this one's name in Redis", func(t *testing.T) {
		v, id := enter(t)
		_, other := enter(t)
		s.redis(t, s.redis(t, nil, "GET", storedUnder(other)), "-x", "SET", storedUnder(id))
		assert.False(t, v.signedIn())
	})
	t.Run("idle for too long", func(t *testing.T) {
		v, id := enter(t)
		left := strings.TrimSpace(string(s.redis(t, nil, "TTL", storedUnder(id))))
		assert.Regexp(t, `^(900|89\d)$`, left, "SESSION_TIMEOUT_MINUTES is 15")
		s.redis(t, nil, "PEXPIRE", storedUnder(id), "1")
		assert.False(t, v.signedIn())
	})
	t.Run("past its absolute end", func(t *testing.T) {
		v, id := enter(t)
		box := sealedWith(t, key)
		plain, err := box.Open(nil, nil, s.redis(t, nil, "GET", storedUnder(id)), []byte(storedUnder(id)))
		require.NoError(t, err, "AES-256-GCM with SESSION_ENCRYPTION_KEY")
		var session struct {
			Deadline time.Time
			Values   map[string]any
		}
		require.NoError(t, gob.NewDecoder(bytes.NewReader(plain)).Decode(&session))
		lifetime := time.Until(session.Deadline).Round(time.Hour)
		age := func(by time.Duration) {
			session.Deadline = time.Now().Add(lifetime - by)
			var aged bytes.Buffer
			require.NoError(t, gob.NewEncoder(&aged).Encode(session))
			s.redis(t, box.Seal(nil, nil, aged.Bytes(), []byte(storedUnder(id))), "-x", "SET", storedUnder(id))
		}
		age(3*time.Hour + 59*time.Minute)
		assert.True(t, v.signedIn(), "SESSION_ABSOLUTE_TIMEOUT_HOURS is 4")
		age(4*time.Hour + time.Second)
		assert.False(t, v.signedIn())
	})
	t.Run("signed out of", func(t *testing.T) {
		v, id := enter(t)
		require.Equal(t, http.StatusForbidden, v.get("/logout", "Sec-Fetch-Site", "cross-site").status, "another site cannot do it")
		a := v.get("/logout")
		assert.Equal(t, http.StatusSeeOther, a.status)
		assert.True(t, strings.HasPrefix(a.header.Get("Location"), provider.Issuer()+"/end_session?"), a.header.Get("Location"))
		assert.Equal(t, http.StatusSeeOther, s.visitor(t).get("/", cookie(id)...).status, "a copy of the cookie is worth nothing")
	})
	t.Run("not renewed by the provider", func(t *testing.T) {
		v, _ := enter(t)
		assert.Equal(t, http.StatusOK, v.do(http.MethodPost, "/refresh").status)
		provider.Revoke()
		assert.Equal(t, http.StatusUnauthorized, v.do(http.MethodPost, "/refresh").status)
		assert.False(t, v.signedIn())
	})
}

// storedUnder is where the session of a cookie lies in Redis.
func storedUnder(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "session:" + hex.EncodeToString(sum[:])
}

func sealedWith(t *testing.T, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	require.NoError(t, err)
	box, err := cipher.NewGCMWithRandomNonce(block)
	require.NoError(t, err)
	return box
}

// redis runs a command on the database of the sessions, whose last argument may come as bytes, and gives what it answers.
func (s *stack) redis(t *testing.T, stdin []byte, command ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", append([]string{"exec", "-i", s.prefix + "_redis", "redis-cli", "-n", "1"}, command...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	require.NoError(t, err, "%v", command)
	return bytes.TrimSuffix(out, []byte("\n"))
}
