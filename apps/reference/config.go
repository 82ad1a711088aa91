package main

import (
	"encoding"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// The structs below are the services' environments, name for name. A field without envDefault is required; an empty value counts as
// unset. Those that others embed are exported because the parser passes over embedded fields that are not.

// StackConfig is what the plan tells only to the reference app.
type StackConfig struct {
	// Dependencies are the services that the plan gives this one as edges; /health is 200 only while all of them answer.
	Dependencies []string `env:"STACK_DEPENDENCIES" envDefault:""`
}

// RedisAddress says where Redis is.
type RedisAddress struct {
	Host     string `env:"REDIS_HOST"`
	Port     port   `env:"REDIS_PORT"`
	Password string `env:"REDIS_PASSWORD" envDefault:""`
}

// RedisConfig says where Redis is, and which of its databases.
type RedisConfig struct {
	RedisAddress
	DB uint8 `env:"REDIS_DB"`
}

// AlpacaConfig is read because the platform has it; the reference app never calls the broker.
type AlpacaConfig struct {
	BaseURL  webURL `env:"ALPACA_BASE_URL"`
	DataFeed string `env:"ALPACA_DATA_FEED"`
}

// InternalTokenConfig says whether callers of /api need the X-Internal-Token header.
type InternalTokenConfig struct {
	TokenRequired bool        `env:"INTERNAL_TOKEN_REQUIRED"`
	TokenSecret   string      `env:"INTERNAL_TOKEN_SECRET" envDefault:""`
	AuthMode      apiAuthMode `env:"API_AUTH_MODE"`
}

func (c InternalTokenConfig) validate() error {
	if c.enforced() && c.TokenSecret == "" {
		return errors.New("INTERNAL_TOKEN_SECRET: is empty, though INTERNAL_TOKEN_REQUIRED or API_AUTH_MODE=enforce asks for a token")
	}
	return nil
}

func (c InternalTokenConfig) enforced() bool { return c.TokenRequired || c.AuthMode == "enforce" }

type gatewayConfig struct {
	StackConfig
	RedisConfig
	AlpacaConfig
	InternalTokenConfig
	DatabaseURL    databaseURL `env:"DATABASE_URL"`
	AlpacaKeyID    string      `env:"ALPACA_API_KEY_ID" envDefault:""`
	AlpacaSecret   string      `env:"ALPACA_API_SECRET_KEY" envDefault:""`
	DryRun         bool        `env:"DRY_RUN"`
	StrategyID     string      `env:"STRATEGY_ID"`
	LogLevel       logLevel    `env:"LOG_LEVEL"`
	Reconciliation uint        `env:"RECONCILIATION_INTERVAL_SECONDS"`
	Dashboard      bool        `env:"FEATURE_PERFORMANCE_DASHBOARD"`
	Backfill       bool        `env:"ALPACA_FILLS_BACKFILL_ENABLED"`
	BackfillHours  uint        `env:"ALPACA_FILLS_BACKFILL_INITIAL_LOOKBACK_HOURS"`
	BackfillSize   uint        `env:"ALPACA_FILLS_BACKFILL_PAGE_SIZE"`
	BackfillPages  uint        `env:"ALPACA_FILLS_BACKFILL_MAX_PAGES"`
	Debug          bool        `env:"DEBUG"`
	TrustedProxies []string    `env:"TRUSTED_PROXY_HOSTS"`
}

func (c gatewayConfig) validate() error {
	var dry error
	if !c.DryRun {
		dry = errors.New("DRY_RUN: is false, but the reference app sends orders to no broker; set DRY_RUN=true or run the platform's own image")
	}
	return errors.Join(dry, c.InternalTokenConfig.validate())
}

type signalConfig struct {
	StackConfig
	DatabaseURL databaseURL `env:"DATABASE_URL"`
	RedisURL    redisURL    `env:"REDIS_URL"`
	StrategyID  string      `env:"STRATEGY_ID"`
	Modelless   bool        `env:"ALLOW_MODELLESS"`
	LogLevel    logLevel    `env:"LOG_LEVEL"`
	MLflow      string      `env:"MLFLOW_TRACKING_URI"`
}

func (c signalConfig) validate() error {
	if !c.Modelless {
		return errors.New("ALLOW_MODELLESS: is false, but the reference app has no model; set ALLOW_MODELLESS=true or run the platform's own image")
	}
	return nil
}

type marketDataConfig struct {
	StackConfig
	RedisConfig
	AlpacaConfig
	InternalTokenConfig
	AlpacaKey    string   `env:"ALPACA_API_KEY" envDefault:""`
	AlpacaSecret string   `env:"ALPACA_SECRET_KEY" envDefault:""`
	GatewayURL   webURL   `env:"EXECUTION_GATEWAY_URL"`
	LogLevel     logLevel `env:"LOG_LEVEL"`
	AllowedIDs   []string `env:"ALLOWED_SERVICE_IDS"`
}

func (c marketDataConfig) validate() error { return c.InternalTokenConfig.validate() }

type modelsConfig struct {
	StackConfig
	Dir            string   `env:"MODEL_REGISTRY_DIR"`
	Port           port     `env:"MODEL_REGISTRY_PORT"`
	Environment    string   `env:"ENVIRONMENT"`
	AllowedOrigins []webURL `env:"ALLOWED_ORIGINS"`
	ReadToken      string   `env:"MODEL_REGISTRY_READ_TOKEN" envDefault:""`
	AdminToken     string   `env:"MODEL_REGISTRY_ADMIN_TOKEN" envDefault:""`
	Token          string   `env:"MODEL_REGISTRY_TOKEN" envDefault:""`
}

type orchestratorConfig struct {
	StackConfig
	RedisConfig
	DatabaseURL databaseURL `env:"DATABASE_URL"`
	SignalURL   webURL      `env:"SIGNAL_SERVICE_URL"`
	GatewayURL  webURL      `env:"EXECUTION_GATEWAY_URL"`
	StrategyID  string      `env:"STRATEGY_ID"`
	LogLevel    logLevel    `env:"LOG_LEVEL"`
}

// WorkerConfig is what every worker has; Queues stand in order of priority.
type WorkerConfig struct {
	StackConfig
	RedisURL    redisURL    `env:"REDIS_URL"`
	DatabaseURL databaseURL `env:"DATABASE_URL"`
	Queues      []string    `env:"RQ_QUEUES"`
}

func (c WorkerConfig) validate() error {
	for i, queue := range c.Queues {
		if queue == "" || strings.TrimSpace(queue) != queue || slices.Contains(c.Queues[:i], queue) {
			return fmt.Errorf("RQ_QUEUES: entry %d (%q) is empty, has spaces round it or comes twice", i+1, queue)
		}
	}
	return nil
}

type backtestConfig struct {
	WorkerConfig
	MemoryLimit memoryLimit `env:"BACKTEST_JOB_MEMORY_LIMIT"`
	DataRoot    string      `env:"DATA_ROOT"`
	LockDir     string      `env:"DATA_LOCK_DIR"`
	Environment string      `env:"ENVIRONMENT"`
	YFinanceDir string      `env:"YFINANCE_DATA_DIR"`
}

type alertConfig struct {
	WorkerConfig
	HashSecret string `env:"ALERT_RECIPIENT_HASH_SECRET"`
}

// Auth0Config is what the consoles and auth_service both know of the identity provider.
type Auth0Config struct {
	Audience string `env:"AUTH0_AUDIENCE"`
	Redirect webURL `env:"OAUTH2_REDIRECT_URI"`
	Logout   webURL `env:"OAUTH2_LOGOUT_REDIRECT_URI"`
}

// ConsoleConfig is what all console variants share.
type ConsoleConfig struct {
	StackConfig
	RedisAddress
	Auth0Config
	GatewayURL         webURL      `env:"EXECUTION_GATEWAY_URL"`
	ProjectRoot        string      `env:"PROJECT_ROOT"`
	AuthType           string      `env:"WEB_CONSOLE_AUTH_TYPE"`
	User               string      `env:"WEB_CONSOLE_USER"`
	Password           string      `env:"WEB_CONSOLE_PASSWORD"`
	DevRole            string      `env:"WEB_CONSOLE_DEV_ROLE"`
	DevUserID          string      `env:"WEB_CONSOLE_DEV_USER_ID"`
	DevSessionVersion  uint        `env:"WEB_CONSOLE_DEV_SESSION_VERSION"`
	DevStrategies      string      `env:"WEB_CONSOLE_DEV_STRATEGIES" envDefault:""`
	StrategyID         string      `env:"STRATEGY_ID" envDefault:""`
	DatabaseURL        databaseURL `env:"DATABASE_URL"`
	IdleMinutes        minutes     `env:"SESSION_TIMEOUT_MINUTES"`
	AbsoluteHours      hours       `env:"SESSION_ABSOLUTE_TIMEOUT_HOURS"`
	HealthMonitor      bool        `env:"FEATURE_HEALTH_MONITOR"`
	RiskDashboard      bool        `env:"FEATURE_RISK_DASHBOARD"`
	StrategyComparison bool        `env:"FEATURE_STRATEGY_COMPARISON"`
	ManualControls     bool        `env:"FEATURE_MANUAL_CONTROLS"`
	BacktestManager    bool        `env:"FEATURE_BACKTEST_MANAGER"`
	CircuitBreaker     bool        `env:"FEATURE_CIRCUIT_BREAKER"`
	Alerts             bool        `env:"FEATURE_ALERTS"`
	RedisURL           redisURL    `env:"REDIS_URL"`
	PrometheusURL      webURL      `env:"PROMETHEUS_URL"`
	Auth0Domain        string      `env:"AUTH0_DOMAIN" envDefault:""`
	Auth0ClientID      string      `env:"AUTH0_CLIENT_ID" envDefault:""`
	Auth0ClientSecret  string      `env:"AUTH0_CLIENT_SECRET" envDefault:""`
	SessionDB          uint8       `env:"REDIS_SESSION_DB"`
	Home               string      `env:"HOME"`
	JupyterRuntime     string      `env:"JUPYTER_RUNTIME_DIR"`
	JupyterConfig      string      `env:"JUPYTER_CONFIG_DIR"`
	JupyterData        string      `env:"JUPYTER_DATA_DIR"`
	HealthSecret       string      `env:"HEALTH_CHECK_SECRET" envDefault:""`
	// Services and Links are told by the plan for the page; without them it shows what the other variables name.
	Services stackServices `env:"STACK_SERVICES" envDefault:"[]"`
	Links    stackLinks    `env:"STACK_LINKS" envDefault:"{}"`
}

func (c ConsoleConfig) idle() time.Duration     { return time.Duration(c.IdleMinutes) * time.Minute }
func (c ConsoleConfig) absolute() time.Duration { return time.Duration(c.AbsoluteHours) * time.Hour }

type consoleDevConfig struct {
	ConsoleConfig
	OrchestratorURL  webURL       `env:"ORCHESTRATOR_URL"`
	SignalURL        webURL       `env:"SIGNAL_SERVICE_URL"`
	MarketDataURL    webURL       `env:"MARKET_DATA_SERVICE_URL"`
	ModelRegistryURL webURL       `env:"MODEL_REGISTRY_URL"`
	Debug            bool         `env:"WEB_CONSOLE_NG_DEBUG"`
	AlphaExplorer    bool         `env:"FEATURE_ALPHA_EXPLORER"`
	TradeJournal     bool         `env:"FEATURE_TRADE_JOURNAL"`
	Dashboard        bool         `env:"FEATURE_PERFORMANCE_DASHBOARD"`
	ModelDir         string       `env:"MODEL_REGISTRY_DIR"`
	NotebookURL      webURL       `env:"NOTEBOOK_BASE_URL"`
	NotebookCommand  string       `env:"NOTEBOOK_LAUNCH_COMMAND" envDefault:""`
	HMACKeys         hmacKeys     `env:"HMAC_SIGNING_KEYS"`
	HMACKeyID        string       `env:"HMAC_CURRENT_KEY_ID"`
	SessionKey       encryptedKey `env:"SESSION_ENCRYPTION_KEY"`
}

func (c consoleDevConfig) validate() error {
	if _, ok := c.HMACKeys[c.HMACKeyID]; !ok && len(c.HMACKeys) > 0 {
		return fmt.Errorf("HMAC_CURRENT_KEY_ID: %q is not an id in HMAC_SIGNING_KEYS", c.HMACKeyID)
	}
	return nil
}

type consoleMTLSConfig struct {
	ConsoleConfig
	TrustedProxies addresses `env:"TRUSTED_PROXY_IPS"`
}

type consoleOAuth2Config struct {
	ConsoleConfig
	TrustedProxies addresses    `env:"TRUSTED_PROXY_IPS"`
	LoginURL       string       `env:"OAUTH2_LOGIN_URL"`
	LogoutURL      string       `env:"OAUTH2_LOGOUT_URL"`
	SessionKey     encryptedKey `env:"SESSION_ENCRYPTION_KEY"`
	RefreshSecret  string       `env:"INTERNAL_REFRESH_SECRET" envDefault:""`
	CABundle       string       `env:"INTERNAL_CA_BUNDLE"`
}

func (c consoleOAuth2Config) validate() error { return c.SessionKey.refuseZero() }

type authConfig struct {
	StackConfig
	RedisAddress
	Auth0Config
	Issuer         issuer       `env:"AUTH0_DOMAIN"`
	ClientID       string       `env:"AUTH0_CLIENT_ID"`
	ClientSecret   string       `env:"AUTH0_CLIENT_SECRET"`
	AllowedSubs    []string     `env:"OAUTH2_ALLOWED_SUBS" envDefault:""`
	DatabaseURL    databaseURL  `env:"DATABASE_URL"`
	CookieDomain   string       `env:"COOKIE_DOMAIN"`
	SessionKey     encryptedKey `env:"SESSION_ENCRYPTION_KEY"`
	TrustedProxies addresses    `env:"TRUSTED_PROXY_IPS"`
	RefreshSecret  string       `env:"INTERNAL_REFRESH_SECRET" envDefault:""`
	CSPReportOnly  bool         `env:"CSP_REPORT_ONLY"`
	TestEndpoints  bool         `env:"ENABLE_TEST_ENDPOINTS"`
	// SessionDB must be the console's; the one variable beyond the service's old list, since the two have to agree.
	SessionDB uint8 `env:"REDIS_SESSION_DB" envDefault:"1"`
}

func (c authConfig) validate() error { return c.SessionKey.refuseZero() }

// load reads a service's environment. Its error names every variable that is missing or malformed, never a secret's value.
func load[T any](environ []string) (T, error) {
	values := map[string]string{}
	for _, entry := range environ {
		if name, value, _ := strings.Cut(entry, "="); value != "" {
			values[name] = value
		}
	}
	cfg, err := env.ParseAsWithOptions[T](env.Options{Environment: values, RequiredIfNoDef: true})
	var faults []error
	var several env.AggregateError
	if errors.As(err, &several) {
		for _, one := range several.Errors {
			faults = append(faults, describe(one, reflect.TypeFor[T]()))
		}
	} else if err != nil {
		faults = append(faults, err)
	}
	if check, ok := any(cfg).(interface{ validate() error }); ok {
		// What could not be read has a zero value, which validate must not complain of a second time.
		if len(faults) == 0 {
			faults = append(faults, check.validate())
		}
	}
	return cfg, errors.Join(faults...)
}

// describe turns the parser's error, which names a field, into one that names the variable.
func describe(err error, config reflect.Type) error {
	var unset env.VarIsNotSetError
	if errors.As(err, &unset) {
		return fmt.Errorf("%s: is required and not set", unset.Key)
	}
	var malformed env.ParseError
	if errors.As(err, &malformed) {
		cause := malformed.Err
		for inner := errors.Unwrap(cause); inner != nil; inner = errors.Unwrap(inner) {
			cause = inner
		}
		field, _ := config.FieldByName(malformed.Name)
		return fmt.Errorf("%s: %w", field.Tag.Get("env"), cause)
	}
	return err
}

// variables lists the names that a config struct reads.
func variables(config any) []string {
	params, err := env.GetFieldParams(config)
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(params))
	for _, param := range params {
		names = append(names, param.OwnKey)
	}
	return names
}

