package main

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/redis/go-redis/v9"
)

// refreshAhead is how long before the provider's token expires the page requests a new one.
const refreshAhead = time.Minute

// sessions are the sessions of browsers. They end after a time without activity, and at the latest after their lifetime.
type sessions struct {
	*scs.SessionManager
	store *sealedStore // nil for sessions in memory
}

// newSessions returns sessions that end with the process. Their times are constants, because auth_service has no variables for them.
func newSessions(s *service) sessions {
	m := scs.New()
	// Browsers share cookies between the ports of a host, and two stacks may run on one host.
	host, _ := os.Hostname()
	m.Cookie.Name = "console_session_" + host
	m.IdleTimeout = span(s.env["SESSION_TIMEOUT_MINUTES"], 15, time.Minute)
	m.Lifetime = span(s.env["SESSION_ABSOLUTE_TIMEOUT_HOURS"], 4, time.Hour)
	return sessions{SessionManager: m}
}

func span(text string, standard int, unit time.Duration) time.Duration {
	n, _ := strconv.Atoi(text)
	return time.Duration(cmp.Or(n, standard)) * unit
}

// newSharedSessions makes sessions in Redis: auth_service makes them, and the console of auth type oauth2 honours them. The __Secure-
// prefix makes browsers refuse the cookie without Secure. It is Lax, not Strict: the browser comes back from the provider with it.
func newSharedSessions(s *service) (sessions, error) {
	key, err := sessionKey(s.env["SESSION_ENCRYPTION_KEY"])
	if err != nil {
		return sessions{}, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return sessions{}, err
	}
	box, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return sessions{}, err
	}
	m := newSessions(s)
	// The catalog does not list REDIS_SESSION_DB for auth_service; the plan gives it the console's.
	m.store = &sealedStore{rdb: s.redisDB(cmp.Or(s.env["REDIS_SESSION_DB"], "1")), box: box}
	m.Store, m.Cookie.Name, m.Cookie.Secure, m.Cookie.Domain = m.store, "__Secure-session", true, s.env["COOKIE_DOMAIN"]
	return m, nil
}

// load returns the session that a request's cookie names, or an empty one.
func (m sessions) load(r *http.Request) (context.Context, error) {
	token := ""
	if cookie, err := r.Cookie(m.Cookie.Name); err == nil {
		token = cookie.Value
	}
	ctx, err := m.Load(r.Context(), token)
	if err == nil && !time.Now().Before(m.Deadline(ctx)) {
		ctx, err = m.Load(r.Context(), "")
	}
	return ctx, err
}

// save stores a session. Its cookie lives as long as the session at most can: the store limits the time without activity.
func (m sessions) save(ctx context.Context, w http.ResponseWriter) error {
	token, _, err := m.Commit(ctx)
	if err == nil {
		m.WriteSessionCookie(ctx, w, token, m.Deadline(ctx))
	}
	return err
}

// end deletes a session and its cookie.
func (m sessions) end(ctx context.Context, w http.ResponseWriter) error {
	err := m.Destroy(ctx)
	if err == nil {
		m.WriteSessionCookie(ctx, w, "", time.Time{})
	}
	return err
}

// touch restarts the time without activity. In Redis it does not write the session, which another service may be changing.
func (m sessions) touch(ctx context.Context) error {
	if m.store == nil {
		_, _, err := m.Commit(ctx)
		return err
	}
	left := min(m.IdleTimeout, time.Until(m.Deadline(ctx)))
	return m.store.rdb.PExpire(ctx, storedUnder(m.Token(ctx)), left).Err()
}

// refreshDue reports whether the session's token should be renewed.
func (m sessions) refreshDue(ctx context.Context) bool {
	return m.GetString(ctx, "refresh_token") != "" && time.Until(time.Unix(m.GetInt64(ctx, "token_expiry"), 0)) < refreshAhead
}

// sealedStore keeps sessions in Redis under the hash of their token and encrypted with AES-256-GCM: reading Redis does not
// reveal a session, and a session that was copied to another key cannot be decrypted.
type sealedStore struct {
	scs.Store // methods without a context, which scs does not call where there are others
	rdb       *redis.Client
	box       cipher.AEAD
}

var _ scs.CtxStore = &sealedStore{}

func storedUnder(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "session:" + hex.EncodeToString(sum[:])
}

// FindCtx finds a session; one that cannot be decrypted does not exist.
func (s *sealedStore) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	sealed, err := s.rdb.Get(ctx, storedUnder(token)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	plain, err := s.box.Open(nil, nil, sealed, []byte(storedUnder(token)))
	if err != nil {
		return nil, false, nil //nolint:nilerr // data that cannot be decrypted is not a session
	}
	return plain, true, nil
}

// CommitCtx stores a session.
func (s *sealedStore) CommitCtx(ctx context.Context, token string, plain []byte, expiry time.Time) error {
	sealed := s.box.Seal(nil, nil, plain, []byte(storedUnder(token))) // #nosec G407 -- this AEAD makes a random nonce itself and takes none
	return s.rdb.Set(ctx, storedUnder(token), sealed, time.Until(expiry)).Err()
}

// DeleteCtx deletes a session.
func (s *sealedStore) DeleteCtx(ctx context.Context, token string) error {
	return s.rdb.Del(ctx, storedUnder(token)).Err()
}
