package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testProvider is a small OpenID provider with Auth0's shape: it signs in whoever comes.
type testProvider struct {
	*httptest.Server
	signer jose.Signer

	mu      sync.Mutex
	subject string
	// nonce, audience and refreshSubject, where set, are put in tokens in place of what is right.
	nonce, audience, refreshSubject string
	refuseRefresh                   bool
	life                            int                   // seconds of an access token; the page renews one of less than a minute
	codes                           map[string]url.Values // what the authorization request asked
	refreshTokens                   map[string]string     // and their subjects
	exchanges                       int
	ended                           url.Values
}

// What the stack fixes.
const sessionIdle, sessionAbsolute = 15 * time.Minute, 4 * time.Hour

func newTestProvider(t *testing.T) *testProvider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}}, nil)
	require.NoError(t, err)
	p := &testProvider{signer: signer, subject: "auth0|alice", life: 30, codes: map[string]url.Values{}, refreshTokens: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"issuer": p.URL + "/", "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/oauth/token",
			"jwks_uri": p.URL + "/jwks", "end_session_endpoint": p.URL + "/oidc/logout", "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /oauth/token", p.token)
	mux.HandleFunc("GET /oidc/logout", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ended = r.URL.Query()
		http.Redirect(w, r, r.URL.Query().Get("post_logout_redirect_uri"), http.StatusFound)
	})
	p.Server = httptest.NewUnstartedServer(mux)
	p.Config.ErrorLog = log.New(io.Discard, "", 0) // one test is a client that does not trust it
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

func (p *testProvider) authorize(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	code := rand.Text()
	p.codes[code] = r.URL.Query()
	http.Redirect(w, r, r.URL.Query().Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {r.URL.Query().Get("state")}}.Encode(), http.StatusFound)
}

func (p *testProvider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exchanges++
	deny := func() { writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant"}) }
	subject, nonce := p.subject, ""
	switch r.PostFormValue("grant_type") {
	case "authorization_code":
		asked, ok := p.codes[r.PostFormValue("code")]
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		if !ok || asked.Get("code_challenge_method") != "S256" || asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) {
			deny()
			return
		}
		delete(p.codes, r.PostFormValue("code"))
		nonce = asked.Get("nonce")
	case "refresh_token":
		before, ok := p.refreshTokens[r.PostFormValue("refresh_token")]
		if !ok || p.refuseRefresh {
			deny()
			return
		}
		delete(p.refreshTokens, r.PostFormValue("refresh_token"))
		subject = before
		if p.refreshSubject != "" {
			subject = p.refreshSubject
		}
	}
	if p.nonce != "" {
		nonce = p.nonce
	}
	audience := "the-client"
	if p.audience != "" {
		audience = p.audience
	}
	now := time.Now()
	idToken, err := jwt.Signed(p.signer).Claims(jwt.Claims{Issuer: p.URL + "/", Subject: subject, Audience: jwt.Audience{audience}, IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(time.Hour))}).
		Claims(map[string]any{"nonce": nonce, "name": "Alice Example", "email": "alice@example.com"}).Serialize()
	if err != nil {
		deny()
		return
	}
	refresh := rand.Text()
	p.refreshTokens[refresh] = subject
	writeJSON(w, http.StatusOK, map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": p.life, "refresh_token": refresh, "id_token": idToken})
}

