// Package openid is an OpenID provider for tests: zitadel's library with the storage in memory of its example. It adds a
// login form, single sign-on between logins, and what the tests of a login want to know and to change.
package openid

import (
	"context"
	"crypto/rand"
	"errors"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/example/server/storage"
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
	*storage.Storage
	server *http.Server

	mu       sync.Mutex
	sessions map[string]string // cookie → user
	renewals int
}

// cookie holds a person's session at the provider.
const cookie = "openid-test"

// Start listens and serves. Its error is that of listening.
func Start(c Config) (*Provider, error) {
	p := &Provider{Config: c, sessions: map[string]string{}}
	client := storage.WebClient(c.ClientID, c.ClientSecret, c.Redirects...)
	p.Storage = storage.NewStorageWithClients(users(c.Users), map[string]*storage.Client{c.ClientID: client})
	listener, err := net.Listen("tcp", c.Address)
	if err != nil {
		return nil, err
	}
	protocol, err := op.NewProvider(&op.Config{
		CryptoKey: [32]byte([]byte(rand.Text() + rand.Text())[:32]), CodeMethodS256: true, AuthMethodPost: true,
		GrantTypeRefreshToken: true, DefaultLogoutRedirectURI: "/bye",
	}, p, op.StaticIssuer(p.Issuer()), op.WithAllowInsecure())
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
	for user := range p.Users {
		_ = p.Storage.TerminateSession(context.Background(), Subject(user), p.ClientID) // in memory nothing fails
	}
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
	id, user, password := r.URL.Query().Get("id"), r.PostFormValue("user"), r.PostFormValue("password")
	if c, err := r.Cookie(cookie); err == nil && p.sessions[c.Value] != "" {
		user = p.sessions[c.Value]
		password = p.Users[user]
	} else if p.Users[user] != "" && p.Users[user] == password {
		session := rand.Text()
		p.sessions[session] = user
		http.SetCookie(w, &http.Cookie{Name: cookie, Value: session, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}) //nolint:gosec // plain HTTP on one machine
	}
	if err := p.CheckUsernamePassword(user, password, id); err != nil {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = form.Execute(w, id)
		return
	}
	http.Redirect(w, r, "/authorize/callback?id="+url.QueryEscape(id), http.StatusFound)
}

// Subject is a user's name in tokens.
func Subject(user string) string { return "local|" + user }

// users are the passwords by user name, as the storage asks for them.
type users map[string]string

func (u users) GetUserByID(id string) *storage.User {
	return u.GetUserByUsername(strings.TrimPrefix(id, Subject("")))
}

func (u users) GetUserByUsername(name string) *storage.User {
	if u[name] == "" {
		return nil
	}
	return &storage.User{ID: Subject(name), Username: name, Password: u[name], FirstName: "Test user", LastName: Subject(name)}
}

func (u users) ExampleClientID() string { return "" }

// client is the one client, as the console needs it.
type client struct {
	op.Client
	logouts []string
}

func (c client) LoginURL(id string) string            { return "/login?id=" + id }
func (c client) PostLogoutRedirectURIs() []string     { return c.logouts }
func (c client) IDTokenUserinfoClaimsAssertion() bool { return true }

// GetClientByClientID finds the one client.
func (p *Provider) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	found, err := p.Storage.GetClientByClientID(ctx, id)
	return client{found, p.Logouts}, err
}

// CreateAccessAndRefreshTokens makes the tokens of a login or of a renewal.
func (p *Provider) CreateAccessAndRefreshTokens(ctx context.Context, asked op.TokenRequest, current string) (string, string, time.Time, error) {
	access, refresh, _, err := p.Storage.CreateAccessAndRefreshTokens(ctx, asked, current)
	if err == nil && current != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.renewals++
	}
	return access, refresh, time.Now().Add(p.AccessLife), err
}

// TerminateSession logs a person out.
func (p *Provider) TerminateSession(ctx context.Context, subject, clientID string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for session, user := range p.sessions {
		if Subject(user) == subject {
			delete(p.sessions, session)
		}
	}
	return p.Storage.TerminateSession(ctx, subject, clientID)
}
