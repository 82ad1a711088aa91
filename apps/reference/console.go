package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

//go:embed web
var webFiles embed.FS

// pages are parsed when the first is shown, because most services show none.
var pages = sync.OnceValue(func() *template.Template {
	functions := template.FuncMap{
		"ago":     func(t time.Time) time.Duration { return time.Since(t).Round(time.Second) },
		"has":     slices.Contains[[]string],
		"join":    strings.Join,
		"replace": strings.ReplaceAll,
	}
	return template.Must(template.New("").Funcs(functions).ParseFS(webFiles, "web/*.html"))
})

func (s *service) render(w http.ResponseWriter, r *http.Request, code int, name string, view any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	if err := pages().ExecuteTemplate(w, name, view); err != nil {
		s.log.WarnContext(r.Context(), "page not written", "error", err)
	}
}

// identity is the user of the console, and how the user was authenticated.
type identity struct {
	Name    string `json:"name"`
	Detail  string `json:"detail,omitempty"`
	Method  string `json:"method"`
	Refresh bool   `json:"refresh,omitempty"` // the page should request new tokens soon
}

type console struct {
	s          *service
	sessions   *sessions
	method     string        // how users are authenticated
	login, out string        // the URLs of signing in and out; empty if nginx authenticates the users
	failures   *rate.Limiter // of the password: eight wrong ones, then one every ten seconds
}

type pageView struct {
	At     time.Time         `json:"at"`
	User   identity          `json:"user"`
	Out    string            `json:"-"` // the URL of signing out
	Stack  overview          `json:"stack"`
	Links  map[string]string `json:"links"`
	Queues []string          `json:"queues"`
	Jobs   []jobRow          `json:"jobs"`
	Error  string            `json:"error,omitempty"`
	Fault  string            `json:"-"` // what is wrong with the job that was just posted
}

// overview is what the page shows of the stack.
type overview struct {
	Total   int            `json:"total"`  // of the services that can be checked
	Counts  map[string]int `json:"counts"` // of all services, by state
	Causes  []serviceView  `json:"causes"` // the services that are not healthy although everything that they need is
	Tiers   []string       `json:"tiers"`
	All     []serviceView  `json:"services"`
	Watched time.Time      `json:"watched_since"` // the console has no data from before
}

type serviceView struct {
	stackService
	state
	AffectedBy []string `json:"affected_by"` // the services it needs, directly or not, that are not healthy
	NeededBy   []string `json:"needed_by"`   // the services that need it, directly or not
}

// Spark returns the recent latencies as the points of an SVG polyline, 80 wide and 18 high.
func (s serviceView) Spark() (points string) {
	for i, height := range s.recent {
		points += fmt.Sprintf("%d,%.1f ", 2*i, height)
	}
	return points
}

// overviewOf joins the services of the stack with their states. Each service comes after those that it needs.
func overviewOf(services []stackService, m *monitor) overview {
	states := m.known()
	needs, neededBy := map[string][]string{}, map[string][]string{}
	for _, s := range services {
		all := slices.Clone(s.Dependencies)
		for _, dependency := range s.Dependencies {
			all = append(all, needs[dependency]...)
		}
		slices.Sort(all)
		needs[s.Name] = slices.Compact(all)
		for _, name := range needs[s.Name] {
			neededBy[name] = append(neededBy[name], s.Name)
		}
	}
	view := overview{Total: len(m.checkers), Counts: map[string]int{}, Watched: m.started}
	for _, s := range services {
		one := serviceView{stackService: s, state: states[s.Name], NeededBy: slices.Sorted(slices.Values(neededBy[s.Name])),
			AffectedBy: slices.DeleteFunc(needs[s.Name], func(name string) bool { return !states[name].isIll() })}
		view.Counts[one.State]++
		if one.isIll() && len(one.AffectedBy) == 0 {
			view.Causes = append(view.Causes, one)
		}
		if !slices.Contains(view.Tiers, s.Tier) {
			view.Tiers = append(view.Tiers, s.Tier)
		}
		view.All = append(view.All, one)
	}
	return view
}

func setupConsole(s *service) error {
	addresses := map[string]string{}
	for _, one := range s.Services {
		addresses[one.Name] = one.Health
	}
	s.stack = s.newMonitor(addresses, func(string, state, state) {})
	s.mux.HandleFunc("GET /static/{file}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, webFiles, "web/static/"+r.PathValue("file")) //nolint:gosec // only of the files that are built in
	})
	authType, expected := s.env["WEB_CONSOLE_AUTH_TYPE"], s.Variables["WEB_CONSOLE_AUTH_TYPE"]
	c := &console{s: s, sessions: newSessions(s, authType == "oauth2")}
	handle := func(pattern string, handler http.HandlerFunc) { s.mux.Handle(pattern, c.sessions.LoadAndSave(handler)) }
	switch {
	case authType != expected:
		return fmt.Errorf("WEB_CONSOLE_AUTH_TYPE: %s is the console of auth type %s", s.Name, expected)
	case authType == "mtls":
		c.method = "client certificate"
	case authType == "dev":
		c.method, c.login, c.out, c.failures = "password", "/login", "/logout", rate.NewLimiter(rate.Every(10*time.Second), 8)
		handle("GET /login", func(w http.ResponseWriter, r *http.Request) { c.form(w, r, http.StatusOK, "") })
		handle("POST /login", c.signIn)
		handle("POST /logout", func(w http.ResponseWriter, r *http.Request) {
			_ = c.sessions.Destroy(r.Context()) // a map in memory does not fail
			http.Redirect(w, r, "/login", http.StatusSeeOther)
		})
	default:
		c.method, c.login, c.out = "OpenID Connect", s.env["OAUTH2_LOGIN_URL"]+"?next=%2F", s.env["OAUTH2_LOGOUT_URL"]
		s.policy += "; report-uri /csp-report"
	}
	page := func(name string) func(http.ResponseWriter, *http.Request, identity) {
		return func(w http.ResponseWriter, r *http.Request, user identity) {
			s.render(w, r, http.StatusOK, name, c.view(r, user))
		}
	}
	handle("GET /{$}", c.forUser(false, page("console.html")))
	handle("POST /jobs", c.forUser(false, c.post))
	handle("GET /live", c.forUser(true, page("live")))
	handle("GET /api/stack", c.forUser(true, func(w http.ResponseWriter, r *http.Request, user identity) {
		writeJSON(w, http.StatusOK, c.view(r, user))
	}))
	return nil
}