func (p *testProvider) set(change func(*testProvider)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

// authFixture is auth_service and the oauth2 console behind one HTTPS address, as nginx joins them, with a provider.
type authFixture struct {
	t        *testing.T
	auth     *fixture
	console  *fixture
	provider *testProvider
	site     string
	env      map[string]string // of auth_service
}

func newAuthFixture(t *testing.T, changes map[string]string) *authFixture {
	t.Helper()
	a := &authFixture{t: t, provider: newTestProvider(t)}
	var front http.Handler
	site := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { front.ServeHTTP(w, r) }))
	t.Cleanup(site.Close)
	a.site = site.URL
	env := map[string]string{"AUTH0_DOMAIN": a.provider.URL + "/", "OAUTH2_REDIRECT_URI": site.URL + "/callback", "OAUTH2_LOGOUT_REDIRECT_URI": site.URL + "/static/icon.svg",
		"COOKIE_DOMAIN": "127.0.0.1", "TRUSTED_PROXY_IPS": "192.0.2.1"}
	for name, value := range changes {
		env[name] = value
	}
	a.auth = newFixture(t, "auth_service", env, func(s *service) { s.peers = a.provider.Client() })
	a.env = env
	env["REDIS_HOST"], env["REDIS_PORT"] = a.auth.redis.Host(), a.auth.redis.Port()
	a.console = newFixture(t, "web_console_oauth2", map[string]string{"REDIS_PORT": a.auth.redis.Port()})
	authHandler, consoleHandler := a.auth.handler(), a.console.handler()
	front = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/login", "/callback", "/refresh", "/logout", "/csp-report":
			authHandler.ServeHTTP(w, r)
		default:
			consoleHandler.ServeHTTP(w, r)
		}
	})
	return a
}

// browser keeps cookies as a browser does, and follows redirects until stop says not to.
type browser struct {
	*http.Client
	t    *testing.T
	stop func(*http.Request) bool
}

