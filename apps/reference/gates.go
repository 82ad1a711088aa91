package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// identity is who looks at the console, and how that is known.
type identity struct {
	Name   string `json:"name"`
	Detail string `json:"detail,omitempty"`
	Method string `json:"method"`
	// Refresh is set when the page should ask for a renewed session before long.
	Refresh bool `json:"refresh,omitempty"`
}

// gate decides who may see the console; each auth type has its own.
type gate interface {
	// who tells who asks; active means that a person, not a page's timer, stands behind the request.
	who(w http.ResponseWriter, r *http.Request, active bool) (identity, bool)
	// refuse answers a page request of somebody unknown.
	refuse(w http.ResponseWriter, r *http.Request)
	// logoutURL is where the page's sign-out leads; empty: nobody can sign out.
	logoutURL() string
}

// certificateGate believes the identity headers that nginx sets, and only nginx: anybody else can write such headers too.
type certificateGate struct{ proxies addresses }

func (g certificateGate) who(_ http.ResponseWriter, r *http.Request, _ bool) (identity, bool) {
	subject := r.Header.Get("X-SSL-Client-S-DN")
	if !g.proxies.holds(r.RemoteAddr) || r.Header.Get("X-SSL-Client-Verify") != "SUCCESS" || subject == "" {
		return identity{}, false
	}
	name := subject
	for _, part := range strings.FieldsFunc(subject, func(c rune) bool { return c == ',' || c == '/' }) {
		if cn, ok := strings.CutPrefix(strings.TrimSpace(part), "CN="); ok {
			name = cn
		}
	}
	return identity{Name: name, Detail: subject, Method: "client certificate"}, true
}

func (g certificateGate) refuse(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "This console is for clients with a certificate of its CA, and is reached through nginx alone.", http.StatusForbidden)
}

func (g certificateGate) logoutURL() string { return "" }

// sessionGate wants a session that auth_service made.
type sessionGate struct {
	sessions      *sessionStore
	login, logout string
	rt            *runtime
}

// refreshAhead is how long before the provider's token runs out the page asks for a new one.
const refreshAhead = time.Minute

func (g sessionGate) who(_ http.ResponseWriter, r *http.Request, active bool) (identity, bool) {
	key, value, err := g.sessions.fromRequest(r)
	if err != nil {
		if !errors.Is(err, errNoSession) {
			g.rt.log.WarnContext(r.Context(), "session not read", "error", brief(err))
		}
		return identity{}, false
	}
	if active {
		if err := g.sessions.touch(r.Context(), key, value); err != nil {
			g.rt.log.WarnContext(r.Context(), "session not renewed", "error", brief(err))
		}
	}
	name := value.Name
	if name == "" {
		name = value.Email
	}
	if name == "" {
		name = value.Subject
	}
	return identity{Name: name, Detail: value.Subject, Method: "OpenID Connect", Refresh: value.RefreshToken != "" && time.Until(value.TokenExpiry) < refreshAhead}, true
}

func (g sessionGate) refuse(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, g.login+"?next="+url.QueryEscape(r.URL.Path), http.StatusSeeOther)
}

func (g sessionGate) logoutURL() string { return g.logout }

// passwordGate is the login of auth type dev: one user, one password, an encrypted cookie.
type passwordGate struct {
	rt             *runtime
	user, password string
	role           string
	version        uint
	key            encryptedKey
	idle, absolute time.Duration

	mu sync.Mutex
	// ended holds the sessions that were signed out of before their time, until that time.
	ended map[string]time.Time
	// failures limits wrong passwords by the client's address.
	failures map[string]*rate.Limiter
}

const (
	loginBurst   = 8
	loginRefill  = 10 * time.Second
	maxFailures  = 10_000
	cookiePrefix = "console_session"
)

type passwordSession struct {
	ID      string    `json:"id"`
	User    string    `json:"user"`
	Version uint      `json:"version"`
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen"`
}

