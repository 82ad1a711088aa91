package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const form = "application/x-www-form-urlencoded"

func (f *fixture) signIn(t *testing.T) string {
	t.Helper()
	code, _, header := f.ask(t, "POST", "/login", "username=admin&password=console-secret", "Content-Type", form)
	require.Equal(t, http.StatusSeeOther, code)
	require.Equal(t, "/", header.Get("Location"))
	cookie, _, _ := strings.Cut(header.Get("Set-Cookie"), ";")
	return cookie
}

func TestConsoleLogin(t *testing.T) {
	for _, name := range []string{"web_console_dev"} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, name, nil)
			code, _, header := f.ask(t, "GET", "/", "")
			assert.Equal(t, http.StatusSeeOther, code)
			assert.Equal(t, "/login", header.Get("Location"))
			for _, path := range []string{"/live", "/api/stack"} {
				code, _, _ := f.ask(t, "GET", path, "")
				assert.Equal(t, http.StatusUnauthorized, code, path)
			}
			for _, wrong := range []string{"username=admin&password=x", "username=x&password=console-secret", "", "username=admin"} {
				code, text, header := f.ask(t, "POST", "/login", wrong, "Content-Type", form)
				assert.Equal(t, http.StatusUnauthorized, code, wrong)
				assert.Contains(t, text, "do not match")
				assert.Empty(t, header.Get("Set-Cookie"))
			}
			cookie := f.signIn(t)
			code, text, _ := f.ask(t, "GET", "/", "", "Cookie", cookie)
			assert.Equal(t, http.StatusOK, code)
			assert.Contains(t, text, `<span id="user" title="password: admin">admin</span>`)
			assert.NotContains(t, f.log.String(), "console-secret")

			code, _, _ = f.ask(t, "POST", "/logout", "", "Cookie", cookie)
			assert.Equal(t, http.StatusSeeOther, code)
			code, _, _ = f.ask(t, "GET", "/", "", "Cookie", cookie)
			assert.Equal(t, http.StatusSeeOther, code, "a cookie that was signed out with opens nothing")
		})
	}
}

func TestConsoleCookie(t *testing.T) {
	f := newFixture(t, "web_console_dev", nil)
	_, _, header := f.ask(t, "POST", "/login", "username=admin&password=console-secret", "Content-Type", form)
	cookie := header.Get("Set-Cookie")
	host, err := os.Hostname()
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(cookie, "console_session_"+host+"="), "two stacks on one host do not sign each other out")
	for _, part := range []string{"HttpOnly", "SameSite=Lax", "Max-Age=144"} {
		assert.Contains(t, cookie, part)
	}
	value, _, _ := strings.Cut(cookie, ";")
	code, _, _ := f.ask(t, "GET", "/", "", "Cookie", value)
	require.Equal(t, http.StatusOK, code)
	code, _, _ = f.ask(t, "GET", "/", "", "Cookie", value[:len(value)-2]+"AA")
	assert.Equal(t, http.StatusSeeOther, code, "a cookie that was tampered with opens nothing")
	_, _, header = f.ask(t, "POST", "/login", "username=admin&password=console-secret", "Content-Type", form, "Cookie", value)
	assert.NotContains(t, header.Get("Set-Cookie"), value, "a login never goes on with the cookie that was there before")
}

