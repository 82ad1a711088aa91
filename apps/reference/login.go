package main

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/oauth2"
)

const reportLimit = 4 << 10

// login is the service that signs people in with OpenID Connect.
type login struct {
	s        *service
	sessions sessions
	provider *provider
	subjects []string // who may sign in; empty for everyone
	page     *template.Template
	renewing sync.Mutex // providers treat a second use of a refresh token as theft
}

func setupLogin(s *service) (err error) {
	l := &login{s: s, page: template.Must(template.ParseFS(webFiles, "web/message.html"))}
	if l.sessions, err = newSharedSessions(s); err != nil {
		return err
	}
	if l.provider, err = newProvider(s); err != nil {
		return err
	}
	l.subjects = strings.FieldsFunc(s.env["OAUTH2_ALLOWED_SUBS"], func(r rune) bool { return r == ',' || r == ' ' })
	if len(l.subjects) == 0 {
		s.log.Warn("OAUTH2_ALLOWED_SUBS is empty: everyone whom the provider signs in may use the console")
	}
	for pattern, handle := range map[string]func(context.Context, http.ResponseWriter, *http.Request) error{
		"GET /login": l.begin, "GET /callback": l.callback, "POST /refresh": l.refresh, "GET /logout": l.logout, "POST /logout": l.logout,
	} {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			session, err := l.sessions.load(r)
			if err == nil {
				err = handle(session, w, r)
			}
			l.answer(w, r, err)
		})
	}
	s.mux.HandleFunc("POST /csp-report", l.report)
	s.policy += "; report-uri /csp-report"
	s.reportOnly = s.env["CSP_REPORT_ONLY"] == "true"
	return nil
}

// pendingLogin is kept in the browser's session under its state until the provider sends the browser back. A state is therefore
// valid once, and only in the browser that began the login.
type pendingLogin struct{ Nonce, Verifier, Next string }

// begin redirects the browser to the provider.
func (l *login) begin(session context.Context, w http.ResponseWriter, r *http.Request) error {
	next := r.URL.Query().Get("next")
	if next == "" {
		next = "/"
	}
	if !localPath(next) {
		return refusal{http.StatusBadRequest, "login refused: next leads elsewhere", "The address to go to after signing in is not one of this console.", ""}
	}
	state, pending := randomHex(32), pendingLogin{Nonce: randomHex(32), Verifier: oauth2.GenerateVerifier(), Next: next}
	address, err := l.provider.loginURL(r.Context(), state, pending.Nonce, pending.Verifier)
	if err != nil {
		return unreachable(err)
	}
	text, _ := json.Marshal(pending) // plain strings encode without an error
	l.sessions.Put(session, "login:"+state, string(text))
	if err := l.sessions.save(session, w); err != nil {
		return err
	}
	http.Redirect(w, r, address, http.StatusSeeOther)
	return nil
}

// localPath refuses whatever a browser could interpret as another site: "//host", "/\host", control characters, a scheme.
func localPath(next string) bool {
	u, err := url.Parse(next)
	return err == nil && strings.HasPrefix(next, "/") && !strings.HasPrefix(next, "//") && u.Scheme == "" && u.Host == "" &&
		!strings.ContainsFunc(next, func(c rune) bool { return c == '\\' || c < ' ' || c == 0x7f }) && len(next) <= 1024
}

// callback serves the URL that the provider redirects the browser to.
func (l *login) callback(session context.Context, w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	var pending pendingLogin
	if json.Unmarshal([]byte(l.sessions.PopString(session, "login:"+query.Get("state"))), &pending) != nil {
		return refusal{http.StatusBadRequest, "login refused: state unknown, used before or another browser's", "This login has been used before, took too long, or began in another browser.", ""}
	}
	if _, _, err := l.sessions.Commit(session); err != nil {
		return err
	}
	if query.Get("error") != "" {
		return refusal{http.StatusForbidden, "login refused by the provider", "The identity provider did not sign you in.", ""}
	}
	got, err := l.provider.redeem(r.Context(), query.Get("code"), pending.Verifier)
	if err == nil && subtle.ConstantTimeCompare([]byte(got.Nonce), []byte(pending.Nonce)) != 1 {
		err = errBadToken
	}
	switch {
	case refused(err):
		return refusal{http.StatusForbidden, "login refused: the provider's answer does not hold: " + reason(err), "The identity provider's answer could not be verified.", ""}
	case err != nil:
		return unreachable(err)
	case !l.allowed(got.Subject):
		return refusal{http.StatusForbidden, "login refused: subject not in OAUTH2_ALLOWED_SUBS: " + got.Subject,
			"You are signed in at the identity provider, but this account may not use the console.", l.provider.logoutURL(r.Context(), got.IDToken)}
	}
	if err := l.sessions.RenewToken(session); err != nil { // a cookie that somebody knew before the login is now invalid
		return err
	}
	l.put(session, got)
	l.sessions.Put(session, "name", got.Name)
	l.sessions.Put(session, "email", got.Email)
	if err := l.sessions.save(session, w); err != nil {
		return err
	}
	l.s.log.InfoContext(r.Context(), "login", "sub", got.Subject, "client", l.client(r))
	http.Redirect(w, r, pending.Next, http.StatusSeeOther)
	return nil
}