// forUser serves users who are signed in. A poll of the page's own script renews a session only if the script says that the user was
// active since the last one, and gets status 401 when the session has ended.
func (c *console) forUser(poll bool, show func(http.ResponseWriter, *http.Request, identity)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user := c.user(r, !poll || r.Header.Get("X-User-Active") == "1")
		switch {
		case user.Name != "":
			show(w, r, user)
		case c.login == "":
			http.Error(w, "This console is for clients with a certificate of its CA, and is reached through nginx alone.", http.StatusForbidden)
		case poll:
			http.Error(w, "not signed in", http.StatusUnauthorized)
		default:
			http.Redirect(w, r, c.login, http.StatusSeeOther)
		}
	}
}

// commonName matches the user's name in the subject of a certificate.
var commonName = regexp.MustCompile(`(?:^|[,/]) *CN=([^,/]*)`)

// user identifies the user of a request, who has no name if the request has no valid identity: that of a session, or that in the headers
// of nginx. Headers of other clients prove nothing. Active means that the user, and not a page's timer, made the request.
func (c *console) user(r *http.Request, active bool) identity {
	if c.login == "" {
		subject := r.Header.Get("X-SSL-Client-S-DN")
		if !c.s.proxied(r) || r.Header.Get("X-SSL-Client-Verify") != "SUCCESS" {
			return identity{}
		}
		name := subject
		if match := commonName.FindStringSubmatch(subject); match != nil {
			name = match[1]
		}
		return identity{Name: name, Detail: subject, Method: c.method}
	}
	session := r.Context()
	name := c.sessions.GetString(session, "name")
	if name != "" && active {
		if err := c.sessions.touch(session); err != nil {
			c.s.log.WarnContext(session, "session not renewed", "error", err)
		}
	}
	return identity{Name: name, Detail: c.sessions.GetString(session, "sub"), Method: c.method, Refresh: c.sessions.refreshDue(session)}
}

func (c *console) form(w http.ResponseWriter, r *http.Request, code int, fault string) {
	c.s.render(w, r, code, "login.html", map[string]string{"Fault": fault})
}

// signIn checks the form's user and password of auth type dev. The comparison takes the same time for any input.
func (c *console) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4096)
	if c.failures.Tokens() < 1 {
		w.Header().Set("Retry-After", "10")
		c.form(w, r, http.StatusTooManyRequests, "Too many wrong passwords. Wait a little and try again.")
		return
	}
	env := c.s.env
	given := sha256.Sum256([]byte(r.PostFormValue("username") + "\x00" + r.PostFormValue("password")))
	right := sha256.Sum256([]byte(env["WEB_CONSOLE_USER"] + "\x00" + env["WEB_CONSOLE_PASSWORD"]))
	if subtle.ConstantTimeCompare(given[:], right[:]) != 1 {
		c.failures.Allow()
		c.s.log.WarnContext(r.Context(), "login refused: wrong user or password")
		c.form(w, r, http.StatusUnauthorized, "That user and password do not match.")
		return
	}
	_ = c.sessions.RenewToken(r.Context()) // a map in memory does not fail
	c.sessions.Put(r.Context(), "name", env["WEB_CONSOLE_USER"])
	c.sessions.Put(r.Context(), "sub", env["WEB_CONSOLE_DEV_ROLE"])
	c.s.log.InfoContext(r.Context(), "login")
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (c *console) post(w http.ResponseWriter, r *http.Request, user identity) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	queue := r.PostFormValue("queue")
	j := job{ID: "job-" + rand.Text()[:8], Text: strings.TrimSpace(r.PostFormValue("text")), TraceID: w.Header().Get("X-Request-Id")}
	payload, _ := json.Marshal(j) // plain strings encode without an error
	view, code := c.view(r, user), http.StatusBadRequest
	if !slices.Contains(c.s.Queues, queue) || j.Text == "" || len(j.Text) > maxText {
		view.Fault = "A job needs one of the queues, and a text of at most 4000 bytes."
	} else if _, err := c.s.rdb.do(r.Context(), "XADD", queue, "*", "job", payload); err != nil {
		c.s.log.WarnContext(r.Context(), "job not posted", "queue", queue, "error", err)
		view.Fault, code = "Redis does not answer, so the job was not posted.", http.StatusServiceUnavailable
	} else {
		c.s.log.InfoContext(r.Context(), "job posted", "job_id", j.ID, "queue", queue)
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	c.s.render(w, r, code, "console.html", view)
}

func (c *console) view(r *http.Request, user identity) pageView {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	view := pageView{At: time.Now().UTC(), User: user, Out: c.out, Stack: overviewOf(c.s.Services, c.s.stack), Links: c.s.Links, Queues: c.s.Queues}
	var err error
	if view.Jobs, err = c.s.db.jobs(ctx, 8); err != nil {
		c.s.log.DebugContext(ctx, "jobs not read", "error", err)
		view.Error = "PostgreSQL does not answer, so jobs cannot be shown."
	}
	return view
}
