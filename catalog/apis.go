package catalog

import "time"

func apis() []Service {
	return []Service{
		api("execution_gateway", 8002, Service{
			About: "order execution, dry-run unless DRY_RUN=false",
			After: []string{"postgres", "redis"},
			Mounts: []Mount{
				{Checkout: "apps/web_console_ng/certs", Path: "/app/apps/web_console_ng/certs", ReadOnly: true, Create: true},
			},
			Env: join(database, redisParts, optional(
				"ALPACA_API_KEY_ID", "ALPACA_API_SECRET_KEY", "ALPACA_BASE_URL="+alpacaURL, "ALPACA_DATA_FEED=iex",
				"DRY_RUN=true", "STRATEGY_ID=alpha_baseline", "LOG_LEVEL=INFO",
				"RECONCILIATION_INTERVAL_SECONDS=10", "FEATURE_PERFORMANCE_DASHBOARD=false",
				"ALPACA_FILLS_BACKFILL_ENABLED=false", "ALPACA_FILLS_BACKFILL_INITIAL_LOOKBACK_HOURS=24",
				"ALPACA_FILLS_BACKFILL_PAGE_SIZE=100", "ALPACA_FILLS_BACKFILL_MAX_PAGES=5",
				"INTERNAL_TOKEN_REQUIRED=false", "INTERNAL_TOKEN_SECRET",
				"DEBUG=true", "API_AUTH_MODE=log_only", "TRUSTED_PROXY_HOSTS=127.0.0.1",
			)),
			Metrics: Metrics{Interval: 10 * time.Second, Component: "execution"},
		}),
		api("signal_service", 8001, Service{
			About:         "trading signals",
			After:         []string{"postgres", "redis"},
			Mounts:        []Mount{{Checkout: "data", Path: "/app/data", ReadOnly: true, Create: true}},
			BuildContexts: from("qlib_src=apps/signal_service/qlib_placeholder", "QLIB_SOURCE_DIR"),
			Env: join(database, fixed("REDIS_URL=${redis_url}"), optional(
				"STRATEGY_ID=alpha_baseline", "ALLOW_MODELLESS=true", "LOG_LEVEL=INFO", "MLFLOW_TRACKING_URI=file:./artifacts/mlruns",
			)),
			Metrics: Metrics{Component: "signals"},
		}),
		api("market_data_service", 8004, Service{
			About: "quotes, cached in Redis",
			After: []string{"redis", "execution_gateway"},
			Env: join(
				from("ALPACA_API_KEY", "ALPACA_API_KEY", "ALPACA_API_KEY_ID"),
				from("ALPACA_SECRET_KEY", "ALPACA_SECRET_KEY", "ALPACA_API_SECRET_KEY"),
				optional("ALPACA_BASE_URL="+alpacaURL, "ALPACA_DATA_FEED=iex"),
				redisParts,
				fixed("EXECUTION_GATEWAY_URL=${url:execution_gateway}"),
				optional("LOG_LEVEL=INFO", "INTERNAL_TOKEN_REQUIRED=false", "INTERNAL_TOKEN_SECRET", "API_AUTH_MODE=log_only"),
				optional("ALLOWED_SERVICE_IDS=orchestrator,signal_service,execution_gateway,web_console_ng"),
			),
			Metrics: Metrics{Interval: 10 * time.Second, Component: "market-data"},
		}),
		api("model_registry", 8005, Service{
			About:  "models, as files in its folder",
			Mounts: []Mount{{Checkout: "data/models", Path: modelsDir, Create: true}},
			Env: join(
				fixed("MODEL_REGISTRY_DIR="+modelsDir, "MODEL_REGISTRY_PORT=${port}", "ENVIRONMENT=dev", "ALLOWED_ORIGINS=${origins:web_console_dev}"),
				optional("MODEL_REGISTRY_READ_TOKEN", "MODEL_REGISTRY_ADMIN_TOKEN", "MODEL_REGISTRY_TOKEN"),
			),
			Metrics: Metrics{Component: "models"},
		}),
		api("orchestrator", 8003, Service{
			About: "runs signal to order",
			After: []string{"postgres", "redis", "signal_service", "execution_gateway"},
			Env: join(database, redisParts,
				fixed("SIGNAL_SERVICE_URL=${url:signal_service}", "EXECUTION_GATEWAY_URL=${url:execution_gateway}"),
				optional("STRATEGY_ID=alpha_baseline", "LOG_LEVEL=INFO"),
			),
			Metrics: Metrics{Component: "orchestration"},
		}),
	}
}

// api sets what the APIs have in common: profile, image, port and probe.
func api(name string, port int, s Service) Service {
	s.Name, s.Tier, s.Profile, s.App = name, API, "dev", name
	s.Port, s.Ports = port, []Port{{Host: port, URL: "http"}}
	s.Probe = Probe{Command: curl, Path: "/health", Timeout: 10 * time.Second}
	s.Capabilities, s.Memory = rootSetup, 2048
	return s
}
