package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const reportLimit = 4 << 10

// refusal is an error with the page that the user sees. SwitchURL, if set, signs the user out at the provider, so that another account
// can be used.
type refusal struct {
	status                 int
	event, Text, SwitchURL string
}

// Error returns the message for the log.
func (r refusal) Error() string { return r.event }

// refuse shows and logs why a request failed; an error that is not a refusal is one of the sessions.
func (s *service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	page, ok := errors.AsType[refusal](err)
	if !ok {
		page = refusal{http.StatusServiceUnavailable, "sessions not read, written or renewed: " + err.Error(),
			"Sessions cannot be read, written or renewed right now. Try again in a minute.", ""}
	}
	s.log.WarnContext(r.Context(), page.event, "client", s.client(r))
	s.render(w, r, page.status, "message.html", page)
}

// client returns the client's address, which a trusted proxy may have forwarded.
func (s *service) client(r *http.Request) string {
	if ip := net.ParseIP(r.Header.Get("X-Real-IP")); ip != nil && s.proxied(r) {
		return ip.String()
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// unreachable is the refusal of a login while the provider does not answer.
func unreachable(err error) error {
	return refusal{http.StatusServiceUnavailable, "identity provider not reached: " + err.Error(),
		"The identity provider cannot be reached right now. Try again in a minute.", ""}
}

// login is the service that signs people in with OpenID Connect.
type login struct {
	s        *service
	sessions *sessions
	subjects []string   // who may sign in; empty for everyone
	renewing sync.Mutex // providers treat a second use of a refresh token as theft
}

func setupLogin(s *service) {
	l := &login{s: s, sessions: newSessions(s, true)}
	l.subjects = strings.FieldsFunc(s.env["OAUTH2_ALLOWED_SUBS"], func(r rune) bool { return r == ',' || r == ' ' })
	if len(l.subjects) == 0 {
		s.log.Warn("OAUTH2_ALLOWED_SUBS is empty: everyone whom the provider signs in may use the console")
	}
	s.mux.Handle("GET /login", l.handler(l.begin))
	s.mux.Handle("GET /callback", l.handler(l.callback))
	s.mux.Handle("GET /logout", l.handler(l.logout))
	s.mux.Handle("POST /logout", l.handler(l.logout))
	refresh := l.handler(l.refresh)
	s.mux.HandleFunc("POST /refresh", func(w http.ResponseWriter, r *http.Request) {
		l.renewing.Lock() // before the session is read, with the changes of the previous renewal
		defer l.renewing.Unlock()
		refresh.ServeHTTP(w, r)
	})
	s.mux.HandleFunc("POST /csp-report", l.report)
	s.policy += "; report-uri /csp-report"
	s.reportOnly = s.env["CSP_REPORT_ONLY"] == "true"
}

// handler gives a handler the session of the request's cookie, in its context.
func (l *login) handler(handle func(http.ResponseWriter, *http.Request) error) http.Handler {
	return l.sessions.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := handle(w, r.WithContext(oidc.ClientContext(r.Context(), l.s.peers))); err != nil {
			l.s.refuse(w, r, err)
		}
	}))
}

// begin redirects the browser to the provider. Until the provider sends it back, its session keeps the PKCE verifier and where to go next
// under the state of the login, which is also its nonce. A state is therefore valid once, and only in the browser that began the login.
func (l *login) begin(w http.ResponseWriter, r *http.Request) error {
	next := cmp.Or(r.URL.Query().Get("next"), "/")
	// Browsers could interpret these as another site: "//host", "/\host", and control characters.
	odd := func(c rune) bool { return c == '\\' || c < ' ' || c == 0x7f }
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsFunc(next, odd) || len(next) > 1024 {
		return refusal{http.StatusBadRequest, "login refused: next leads elsewhere",
			"The address to go to after signing in is not one of this console.", ""}
	}
	p, err := l.discover(r.Context())
	if err != nil {
		return unreachable(err)
	}
	state, verifier := oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	l.sessions.Put(r.Context(), "login:"+state, verifier+next)
	http.Redirect(w, r, p.AuthCodeURL(state, oidc.Nonce(state), oauth2.S256ChallengeOption(verifier),
		oauth2.SetAuthURLParam("audience", l.s.env["AUTH0_AUDIENCE"])), http.StatusSeeOther)
	return nil
}