func (a *authFixture) browser() *browser {
	jar, err := cookiejar.New(nil)
	require.NoError(a.t, err)
	b := &browser{t: a.t, Client: &http.Client{Jar: jar, Transport: a.provider.Client().Transport}}
	// Both test servers have httptest's one certificate.
	b.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if b.stop != nil && b.stop(r) {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return b
}

func (b *browser) do(method, address string, header ...string) (int, string, *http.Response) {
	b.t.Helper()
	req, err := http.NewRequest(method, address, nil)
	require.NoError(b.t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := b.Do(req)
	require.NoError(b.t, err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	require.NoError(b.t, err)
	return res.StatusCode, string(text), res
}

// cookie returns the value of the session's cookie.
func (b *browser) cookie(site string) string {
	u, err := url.Parse(site)
	require.NoError(b.t, err)
	for _, c := range b.Jar.Cookies(u) {
		if c.Name == "__Secure-session" {
			return c.Value
		}
	}
	return ""
}

// toCallback signs in at the provider and stops just before the answer reaches auth_service.
func (b *browser) toCallback(site, next string) string {
	b.t.Helper()
	b.stop = func(r *http.Request) bool { return r.URL.Path == "/callback" }
	defer func() { b.stop = nil }()
	code, _, res := b.do("GET", site+"/login?next="+url.QueryEscape(next))
	require.Equal(b.t, http.StatusFound, code)
	return res.Header.Get("Location")
}

func TestLogin(t *testing.T) {
	a := newAuthFixture(t, nil)
	b := a.browser()
	code, page, res := b.do("GET", a.site+"/")
	assert.Equal(t, http.StatusOK, code)
	assert.Equal(t, "/", res.Request.URL.Path)
	assert.Contains(t, page, "Alice Example")

	a.provider.set(func(p *testProvider) { assert.Empty(t, p.codes) })
	id := b.cookie(a.site)
	require.NotEmpty(t, id)
	stored, err := a.auth.redis.DB(1).Get(storedUnder(id))
	require.NoError(t, err)
	assert.NotContains(t, stored, "alice", "the session lies encrypted")
	assert.NotContains(t, a.auth.redis.Dump(), id, "Redis does not hold what the cookie holds")
	for _, secret := range []string{id, "code=", "client-secret", "state="} {
		assert.NotContains(t, a.auth.log.String(), secret)
	}
}

func TestLoginRequestAndCookies(t *testing.T) {
	a := newAuthFixture(t, nil)
	b := a.browser()
	b.stop = func(*http.Request) bool { return true }
	code, _, res := b.do("GET", a.site+"/login")
	require.Equal(t, http.StatusSeeOther, code)
	to, err := url.Parse(res.Header.Get("Location"))
	require.NoError(t, err)
	query := to.Query()
	assert.Equal(t, "S256", query.Get("code_challenge_method"))
	assert.Equal(t, "https://api.trading-platform.local", query.Get("audience"))
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		assert.GreaterOrEqual(t, len(query.Get(name)), 43, name)
	}
	assert.Contains(t, res.Header.Get("Set-Cookie"), "HttpOnly; Secure; SameSite=Lax")

	b = a.browser()
	callback := b.toCallback(a.site, "/")
	b.stop = func(*http.Request) bool { return true }
	_, _, res = b.do("GET", callback)
	cookie := res.Header.Get("Set-Cookie")
	for _, part := range []string{"__Secure-session" + "=", "Domain=127.0.0.1", "Path=/", "HttpOnly", "Secure", "SameSite=Lax"} {
		assert.Contains(t, cookie, part)
	}
}

func TestLoginRefused(t *testing.T) {
	tests := map[string]struct {
		env    map[string]string
		change func(*testProvider)
		// spoil changes the browser or the callback's address before it is opened.
		spoil  func(t *testing.T, a *authFixture, b *browser, callback string) string
		status int
		says   string
	}{
		"a subject that is not on the list":   {env: map[string]string{"OAUTH2_ALLOWED_SUBS": "auth0|bob,auth0|carol"}, status: http.StatusForbidden, says: "may not use the console"},
		"a nonce of another login":            {change: func(p *testProvider) { p.nonce = "other" }, status: http.StatusForbidden, says: "could not be verified"},
		"a token for another client":          {change: func(p *testProvider) { p.audience = "somebody" }, status: http.StatusForbidden, says: "could not be verified"},
		"a code that the provider never gave": {spoil: replaceQuery("code", "made-up"), status: http.StatusForbidden, says: "could not be verified"},
		"a state that nobody asked for":       {spoil: replaceQuery("state", strings.Repeat("A", 43)), status: http.StatusBadRequest, says: "used before"},
		"no state":                            {spoil: replaceQuery("state", ""), status: http.StatusBadRequest, says: "used before"},
		"the provider says no":                {spoil: replaceQuery("error", "access_denied"), status: http.StatusForbidden, says: "did not sign you in"},
		"a login that another browser started": {spoil: func(_ *testing.T, a *authFixture, b *browser, callback string) string {
			b.Jar = a.browser().Jar
			return callback
		}, status: http.StatusBadRequest, says: "another browser"},
		"a login that took too long": {spoil: func(_ *testing.T, a *authFixture, _ *browser, callback string) string {
			a.auth.redis.FastForward(sessionIdle + time.Second)
			return callback
		}, status: http.StatusBadRequest, says: "took too long"},
		"a stored login that was tampered with": {spoil: func(t *testing.T, a *authFixture, _ *browser, callback string) string {
			for _, key := range a.auth.redis.DB(1).Keys() {
				require.NoError(t, a.auth.redis.DB(1).Set(key, "tampered-with-tampered-with-tampered-with"))
			}
			return callback
		}, status: http.StatusBadRequest, says: "used before"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := newAuthFixture(t, test.env)
			if test.change != nil {
				a.provider.set(test.change)
			}
			b := a.browser()
			callback := b.toCallback(a.site, "/")
			if test.spoil != nil {
				callback = test.spoil(t, a, b, callback)
			}
			code, text, _ := b.do("GET", callback)
			assert.Equal(t, test.status, code)
			assert.Regexp(t, test.says, text)
			b.stop = func(*http.Request) bool { return true }
			code, _, res := b.do("GET", a.site+"/")
			assert.Equal(t, http.StatusSeeOther, code, "the console stays closed")
			assert.Equal(t, "/login?next=%2F", res.Header.Get("Location"))
		})
	}
}

func replaceQuery(name, value string) func(*testing.T, *authFixture, *browser, string) string {
	return func(t *testing.T, _ *authFixture, _ *browser, address string) string {
		u, err := url.Parse(address)
		require.NoError(t, err)
		query := u.Query()
		query.Set(name, value)
		u.RawQuery = query.Encode()
		return u.String()
	}
}

func TestReplayedState(t *testing.T) {
	a := newAuthFixture(t, nil)
	b := a.browser()
	callback := b.toCallback(a.site, "/")
	code, _, _ := b.do("GET", callback)
	require.Equal(t, http.StatusOK, code)
	before := b.cookie(a.site)
	code, text, _ := b.do("GET", callback)
	assert.Equal(t, http.StatusBadRequest, code)
	assert.Contains(t, text, "used before")
	assert.Equal(t, before, b.cookie(a.site), "the session in use is left alone")
	a.provider.set(func(p *testProvider) { assert.Equal(t, 1, p.exchanges, "the provider is not asked a second time") })
}

func TestOpenRedirect(t *testing.T) {
	a := newAuthFixture(t, nil)
	for next, status := range map[string]int{
		"/":                             http.StatusSeeOther,
		"/?tab=orders":                  http.StatusSeeOther,
		"https://evil.example":          http.StatusBadRequest,
		"//evil.example":                http.StatusBadRequest,
		`/\evil.example`:                http.StatusBadRequest,
		`\\evil.example`:                http.StatusBadRequest,
		"/\t/evil.example":              http.StatusBadRequest,
		"javascript:alert(1)":           http.StatusBadRequest,
		"evil.example":                  http.StatusBadRequest,
		"/" + strings.Repeat("a", 2000): http.StatusBadRequest,
	} {
		t.Run(next[:min(len(next), 30)], func(t *testing.T) {
			b := a.browser()
			b.stop = func(*http.Request) bool { return true }
			code, _, _ := b.do("GET", a.site+"/login?next="+url.QueryEscape(next))
			assert.Equal(t, status, code)
		})
	}
	b := a.browser()
	_, _, res := b.do("GET", b.toCallback(a.site, "/static/icon.svg"))
	assert.Equal(t, "/static/icon.svg", res.Request.URL.Path, "a path of the console is gone back to")
}

func TestSessionEnds(t *testing.T) {
	ends := map[string]func(t *testing.T, a *authFixture, b *browser){
		"idle": func(_ *testing.T, a *authFixture, _ *browser) { a.auth.redis.FastForward(sessionIdle + time.Second) },
		"absolute": func(t *testing.T, a *authFixture, b *browser) {
			age(t, a, b, sessionAbsolute+time.Second)
		},
		"tampered with in Redis": func(t *testing.T, a *authFixture, b *browser) {
			key := storedUnder(b.cookie(a.site))
			stored, err := a.auth.redis.DB(1).Get(key)
			require.NoError(t, err)
			require.NoError(t, a.auth.redis.DB(1).Set(key, stored[:len(stored)-1]+string(stored[len(stored)-1]^1)))
		},
		"moved to another id in Redis": func(t *testing.T, a *authFixture, b *browser) {
			other := a.browser()
			a.provider.set(func(p *testProvider) { p.subject = "auth0|bob" })
			other.do("GET", a.site+"/")
			stored, err := a.auth.redis.DB(1).Get(storedUnder(other.cookie(a.site)))
			require.NoError(t, err)
			require.NoError(t, a.auth.redis.DB(1).Set(storedUnder(b.cookie(a.site)), stored))
		},
		"tampered with in the cookie": func(t *testing.T, a *authFixture, b *browser) {
			u, err := url.Parse(a.site)
			require.NoError(t, err)
			b.Jar.SetCookies(u, []*http.Cookie{{Name: "__Secure-session", Value: strings.Repeat("B", 43), Domain: "127.0.0.1", Path: "/", Secure: true}})
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			a := newAuthFixture(t, nil)
			b := a.browser()
			code, _, _ := b.do("GET", a.site+"/")
			require.Equal(t, http.StatusOK, code)
			end(t, a, b)
			b.stop = func(*http.Request) bool { return true }
			code, _, _ = b.do("GET", a.site+"/")
			assert.Equal(t, http.StatusSeeOther, code)
			code, _, _ = b.do("GET", a.site+"/live")
			assert.Equal(t, http.StatusUnauthorized, code)
			code, _, _ = b.do("POST", a.site+"/refresh")
			assert.Equal(t, http.StatusUnauthorized, code)
		})
	}
}

