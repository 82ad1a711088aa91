package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// errBadToken means that the provider's answer does not prove who signed in.
var errBadToken = errors.New("ID token refused")

// provider is the OpenID Connect provider. It is looked up when first needed, and again until that works: the service starts
// and is healthy without it.
type provider struct {
	cfg    authConfig
	client *http.Client

	mu    sync.Mutex
	found *discovery
}

// discovery is what the provider's discovery document told.
type discovery struct {
	cfg        authConfig
	client     *http.Client
	oauth      oauth2.Config
	verifier   *oidc.IDTokenVerifier
	endSession string
}

func newProvider(cfg authConfig, client *http.Client) *provider {
	return &provider{cfg: cfg, client: client}
}

func (p *provider) get(ctx context.Context) (*discovery, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found != nil {
		return p.found, nil
	}
	// The provider goes on fetching keys with this context, so it must not end with the request.
	discovered, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.client), string(p.cfg.Issuer))
	if err != nil {
		return nil, err
	}
	var more struct {
		EndSession string `json:"end_session_endpoint"`
	}
	if err := discovered.Claims(&more); err != nil {
		return nil, err
	}
	p.found = &discovery{cfg: p.cfg, client: p.client, endSession: more.EndSession, verifier: discovered.Verifier(&oidc.Config{ClientID: p.cfg.ClientID}),
		oauth: oauth2.Config{ClientID: p.cfg.ClientID, ClientSecret: p.cfg.ClientSecret, Endpoint: discovered.Endpoint(), RedirectURL: string(p.cfg.Redirect),
			Scopes: []string{oidc.ScopeOpenID, "profile", "email", oidc.ScopeOfflineAccess}}}
	return p.found, nil
}

// logoutURL is the provider's own logout, which leads back to the console: the one that it announces, else Auth0's.
func (p *provider) logoutURL(ctx context.Context, idToken string) string {
	back := string(p.cfg.Logout)
	if e, err := p.get(ctx); err == nil && e.endSession != "" {
		query := url.Values{"id_token_hint": {idToken}, "post_logout_redirect_uri": {back}, "client_id": {p.cfg.ClientID}}
		separator := "?"
		if strings.Contains(e.endSession, "?") {
			separator = "&"
		}
		return e.endSession + separator + query.Encode()
	}
	return strings.TrimRight(string(p.cfg.Issuer), "/") + "/v2/logout?" + url.Values{"client_id": {p.cfg.ClientID}, "returnTo": {back}}.Encode()
}

func (e *discovery) loginURL(state string, pending pendingLogin) string {
	return e.oauth.AuthCodeURL(state, oidc.Nonce(pending.Nonce), oauth2.S256ChallengeOption(pending.Verifier), oauth2.SetAuthURLParam("audience", e.cfg.Audience))
}

// redeem turns a code into a session: the code must be for our verifier, the token signed by the provider, for us, and for this login.
func (e *discovery) redeem(ctx context.Context, code string, pending pendingLogin) (session, error) {
	token, err := e.oauth.Exchange(oidc.ClientContext(ctx, e.client), code, oauth2.VerifierOption(pending.Verifier))
	if err != nil {
		return session{}, err
	}
	idToken, value, err := e.verify(ctx, token)
	if err != nil {
		return session{}, err
	}
	if subtle.ConstantTimeCompare([]byte(idToken.Nonce), []byte(pending.Nonce)) != 1 {
		return session{}, fmt.Errorf("%w: the nonce is another login's", errBadToken)
	}
	return value, nil
}

func (e *discovery) verify(ctx context.Context, token *oauth2.Token) (*oidc.IDToken, session, error) {
	raw, _ := token.Extra("id_token").(string)
	idToken, err := e.verifier.Verify(oidc.ClientContext(ctx, e.client), raw)
	if err != nil {
		return nil, session{}, fmt.Errorf("%w: %w", errBadToken, err)
	}
	value := session{IDToken: raw, RefreshToken: token.RefreshToken, TokenExpiry: token.Expiry}
	var claims struct {
		Name  string `json:"name"`
		Email string `json:"email"`
	}
	if err := idToken.Claims(&claims); err != nil {
		return nil, session{}, fmt.Errorf("%w: %w", errBadToken, err)
	}
	value.Subject, value.Name, value.Email = idToken.Subject, claims.Name, claims.Email
	return idToken, value, nil
}

// renew trades the refresh token for new tokens. A provider may leave out the ID token, but may not change the person.
func (e *discovery) renew(ctx context.Context, value session) (session, error) {
	token, err := e.oauth.TokenSource(oidc.ClientContext(ctx, e.client), &oauth2.Token{RefreshToken: value.RefreshToken}).Token()
	if err != nil {
		return session{}, err
	}
	if token.Extra("id_token") != nil {
		_, next, err := e.verify(ctx, token)
		if err != nil {
			return session{}, err
		}
		if next.Subject != value.Subject {
			return session{}, fmt.Errorf("%w: it is another person's", errBadToken)
		}
		value.IDToken = next.IDToken
	}
	value.RefreshToken, value.TokenExpiry = token.RefreshToken, token.Expiry
	return value, nil
}
