package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"regexp"
	"time"

	"github.com/redis/go-redis/v9"
)

// sessionCookie names the browser's session. The prefix makes browsers refuse it without Secure.
const sessionCookie = "__Secure-session"

var (
	errNoSession = errors.New("no session")
	sessionID    = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
)

// session is what auth_service knows of a signed-in browser; it lies encrypted in Redis.
type session struct {
	Subject      string    `json:"sub"`
	Name         string    `json:"name"`
	Email        string    `json:"email"`
	Created      time.Time `json:"created"`
	IDToken      string    `json:"id_token"`
	RefreshToken string    `json:"refresh_token"`
	TokenExpiry  time.Time `json:"token_expiry"`
}

// sessionStore is shared by auth_service, which makes sessions, and the oauth2 console, which honours them.
// The browser holds a random id, Redis its hash: reading Redis gives nobody a session. The key's lifetime is the idle timeout.
type sessionStore struct {
	rdb            *redis.Client
	key            encryptedKey
	idle, absolute time.Duration
}

func sessionKey(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "session:" + hex.EncodeToString(sum[:])
}

// create stores a session under a new id.
func (s *sessionStore) create(ctx context.Context, value session) (string, error) {
	id := base64.RawURLEncoding.EncodeToString(randomBytes(32))
	sealed, err := seal(s.key, sessionKey(id), value)
	if err != nil {
		return "", err
	}
	return id, s.rdb.Set(ctx, sessionKey(id), sealed, s.idle).Err()
}

// fromRequest finds the session that the browser's cookie names.
func (s *sessionStore) fromRequest(r *http.Request) (string, session, error) {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil || !sessionID.MatchString(cookie.Value) {
		return "", session{}, errNoSession
	}
	key := sessionKey(cookie.Value)
	value, err := s.get(r.Context(), key)
	return key, value, err
}

// get reads the session stored under a key. One that does not open, or is past its absolute end, is none.
func (s *sessionStore) get(ctx context.Context, key string) (session, error) {
	sealed, err := s.rdb.Get(ctx, key).Bytes()
	if errors.Is(err, redis.Nil) {
		return session{}, errNoSession
	}
	if err != nil {
		return session{}, err
	}
	var value session
	if unseal(s.key, key, sealed, &value) != nil || !time.Now().Before(value.Created.Add(s.absolute)) {
		return session{}, errNoSession
	}
	return value, nil
}

// touch starts the idle time anew; it never reaches past the absolute end.
func (s *sessionStore) touch(ctx context.Context, key string, value session) error {
	left := min(s.idle, time.Until(value.Created.Add(s.absolute)))
	return s.rdb.PExpire(ctx, key, left).Err()
}

// update replaces a session that still exists: one that was ended meanwhile stays ended.
func (s *sessionStore) update(ctx context.Context, key string, value session) error {
	sealed, err := seal(s.key, key, value)
	if err != nil {
		return err
	}
	err = s.rdb.SetArgs(ctx, key, sealed, redis.SetArgs{Mode: "XX", KeepTTL: true}).Err()
	if errors.Is(err, redis.Nil) {
		return errNoSession
	}
	return err
}

func (s *sessionStore) end(ctx context.Context, key string) error { return s.rdb.Del(ctx, key).Err() }
