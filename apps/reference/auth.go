package main

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/oauth2"
)

const (
	// The stack fixes both for the consoles, and auth_service's environment does not carry them.
	sessionIdle     = 15 * time.Minute
	sessionAbsolute = 4 * time.Hour
	// loginTime is how long a person may take at the provider.
	loginTime = 10 * time.Minute
	// browserCookie ties a login to the browser that began it, so that nobody can be made to finish somebody else's.
	browserCookie = "__Host-login"
	reportLimit   = 16 << 10
)

type authService struct {
	rt       *runtime
	cfg      authConfig
	rdb      *redis.Client
	sessions *sessionStore
	provider *provider
	page     *template.Template
}

func setupAuth(rt *runtime) error {
	cfg, err := load[authConfig](rt.environ)
	if err != nil {
		return err
	}
	if _, err := rt.postgres(cfg.DatabaseURL); err != nil {
		return err
	}
	rdb := rt.redisAt(cfg.RedisAddress, cfg.SessionDB)
	a := &authService{rt: rt, cfg: cfg, rdb: rdb, provider: newProvider(cfg, rt.peers), page: template.Must(template.ParseFS(webFiles, "web/message.html")),
		sessions: &sessionStore{rdb: rdb, key: cfg.SessionKey, idle: sessionIdle, absolute: sessionAbsolute}}
	if len(cfg.AllowedSubs) == 0 {
		rt.log.Warn("OAUTH2_ALLOWED_SUBS is empty: everyone whom the provider signs in may use the console")
	}
	if cfg.TestEndpoints {
		rt.log.Warn("ENABLE_TEST_ENDPOINTS is on, but the reference app has none")
	}
	rt.mux.HandleFunc("GET /login", a.login)
	rt.mux.HandleFunc("GET /callback", a.callback)
	rt.mux.HandleFunc("POST /refresh", a.refresh)
	rt.mux.HandleFunc("GET /logout", a.logout)
	rt.mux.HandleFunc("POST /logout", a.logout)
	rt.mux.HandleFunc("POST /csp-report", a.report)
	rt.wrap = a.protect
	return rt.depend(cfg.StackConfig)
}

func (a *authService) protect(next http.Handler) http.Handler {
	guard := http.NewCrossOriginProtection()
	guard.AddInsecureBypassPattern("POST /csp-report") // browsers send these on their own
	own := guard.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pageHeaders(w, pagePolicy)
		if a.cfg.CSPReportOnly {
			w.Header().Del("Content-Security-Policy")
			w.Header().Set("Content-Security-Policy-Report-Only", pagePolicy+"; report-uri /csp-report")
		}
		own.ServeHTTP(w, r)
	})
}

// pendingLogin is what is kept of a login between the way to the provider and the way back.
type pendingLogin struct {
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"`
	Next     string `json:"next"`
	Browser  string `json:"browser"`
}

func loginKey(state string) string {
	return "login:" + strings.TrimPrefix(sessionKey(state), "session:")
}

func randomText() string { return base64.RawURLEncoding.EncodeToString(randomBytes(32)) }

// login sends the browser to the provider.
func (a *authService) login(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	next := r.URL.Query().Get("next")
	if next == "" {
		next = "/"
	}
	if !localPath(next) {
		a.refuse(w, r, http.StatusBadRequest, "login refused: next leads elsewhere", "The address to go to after signing in is not one of this console.")
		return
	}
	endpoint, err := a.provider.get(ctx)
	if err != nil {
		a.unreachable(w, r, err)
		return
	}
	// The browser's own mark is kept, so that two tabs may sign in at the same time.
	browser := randomText()
	if cookie, err := r.Cookie(browserCookie); err == nil && sessionID.MatchString(cookie.Value) {
		browser = cookie.Value
	}
	state := randomText()
	pending := pendingLogin{Nonce: randomText(), Verifier: oauth2.GenerateVerifier(), Next: next, Browser: sessionKey(browser)}
	sealed, err := seal(a.cfg.SessionKey, loginKey(state), pending)
	if err == nil {
		err = a.rdb.Set(ctx, loginKey(state), sealed, loginTime).Err()
	}
	if err != nil {
		a.broken(w, r, err)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: browserCookie, Value: browser, Path: "/", MaxAge: int(loginTime.Seconds()), Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, endpoint.loginURL(state, pending), http.StatusSeeOther)
}

// localPath refuses whatever a browser could take for another site: "//host", "/\host", control characters, a scheme.
func localPath(next string) bool {
	u, err := url.Parse(next)
	return err == nil && strings.HasPrefix(next, "/") && !strings.HasPrefix(next, "//") && u.Scheme == "" && u.Host == "" &&
		!strings.ContainsFunc(next, func(c rune) bool { return c == '\\' || c < ' ' || c == 0x7f }) && len(next) <= 1024
}