type (
	port         uint16
	minutes      uint16
	hours        uint16
	memoryLimit  int64
	logLevel     slog.Level
	databaseURL  string
	redisURL     string
	webURL       string
	issuer       string
	apiAuthMode  string
	addresses    []string
	encryptedKey [32]byte
	hmacKeys     map[string][]byte
)

var _ = []encoding.TextUnmarshaler{new(port), new(minutes), new(hours), new(memoryLimit), new(logLevel), new(databaseURL), new(redisURL), new(webURL),
	new(issuer), new(apiAuthMode), new(addresses), new(encryptedKey), new(hmacKeys), new(stackServices), new(stackLinks)}

func positive[T ~uint16 | ~int64](into *T, text []byte, what string) error {
	var n int64
	if _, err := fmt.Sscanf(string(text)+"\n", "%d\n", &n); err != nil || n <= 0 || int64(T(n)) != n {
		return fmt.Errorf("%q is not %s", text, what)
	}
	*into = T(n)
	return nil
}

func (p *port) UnmarshalText(text []byte) error { return positive(p, text, "a port (1 to 65535)") }
func (m *minutes) UnmarshalText(text []byte) error {
	return positive(m, text, "a number of minutes, 1 or more")
}
func (h *hours) UnmarshalText(text []byte) error {
	return positive(h, text, "a number of hours, 1 or more")
}
func (m *memoryLimit) UnmarshalText(text []byte) error {
	return positive(m, text, "a number of bytes, 1 or more")
}