func TestConsoleSessionEnds(t *testing.T) {
	for name, change := range map[string]func(*sessions){
		"idle":         func(m *sessions) { m.Store = idleStore{m.Store, 600 * time.Millisecond} },
		"its lifetime": func(m *sessions) { m.Lifetime = 600 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(contract{}, io.Discard)
			c := &console{s: s, sessions: newSessions(s, false), login: "/login"}
			change(c.sessions)
			login := func(_ http.ResponseWriter, r *http.Request) { c.sessions.Put(r.Context(), "name", "admin") }
			s.mux.Handle("GET /login", c.sessions.LoadAndSave(http.HandlerFunc(login)))
			s.mux.Handle("GET /live", c.sessions.LoadAndSave(c.forUser(true, func(http.ResponseWriter, *http.Request, identity) {})))
			w := httptest.NewRecorder()
			s.mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/login", nil))
			cookie := w.Result().Cookies()[0]
			open := func(active bool) bool {
				r := httptest.NewRequest(http.MethodGet, "/live", nil)
				r.AddCookie(cookie)
				if active {
					r.Header.Set("X-User-Active", "1")
				}
				w := httptest.NewRecorder()
				s.mux.ServeHTTP(w, r)
				return w.Code == http.StatusOK
			}
			for range 4 {
				time.Sleep(200 * time.Millisecond)
				if name == "idle" {
					assert.True(t, open(true), "what a person does keeps it")
				}
			}
			require.Eventually(t, func() bool { return !open(false) }, soon, tick, "a poll does not")
		})
	}
}

func TestConsoleLoginIsLimited(t *testing.T) {
	f := newFixture(t, "web_console_dev", nil)
	for range 8 {
		code, _, _ := f.ask(t, "POST", "/login", "username=admin&password=x", "Content-Type", form)
		require.Equal(t, http.StatusUnauthorized, code)
	}
	code, text, header := f.ask(t, "POST", "/login", "username=admin&password=console-secret", "Content-Type", form)
	assert.Equal(t, http.StatusTooManyRequests, code, "the right password does not help a guesser")
	assert.Contains(t, text, "Too many")
	assert.NotEmpty(t, header.Get("Retry-After"))
}

func TestConsoleRefusesOtherSites(t *testing.T) {
	f := newFixture(t, "web_console_dev", nil)
	for _, header := range [][2]string{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}} {
		for _, path := range []string{"/login", "/logout"} {
			code, _, _ := f.ask(t, "POST", path, "username=admin&password=console-secret", "Content-Type", form, header[0], header[1])
			assert.Equal(t, http.StatusForbidden, code, path)
		}
	}
}