// callback is where the provider sends the browser back to. A state is good once, and only in the browser that asked.
func (a *authService) callback(w http.ResponseWriter, r *http.Request) {
	ctx, query := r.Context(), r.URL.Query()
	state := query.Get("state")
	if !sessionID.MatchString(state) {
		a.refuse(w, r, http.StatusBadRequest, "login refused: no state", "This is not the answer to a login that began here.")
		return
	}
	sealed, err := a.rdb.GetDel(ctx, loginKey(state)).Bytes()
	if err != nil && !errors.Is(err, redis.Nil) {
		a.broken(w, r, err)
		return
	}
	var pending pendingLogin
	cookie, cookieErr := r.Cookie(browserCookie)
	if err != nil || unseal(a.cfg.SessionKey, loginKey(state), sealed, &pending) != nil || cookieErr != nil ||
		subtle.ConstantTimeCompare([]byte(sessionKey(cookie.Value)), []byte(pending.Browser)) != 1 {
		a.refuse(w, r, http.StatusBadRequest, "login refused: state unknown, used before or another browser's", "This login has been used before, took too long, or began in another browser.")
		return
	}
	if query.Get("error") != "" {
		a.refuse(w, r, http.StatusForbidden, "login refused by the provider", "The identity provider did not sign you in.")
		return
	}
	endpoint, err := a.provider.get(ctx)
	if err != nil {
		a.unreachable(w, r, err)
		return
	}
	claims, err := endpoint.redeem(ctx, query.Get("code"), pending)
	if err != nil {
		var refused *oauth2.RetrieveError
		if errors.As(err, &refused) || errors.Is(err, errBadToken) {
			a.rt.log.WarnContext(ctx, "the provider's answer does not hold", "error", reason(err))
			a.refuse(w, r, http.StatusForbidden, "login refused: the provider's answer does not hold", "The identity provider's answer could not be verified.")
			return
		}
		a.unreachable(w, r, err)
		return
	}
	if !a.allowed(claims.Subject) {
		a.rt.log.WarnContext(ctx, "login refused: subject not in OAUTH2_ALLOWED_SUBS", "sub", claims.Subject)
		a.show(w, http.StatusForbidden, message{"You are signed in at the identity provider, but this account may not use the console.", a.provider.logoutURL(ctx, claims.IDToken)})
		return
	}
	if key, _, err := a.sessions.fromRequest(r); err == nil {
		_ = a.sessions.end(ctx, key) // it would end by itself
	}
	claims.Created = time.Now()
	id, err := a.sessions.create(ctx, claims)
	if err != nil {
		a.broken(w, r, err)
		return
	}
	a.setSession(w, id, int(sessionAbsolute.Seconds()))
	a.rt.log.InfoContext(ctx, "login", "sub", claims.Subject, "client", a.client(r))
	http.Redirect(w, r, pending.Next, http.StatusSeeOther)
}

func (a *authService) allowed(subject string) bool {
	return subject != "" && (len(a.cfg.AllowedSubs) == 0 || slices.ContainsFunc(a.cfg.AllowedSubs, func(s string) bool { return strings.TrimSpace(s) == subject }))
}

// setSession is Lax, not Strict: the browser comes back from another site with it set a moment ago.
func (a *authService) setSession(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: value, Domain: a.cfg.CookieDomain, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// refresh renews a session: the browser's own, or the one that a caller with INTERNAL_REFRESH_SECRET names by its key in Redis.
func (a *authService) refresh(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	var key string
	var value session
	var err error
	if secret := r.Header.Get("X-Internal-Refresh-Secret"); secret != "" {
		if a.cfg.RefreshSecret == "" || subtle.ConstantTimeCompare([]byte(secret), []byte(a.cfg.RefreshSecret)) != 1 {
			writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "X-Internal-Refresh-Secret is wrong"})
			return
		}
		var body struct {
			SessionKey string `json:"session_key"`
		}
		if json.NewDecoder(http.MaxBytesReader(w, r.Body, 1024)).Decode(&body) != nil || !strings.HasPrefix(body.SessionKey, "session:") {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": `body must be {"session_key": "session:…"}`})
			return
		}
		key = body.SessionKey
		value, err = a.sessions.get(ctx, key)
	} else {
		key, value, err = a.sessions.fromRequest(r)
	}
	var renewed string
	if err == nil {
		renewed, err = a.renew(ctx, key, value)
	}
	switch {
	case errors.Is(err, errNoSession):
		a.setSession(w, "", -1)
		writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "no session; sign in again"})
	case err != nil:
		a.rt.log.WarnContext(ctx, "session not refreshed", "error", reason(err))
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"error": "the session could not be renewed now; try again"})
	default:
		writeJSON(w, http.StatusOK, map[string]string{"renewed": renewed})
	}
}