// age returns a session the deadline of an older one, as only a holder of the key can.
func age(t *testing.T, a *authFixture, b *browser, by time.Duration) {
	t.Helper()
	shared := newSessions(a.auth.service, true)
	token := b.cookie(a.site)
	ctx, err := shared.Load(t.Context(), token)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(sessionAbsolute), shared.Deadline(ctx), time.Minute)
	shared.SetDeadline(ctx, shared.Deadline(ctx).Add(-by))
	plain, err := shared.Codec.Encode(shared.Deadline(ctx), map[string]any{"sub": shared.GetString(ctx, "sub")})
	require.NoError(t, err)
	require.NoError(t, shared.Store.Commit(token, plain, time.Now().Add(time.Hour)))
}

func TestSessionOutlivesAuthService(t *testing.T) {
	a := newAuthFixture(t, nil)
	b := a.browser()
	code, _, _ := b.do("GET", a.site+"/")
	require.Equal(t, http.StatusOK, code)
	again := newFixture(t, "auth_service", a.env, func(s *service) { s.peers = a.provider.Client() })
	code, text, _ := again.ask(t, "POST", "/refresh", "", "Cookie", "__Secure-session="+b.cookie(a.site))
	assert.Equal(t, http.StatusOK, code)
	assert.JSONEq(t, `{"renewed":true}`, text)
}

