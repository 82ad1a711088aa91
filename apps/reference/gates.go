package main

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// identity is the user of the console, and how the user was authenticated.
type identity struct {
	Name    string `json:"name"`
	Detail  string `json:"detail,omitempty"`
	Method  string `json:"method"`
	Refresh bool   `json:"refresh,omitempty"` // the page should request new tokens soon
}

// gate decides who may use the console.
type gate interface {
	// who identifies the user of a request; active means that the user, and not a page's timer, made the request.
	who(r *http.Request, active bool) (identity, bool)
	// refuse answers a request without a valid identity.
	refuse(w http.ResponseWriter, r *http.Request)
	// logoutURL is the URL of the page's sign-out; it is empty if there is none.
	logoutURL() string
}

// certificateGate trusts the identity headers of requests from nginx only, because any other client could set them too.
type certificateGate struct{ proxies addresses }

func (g certificateGate) who(r *http.Request, _ bool) (identity, bool) {
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

// sessionGate requires a session of auth_service in Redis, or one of the console's own password login.
type sessionGate struct {
	s             *service
	sessions      sessions
	method        string
	login, logout string // the URLs of signing in and out
}

func (g sessionGate) who(r *http.Request, active bool) (identity, bool) {
	ctx, err := g.sessions.load(r)
	if err != nil {
		g.s.log.WarnContext(r.Context(), "session not read", "error", brief(err))
		return identity{}, false
	}
	subject := g.sessions.GetString(ctx, "sub")
	if subject == "" {
		return identity{}, false
	}
	if active {
		if err := g.sessions.touch(ctx); err != nil {
			g.s.log.WarnContext(ctx, "session not renewed", "error", brief(err))
		}
	}
	name := cmp.Or(g.sessions.GetString(ctx, "name"), g.sessions.GetString(ctx, "email"), subject)
	return identity{Name: name, Detail: subject, Method: g.method, Refresh: g.sessions.refreshDue(ctx)}, true
}

func (g sessionGate) refuse(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, g.login, http.StatusSeeOther)
}

func (g sessionGate) logoutURL() string { return g.logout }

// passwordLogin is the login of auth type dev: one user, one password, and sessions that end with the process.
type passwordLogin struct {
	c        *console
	sessions sessions
	failures *rate.Limiter // eight wrong passwords, then one every ten seconds
}

// newPasswordGate serves the login form, and returns the gate for users who logged in.
func newPasswordGate(c *console) gate {
	p := &passwordLogin{c: c, sessions: newSessions(c.s), failures: rate.NewLimiter(rate.Every(10*time.Second), 8)}
	c.s.mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) { p.form(w, r, http.StatusOK, "") })
	c.s.mux.HandleFunc("POST /login", p.login)
	c.s.mux.HandleFunc("POST /logout", p.logout)
	return sessionGate{s: c.s, sessions: p.sessions, method: "password", login: "/login", logout: "/logout"}
}

func (p *passwordLogin) form(w http.ResponseWriter, r *http.Request, code int, fault string) {
	p.c.render(w, r, code, "login.html", map[string]string{"Fault": fault})
}

// login checks the form's user and password. Both comparisons always run, and take the same time for any input.
func (p *passwordLogin) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4096)
	if p.failures.Tokens() < 1 {
		w.Header().Set("Retry-After", "10")
		p.form(w, r, http.StatusTooManyRequests, "Too many wrong passwords. Wait a little and try again.")
		return
	}
	env, log := p.c.s.env, p.c.s.log
	same := func(a, b string) int {
		x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
		return subtle.ConstantTimeCompare(x[:], y[:])
	}
	if same(r.PostFormValue("username"), env["WEB_CONSOLE_USER"])&same(r.PostFormValue("password"), env["WEB_CONSOLE_PASSWORD"]) != 1 {
		p.failures.Allow()
		log.WarnContext(r.Context(), "login refused: wrong user or password")
		p.form(w, r, http.StatusUnauthorized, "That user and password do not match.")
		return
	}
	ctx, err := p.sessions.load(r)
	if err == nil {
		err = p.sessions.RenewToken(ctx)
	}
	if err == nil {
		p.sessions.Put(ctx, "sub", env["WEB_CONSOLE_DEV_ROLE"])
		p.sessions.Put(ctx, "name", env["WEB_CONSOLE_USER"])
		err = p.sessions.save(ctx, w)
	}
	log.InfoContext(r.Context(), "login", "error", brief(err))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (p *passwordLogin) logout(w http.ResponseWriter, r *http.Request) {
	if ctx, err := p.sessions.load(r); err == nil {
		_ = p.sessions.end(ctx, w) // a map in memory does not fail
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
