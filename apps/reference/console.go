package main

import (
	"context"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"
)

//go:embed web
var webFiles embed.FS

// pagePolicy lets a page load its own files and nothing else from anywhere.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

const recentRows = 8

type console struct {
	rt      *runtime
	db      store
	gate    gate
	monitor *monitor
	links   []linkView
	pages   *template.Template
	// proxies are the addresses through which the outside comes in; metrics and readiness are not for them.
	proxies addresses
	report  string
}

type linkView struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

type pageView struct {
	Title string       `json:"-"`
	At    time.Time    `json:"at"`
	User  identity     `json:"user"`
	Out   string       `json:"-"`
	Stack stackView    `json:"stack"`
	Links []linkView   `json:"links"`
	Data  activityView `json:"activity"`
}

type activityView struct {
	Orders []order            `json:"orders"`
	Runs   []orchestrationRun `json:"runs"`
	Jobs   []jobRecord        `json:"jobs"`
	Error  string             `json:"error,omitempty"`
}

func setupConsole(rt *runtime) error {
	cfg, err := load[ConsoleConfig](rt.environ)
	if err != nil {
		return err
	}
	// Without a key of its own this variant makes one: its sessions end with the process.
	var key encryptedKey
	copy(key[:], randomBytes(len(key)))
	return setupPasswordConsole(rt, cfg, key, nil)
}

func setupConsoleDev(rt *runtime) error {
	cfg, err := load[consoleDevConfig](rt.environ)
	if err != nil {
		return err
	}
	apis := map[string]webURL{"signal_service": cfg.SignalURL, "market_data_service": cfg.MarketDataURL, "model_registry": cfg.ModelRegistryURL, "orchestrator": cfg.OrchestratorURL}
	return setupPasswordConsole(rt, cfg.ConsoleConfig, cfg.SessionKey, apis)
}

func setupPasswordConsole(rt *runtime, cfg ConsoleConfig, key encryptedKey, apis map[string]webURL) error {
	if cfg.AuthType != "dev" {
		return fmt.Errorf("WEB_CONSOLE_AUTH_TYPE: is %q, but %s is the console of auth type dev", cfg.AuthType, rt.service.name)
	}
	gate := newPasswordGate(rt, cfg, key)
	c := &console{rt: rt, gate: gate}
	rt.mux.HandleFunc("GET /login", func(w http.ResponseWriter, _ *http.Request) { c.loginPage(w, http.StatusOK, "") })
	rt.mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if code, fault := gate.login(w, r); fault != "" {
			c.loginPage(w, code, fault)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	rt.mux.HandleFunc("POST /logout", gate.logout)
	return c.setup(cfg, apis)
}

func setupConsoleMTLS(rt *runtime) error {
	cfg, err := load[consoleMTLSConfig](rt.environ)
	if err != nil {
		return err
	}
	if cfg.AuthType != "mtls" {
		return fmt.Errorf("WEB_CONSOLE_AUTH_TYPE: is %q, but %s is the console of auth type mtls", cfg.AuthType, rt.service.name)
	}
	c := &console{rt: rt, gate: certificateGate{cfg.TrustedProxies}, proxies: cfg.TrustedProxies}
	return c.setup(cfg.ConsoleConfig, nil)
}

func setupConsoleOAuth2(rt *runtime) error {
	cfg, err := load[consoleOAuth2Config](rt.environ)
	if err != nil {
		return err
	}
	if cfg.AuthType != "oauth2" {
		return fmt.Errorf("WEB_CONSOLE_AUTH_TYPE: is %q, but %s is the console of auth type oauth2", cfg.AuthType, rt.service.name)
	}
	sessions := &sessionStore{rdb: rt.redisAt(cfg.RedisAddress, cfg.SessionDB), key: cfg.SessionKey, idle: cfg.idle(), absolute: cfg.absolute()}
	c := &console{rt: rt, gate: sessionGate{sessions: sessions, login: cfg.LoginURL, logout: cfg.LogoutURL, rt: rt}, proxies: cfg.TrustedProxies, report: "; report-uri /csp-report"}
	return c.setup(cfg.ConsoleConfig, nil)
}

// setup does what all variants share.
func (c *console) setup(cfg ConsoleConfig, apis map[string]webURL) error {
	rt := c.rt
	var err error
	if c.db, err = rt.postgres(cfg.DatabaseURL); err != nil {
		return err
	}
	if _, ok := rt.known["redis"]; !ok {
		if _, err := rt.redisURL(cfg.RedisURL); err != nil {
			return err
		}
	}
	rt.peer("execution_gateway", cfg.GatewayURL)
	for name, url := range apis {
		rt.peer(name, url)
	}
	services := cfg.Services
	if len(services) == 0 {
		services = c.fromEnvironment(cfg, apis)
	}
	for _, name := range []string{"grafana", "prometheus"} {
		if url, ok := cfg.Links[name]; ok {
			c.links = append(c.links, linkView{name, url})
			delete(cfg.Links, name)
		}
	}
	for name, url := range cfg.Links {
		c.links = append(c.links, linkView{name, url})
	}
	slices.SortStableFunc(c.links, func(a, b linkView) int { return strings.Compare(a.Name, b.Name) })
	c.monitor = newMonitor(rt, services)
	rt.background = append(rt.background, c.monitor.watch)
	c.pages = template.Must(template.New("").Funcs(pageFunctions).ParseFS(webFiles, "web/*.html"))

	static, err := fs.Sub(webFiles, "web/static")
	if err != nil {
		return err
	}
	files := http.StripPrefix("/static/", http.FileServerFS(static))
	rt.mux.HandleFunc("GET /static/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		files.ServeHTTP(w, r)
	})
	rt.mux.HandleFunc("GET /{$}", c.page)
	rt.mux.HandleFunc("GET /live", c.live)
	rt.mux.HandleFunc("GET /api/stack", c.api)
	rt.wrap = c.protect
	return rt.depend(cfg.StackConfig)
}

