// Package openid is an OpenID provider for tests: a conforming one (zitadel's library), with a
// login form, single sign-on between logins, rotating refresh tokens and a logout, all in memory.
package openid

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"html/template"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// Config says who may log in, and to what.
type Config struct {
	// Address is host:port to listen on. The issuer is http:// and this address.
	Address string
	// ClientID and ClientSecret are those of the one client.
	ClientID, ClientSecret string
	// Redirects are where a login may lead back to, Logouts where a logout may.
	Redirects, Logouts []string
	// Users are the passwords by user name. A user's subject is the name after "local|".
	Users map[string]string
	// AccessLife is how long an access token is good.
	AccessLife time.Duration
}

// Provider runs until Close. Its methods may be called from anywhere.
type Provider struct {
	Config
	server *http.Server
	key    *rsa.PrivateKey

	mu       sync.Mutex
	sessions map[string]string // cookie → subject
	requests map[string]*request
	codes    map[string]string // code → id of the request
	refresh  map[string]*grant
	renewals int
}

// cookie holds a person's session at the provider.
const cookie = "openid-test"

// Start listens and serves. Its error is that of listening.
func Start(c Config) (*Provider, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	p := &Provider{
		Config: c, key: key,
		sessions: map[string]string{}, requests: map[string]*request{}, codes: map[string]string{}, refresh: map[string]*grant{},
	}
	listener, err := net.Listen("tcp", c.Address)
	if err != nil {
		return nil, err
	}
	protocol, err := op.NewProvider(&op.Config{
		CryptoKey: [32]byte([]byte(rand.Text() + rand.Text())[:32]), CodeMethodS256: true, AuthMethodPost: true,
		GrantTypeRefreshToken: true, DefaultLogoutRedirectURI: "/bye",
	}, storage{p}, op.StaticIssuer(p.Issuer()), op.WithAllowInsecure())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("/", protocol)
	mux.HandleFunc("/login", p.login)
	p.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = p.server.Serve(listener) }()
	return p, nil
}

// Issuer is the provider's address, as it stands in its tokens.
func (p *Provider) Issuer() string { return "http://" + p.Address }

// Close stops listening.
func (p *Provider) Close() error { return p.server.Close() }

// Sessions is how many people are logged in at the provider.
func (p *Provider) Sessions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sessions)
}

// Renewals is how many refresh tokens were traded for new tokens.
func (p *Provider) Renewals() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.renewals
}

// Revoke makes all refresh tokens worthless, as when an account is closed.
func (p *Provider) Revoke() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.refresh)
}

var form = template.Must(template.New("").Parse(`<!doctype html>
<title>Test provider</title><link rel="icon" href="data:,">
<form method="post" action="/login?id={{.}}">
<input id="user" name="user" autofocus> <input id="password" name="password" type="password">
<button id="submit">Log in</button>
</form>`))

// login lets in who has a session already, asks others for their password, and sends both back to the protocol.
func (p *Provider) login(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked, ok := p.requests[r.URL.Query().Get("id")]
	if !ok {
		http.Error(w, "no such request", http.StatusBadRequest)
		return
	}
	subject := ""
	if c, err := r.Cookie(cookie); err == nil {
		subject = p.sessions[c.Value]
	}
	if subject == "" && r.Method == http.MethodPost {
		user := r.PostFormValue("user")
		if password, known := p.Users[user]; known && password == r.PostFormValue("password") {
			subject = Subject(user)
			id := rand.Text()
			p.sessions[id] = subject
			http.SetCookie(w, &http.Cookie{Name: cookie, Value: id, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}) //nolint:gosec // plain HTTP on one machine
		}
	}
	if subject == "" {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = form.Execute(w, asked.id)
		return
	}
	asked.subject, asked.at = subject, time.Now()
	http.Redirect(w, r, "/authorize/callback?id="+asked.id, http.StatusFound)
}

// Subject is a user's name in tokens.
func Subject(user string) string { return "local|" + user }

// request is one login on its way.
type request struct {
	id, subject string
	at          time.Time
	*oidc.AuthRequest
}

func (r *request) GetID() string                      { return r.id }
func (r *request) GetACR() string                     { return "" }
func (r *request) GetAMR() []string                   { return []string{"pwd"} }
func (r *request) GetAudience() []string              { return []string{r.ClientID} }
func (r *request) GetAuthTime() time.Time             { return r.at }
func (r *request) GetClientID() string                { return r.ClientID }
func (r *request) GetNonce() string                   { return r.Nonce }
func (r *request) GetRedirectURI() string             { return r.RedirectURI }
func (r *request) GetScopes() []string                { return r.Scopes }
func (r *request) GetState() string                   { return r.State }
func (r *request) GetSubject() string                 { return r.subject }
func (r *request) Done() bool                         { return r.subject != "" }
func (r *request) GetResponseType() oidc.ResponseType { return r.ResponseType }
func (r *request) GetResponseMode() oidc.ResponseMode { return r.ResponseMode }
func (r *request) GetCodeChallenge() *oidc.CodeChallenge {
	if r.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: r.CodeChallenge, Method: r.CodeChallengeMethod}
}

// grant is what a refresh token is good for.
type grant struct {
	subject, client string
	audience        []string
	scopes          []string
	at              time.Time
}