func TestPollsDoNotKeepASessionAlive(t *testing.T) {
	a := newAuthFixture(t, nil)
	b := a.browser()
	b.do("GET", a.site+"/")
	key := storedUnder(b.cookie(a.site))
	a.auth.redis.FastForward(10 * time.Minute)
	b.do("GET", a.site+"/live")
	assert.InDelta(t, 5*time.Minute, a.auth.redis.DB(1).TTL(key), float64(time.Second))
	b.do("GET", a.site+"/live", "X-User-Active", "1")
	assert.InDelta(t, sessionIdle, a.auth.redis.DB(1).TTL(key), float64(time.Second))
}

func TestRefresh(t *testing.T) {
	a := newAuthFixture(t, nil)
	b := a.browser()
	b.do("GET", a.site+"/")
	key := storedUnder(b.cookie(a.site))
	before, err := a.auth.redis.DB(1).Get(key)
	require.NoError(t, err)

	code, text, _ := b.do("POST", a.site+"/refresh")
	assert.Equal(t, http.StatusOK, code)
	assert.JSONEq(t, `{"renewed":true}`, text)
	after, err := a.auth.redis.DB(1).Get(key)
	require.NoError(t, err)
	assert.NotEqual(t, before, after)
	code, _, _ = b.do("POST", a.site+"/refresh")
	assert.Equal(t, http.StatusOK, code, "the new refresh token is the one that was kept")

	t.Run("another site cannot ask", func(t *testing.T) {
		code, _, _ := b.do("POST", a.site+"/refresh", "Sec-Fetch-Site", "cross-site")
		assert.Equal(t, http.StatusForbidden, code)
	})
	t.Run("tokens that another page has just renewed are not renewed again", func(t *testing.T) {
		b := a.browser()
		a.provider.set(func(p *testProvider) { p.life = 3600 })
		b.do("GET", a.site+"/")
		renewals := 0
		a.provider.set(func(p *testProvider) { renewals = p.exchanges })
		code, _, _ := b.do("POST", a.site+"/refresh")
		assert.Equal(t, http.StatusOK, code)
		a.provider.set(func(p *testProvider) {
			assert.Equal(t, renewals, p.exchanges)
			p.life = 30
		})
	})
	t.Run("the provider is away", func(t *testing.T) {
		down := newFixture(t, "auth_service", a.env)
		code, _, _ := down.ask(t, "POST", "/refresh", "", "Cookie", "__Secure-session="+b.cookie(a.site))
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.True(t, a.auth.redis.DB(1).Exists(key), "the session is kept")
	})
	for name, change := range map[string]func(*testProvider){
		"the provider refuses":         func(p *testProvider) { p.refuseRefresh = true },
		"the token is somebody else's": func(p *testProvider) { p.refuseRefresh, p.refreshSubject = false, "auth0|mallory" },
	} {
		t.Run(name, func(t *testing.T) {
			b := a.browser()
			a.provider.set(func(p *testProvider) { p.refuseRefresh, p.refreshSubject = false, "" })
			b.do("GET", a.site+"/")
			key := storedUnder(b.cookie(a.site))
			a.provider.set(change)
			code, _, _ := b.do("POST", a.site+"/refresh")
			assert.Equal(t, http.StatusUnauthorized, code)
			assert.False(t, a.auth.redis.DB(1).Exists(key), "the session is ended")
		})
	}
}