func TestConsoleHeadersAndAssets(t *testing.T) {
	f := newFixture(t, "web_console_dev", nil)
	for _, path := range []string{"/", "/login", "/live", "/healthz", "/readyz", "/none", "/static/console.css"} {
		_, _, header := f.ask(t, "GET", path, "")
		assert.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'", path)
		assert.Equal(t, "DENY", header.Get("X-Frame-Options"), path)
		assert.Equal(t, "nosniff", header.Get("X-Content-Type-Options"), path)
	}
	outside := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9]|\son[a-z]+=|\sstyle=|<style|@import`)
	require.NoError(t, fs.WalkDir(webFiles, "web", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, ".js") {
			return err
		}
		text, err := webFiles.ReadFile(path)
		text = []byte(strings.ReplaceAll(string(text), `xmlns="http://www.w3.org/2000/svg"`, ""))
		assert.Empty(t, outside.FindString(string(text)), "%s asks for something outside, or for what its policy forbids", path)
		return err
	}))
}

// testStack is a stack of which a gateway is real.
func testStack(gateway string) []stackService {
	return []stackService{
		{Name: "postgres", Tier: "base", Health: "tcp://postgres:5432"},
		{Name: "redis", Tier: "base", Health: "tcp://redis:6379"},
		{Name: "gateway", Tier: "dev", Health: gateway + "/health", Dependencies: []string{"postgres", "redis"}},
		{Name: "orchestrator", Tier: "dev", Health: gateway + "/health", Dependencies: []string{"gateway"}},
		{Name: "promtail", Tier: "base"},
	}
}

func TestConsoleShowsWhoIsAffected(t *testing.T) {
	gateway := newFixture(t, "execution_gateway", nil, needs("postgres", "redis"))
	f := newFixture(t, "web_console_dev", nil, func(s *service) {
		s.Services, s.Links = testStack(gateway.url), map[string]string{"prometheus": "http://127.0.0.1:9090", "grafana": "http://127.0.0.1:3000"}
	})
	f.db.rows["j1"] = jobRow{job: job{ID: "j1"}, Queue: "backtest_low", Status: "failed", Attempts: 2}
	cookie := f.signIn(t)
	look := func() pageView {
		gateway.health.ask(t.Context(), true)
		f.stack.ask(t.Context(), true)
		_, text, _ := f.ask(t, "GET", "/api/stack", "", "Cookie", cookie)
		return decodeText[pageView](t, text)
	}
	view := look()
	assert.Equal(t, 4, view.Stack.Counts[healthy])
	assert.Equal(t, 4, view.Stack.Total)
	assert.Equal(t, 1, view.Stack.Counts[unwatched])
	assert.Empty(t, view.Stack.Causes)
	assert.Equal(t, map[string]string{"grafana": "http://127.0.0.1:3000", "prometheus": "http://127.0.0.1:9090"}, view.Links)
	_, page, _ := f.ask(t, "GET", "/", "", "Cookie", cookie)
	for _, text := range []string{"All 4 services are healthy.</strong> 1 more cannot be checked.", `data-service="gateway" data-state="healthy"`, "j1", "attempt 2", "http://127.0.0.1:3000"} {
		assert.Contains(t, page, text)
	}

	f.redis.SetError("gone")
	gateway.redis.SetError("gone")
	view = look()
	require.Len(t, view.Stack.Causes, 1, "one cause, though three services are ill")
	assert.Equal(t, "redis", view.Stack.Causes[0].Name)
	assert.Equal(t, []string{"gateway", "orchestrator"}, view.Stack.Causes[0].NeededBy)
	_, page, _ = f.ask(t, "GET", "/live", "", "Cookie", cookie)
	assert.Contains(t, page, "<strong>redis is down.</strong> Affected: gateway, orchestrator.")
	assert.Contains(t, page, `data-service="orchestrator" data-state="unhealthy"`)
	assert.Contains(t, page, `<span class="chip ill">redis</span>`)

	f.redis.SetError("")
	gateway.redis.SetError("")
	assert.Empty(t, look().Stack.Causes, "it recovers by itself")

	f.db.fail(errors.New("away"))
	view = look()
	assert.Contains(t, view.Error, "PostgreSQL does not answer")
	_, page, _ = f.ask(t, "GET", "/live", "", "Cookie", cookie)
	assert.Contains(t, page, "PostgreSQL does not answer")
}

// A job goes through Redis to a worker, and its result comes back from the store.
func TestJobFromTheConsole(t *testing.T) {
	worker := newFixture(t, "backtest_worker_dev", nil)
	f := newFixture(t, "web_console_dev", map[string]string{"REDIS_URL": "redis://" + worker.redis.Addr() + "/0"})
	f.service.db = worker.db
	cookie := f.signIn(t)
	_, page, _ := f.ask(t, "GET", "/", "", "Cookie", cookie)
	assert.Contains(t, page, `<option value="backtest_high">backtest high</option><option value="backtest_normal">`)

	post := func(body string, header ...string) (int, string) {
		code, text, _ := f.ask(t, "POST", "/jobs", body, append(header, "Content-Type", form)...)
		return code, text
	}
	code, _ := post("queue=backtest_high&text=x")
	assert.Equal(t, http.StatusSeeOther, code)
	assert.Zero(t, worker.length("backtest_high"), "a stranger posts nothing")
	for _, bad := range []string{"queue=alerts&text=x", "queue=backtest_high&text=+", "queue=backtest_high&text=" + strings.Repeat("a", 4001)} {
		code, text := post(bad, "Cookie", cookie)
		assert.Equal(t, http.StatusBadRequest, code)
		assert.Contains(t, text, `id="fault"`)
	}
	code, _ = post("queue=backtest_high&text=x", "Cookie", cookie, "Origin", "https://evil.example")
	assert.Equal(t, http.StatusForbidden, code)
	assert.Zero(t, worker.length("backtest_high"))

	code, _ = post("queue=backtest_high&text=margin+call", "Cookie", cookie, "X-Request-Id", "the-trace")
	require.Equal(t, http.StatusSeeOther, code)
	start(t, worker.worker("backtest_high"))
	sum := sha256.Sum256([]byte("margin call"))
	require.Eventually(t, func() bool {
		_, page, _ = f.ask(t, "GET", "/live", "", "Cookie", cookie)
		return strings.Contains(page, hex.EncodeToString(sum[:]))
	}, soon, tick)
	assert.Contains(t, page, "margin call")
	assert.Contains(t, page, `<span class="word completed">completed</span>`)
	assert.Contains(t, f.log.String(), `"trace_id":"the-trace"`)
	assert.Contains(t, worker.log.String(), `"trace_id":"the-trace"`)

	worker.redis.SetError("gone")
	code, text := post("queue=backtest_high&text=x", "Cookie", cookie)
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Contains(t, text, "Redis does not answer, so the job was not posted.")
}

func TestConsoleEscapes(t *testing.T) {
	f := newFixture(t, "web_console_dev", nil)
	f.db.rows["j"] = jobRow{job: job{ID: "j", Text: `<script>alert(1)</script>"`}, Queue: "q", Status: "failed"}
	_, page, _ := f.ask(t, "GET", "/", "", "Cookie", f.signIn(t))
	assert.NotContains(t, page, "<script>alert")
	assert.Contains(t, page, "&lt;script&gt;")
}

