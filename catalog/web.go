package catalog

import "time"

func web() []Service {
	return []Service{
		console("web_console", "manual", "dev", Service{
			About: "the web console by itself",
			After: []string{"postgres", "redis"},
		}),
		console("web_console_dev", "dev", "dev", Service{
			About: "the web console, with every API",
			After: []string{"postgres", "execution_gateway"},
			Ports: []Port{
				{Host: 8080, Login: true, URL: "http"},
				{Host: 8900, Container: 8900, Count: 50, When: "NOTEBOOK_LAUNCH_COMMAND"},
			},
			Env: join(
				fixed("PROMETHEUS_URL=${url:prometheus}", "ORCHESTRATOR_URL=${url:orchestrator}", "SIGNAL_SERVICE_URL=${url:signal_service}"),
				fixed("MARKET_DATA_SERVICE_URL=${url:market_data_service}", "MODEL_REGISTRY_URL=${url:model_registry}", "WEB_CONSOLE_NG_DEBUG=true"),
				optional("FEATURE_ALPHA_EXPLORER=false", "FEATURE_TRADE_JOURNAL=false", "FEATURE_PERFORMANCE_DASHBOARD=false"),
				fixed("MODEL_REGISTRY_DIR="+modelsDir),
				optional("NOTEBOOK_BASE_URL=http://localhost", "NOTEBOOK_LAUNCH_COMMAND"),
				fixed("HMAC_SIGNING_KEYS="+devSigningKeys, "HMAC_CURRENT_KEY_ID=01", "SESSION_ENCRYPTION_KEY="+devSessionKey),
			),
			Mounts: []Mount{
				{Checkout: "data/models", Path: modelsDir, Create: true},
				{Checkout: "artifacts", Path: "/app/artifacts", Create: true},
				{Checkout: "notebooks", Path: "/app/notebooks", Create: true},
				{Checkout: "apps/web_console_ng/certs", Path: "/app/apps/web_console_ng/certs", ReadOnly: true, Create: true},
			},
		}),
		console("web_console_mtls", "mtls", "mtls", Service{
			About: "the web console behind nginx, for client certificates",
			After: []string{"postgres", "redis"},
			Env:   join(redisHost, fixed("TRUSTED_PROXY_IPS=${nginx_address}")),
		}),
		console("web_console_oauth2", "oauth2", "oauth2", Service{
			About: "the web console behind nginx, for logins with OpenID Connect",
			After: []string{"postgres", "redis"},
			Env: join(redisHost,
				fixed("TRUSTED_PROXY_IPS=${nginx_address}", "OAUTH2_LOGIN_URL=/login", "OAUTH2_LOGOUT_URL=/logout"),
				required("SESSION_ENCRYPTION_KEY"),
				optional("INTERNAL_REFRESH_SECRET"),
				fixed("INTERNAL_CA_BUNDLE="+certsDir+"/ca.crt"),
			),
			Certs: []string{"ca.crt"},
		}),
		{
			Name: "auth_service", Tier: Web, Profile: "oauth2", App: "auth_service",
			About: "logins with OpenID Connect",
			Env: join(
				// They come from the OpenID provider, and cannot be generated.
				change(required("AUTH0_DOMAIN", "AUTH0_CLIENT_ID", "AUTH0_CLIENT_SECRET"), func(v *Variable) { v.Ask = true }),
				auth0Audience,
				optional("OAUTH2_REDIRECT_URI=${public_url}/callback", "OAUTH2_LOGOUT_REDIRECT_URI=${public_url}", "OAUTH2_ALLOWED_SUBS"),
				database,
				optional("COOKIE_DOMAIN=.trading-platform.local"),
				redisHost,
				required("SESSION_ENCRYPTION_KEY"),
				fixed("TRUSTED_PROXY_IPS=${nginx_address}"),
				optional("INTERNAL_REFRESH_SECRET", "CSP_REPORT_ONLY=false", "ENABLE_TEST_ENDPOINTS=false"),
			),
			// The Compose file had it on the edge network only, which neither postgres nor redis joins.
			Networks:     []string{DefaultNetwork, EdgeNetwork},
			After:        []string{"redis", "postgres"},
			Port:         8001,
			Probe:        Probe{Command: curl, Path: "/health"},
			Metrics:      Metrics{Component: "login", Reference: true},
			Capabilities: rootSetup, Memory: 1024,
		},
	}
}

// console sets what the variants of the web console have in common.
func console(name, profile, authType string, s Service) Service {
	s.Name, s.Tier, s.Profile, s.App = name, Web, profile, "web_console_ng"
	s.BuildArgs = join(from("APP_UID=1000", "WEB_CONSOLE_UID"), from("APP_GID=1000", "WEB_CONSOLE_GID"))
	s.Env = join(
		fixed("EXECUTION_GATEWAY_URL=${url:execution_gateway}", "PROJECT_ROOT=/app", "WEB_CONSOLE_AUTH_TYPE="+authType),
		change(required("WEB_CONSOLE_USER"), func(v *Variable) { v.Initial = "admin" }),
		required("WEB_CONSOLE_PASSWORD"),
		optional("WEB_CONSOLE_DEV_ROLE=admin", "WEB_CONSOLE_DEV_USER_ID=admin", "WEB_CONSOLE_DEV_SESSION_VERSION=1"),
		optional("WEB_CONSOLE_DEV_STRATEGIES", "STRATEGY_ID"),
		database,
		fixed("SESSION_TIMEOUT_MINUTES=15", "SESSION_ABSOLUTE_TIMEOUT_HOURS=4"),
		optional("FEATURE_HEALTH_MONITOR=true", "FEATURE_RISK_DASHBOARD=false", "FEATURE_STRATEGY_COMPARISON=false"),
		optional("FEATURE_MANUAL_CONTROLS=false", "FEATURE_BACKTEST_MANAGER=false", "FEATURE_CIRCUIT_BREAKER=false", "FEATURE_ALERTS=false"),
		optional("REDIS_HOST=redis", "REDIS_PORT=${port:redis}"),
		redisPassword,
		from("REDIS_URL=${redis_url}", "REDIS_URL_DOCKER"),
		optional("PROMETHEUS_URL=${url:prometheus}"),
		optional("AUTH0_DOMAIN", "AUTH0_CLIENT_ID", "AUTH0_CLIENT_SECRET"),
		auth0Audience,
		optional("OAUTH2_REDIRECT_URI=${public_url}/callback", "OAUTH2_LOGOUT_REDIRECT_URI=${public_url}/logout", "REDIS_SESSION_DB=1"),
		fixed("HOME=/tmp"),
		fixed("JUPYTER_RUNTIME_DIR=/tmp/jupyter/runtime", "JUPYTER_CONFIG_DIR=/tmp/jupyter/config", "JUPYTER_DATA_DIR=/tmp/jupyter/data"),
		optional("HEALTH_CHECK_SECRET"),
		s.Env,
	)
	s.Mounts = append([]Mount{
		{Checkout: "data", Path: "/app/data", Create: true},
		{Volume: "backtest_data", Path: resultsDir, ReadOnly: true},
	}, s.Mounts...)
	s.Networks = []string{DefaultNetwork, EdgeNetwork}
	s.Port = 8080
	s.Probe = Probe{
		Command: []string{"CMD", "python", "-c", "import urllib.request as u; u.urlopen('${probe_url}', timeout=8)"},
		Timeout: 10 * time.Second,
		Path:    "/readyz",
	}
	s.Metrics = Metrics{Component: "console", Reference: true}
	s.Capabilities, s.Memory = rootSetup, 2048
	return s
}
