package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// errBadToken means that the provider's answer does not prove the user's identity.
var errBadToken = errors.New("the ID token is not for this login")

// provider is the OpenID Connect provider. Its discovery runs when it is first needed, and again until it succeeds, so that the service
// can start and be healthy without it.
type provider struct {
	client                       *http.Client
	issuer, audience, logoutBack string
	config                       oauth2.Config

	mu         sync.Mutex
	verifier   *oidc.IDTokenVerifier // nil until the discovery succeeded
	endSession string
}

// tokens are what the provider gives for a login.
type tokens struct {
	Subject, Nonce, Name, Email, IDToken, RefreshToken string
	Expiry                                             time.Time
}

func newProvider(s *service) (*provider, error) {
	issuer, err := issuerOf(s.env["AUTH0_DOMAIN"])
	return &provider{client: s.peers, issuer: issuer, audience: s.env["AUTH0_AUDIENCE"], logoutBack: s.env["OAUTH2_LOGOUT_REDIRECT_URI"],
		config: oauth2.Config{ClientID: s.env["AUTH0_CLIENT_ID"], ClientSecret: s.env["AUTH0_CLIENT_SECRET"], RedirectURL: s.env["OAUTH2_REDIRECT_URI"],
			Scopes: []string{oidc.ScopeOpenID, "profile", "email", oidc.ScopeOfflineAccess}}}, err
}

// find runs the provider's discovery if needed, and returns a context for calls to the provider.
func (p *provider) find(ctx context.Context) (context.Context, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx = oidc.ClientContext(ctx, p.client)
	if p.verifier != nil {
		return ctx, nil
	}
	// The library later fetches keys with this context, so it must not end with the request.
	found, err := oidc.NewProvider(context.WithoutCancel(ctx), p.issuer)
	if err != nil {
		return ctx, err
	}
	var more struct {
		EndSession string `json:"end_session_endpoint"`
	}
	if err := found.Claims(&more); err != nil {
		return ctx, err
	}
	p.config.Endpoint, p.endSession, p.verifier = found.Endpoint(), more.EndSession, found.Verifier(&oidc.Config{ClientID: p.config.ClientID})
	return ctx, nil
}

// loginURL returns the URL at which a login begins.
func (p *provider) loginURL(ctx context.Context, state, nonce, verifier string) (string, error) {
	_, err := p.find(ctx)
	return p.config.AuthCodeURL(state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("audience", p.audience)), err
}

// logoutURL returns the URL of the provider's logout, which redirects to the console: the one that the provider announces, or else Auth0's.
func (p *provider) logoutURL(ctx context.Context, idToken string) string {
	if _, err := p.find(ctx); err == nil && p.endSession != "" {
		separator := "?"
		if strings.Contains(p.endSession, "?") {
			separator = "&"
		}
		return p.endSession + separator + url.Values{"id_token_hint": {idToken}, "post_logout_redirect_uri": {p.logoutBack}, "client_id": {p.config.ClientID}}.Encode()
	}
	return strings.TrimRight(p.issuer, "/") + "/v2/logout?" + url.Values{"client_id": {p.config.ClientID}, "returnTo": {p.logoutBack}}.Encode()
}

// redeem exchanges a code for tokens. The code must belong to our PKCE verifier.
func (p *provider) redeem(ctx context.Context, code, verifier string) (tokens, error) {
	ctx, err := p.find(ctx)
	if err != nil {
		return tokens{}, err
	}
	token, err := p.config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		return tokens{}, err
	}
	return p.verify(ctx, token)
}

// renew exchanges a refresh token for new tokens.
func (p *provider) renew(ctx context.Context, refreshToken string) (tokens, error) {
	ctx, err := p.find(ctx)
	if err != nil {
		return tokens{}, err
	}
	token, err := p.config.TokenSource(ctx, &oauth2.Token{RefreshToken: refreshToken}).Token()
	if err != nil {
		return tokens{}, err
	}
	return p.verify(ctx, token)
}

// verify checks that the provider signed the ID token for this client.
func (p *provider) verify(ctx context.Context, token *oauth2.Token) (t tokens, err error) {
	raw, _ := token.Extra("id_token").(string)
	idToken, err := p.verifier.Verify(ctx, raw)
	if err == nil {
		err = idToken.Claims(&t) // name and email
	}
	if err != nil {
		return t, fmt.Errorf("%w: %w", errBadToken, err)
	}
	t.Subject, t.Nonce, t.IDToken, t.RefreshToken, t.Expiry = idToken.Subject, idToken.Nonce, raw, token.RefreshToken, token.Expiry
	return t, nil
}

// refused reports whether the provider refused, or its answer is invalid, so that another attempt cannot help.
func refused(err error) bool {
	var answer *oauth2.RetrieveError
	return errors.As(err, &answer) && answer.Response.StatusCode < 500 || errors.Is(err, errBadToken)
}

// reason describes an error without the provider's response, because the response to a token request may contain tokens.
func reason(err error) string {
	var answer *oauth2.RetrieveError
	if errors.As(err, &answer) {
		return "the provider answers " + answer.Response.Status
	}
	var failed *url.Error
	if errors.As(err, &failed) {
		return brief(failed.Err)
	}
	return brief(err)
}