// fromEnvironment is the stack as far as the console's own variables tell of it; of edges it knows only its own.
func (c *console) fromEnvironment(cfg ConsoleConfig, apis map[string]webURL) []*stackService {
	list := []*stackService{{Name: "postgres", Tier: "base", Health: "tcp://postgres"}, {Name: "redis", Tier: "base", Health: "tcp://redis"},
		{Name: "prometheus", Tier: "base", Health: string(cfg.PrometheusURL) + "/-/ready"}}
	if apis != nil {
		list = append(list, &stackService{Name: "execution_gateway", Tier: "dev", Health: string(cfg.GatewayURL) + "/health"})
		for _, name := range []string{"signal_service", "market_data_service", "model_registry", "orchestrator"} {
			list = append(list, &stackService{Name: name, Tier: "dev", Health: string(apis[name]) + "/health"})
		}
	}
	return append(list, &stackService{Name: c.rt.service.name, Tier: "console", Health: "http://127.0.0.1:" + c.rt.service.port + c.rt.service.readiness, Dependencies: cfg.Dependencies})
}

// protect refuses requests that another site made a browser send, and puts the security headers on every answer.
func (c *console) protect(next http.Handler) http.Handler {
	own := http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pageHeaders(w, pagePolicy+c.report)
		inside := r.URL.Path == "/metrics" || r.URL.Path == c.rt.service.readiness
		if inside && c.proxies.holds(r.RemoteAddr) {
			http.NotFound(w, r)
			return
		}
		own.ServeHTTP(w, r)
	})
}

func pageHeaders(w http.ResponseWriter, policy string) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

func (c *console) page(w http.ResponseWriter, r *http.Request) {
	user, ok := c.gate.who(w, r, true)
	if !ok {
		c.gate.refuse(w, r)
		return
	}
	c.render(w, r, "console.html", c.view(r.Context(), user))
}

// live is the page again, for its own script, which is told plainly when the session has ended.
func (c *console) live(w http.ResponseWriter, r *http.Request) {
	if user, ok := c.polled(w, r); ok {
		c.render(w, r, "live", c.view(r.Context(), user))
	}
}

func (c *console) api(w http.ResponseWriter, r *http.Request) {
	if user, ok := c.polled(w, r); ok {
		writeJSON(w, http.StatusOK, c.view(r.Context(), user))
	}
}

// polled tells who polls. A poll renews a session only when the script says that the person did something since the last one.
func (c *console) polled(w http.ResponseWriter, r *http.Request) (identity, bool) {
	user, ok := c.gate.who(w, r, r.Header.Get("X-User-Active") == "1")
	if !ok {
		code := http.StatusUnauthorized
		if _, certificates := c.gate.(certificateGate); certificates {
			code = http.StatusForbidden
		}
		writeJSON(w, code, map[string]string{"error": "not signed in"})
	}
	return user, ok
}

func (c *console) loginPage(w http.ResponseWriter, code int, fault string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_ = c.pages.ExecuteTemplate(w, "login.html", map[string]string{"Fault": fault})
}

func (c *console) render(w http.ResponseWriter, r *http.Request, name string, view pageView) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := c.pages.ExecuteTemplate(w, name, view); err != nil {
		c.rt.log.WarnContext(r.Context(), "page not written", "error", brief(err))
	}
}

func (c *console) view(ctx context.Context, user identity) pageView {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return pageView{Title: "Trading platform", At: time.Now().UTC(), User: user, Out: c.gate.logoutURL(), Stack: c.monitor.view(), Links: c.links, Data: c.activity(ctx)}
}

func (c *console) activity(ctx context.Context) (a activityView) {
	var err error
	if a.Orders, err = c.db.orders(ctx, recentRows); err == nil {
		if a.Runs, err = c.db.runs(ctx, recentRows); err == nil {
			a.Jobs, err = c.db.jobs(ctx, recentRows)
		}
	}
	if err != nil {
		c.rt.log.DebugContext(ctx, "activity not read", "error", brief(err))
		a.Error = "PostgreSQL does not answer, so recent activity cannot be shown."
	}
	return a
}

var pageFunctions = template.FuncMap{
	"join":  func(names []string) string { return strings.Join(names, ", ") },
	"human": func(name string) string { return strings.ReplaceAll(name, "_", " ") },
	"has":   slices.Contains[[]string],
	"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"clock": func(t time.Time) string { return t.UTC().Format("15:04:05") + " UTC" },
	"ago":   func(t time.Time) string { return ago(time.Since(t)) },
	"ms":    func(ms float64) string { return fmt.Sprintf("%.*f ms", decimals(ms), ms) },
}

func decimals(ms float64) int {
	if ms < 10 {
		return 1
	}
	return 0
}

// ago says a span in its largest unit: a page that a person glances at needs no more.
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
