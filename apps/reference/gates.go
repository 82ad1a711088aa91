package main

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// identity is who looks at the console, and how that is known.
type identity struct {
	Name    string `json:"name"`
	Detail  string `json:"detail,omitempty"`
	Method  string `json:"method"`
	Refresh bool   `json:"refresh,omitempty"` // the page should ask for renewed tokens before long
}

// gate decides who may see the console; each auth type has its own.
type gate interface {
	// who tells who asks; active means that a person, not a page's timer, stands behind the request.
	who(w http.ResponseWriter, r *http.Request, active bool) (identity, bool)
	// refuse answers a request of somebody unknown.
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
	s        *service
	sessions sharedSessions
}

func newSessionGate(s *service) (gate, error) {
	idle, absolute := sessionTimes(s)
	shared, err := newSharedSessions(s, idle, absolute)
	return sessionGate{s, shared}, err
}

// sessionTimes reads how long a session may be idle and how long it may last.
func sessionTimes(s *service) (idle, absolute time.Duration) {
	minutes, _ := strconv.Atoi(s.env["SESSION_TIMEOUT_MINUTES"])
	hours, _ := strconv.Atoi(s.env["SESSION_ABSOLUTE_TIMEOUT_HOURS"])
	return time.Duration(minutes) * time.Minute, time.Duration(hours) * time.Hour
}

func (g sessionGate) who(_ http.ResponseWriter, r *http.Request, active bool) (identity, bool) {
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
	return identity{Name: name, Detail: subject, Method: "OpenID Connect", Refresh: g.sessions.refreshDue(ctx)}, true
}

func (g sessionGate) refuse(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, g.s.env["OAUTH2_LOGIN_URL"]+"?next="+url.QueryEscape(r.URL.Path), http.StatusSeeOther)
}

func (g sessionGate) logoutURL() string { return g.s.env["OAUTH2_LOGOUT_URL"] }

// passwordGate is the login of auth type dev: one user, one password, and sessions that end with the process.
type passwordGate struct {
	c        *console
	sessions sessions
	failures *rate.Limiter // eight wrong passwords, then one every ten seconds
}

func newPasswordGate(c *console) *passwordGate {
	idle, absolute := sessionTimes(c.s)
	// Browsers share cookies between the ports of one host, on which two stacks may stand.
	host, _ := os.Hostname()
	g := &passwordGate{c: c, sessions: newSessions("console_session_"+host, idle, absolute), failures: rate.NewLimiter(rate.Every(10*time.Second), 8)}
	c.s.mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) { g.form(w, r, http.StatusOK, "") })
	c.s.mux.HandleFunc("POST /login", g.login)
	c.s.mux.HandleFunc("POST /logout", g.logout)
	return g
}

func (g *passwordGate) who(w http.ResponseWriter, r *http.Request, active bool) (identity, bool) {
	ctx, err := g.sessions.load(r)
	user := ""
	if err == nil {
		user = g.sessions.GetString(ctx, "user")
	}
	if user != "" && active {
		err = g.sessions.save(ctx, w)
	}
	return identity{Name: user, Detail: g.c.s.env["WEB_CONSOLE_DEV_ROLE"], Method: "password"}, user != "" && err == nil
}

func (g *passwordGate) refuse(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

func (g *passwordGate) logoutURL() string { return "/logout" }

func (g *passwordGate) form(w http.ResponseWriter, r *http.Request, code int, fault string) {
	g.c.render(w, r, code, "login.html", map[string]string{"Fault": fault})
}

// login checks what the form says. Both comparisons always run and take the same time whatever is typed.
func (g *passwordGate) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4096)
	if g.failures.Tokens() < 1 {
		w.Header().Set("Retry-After", "10")
		g.form(w, r, http.StatusTooManyRequests, "Too many wrong passwords. Wait a little and try again.")
		return
	}
	env, log := g.c.s.env, g.c.s.log
	same := func(a, b string) int {
		x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
		return subtle.ConstantTimeCompare(x[:], y[:])
	}
	if same(r.PostFormValue("username"), env["WEB_CONSOLE_USER"])&same(r.PostFormValue("password"), env["WEB_CONSOLE_PASSWORD"]) != 1 {
		g.failures.Allow()
		log.WarnContext(r.Context(), "login refused: wrong user or password")
		g.form(w, r, http.StatusUnauthorized, "That user and password do not match.")
		return
	}
	ctx, err := g.sessions.load(r)
	if err == nil {
		err = g.sessions.RenewToken(ctx)
	}
	if err == nil {
		g.sessions.Put(ctx, "user", env["WEB_CONSOLE_USER"])
		err = g.sessions.save(ctx, w)
	}
	log.InfoContext(r.Context(), "login", "error", brief(err))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (g *passwordGate) logout(w http.ResponseWriter, r *http.Request) {
	if ctx, err := g.sessions.load(r); err == nil {
		_ = g.sessions.end(ctx, w) // a map in memory does not fail
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