// callback serves the URL that the provider redirects the browser to.
func (l *login) callback(w http.ResponseWriter, r *http.Request) error {
	ctx, query := r.Context(), r.URL.Query()
	state := query.Get("state")
	verifier, next, known := strings.Cut(l.sessions.PopString(ctx, "login:"+state), "/") // the verifier has no slash, and next begins with one
	if !known {
		return refusal{http.StatusBadRequest, "login refused: state unknown, used before or another browser's",
			"This login has been used before, took too long, or began in another browser.", ""}
	}
	if _, _, err := l.sessions.Commit(ctx); err != nil { // now, so that nobody else uses the state
		return err
	}
	if query.Get("error") != "" {
		return refusal{http.StatusForbidden, "login refused by the provider", "The identity provider did not sign you in.", ""}
	}
	got, err := l.redeem(ctx, func(p provider) (*oauth2.Token, error) {
		return p.Exchange(ctx, query.Get("code"), oauth2.VerifierOption(verifier))
	})
	if err == nil && got.Nonce != state {
		err = errRefused
	}
	switch {
	case errors.Is(err, errRefused):
		return refusal{http.StatusForbidden, "login refused: " + err.Error(), "The identity provider's answer could not be verified.", ""}
	case err != nil:
		return err
	case !l.allowed(got.Subject):
		return refusal{http.StatusForbidden, "login refused: subject not in OAUTH2_ALLOWED_SUBS: " + got.Subject,
			"You are signed in at the identity provider, but this account may not use the console.", l.logoutURL(ctx, got.raw)}
	}
	if err := l.sessions.RenewToken(ctx); err != nil { // a cookie that somebody knew before the login is now invalid
		return err
	}
	l.keep(ctx, got)
	l.sessions.Put(ctx, "name", cmp.Or(got.profile.Name, got.profile.Email, got.Subject))
	l.s.log.InfoContext(ctx, "login", "sub", got.Subject, "client", l.s.client(r))
	http.Redirect(w, r, "/"+next, http.StatusSeeOther) //nolint:gosec // begin has checked it
	return nil
}

func (l *login) allowed(subject string) bool {
	return subject != "" && (len(l.subjects) == 0 || slices.Contains(l.subjects, subject))
}

// keep puts into the session what a login or a renewal brought.
func (l *login) keep(session context.Context, got grant) {
	l.sessions.Put(session, "sub", got.Subject)
	l.sessions.Put(session, "id_token", got.raw)
	l.sessions.Put(session, "refresh_token", got.token.RefreshToken)
	l.sessions.Put(session, "token_expiry", got.token.Expiry.Unix())
}

// refresh renews the browser's session, and requests new tokens if the provider gave a refresh token.
func (l *login) refresh(w http.ResponseWriter, r *http.Request) error {
	ctx, err := r.Context(), errRefused
	if subject := l.sessions.GetString(ctx, "sub"); l.sessions.refreshDue(ctx) {
		var got grant
		got, err = l.redeem(ctx, func(p provider) (*oauth2.Token, error) {
			return p.TokenSource(ctx, &oauth2.Token{RefreshToken: l.sessions.GetString(ctx, "refresh_token")}).Token()
		})
		if err == nil && got.Subject == subject && l.allowed(subject) {
			l.keep(ctx, got)
		} else if err == nil {
			err = errRefused
		}
	} else if subject != "" {
		err = l.sessions.touch(ctx)
	}
	if err == nil {
		writeJSON(w, http.StatusOK, map[string]bool{"renewed": true})
	} else if errors.Is(err, errRefused) {
		l.s.log.InfoContext(ctx, "session not renewed", "error", err)
		if err = l.sessions.Destroy(ctx); err == nil {
			writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "no session; sign in again"})
		}
	}
	return err
}

