package main

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/v2"
)

// refreshAhead is how long before the provider's token expires the page requests a new one.
const refreshAhead = time.Minute

// sessions are the sessions of browsers. Their store drops them after a time without activity, and at the latest after their lifetime.
// IdleTimeout of the library would not do, because it takes every poll of the page for activity.
type sessions struct {
	*scs.SessionManager
	idle time.Duration
	rdb  *redisClient // nil for sessions in memory
}

// newSessions returns sessions in memory, which end with the process, or shared ones in Redis: auth_service makes these, and the console
// of auth type oauth2 honours them. Their times have defaults, because auth_service has no variables for them.
func newSessions(s *service, shared bool) *sessions {
	minutes, _ := strconv.Atoi(cmp.Or(s.env["SESSION_TIMEOUT_MINUTES"], "15"))
	hours, _ := strconv.Atoi(cmp.Or(s.env["SESSION_ABSOLUTE_TIMEOUT_HOURS"], "4"))
	m := &sessions{SessionManager: scs.New(), idle: time.Duration(minutes) * time.Minute}
	m.Lifetime, m.ErrorFunc = time.Duration(hours)*time.Hour, s.refuse
	if !shared {
		// Browsers share cookies between the ports of a host, and two stacks may run on one host.
		host, _ := os.Hostname()
		m.Store, m.Cookie.Name = idleStore{m.Store, m.idle}, "console_session_"+host
		return m
	}
	block, _ := aes.NewCipher(s.sessionKey) // a key of 32 bytes is always accepted
	box, _ := cipher.NewGCMWithRandomNonce(block)
	m.rdb = s.redisAtHost(cmp.Or(s.env["REDIS_SESSION_DB"], "1")) // the plan gives it to auth_service, whose catalog entry does not list it
	m.Store = idleStore{sealedStore{redisstore.NewWithPrefix(&m.rdb.Pool, ""), box}, m.idle}
	// The prefix makes browsers refuse the cookie without Secure. It is Lax, not Strict: the browser comes back from the provider with it.
	m.Cookie.Name, m.Cookie.Secure, m.Cookie.Domain = "__Secure-session", true, s.env["COOKIE_DOMAIN"]
	return m
}

// touch restarts the time without activity. In Redis it does not write the session, which another service may be changing.
func (m *sessions) touch(ctx context.Context) (err error) {
	if m.rdb == nil {
		m.Put(ctx, "active", true) // a change is stored again
	} else {
		_, err = m.rdb.do(ctx, "PEXPIRE", storedUnder(m.Token(ctx)), min(m.idle, time.Until(m.Deadline(ctx))).Milliseconds())
	}
	return err
}

func (m *sessions) refreshDue(ctx context.Context) bool {
	return m.GetString(ctx, "refresh_token") != "" && time.Until(time.Unix(m.GetInt64(ctx, "token_expiry"), 0)) < refreshAhead
}

func storedUnder(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "session:" + hex.EncodeToString(sum[:])
}

// idleStore keeps sessions for a time without activity.
type idleStore struct {
	scs.Store
	idle time.Duration
}

// Commit stores a session.
func (s idleStore) Commit(token string, plain []byte, expiry time.Time) error {
	return s.Store.Commit(token, plain, time.Now().Add(min(s.idle, time.Until(expiry))))
}

// sealedStore keeps sessions in Redis under the hash of their token and encrypted with AES-256-GCM: reading Redis does not
// reveal a session, and a session that was copied to another key cannot be decrypted.
type sealedStore struct {
	redis scs.Store
	box   cipher.AEAD
}

// Find finds a session; one that cannot be decrypted, or is past its lifetime, does not exist.
func (s sealedStore) Find(token string) ([]byte, bool, error) {
	key := storedUnder(token)
	sealed, _, err := s.redis.Find(key)
	plain, bad := s.box.Open(nil, nil, sealed, []byte(key))
	deadline, _, undecoded := scs.GobCodec{}.Decode(plain)
	return plain, errors.Join(bad, undecoded) == nil && time.Now().Before(deadline), err
}

// Commit stores a session.
func (s sealedStore) Commit(token string, plain []byte, expiry time.Time) error {
	key := storedUnder(token)
	return s.redis.Commit(key, s.box.Seal(nil, nil, plain, []byte(key)), expiry) // #nosec G407 -- this AEAD makes a random nonce itself
}

// Delete deletes a session.
func (s sealedStore) Delete(token string) error { return s.redis.Delete(storedUnder(token)) }