func TestConsoleMTLS(t *testing.T) {
	const subject = "CN=alice,O=Trading,C=CH"
	good := []string{"X-SSL-Client-Verify", "SUCCESS", "X-SSL-Client-S-DN", subject}
	tests := map[string]struct {
		proxies string
		header  []string
		status  int
	}{
		"through nginx with a good certificate":    {"127.0.0.1", good, http.StatusOK},
		"through an nginx anywhere in its subnet":  {"127.0.0.0/8", good, http.StatusOK},
		"and from outside of the subnet":           {"172.28.0.0/16", good, http.StatusForbidden},
		"the same headers from anywhere else":      {"172.28.0.10", good, http.StatusForbidden},
		"forged address headers do not help":       {"172.28.0.10", append([]string{"X-Forwarded-For", "172.28.0.10", "X-Real-IP", "172.28.0.10"}, good...), http.StatusForbidden},
		"through nginx with a certificate refused": {"127.0.0.1", []string{"X-SSL-Client-Verify", "FAILED:expired", "X-SSL-Client-S-DN", subject}, http.StatusForbidden},
		"through nginx without a certificate":      {"127.0.0.1", []string{"X-SSL-Client-Verify", "NONE"}, http.StatusForbidden},
		"through nginx without a subject":          {"127.0.0.1", []string{"X-SSL-Client-Verify", "SUCCESS"}, http.StatusForbidden},
		"nothing at all":                           {"172.28.0.10", nil, http.StatusForbidden},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "web_console_mtls", map[string]string{"TRUSTED_PROXY_IPS": test.proxies})
			for _, path := range []string{"/", "/live", "/api/stack"} {
				code, _, _ := f.ask(t, "GET", path, "", test.header...)
				assert.Equal(t, test.status, code, path)
			}
			code, text, _ := f.ask(t, "GET", "/", "", test.header...)
			assert.Equal(t, code == http.StatusOK, strings.Contains(text, `client certificate: `+subject+`">alice<`))
			assert.Equal(t, code == http.StatusOK, strings.Contains(text, `<code id="subject">`+subject+`</code>`))
			code, _, _ = f.ask(t, "GET", "/healthz", "")
			assert.Equal(t, http.StatusOK, code)
			// Nobody who comes through nginx needs these, and nginx asks for no certificate that is allowed to see them.
			inside := http.StatusOK
			if strings.HasPrefix(test.proxies, "127.") {
				inside = http.StatusNotFound
			}
			for _, path := range []string{"/metrics", "/readyz", "/health"} {
				code, _, _ = f.ask(t, "GET", path, "")
				assert.Equal(t, inside, code, path)
			}
		})
	}
}