// renew gets new tokens where the provider gave a refresh token. One renewal at a time: providers take a second use of a refresh token for theft.
func (a *authService) renew(ctx context.Context, key string, value session) (string, error) {
	if value.RefreshToken == "" {
		return "session", a.sessions.touch(ctx, key, value)
	}
	lock := "refresh:" + key
	err := a.rdb.SetArgs(ctx, lock, "1", redis.SetArgs{Mode: "NX", TTL: peerTimeout + 5*time.Second}).Err()
	if errors.Is(err, redis.Nil) {
		return "by another request", nil
	}
	if err != nil {
		return "", err
	}
	defer a.rdb.Del(context.WithoutCancel(ctx), lock)
	// Another request may have renewed it between our reading and our lock.
	if value, err = a.sessions.get(ctx, key); err != nil {
		return "", err
	}
	endpoint, err := a.provider.get(ctx)
	if err != nil {
		return "", err
	}
	next, err := endpoint.renew(ctx, value)
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response.StatusCode < 500 || errors.Is(err, errBadToken) || err == nil && !a.allowed(next.Subject) {
		a.rt.log.InfoContext(ctx, "session ended: the provider does not renew it", "sub", value.Subject, "error", reason(err))
		return "", errors.Join(errNoSession, a.sessions.end(ctx, key))
	}
	if err != nil {
		return "", err
	}
	if err := a.sessions.update(ctx, key, next); err != nil {
		return "", err
	}
	return "tokens", a.sessions.touch(ctx, key, next)
}

// logout ends the session here and at the provider. A link on another site must not do that, so from there it only works as a form.
func (a *authService) logout(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	key, value, err := a.sessions.fromRequest(r)
	if errors.Is(err, errNoSession) {
		a.setSession(w, "", -1)
		a.show(w, http.StatusOK, message{Text: "You are signed out."})
		return
	}
	if err == nil && r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		a.refuse(w, r, http.StatusForbidden, "logout refused: asked for by another site", "Another site asked to sign you out. Sign out on the console itself.")
		return
	}
	if err == nil {
		err = a.sessions.end(ctx, key)
	}
	if err != nil {
		a.broken(w, r, err)
		return
	}
	a.setSession(w, "", -1)
	a.rt.log.InfoContext(ctx, "logout", "sub", value.Subject)
	http.Redirect(w, r, a.provider.logoutURL(ctx, value.IDToken), http.StatusSeeOther)
}

// report logs what a browser says of a breach of the content security policy: which rule, and where, without queries.
func (a *authService) report(w http.ResponseWriter, r *http.Request) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if !slices.Contains([]string{"application/csp-report", "application/reports+json", "application/json"}, kind) {
		writeJSON(w, http.StatusUnsupportedMediaType, map[string]string{"error": "not a CSP report"})
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, reportLimit))
	if err != nil {
		writeJSON(w, http.StatusRequestEntityTooLarge, map[string]string{"error": "a report has at most 16 KiB"})
		return
	}
	type fields map[string]any
	var old struct {
		Report fields `json:"csp-report"`
	}
	var several []struct {
		Body fields `json:"body"`
	}
	if json.Unmarshal(text, &old) == nil && old.Report != nil {
		several = append(several, struct {
			Body fields `json:"body"`
		}{old.Report})
	} else if json.Unmarshal(text, &several) != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "not a CSP report"})
		return
	}
	for _, one := range several[:min(len(several), 10)] {
		pick := func(names ...string) string {
			for _, name := range names {
				if value, ok := one.Body[name].(string); ok {
					value, _, _ = strings.Cut(value, "?")
					return value[:min(len(value), 200)]
				}
			}
			return ""
		}
		a.rt.log.WarnContext(r.Context(), "content security policy report", "directive", pick("effective-directive", "violated-directive", "effectiveDirective"),
			"blocked", pick("blocked-uri", "blockedURL"), "document", pick("document-uri", "documentURL"), "client", a.client(r))
	}
	w.WriteHeader(http.StatusNoContent)
}

// client is the address of who asked, as far as a trusted proxy tells it.
func (a *authService) client(r *http.Request) string {
	if ip := net.ParseIP(r.Header.Get("X-Real-IP")); ip != nil && a.cfg.TrustedProxies.holds(r.RemoteAddr) {
		return ip.String()
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// reason is an error without what the provider said: its answer to a token request may hold tokens.
func reason(err error) string {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		return "the provider answers " + refused.Response.Status
	}
	var failed *url.Error
	if errors.As(err, &failed) {
		return brief(failed.Err)
	}
	return brief(err)
}

func (a *authService) refuse(w http.ResponseWriter, r *http.Request, code int, event, text string) {
	a.rt.log.WarnContext(r.Context(), event, "client", a.client(r))
	a.show(w, code, message{Text: text})
}

func (a *authService) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	a.rt.log.WarnContext(r.Context(), "identity provider not reached", "error", reason(err))
	a.show(w, http.StatusServiceUnavailable, message{Text: "The identity provider cannot be reached right now. Try again in a minute."})
}

func (a *authService) broken(w http.ResponseWriter, r *http.Request, err error) {
	a.rt.log.ErrorContext(r.Context(), "session store failed", "error", brief(err))
	a.show(w, http.StatusServiceUnavailable, message{Text: "Sessions cannot be read or written right now. Try again in a minute."})
}

// message is a page that says one thing; SwitchURL, where set, signs the person out at the provider to try another account.
type message struct{ Text, SwitchURL string }

func (a *authService) show(w http.ResponseWriter, code int, m message) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_ = a.page.Execute(w, m)
}