// UnmarshalText takes the names of Python's logging, which the platform's users know.
func (l *logLevel) UnmarshalText(text []byte) error {
	levels := map[string]slog.Level{"DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo, "WARNING": slog.LevelWarn, "WARN": slog.LevelWarn, "ERROR": slog.LevelError, "CRITICAL": slog.LevelError + 4}
	level, ok := levels[strings.ToUpper(string(text))]
	if !ok {
		return fmt.Errorf("%q is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL", text)
	}
	*l = logLevel(level)
	return nil
}

func (l logLevel) level() slog.Level { return slog.Level(l) }

// parseURL never repeats the value: it may hold a password.
func parseURL(text []byte, schemes ...string) (*url.URL, error) {
	u, err := url.Parse(string(text))
	if err != nil || u.Hostname() == "" || !slices.Contains(schemes, u.Scheme) {
		return nil, fmt.Errorf("is not a URL of the form %s://host…", strings.Join(schemes, ":// or "))
	}
	return u, nil
}

func (d *databaseURL) UnmarshalText(text []byte) error {
	*d = databaseURL(text)
	_, err := parseURL(text, "postgresql", "postgres")
	return err
}

func (r *redisURL) UnmarshalText(text []byte) error {
	*r = redisURL(text)
	_, err := parseURL(text, "redis", "rediss")
	return err
}

func (w *webURL) UnmarshalText(text []byte) error {
	*w = webURL(strings.TrimRight(string(text), "/"))
	_, err := parseURL(text, "http", "https")
	return err
}

// UnmarshalText makes an issuer of a bare domain, as Auth0 spells it; a value with a scheme stands as it is. Plain http is for
// providers that no public network lies between: a loopback or private address, or a one-label name on a container network.
func (i *issuer) UnmarshalText(text []byte) error {
	value := string(text)
	if !strings.Contains(value, "://") {
		value = "https://" + strings.TrimRight(value, "/") + "/"
	}
	u, err := parseURL([]byte(value), "https", "http")
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("is neither a domain nor a plain https URL")
	}
	if u.Scheme == "http" && !privateHost(u.Hostname()) {
		return fmt.Errorf("http is for a loopback or private provider only, %s needs https", u.Hostname())
	}
	*i = issuer(value)
	return nil
}