// logout ends the session here and at the provider. A link on another site must not do that, so from there it only works as a form.
func (l *login) logout(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	subject, idToken := l.sessions.GetString(ctx, "sub"), l.sessions.GetString(ctx, "id_token")
	if subject != "" && r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return refusal{http.StatusForbidden, "logout refused: asked for by another site",
			"Another site asked to sign you out. Sign out on the console itself.", ""}
	}
	if err := l.sessions.Destroy(ctx); err != nil {
		return err
	}
	if subject == "" {
		return refusal{http.StatusOK, "logout without a session", "You are signed out.", ""}
	}
	l.s.log.InfoContext(ctx, "logout", "sub", subject)
	http.Redirect(w, r, l.logoutURL(ctx, idToken), http.StatusSeeOther)
	return nil
}

// logoutURL returns the URL of the provider's logout, which redirects to the console: the one that the provider announces, or else Auth0's.
func (l *login) logoutURL(ctx context.Context, idToken string) string {
	client, back := l.s.env["AUTH0_CLIENT_ID"], l.s.env["OAUTH2_LOGOUT_REDIRECT_URI"]
	if p, err := l.discover(ctx); err == nil && p.EndSession != "" {
		separator := map[bool]string{false: "?", true: "&"}[strings.Contains(p.EndSession, "?")]
		return p.EndSession + separator + url.Values{"id_token_hint": {idToken}, "post_logout_redirect_uri": {back}, "client_id": {client}}.Encode()
	}
	return strings.TrimRight(l.s.issuer, "/") + "/v2/logout?" + url.Values{"client_id": {client}, "returnTo": {back}}.Encode()
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
	l.s.log.WarnContext(r.Context(), "content security policy report", "report", json.RawMessage(query.ReplaceAll(text, nil)), "client", l.s.client(r))
	w.WriteHeader(http.StatusNoContent)
}

// provider is the OpenID Connect provider, as its discovery describes it.
type provider struct {
	oauth2.Config `json:"-"`
	verifier      *oidc.IDTokenVerifier
	EndSession    string `json:"end_session_endpoint"`
}

// discover asks the provider for its endpoints. This is done for each login, renewal and logout, so that the service can start and be
// healthy without it.
func (l *login) discover(ctx context.Context) (p provider, err error) {
	found, err := oidc.NewProvider(ctx, l.s.issuer)
	if err != nil {
		return p, err
	}
	env := l.s.env
	p.verifier = found.Verifier(&oidc.Config{ClientID: env["AUTH0_CLIENT_ID"]})
	p.Config = oauth2.Config{ClientID: env["AUTH0_CLIENT_ID"], ClientSecret: env["AUTH0_CLIENT_SECRET"], RedirectURL: env["OAUTH2_REDIRECT_URI"],
		Endpoint: found.Endpoint(), Scopes: []string{oidc.ScopeOpenID, "profile", "email", oidc.ScopeOfflineAccess}}
	return p, found.Claims(&p)
}

// grant is what the provider gives for a login.
type grant struct {
	*oidc.IDToken
	token   *oauth2.Token
	raw     string // the ID token
	profile struct{ Name, Email string }
}

// errRefused means that the provider refused, or that its answer does not prove the user's identity, so that another attempt cannot help.
var errRefused = errors.New("the provider does not confirm the user")

// redeem exchanges a code or a refresh token, and checks that the provider signed the ID token for this client.
func (l *login) redeem(ctx context.Context, exchange func(provider) (*oauth2.Token, error)) (g grant, err error) {
	p, err := l.discover(ctx)
	if err != nil {
		return g, unreachable(err)
	}
	g.token, err = exchange(p)
	if answer, ok := errors.AsType[*oauth2.RetrieveError](err); ok && answer.Response.StatusCode < http.StatusInternalServerError {
		return g, fmt.Errorf("%w: it answers %s", errRefused, answer.Response.Status) // the answer itself may contain tokens
	} else if ok {
		err = errors.New(answer.Response.Status)
	}
	if err != nil {
		return g, unreachable(err)
	}
	g.raw, _ = g.token.Extra("id_token").(string)
	if g.IDToken, err = p.verifier.Verify(ctx, g.raw); err == nil {
		err = g.Claims(&g.profile)
	}
	if err != nil {
		return g, fmt.Errorf("%w: %w", errRefused, err)
	}
	return g, nil
}