func TestLogout(t *testing.T) {
	a := newAuthFixture(t, nil)
	b := a.browser()
	b.do("GET", a.site+"/")
	id := b.cookie(a.site)

	code, _, _ := b.do("GET", a.site+"/logout", "Sec-Fetch-Site", "cross-site")
	assert.Equal(t, http.StatusForbidden, code, "another site cannot sign somebody out")

	_, _, res := b.do("GET", a.site+"/logout")
	assert.Equal(t, "/static/icon.svg", res.Request.URL.Path, "the provider leads back")
	a.provider.set(func(p *testProvider) {
		assert.NotEmpty(t, p.ended.Get("id_token_hint"))
		assert.Equal(t, "the-client", p.ended.Get("client_id"))
	})
	assert.Empty(t, b.cookie(a.site))
	assert.False(t, a.auth.redis.DB(1).Exists(storedUnder(id)))
	code, _, _ = a.console.ask(t, "GET", "/", "", "Cookie", "__Secure-session="+id)
	assert.Equal(t, http.StatusSeeOther, code, "the old cookie opens nothing")
	code, text, _ := b.do("GET", a.site+"/logout", "Sec-Fetch-Site", "cross-site")
	assert.Equal(t, http.StatusOK, code)
	assert.Contains(t, text, "You are signed out")
}

func TestAuth0LogoutWithoutDiscovery(t *testing.T) {
	f := newFixture(t, "auth_service", map[string]string{"AUTH0_DOMAIN": "https://127.0.0.1:1"})
	l := &login{s: f.service}
	assert.Equal(t, "https://127.0.0.1:1/v2/logout?client_id=the-client&returnTo=https%3A%2F%2Fweb-console.trading-platform.local", l.logoutURL(t.Context(), "token"))
}

func TestProviderAwayAtStart(t *testing.T) {
	f := newFixture(t, "auth_service", map[string]string{"AUTH0_DOMAIN": "https://127.0.0.1:1"}, needs("redis", "postgres"))
	code, _, _ := f.ask(t, "GET", "/health", "")
	assert.Equal(t, http.StatusOK, code)
	code, text, _ := f.ask(t, "GET", "/login", "")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Contains(t, text, "identity provider cannot be reached")
}

func TestCSPReport(t *testing.T) {
	f := newFixture(t, "auth_service", map[string]string{"TRUSTED_PROXY_IPS": "127.0.0.1", "CSP_REPORT_ONLY": "true"})
	tests := map[string]struct {
		kind, body string
		status     int
		logged     string
	}{
		"the old form":  {"application/csp-report", `{"csp-report":{"violated-directive":"script-src","blocked-uri":"https://evil.example/x?a=1\u0026token=abc","line":1}}`, http.StatusNoContent, `"blocked-uri":"https://evil.example/x","line":1}`},
		"the new form":  {"application/reports+json", `[{"body":{"effectiveDirective":"img-src","blockedURL":"https://pics.example"}}]`, http.StatusNoContent, `"effectiveDirective":"img-src"`},
		"not a report":  {"application/json", `"hello"`, http.StatusBadRequest, ""},
		"far too large": {"application/csp-report", `{"csp-report":{"blocked-uri":"` + strings.Repeat("a", reportLimit) + `"}}`, http.StatusBadRequest, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			code, _, header := f.ask(t, "POST", "/csp-report", test.body, "Content-Type", test.kind, "X-Real-IP", "203.0.113.9", "Sec-Fetch-Site", "cross-site")
			assert.Equal(t, test.status, code)
			assert.Contains(t, f.log.String(), test.logged)
			assert.NotEmpty(t, header.Get("Content-Security-Policy-Report-Only"))
		})
	}
	assert.NotContains(t, f.log.String(), "token=abc")
	assert.Contains(t, f.log.String(), `"client":"203.0.113.9"`)
}