func privateHost(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback() || ip.IsPrivate()
	}
	return !strings.Contains(host, ".")
}

func (m *apiAuthMode) UnmarshalText(text []byte) error {
	*m = apiAuthMode(text)
	if *m != "log_only" && *m != "enforce" {
		return fmt.Errorf("%q is neither log_only nor enforce", text)
	}
	return nil
}

func (a *addresses) UnmarshalText(text []byte) error {
	for _, part := range strings.Split(string(text), ",") {
		ip, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil {
			return fmt.Errorf("%q is not an IP address", part)
		}
		*a = append(*a, ip.Unmap().String())
	}
	return nil
}

// holds tells whether the TCP peer ("address:port") is one of the addresses.
func (a addresses) holds(peer string) bool {
	ap, err := netip.ParseAddrPort(peer)
	return err == nil && slices.Contains(a, ap.Addr().Unmap().String())
}

func (k *encryptedKey) UnmarshalText(text []byte) error {
	compact := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(string(text), "="))
	key, err := base64.RawStdEncoding.DecodeString(compact)
	if err != nil || len(key) != len(k) {
		return errors.New("is not 32 bytes in base64; make one with: openssl rand -base64 32")
	}
	copy(k[:], key)
	return nil
}

func (k encryptedKey) refuseZero() error {
	if k == (encryptedKey{}) {
		return errors.New("SESSION_ENCRYPTION_KEY: is the public development key (all zeros); make one with: openssl rand -base64 32")
	}
	return nil
}

func (k *hmacKeys) UnmarshalText(text []byte) error {
	*k = hmacKeys{}
	for _, part := range strings.Split(string(text), ",") {
		id, digits, _ := strings.Cut(part, ":")
		key, err := hex.DecodeString(digits)
		if err != nil || id == "" || len(key) < 32 {
			return errors.New("is not a list of <id>:<key>, the key being 64 or more hex digits")
		}
		(*k)[id] = key
	}
	return nil
}