func (l *login) put(session context.Context, got tokens) {
	l.sessions.Put(session, "sub", got.Subject)
	l.sessions.Put(session, "id_token", got.IDToken)
	l.sessions.Put(session, "refresh_token", got.RefreshToken)
	l.sessions.Put(session, "token_expiry", got.Expiry.Unix())
}

func (l *login) allowed(subject string) bool {
	return subject != "" && (len(l.subjects) == 0 || slices.Contains(l.subjects, subject))
}

// refresh renews the browser's session, and requests new tokens if the provider gave a refresh token.
func (l *login) refresh(_ context.Context, w http.ResponseWriter, r *http.Request) error {
	l.renewing.Lock()
	defer l.renewing.Unlock()
	session, err := l.sessions.load(r) // with the changes of the previous renewal
	if err != nil {
		return err
	}
	subject := l.sessions.GetString(session, "sub")
	if subject == "" {
		return l.endSession(session, w)
	}
	if !l.sessions.refreshDue(session) {
		err = l.sessions.touch(session)
	} else {
		var got tokens
		got, err = l.provider.renew(r.Context(), l.sessions.GetString(session, "refresh_token"))
		if refused(err) || err == nil && (got.Subject != subject || !l.allowed(subject)) {
			l.s.log.InfoContext(r.Context(), "session ended: the provider does not renew it", "sub", subject, "error", reason(err))
			return l.endSession(session, w)
		}
		if err == nil {
			l.put(session, got)
			_, _, err = l.sessions.Commit(session)
		}
	}
	if err == nil {
		writeJSON(w, http.StatusOK, map[string]bool{"renewed": true})
	}
	return err
}

// endSession tells the page's script that the session has ended.
func (l *login) endSession(session context.Context, w http.ResponseWriter) error {
	if err := l.sessions.end(session, w); err != nil {
		return err
	}
	writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "no session; sign in again"})
	return nil
}

// logout ends the session here and at the provider. A link on another site must not do that, so from there it only works as a form.
func (l *login) logout(session context.Context, w http.ResponseWriter, r *http.Request) error {
	subject, idToken := l.sessions.GetString(session, "sub"), l.sessions.GetString(session, "id_token")
	if subject != "" && r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return refusal{http.StatusForbidden, "logout refused: asked for by another site", "Another site asked to sign you out. Sign out on the console itself.", ""}
	}
	if err := l.sessions.end(session, w); err != nil {
		return err
	}
	if subject == "" {
		return refusal{http.StatusOK, "logout without a session", "You are signed out.", ""}
	}
	l.s.log.InfoContext(r.Context(), "logout", "sub", subject)
	http.Redirect(w, r, l.provider.logoutURL(r.Context(), idToken), http.StatusSeeOther)
	return nil
}

// query matches the query of a URL in JSON, which may contain private data.
var query = regexp.MustCompile(`\?(\\.|[^"\\])*`)

// report logs a browser's report of a violation of the content security policy, without queries.
func (l *login) report(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, reportLimit))
	if err != nil || !json.Valid(text) || !bytes.ContainsAny(text[:1], "{[") {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "not a CSP report of at most 4 KiB"})
		return
	}
	l.s.log.WarnContext(r.Context(), "content security policy report", "report", json.RawMessage(query.ReplaceAll(text, nil)), "client", l.client(r))
	w.WriteHeader(http.StatusNoContent)
}

// client returns the client's address, which a trusted proxy may have forwarded.
func (l *login) client(r *http.Request) string {
	if ip := net.ParseIP(r.Header.Get("X-Real-IP")); ip != nil && l.s.proxies.holds(r.RemoteAddr) {
		return ip.String()
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// refusal is an error with the page that the user sees. SwitchURL, if set, signs the user out at the provider, so that another account can be used.
type refusal struct {
	status                 int
	event, Text, SwitchURL string
}

// Error returns the message for the log.
func (r refusal) Error() string { return r.event }

func unreachable(err error) error {
	return refusal{http.StatusServiceUnavailable, "identity provider not reached: " + reason(err), "The identity provider cannot be reached right now. Try again in a minute.", ""}
}

// answer shows and logs why a request failed.
func (l *login) answer(w http.ResponseWriter, r *http.Request, err error) {
	if err == nil {
		return
	}
	page := refusal{http.StatusServiceUnavailable, "sessions not read, written or renewed: " + reason(err), "Sessions cannot be read, written or renewed right now. Try again in a minute.", ""}
	_ = errors.As(err, &page)
	l.s.log.WarnContext(r.Context(), page.event, "client", l.client(r))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(page.status)
	_ = l.page.Execute(w, page)
}