// newPasswordGate mixes the user and password into the key: the development key is public, and a new password ends old sessions.
func newPasswordGate(rt *runtime, cfg ConsoleConfig, key encryptedKey) *passwordGate {
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte(cfg.User + "\x00" + cfg.Password))
	g := &passwordGate{rt: rt, user: cfg.User, password: cfg.Password, role: cfg.DevRole, version: cfg.DevSessionVersion, idle: cfg.idle(), absolute: cfg.absolute(),
		ended: map[string]time.Time{}, failures: map[string]*rate.Limiter{}}
	copy(g.key[:], mac.Sum(nil))
	return g
}

// cookieName has the port in it: browsers share cookies between the ports of one host, and two stacks may stand on it.
func cookieName(r *http.Request) string {
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		return cookiePrefix + "_" + port
	}
	return cookiePrefix
}

func (g *passwordGate) read(r *http.Request) (passwordSession, bool) {
	var s passwordSession
	cookie, err := r.Cookie(cookieName(r))
	if err != nil {
		return s, false
	}
	sealed, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || unseal(g.key, cookiePrefix, sealed, &s) != nil {
		return s, false
	}
	g.mu.Lock()
	_, ended := g.ended[s.ID]
	g.mu.Unlock()
	alive := time.Since(s.Seen) < g.idle && time.Since(s.Created) < g.absolute
	return s, alive && !ended && s.Version == g.version && s.User == g.user
}

func (g *passwordGate) write(w http.ResponseWriter, r *http.Request, s passwordSession) {
	sealed, err := seal(g.key, cookiePrefix, s)
	if err != nil {
		g.rt.log.ErrorContext(r.Context(), "session not written", "error", brief(err))
		return
	}
	setCookie(w, r, base64.RawURLEncoding.EncodeToString(sealed), int(time.Until(s.Created.Add(g.absolute)).Seconds()))
}

func setCookie(w http.ResponseWriter, r *http.Request, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{ // #nosec G124 -- this console is served over plain http on loopback, where browsers drop Secure cookies
		Name: cookieName(r), Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode})
}

func (g *passwordGate) who(w http.ResponseWriter, r *http.Request, active bool) (identity, bool) {
	s, ok := g.read(r)
	if !ok {
		return identity{}, false
	}
	if active && time.Since(s.Seen) > time.Second {
		s.Seen = time.Now()
		g.write(w, r, s)
	}
	return identity{Name: s.User, Detail: g.role, Method: "password"}, true
}

func (g *passwordGate) refuse(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

func (g *passwordGate) logoutURL() string { return "/logout" }

// login checks what the form says. Both comparisons always run and take the same time whatever is typed.
func (g *passwordGate) login(w http.ResponseWriter, r *http.Request) (int, string) {
	r.Body = http.MaxBytesReader(w, r.Body, 4096)
	limiter := g.limiter(r)
	if limiter.Tokens() < 1 {
		w.Header().Set("Retry-After", "10")
		return http.StatusTooManyRequests, "Too many wrong passwords. Wait a little and try again."
	}
	same := func(a, b string) int {
		x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
		return subtle.ConstantTimeCompare(x[:], y[:])
	}
	if same(r.PostFormValue("username"), g.user)&same(r.PostFormValue("password"), g.password) != 1 {
		limiter.Allow()
		g.rt.log.WarnContext(r.Context(), "login refused: wrong user or password")
		return http.StatusUnauthorized, "That user and password do not match."
	}
	now := time.Now()
	g.write(w, r, passwordSession{ID: hex.EncodeToString(randomBytes(16)), User: g.user, Version: g.version, Created: now, Seen: now})
	g.rt.log.InfoContext(r.Context(), "login")
	return http.StatusSeeOther, ""
}

func (g *passwordGate) limiter(r *http.Request) *rate.Limiter {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.failures) >= maxFailures {
		clear(g.failures)
	}
	limiter, ok := g.failures[host]
	if !ok {
		limiter = rate.NewLimiter(rate.Every(loginRefill), loginBurst)
		g.failures[host] = limiter
	}
	return limiter
}

func (g *passwordGate) logout(w http.ResponseWriter, r *http.Request) {
	if s, ok := g.read(r); ok {
		g.mu.Lock()
		for id, until := range g.ended {
			if time.Now().After(until) {
				delete(g.ended, id)
			}
		}
		g.ended[s.ID] = s.Created.Add(g.absolute)
		g.mu.Unlock()
	}
	setCookie(w, r, "", -1)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