func (g *grant) GetAMR() []string             { return []string{"pwd"} }
func (g *grant) GetAudience() []string        { return g.audience }
func (g *grant) GetAuthTime() time.Time       { return g.at }
func (g *grant) GetClientID() string          { return g.client }
func (g *grant) GetScopes() []string          { return g.scopes }
func (g *grant) GetSubject() string           { return g.subject }
func (g *grant) SetCurrentScopes(to []string) { g.scopes = to }

// client is the one client.
type client struct{ *Provider }

func (c client) GetID() string                       { return c.ClientID }
func (c client) RedirectURIs() []string              { return c.Redirects }
func (c client) PostLogoutRedirectURIs() []string    { return c.Logouts }
func (c client) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (c client) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodBasic }
func (c client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c client) LoginURL(id string) string            { return "/login?id=" + id }
func (c client) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeBearer }
func (c client) IDTokenLifetime() time.Duration       { return time.Hour }
func (c client) DevMode() bool                        { return false }
func (c client) IsScopeAllowed(string) bool           { return false }
func (c client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (c client) ClockSkew() time.Duration             { return 0 }
func (c client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
}
func (c client) RestrictAdditionalIdTokenScopes() func([]string) []string { //nolint:revive // the library's name
	return func(scopes []string) []string { return scopes }
}
func (c client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

// storage is the provider as the protocol's library asks it.
type storage struct{ p *Provider }

var (
	_ op.Storage = storage{}
	// errUnknown is all that a stranger is told.
	errUnknown = errors.New("unknown")
)

func (s storage) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	r := &request{id: rand.Text(), AuthRequest: asked}
	s.p.requests[r.id] = r
	return r, nil
}

func (s storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if r, ok := s.p.requests[id]; ok {
		return r, nil
	}
	return nil, errUnknown
}

func (s storage) AuthRequestByCode(ctx context.Context, code string) (op.AuthRequest, error) {
	s.p.mu.Lock()
	id := s.p.codes[code]
	delete(s.p.codes, code)
	s.p.mu.Unlock()
	return s.AuthRequestByID(ctx, id)
}

func (s storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.codes[code] = id
	return nil
}

func (s storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	delete(s.p.requests, id)
	return nil
}

func (s storage) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	return rand.Text(), time.Now().Add(s.p.AccessLife), nil
}

func (s storage) CreateAccessAndRefreshTokens(_ context.Context, asked op.TokenRequest, current string) (string, string, time.Time, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	g := &grant{subject: asked.GetSubject(), client: s.p.ClientID, audience: asked.GetAudience(), scopes: asked.GetScopes(), at: time.Now()}
	if current != "" {
		if s.p.refresh[current] == nil {
			return "", "", time.Time{}, op.ErrInvalidRefreshToken
		}
		delete(s.p.refresh, current)
		s.p.renewals++
	}
	token := rand.Text()
	s.p.refresh[token] = g
	return rand.Text(), token, time.Now().Add(s.p.AccessLife), nil
}

func (s storage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if g := s.p.refresh[token]; g != nil {
		copied := *g
		return &copied, nil
	}
	return nil, op.ErrInvalidRefreshToken
}

func (s storage) TerminateSession(_ context.Context, subject, _ string) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	for id, of := range s.p.sessions {
		if of == subject {
			delete(s.p.sessions, id)
		}
	}
	for token, g := range s.p.refresh {
		if g.subject == subject {
			delete(s.p.refresh, token)
		}
	}
	return nil
}

func (s storage) RevokeToken(context.Context, string, string, string) *oidc.Error {
	return oidc.ErrUnsupportedGrantType()
}

func (s storage) GetRefreshTokenInfo(context.Context, string, string) (string, string, error) {
	return "", "", op.ErrInvalidRefreshToken
}

// signingKey is the provider's key in both of the forms that the library wants.
type signingKey struct {
	key any
}

func (k signingKey) ID() string                                  { return "only" }
func (k signingKey) Key() any                                    { return k.key }
func (k signingKey) Use() string                                 { return "sig" }
func (k signingKey) Algorithm() jose.SignatureAlgorithm          { return jose.RS256 }
func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }

func (s storage) SigningKey(context.Context) (op.SigningKey, error) { return signingKey{s.p.key}, nil }

func (s storage) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{signingKey{s.p.key.Public()}}, nil
}

func (s storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

func (s storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != s.p.ClientID {
		return nil, errUnknown
	}
	return client{s.p}, nil
}

func (s storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if id != s.p.ClientID || secret != s.p.ClientSecret {
		return errUnknown
	}
	return nil
}

func (s storage) SetUserinfoFromScopes(_ context.Context, info *oidc.UserInfo, subject, _ string, scopes []string) error {
	info.Subject = subject
	if slices.Contains(scopes, oidc.ScopeProfile) {
		info.Name = "Test user " + subject
	}
	return nil
}

func (s storage) SetUserinfoFromToken(context.Context, *oidc.UserInfo, string, string, string) error {
	return errUnknown
}

func (s storage) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errUnknown
}

func (s storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func (s storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errUnknown
}

func (s storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errUnknown
}

func (s storage) Health(context.Context) error { return nil }
