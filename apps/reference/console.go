package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

//go:embed web
var webFiles embed.FS

const (
	recentJobs = 8
	pageTime   = 5 * time.Second // how long a page waits for the database
)

type console struct {
	s     *service
	gate  gate
	links []linkView
	pages *template.Template
}

type linkView struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

type pageView struct {
	At     time.Time  `json:"at"`
	User   identity   `json:"user"`
	Out    string     `json:"-"` // the URL of signing out
	Stack  overview   `json:"stack"`
	Links  []linkView `json:"links"`
	Queues []string   `json:"queues"`
	Jobs   []jobRow   `json:"jobs"`
	Error  string     `json:"error,omitempty"`
	Fault  string     `json:"-"` // what is wrong with the job that was just posted
}

func setupConsole(s *service) (err error) {
	if s.db == nil || s.rdb == nil {
		return errors.New("a console needs DATABASE_URL and REDIS_URL")
	}
	c := &console{s: s, pages: template.Must(template.New("").Funcs(pageFunctions).ParseFS(webFiles, "web/*.html"))}
	for _, name := range slices.Sorted(maps.Keys(s.Links)) {
		c.links = append(c.links, linkView{name, s.Links[name]})
	}
	checkers := map[string]checker{}
	for _, one := range s.Services {
		if one.Health != "" {
			checkers[one.Name] = s.checker(one.Name, one.Health)
		}
	}
	s.stack = newMonitor(checkers)
	s.background = append(s.background, s.stack.watch)
	if c.gate, err = c.newGate(); err != nil {
		return err
	}
	static, err := fs.Sub(webFiles, "web/static")
	if err != nil {
		return err
	}
	files := http.StripPrefix("/static/", http.FileServerFS(static))
	s.mux.HandleFunc("GET /static/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		files.ServeHTTP(w, r)
	})
	s.mux.HandleFunc("GET /{$}", c.page)
	s.mux.HandleFunc("POST /jobs", c.post)
	s.mux.HandleFunc("GET /live", c.polled(func(w http.ResponseWriter, r *http.Request, user identity) {
		c.render(w, r, http.StatusOK, "live", c.view(r, user))
	}))
	s.mux.HandleFunc("GET /api/stack", c.polled(func(w http.ResponseWriter, r *http.Request, user identity) {
		writeJSON(w, http.StatusOK, c.view(r, user))
	}))
	return nil
}

// newGate returns the gate for the console's auth type.
func (c *console) newGate() (gate, error) {
	authType, expected := c.s.env["WEB_CONSOLE_AUTH_TYPE"], c.s.Variables["WEB_CONSOLE_AUTH_TYPE"]
	switch {
	case authType != expected:
		return nil, fmt.Errorf("WEB_CONSOLE_AUTH_TYPE: %s is the console of auth type %s", c.s.Name, expected)
	case authType == "dev":
		return newPasswordGate(c), nil
	case authType == "mtls":
		return certificateGate{c.s.proxies}, nil
	}
	c.s.policy += "; report-uri /csp-report"
	shared, err := newSharedSessions(c.s)
	return sessionGate{s: c.s, sessions: shared, method: "OpenID Connect", login: c.s.env["OAUTH2_LOGIN_URL"] + "?next=%2F", logout: c.s.env["OAUTH2_LOGOUT_URL"]}, err
}

func (c *console) page(w http.ResponseWriter, r *http.Request) {
	if user, ok := c.gate.who(r, true); ok {
		c.render(w, r, http.StatusOK, "console.html", c.view(r, user))
	} else {
		c.gate.refuse(w, r)
	}
}

// polled serves the page's own script. A poll renews a session only if the script says that the user was active since the last
// one, and gets status 401 when the session has ended.
func (c *console) polled(show func(http.ResponseWriter, *http.Request, identity)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if user, ok := c.gate.who(r, r.Header.Get("X-User-Active") == "1"); ok {
			show(w, r, user)
			return
		}
		code := http.StatusUnauthorized
		if _, certificates := c.gate.(certificateGate); certificates {
			code = http.StatusForbidden
		}
		writeJSON(w, code, map[string]string{"error": "not signed in"})
	}
}

// post puts a job into a queue.
func (c *console) post(w http.ResponseWriter, r *http.Request) {
	user, ok := c.gate.who(r, true)
	if !ok {
		c.gate.refuse(w, r)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	queue := r.PostFormValue("queue")
	j := job{ID: "job-" + randomHex(4), Text: strings.TrimSpace(r.PostFormValue("text")), Steps: 1, TraceID: traceOf(r.Context())}
	view, code := c.view(r, user), http.StatusBadRequest
	if !slices.Contains(c.s.Queues, queue) || j.Text == "" || len(j.Text) > 4000 {
		view.Fault = "A job needs one of the queues, and a text of at most 4000 bytes."
	} else if err := enqueue(r.Context(), c.s.rdb, queue, j); err != nil {
		c.s.log.WarnContext(r.Context(), "job not posted", "queue", queue, "error", brief(err))
		view.Fault, code = "Redis does not answer, so the job was not posted.", http.StatusServiceUnavailable
	} else {
		c.s.log.InfoContext(r.Context(), "job posted", "job_id", j.ID, "queue", queue)
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	c.render(w, r, code, "console.html", view)
}

func (c *console) render(w http.ResponseWriter, r *http.Request, code int, name string, view any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	if err := c.pages.ExecuteTemplate(w, name, view); err != nil {
		c.s.log.WarnContext(r.Context(), "page not written", "error", brief(err))
	}
}

func (c *console) view(r *http.Request, user identity) pageView {
	ctx, cancel := context.WithTimeout(r.Context(), pageTime)
	defer cancel()
	view := pageView{At: time.Now().UTC(), User: user, Out: c.gate.logoutURL(), Stack: overviewOf(c.s.Services, c.s.stack), Links: c.links, Queues: c.s.Queues}
	var err error
	if view.Jobs, err = c.s.db.jobs(ctx, recentJobs); err != nil {
		c.s.log.DebugContext(ctx, "jobs not read", "error", brief(err))
		view.Error = "PostgreSQL does not answer, so jobs cannot be shown."
	}
	return view
}

var pageFunctions = template.FuncMap{
	"join":  func(names []string) string { return strings.Join(names, ", ") },
	"human": func(name string) string { return strings.ReplaceAll(name, "_", " ") },
	"has":   slices.Contains[[]string],
	"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"clock": func(t time.Time) string { return t.UTC().Format("15:04:05") + " UTC" },
	"ago":   func(t time.Time) string { return ago(time.Since(t)) },
	"ms":    func(ms float64) string { return fmt.Sprintf("%.1f ms", ms) },
}

// ago formats a duration in its largest unit.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
