package catalog_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
)

// contract is what users who come from the Compose stack rely on. It is copied from that
// stack's description and not derived from the catalog, so that a change of the contract
// is made on purpose.
//
// env has one variable per word: NAME=value is the user's with a default, !NAME=value
// is fixed, NAME* is required, NAME=value<A,B has the value of the user's A, or else of B.
// A word that begins with @ is a group below.
type contract struct {
	profile, app, image string
	command             string
	user                string
	ports               string // host→container
	after               string
	mounts              string // source→path, with :ro
	networks            string
	env                 string
}

var envGroups = map[string]string{
	"@db":     "!DATABASE_URL=${database_url}",
	"@redis":  "!REDIS_HOST=redis !REDIS_PORT=6379 REDIS_PASSWORD= !REDIS_DB=0",
	"@alpaca": "ALPACA_BASE_URL=https://paper-api.alpaca.markets ALPACA_DATA_FEED=iex",
	"@worker": "REDIS_URL=${redis_url}<REDIS_URL_DOCKER DATABASE_URL=${database_url}<DATABASE_URL_DOCKER",
	"@backtest": `@worker BACKTEST_JOB_MEMORY_LIMIT=4294967296 !DATA_ROOT=/app/data/market_data !DATA_LOCK_DIR=/app/locks
		ENVIRONMENT=dev !YFINANCE_DATA_DIR=/app/data/backtest_results/yfinance`,
	"@console": `!EXECUTION_GATEWAY_URL=http://execution_gateway:8002 !PROJECT_ROOT=/app WEB_CONSOLE_USER* WEB_CONSOLE_PASSWORD*
		WEB_CONSOLE_DEV_ROLE=admin WEB_CONSOLE_DEV_USER_ID=admin WEB_CONSOLE_DEV_SESSION_VERSION=1 WEB_CONSOLE_DEV_STRATEGIES= STRATEGY_ID=
		@db !SESSION_TIMEOUT_MINUTES=15 !SESSION_ABSOLUTE_TIMEOUT_HOURS=4 FEATURE_HEALTH_MONITOR=true FEATURE_RISK_DASHBOARD=false
		FEATURE_STRATEGY_COMPARISON=false FEATURE_MANUAL_CONTROLS=false FEATURE_BACKTEST_MANAGER=false FEATURE_CIRCUIT_BREAKER=false
		FEATURE_ALERTS=false REDIS_PASSWORD= REDIS_URL=${redis_url}<REDIS_URL_DOCKER
		AUTH0_DOMAIN= AUTH0_CLIENT_ID= AUTH0_CLIENT_SECRET= AUTH0_AUDIENCE=https://api.trading-platform.local
		OAUTH2_REDIRECT_URI=${public_url}/callback OAUTH2_LOGOUT_REDIRECT_URI=${public_url}/logout REDIS_SESSION_DB=1 !HOME=/tmp
		!JUPYTER_RUNTIME_DIR=/tmp/jupyter/runtime !JUPYTER_CONFIG_DIR=/tmp/jupyter/config !JUPYTER_DATA_DIR=/tmp/jupyter/data HEALTH_CHECK_SECRET=`,
}

const (
	consoleMounts = "checkout:data→/app/data backtest_data→/app/data/backtest_results:ro"
	workerMounts  = "checkout:data→/app/data/market_data:ro backtest_data→/app/data/backtest_results backtest_data→/app/locks"
	redisCommand  = `password=$(printf %s "$REDIS_PASSWORD" | sed 's/[\\"]/\\&/g') exec docker-entrypoint.sh redis-server - --appendonly yes <<END requirepass "$password" END`
	backtestRun   = "python -m apps.backtest_worker.entrypoint"
)

var contracts = map[string]contract{
	"postgres": {
		image: "postgres:16", ports: "5433→5432", mounts: "pgdata→/var/lib/postgresql/data", networks: "default",
		env: "POSTGRES_USER=trader POSTGRES_PASSWORD=trader POSTGRES_DB=trader",
	},
	"redis": {
		image: "redis:7-alpine", ports: "6379→6379", mounts: "redisdata→/data", networks: "default",
		env:     "REDIS_PASSWORD=",
		command: "sh -c " + redisCommand,
	},
	"prometheus": {
		image:   "prom/prometheus:v2.55.1",
		command: "--config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/prometheus",
		ports:   "9090→9090", mounts: "prometheusdata→/prometheus", networks: "default trading_platform", after: "postgres",
	},
	"grafana": {
		image: "grafana/grafana:10.4.2", ports: "3000→3000 login", mounts: "grafanadata→/var/lib/grafana", networks: "default",
		after: "prometheus postgres loki_server",
		env:   "GF_SECURITY_ADMIN_USER=admin GF_SECURITY_ADMIN_PASSWORD=admin",
	},
	"loki_server": {
		image: "grafana/loki:3.0.0", command: "-config.file=/etc/loki/loki-config.yml", user: "0",
		ports: "3100→3100", mounts: "lokidata→/tmp/loki", networks: "default",
	},
	"promtail": {
		image: "grafana/promtail:3.0.0", command: "-config.file=/etc/promtail/promtail-config.yml", networks: "default", after: "loki_server",
		mounts: "promtaildata→/tmp host:${docker_root}/containers→/var/lib/docker/containers:ro",
	},

	"execution_gateway": {
		profile: "dev", app: "execution_gateway", ports: "8002→8002", after: "postgres redis", networks: "default",
		mounts: "checkout:apps/web_console_ng/certs→/app/apps/web_console_ng/certs:ro",
		env: `@db @redis ALPACA_API_KEY_ID= ALPACA_API_SECRET_KEY= @alpaca DRY_RUN=true STRATEGY_ID=alpha_baseline LOG_LEVEL=INFO
			RECONCILIATION_INTERVAL_SECONDS=10 FEATURE_PERFORMANCE_DASHBOARD=false ALPACA_FILLS_BACKFILL_ENABLED=false
			ALPACA_FILLS_BACKFILL_INITIAL_LOOKBACK_HOURS=24 ALPACA_FILLS_BACKFILL_PAGE_SIZE=100 ALPACA_FILLS_BACKFILL_MAX_PAGES=5
			INTERNAL_TOKEN_REQUIRED=false INTERNAL_TOKEN_SECRET= DEBUG=true API_AUTH_MODE=log_only TRUSTED_PROXY_HOSTS=127.0.0.1`,
	},
	"signal_service": {
		profile: "dev", app: "signal_service", ports: "8001→8001", after: "postgres redis", networks: "default",
		mounts: "checkout:data→/app/data:ro",
		env: `@db !REDIS_URL=${redis_url} STRATEGY_ID=alpha_baseline ALLOW_MODELLESS=true LOG_LEVEL=INFO
			MLFLOW_TRACKING_URI=file:./artifacts/mlruns`,
	},
	"market_data_service": {
		profile: "dev", app: "market_data_service", ports: "8004→8004", after: "redis execution_gateway", networks: "default",
		env: `ALPACA_API_KEY=<ALPACA_API_KEY,ALPACA_API_KEY_ID ALPACA_SECRET_KEY=<ALPACA_SECRET_KEY,ALPACA_API_SECRET_KEY @alpaca @redis
			!EXECUTION_GATEWAY_URL=http://execution_gateway:8002 LOG_LEVEL=INFO INTERNAL_TOKEN_REQUIRED=false INTERNAL_TOKEN_SECRET=
			API_AUTH_MODE=log_only ALLOWED_SERVICE_IDS=orchestrator,signal_service,execution_gateway,web_console_ng`,
	},
	"model_registry": {
		profile: "dev", app: "model_registry", ports: "8005→8005", networks: "default", mounts: "checkout:data/models→/app/data/models",
		env: `!MODEL_REGISTRY_DIR=/app/data/models !MODEL_REGISTRY_PORT=8005 !ENVIRONMENT=dev !ALLOWED_ORIGINS=${origins:web_console_dev}
			MODEL_REGISTRY_READ_TOKEN= MODEL_REGISTRY_ADMIN_TOKEN= MODEL_REGISTRY_TOKEN=`,
	},
	"orchestrator": {
		profile: "dev", app: "orchestrator", ports: "8003→8003", after: "postgres redis signal_service execution_gateway", networks: "default",
		env: `@db @redis !SIGNAL_SERVICE_URL=http://signal_service:8001 !EXECUTION_GATEWAY_URL=http://execution_gateway:8002
			STRATEGY_ID=alpha_baseline LOG_LEVEL=INFO`,
	},

	"backtest_worker_dev": {
		profile: "dev", app: "backtest_worker", command: backtestRun, after: "redis postgres", mounts: workerMounts, networks: "default",
		env: "@backtest !RQ_QUEUES=backtest_high,backtest_normal,backtest_low",
	},
	"backtest_worker_high": {
		profile: "workers", app: "backtest_worker", command: backtestRun, after: "redis postgres", mounts: workerMounts, networks: "default",
		env: "@backtest !RQ_QUEUES=backtest_high",
	},
	"backtest_worker_normal": {
		profile: "workers", app: "backtest_worker", command: backtestRun, after: "redis postgres", mounts: workerMounts, networks: "default",
		env: "@backtest !RQ_QUEUES=backtest_normal",
	},
	"backtest_worker_low": {
		profile: "workers", app: "backtest_worker", command: backtestRun, after: "redis postgres", mounts: workerMounts, networks: "default",
		env: "@backtest !RQ_QUEUES=backtest_low",
	},
	"alert_worker": {
		profile: "workers", app: "alert_worker", after: "redis postgres", networks: "default",
		env: "@worker !RQ_QUEUES=alerts ALERT_RECIPIENT_HASH_SECRET*",
	},

	"web_console": {
		profile: "manual", app: "web_console_ng", after: "postgres redis", mounts: consoleMounts, networks: "default trading_platform",
		env: "@console !WEB_CONSOLE_AUTH_TYPE=dev REDIS_HOST=redis REDIS_PORT=6379 PROMETHEUS_URL=http://prometheus:9090",
	},
	"web_console_dev": {
		profile: "dev", app: "web_console_ng", ports: "8080→8080 login 8900-8949→8900 when:NOTEBOOK_LAUNCH_COMMAND", after: "postgres execution_gateway",
		networks: "default trading_platform",
		mounts: consoleMounts + " checkout:data/models→/app/data/models checkout:artifacts→/app/artifacts checkout:notebooks→/app/notebooks" +
			" checkout:apps/web_console_ng/certs→/app/apps/web_console_ng/certs:ro",
		env: `@console !WEB_CONSOLE_AUTH_TYPE=dev REDIS_HOST=redis REDIS_PORT=6379 !PROMETHEUS_URL=http://prometheus:9090
			!ORCHESTRATOR_URL=http://orchestrator:8003 !SIGNAL_SERVICE_URL=http://signal_service:8001
			!MARKET_DATA_SERVICE_URL=http://market_data_service:8004 !MODEL_REGISTRY_URL=http://model_registry:8005 !WEB_CONSOLE_NG_DEBUG=true
			FEATURE_ALPHA_EXPLORER=false FEATURE_TRADE_JOURNAL=false FEATURE_PERFORMANCE_DASHBOARD=false !MODEL_REGISTRY_DIR=/app/data/models
			NOTEBOOK_BASE_URL=http://localhost NOTEBOOK_LAUNCH_COMMAND=
			!HMAC_SIGNING_KEYS=01:0000000000000000000000000000000000000000000000000000000000000000 !HMAC_CURRENT_KEY_ID=01
			!SESSION_ENCRYPTION_KEY=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=`,
	},
	"web_console_mtls": {
		profile: "mtls", app: "web_console_ng", after: "postgres redis", mounts: consoleMounts, networks: "default trading_platform",
		env: `@console !WEB_CONSOLE_AUTH_TYPE=mtls !REDIS_HOST=redis !REDIS_PORT=6379 PROMETHEUS_URL=http://prometheus:9090
			!TRUSTED_PROXY_IPS=${nginx_address}`,
	},
	"web_console_oauth2": {
		profile: "oauth2", app: "web_console_ng", after: "postgres redis", mounts: consoleMounts, networks: "default trading_platform",
		env: `@console !WEB_CONSOLE_AUTH_TYPE=oauth2 !REDIS_HOST=redis !REDIS_PORT=6379 PROMETHEUS_URL=http://prometheus:9090
			!TRUSTED_PROXY_IPS=${nginx_address} !OAUTH2_LOGIN_URL=/login !OAUTH2_LOGOUT_URL=/logout SESSION_ENCRYPTION_KEY*
			INTERNAL_REFRESH_SECRET= !INTERNAL_CA_BUNDLE=/etc/nginx/certs/ca.crt`,
	},
	"auth_service": {
		profile: "oauth2", app: "auth_service", after: "redis postgres", networks: "default trading_platform",
		env: `AUTH0_DOMAIN* AUTH0_CLIENT_ID* AUTH0_CLIENT_SECRET* AUTH0_AUDIENCE=https://api.trading-platform.local
			OAUTH2_REDIRECT_URI=${public_url}/callback OAUTH2_LOGOUT_REDIRECT_URI=${public_url} OAUTH2_ALLOWED_SUBS= @db
			COOKIE_DOMAIN=.trading-platform.local !REDIS_HOST=redis !REDIS_PORT=6379 REDIS_PASSWORD= SESSION_ENCRYPTION_KEY* !TRUSTED_PROXY_IPS=${nginx_address}
			INTERNAL_REFRESH_SECRET= CSP_REPORT_ONLY=false ENABLE_TEST_ENDPOINTS=false`,
	},
	"nginx_mtls": {
		profile: "mtls", image: "nginx:1.25-alpine", ports: "443→443 login 80→80 login", after: "web_console_mtls", networks: "trading_platform",
	},
	"nginx_oauth2": {
		profile: "oauth2", image: "nginx:1.25-alpine", ports: "443→443 login 80→80 login", after: "web_console_oauth2 auth_service", networks: "trading_platform",
		env: "CSP_REPORT_ONLY=false TRUSTED_PROXY_SUBNET=${nginx_subnet}",
	},
}

// words splits a contract's text into words and expands its groups.
func words(text string) []string {
	var out []string
	for _, word := range strings.Fields(text) {
		if group, ok := envGroups[word]; ok {
			out = append(out, words(group)...)
		} else {
			out = append(out, word)
		}
	}
	return out
}

func variableWord(s catalog.Service, v catalog.Variable) string {
	v.Value = s.Fill(v.Value)
	switch {
	case v.Required && v.Value == "" && slices.Equal(v.From, []string{v.Name}):
		return v.Name + "*"
	case v.Required:
		return "required with a value or under another name: " + v.Name
	case len(v.From) == 0:
		return "!" + v.Name + "=" + v.Value
	case slices.Equal(v.From, []string{v.Name}):
		return v.Name + "=" + v.Value
	}
	return v.Name + "=" + v.Value + "<" + strings.Join(v.From, ",")
}

func portWords(p catalog.Port) []string {
	host := strconv.Itoa(p.Host)
	if p.Count > 1 {
		host += fmt.Sprintf("-%d", p.Host+p.Count-1)
	}
	out := []string{fmt.Sprintf("%s→%d", host, p.Container)}
	if p.Login {
		out = append(out, "login")
	}
	if p.When != "" {
		out = append(out, "when:"+p.When)
	}
	return out
}

func mountWord(m catalog.Mount) string {
	source := m.Volume
	switch {
	case m.Checkout != "":
		source += "checkout:" + m.Checkout
	case m.Host != "":
		source += "host:" + m.Host
	}
	if m.ReadOnly {
		return source + "→" + m.Path + ":ro"
	}
	return source + "→" + m.Path
}

func TestServicesMatchTheComposeStack(t *testing.T) {
	// A new service is not part of the contract.
	require.Len(t, contracts, 23)
	for name, want := range contracts {
		t.Run(name, func(t *testing.T) {
			s, ok := catalog.Lookup(name)
			require.True(t, ok)
			assert.Equal(t, want.profile, s.Profile, "profile")
			assert.Equal(t, want.app, s.App, "app")
			assert.Equal(t, want.image, s.Image, "image")
			assert.Equal(t, strings.Fields(want.command), strings.Fields(strings.Join(s.Command, " ")), "command")
			assert.Equal(t, want.user, s.User, "user")
			assert.ElementsMatch(t, strings.Fields(want.after), s.After, "starts after")
			assert.Equal(t, strings.Fields(want.networks), s.Networks, "networks")
			var ports, mounts, env []string
			for _, p := range s.Ports {
				ports = append(ports, portWords(p)...)
			}
			for _, m := range s.Mounts {
				mounts = append(mounts, mountWord(m))
			}
			for _, v := range s.Env {
				env = append(env, variableWord(s, v))
			}
			assert.Equal(t, strings.Fields(want.ports), append([]string{}, ports...), "ports")
			assert.ElementsMatch(t, strings.Fields(want.mounts), mounts, "mounts")
			assert.Subset(t, env, words(want.env), "variables") // a new variable is not part of the contract
		})
	}
}

func TestVolumesNetworksAndProfilesMatchTheComposeStack(t *testing.T) {
	assert.Subset(t, catalog.Volumes, []string{"pgdata", "redisdata", "prometheusdata", "grafanadata", "lokidata", "promtaildata", "backtest_data"})
	assert.Equal(t, []catalog.Network{{Name: "default"}, {Name: "trading_platform", Fixed: true}}, catalog.Networks)
	assert.Subset(t, catalog.ProfileNames(), []string{"dev", "workers", "mtls", "oauth2", "manual"})
	for _, p := range catalog.Profiles {
		if p.Name == "mtls" {
			assert.Contains(t, p.Conflicts, "oauth2")
		} else {
			assert.Empty(t, p.Conflicts, p.Name)
		}
	}
}

func TestServicesOfEachProfile(t *testing.T) {
	brings := map[string][]string{}
	for _, s := range catalog.Services() {
		brings[s.Profile] = append(brings[s.Profile], s.Name)
	}
	for profile, want := range map[string]string{
		"":        "postgres redis prometheus grafana loki_server promtail",
		"dev":     "execution_gateway signal_service market_data_service model_registry orchestrator backtest_worker_dev web_console_dev",
		"workers": "backtest_worker_high backtest_worker_normal backtest_worker_low alert_worker",
		"mtls":    "web_console_mtls nginx_mtls",
		"oauth2":  "web_console_oauth2 auth_service nginx_oauth2",
		"manual":  "web_console",
	} {
		assert.Subset(t, brings[profile], strings.Fields(want), "profile %q", profile)
	}
}

func TestBuildArguments(t *testing.T) {
	for _, s := range catalog.Services() {
		var args []string
		for _, v := range s.BuildArgs {
			args = append(args, variableWord(s, v))
		}
		if s.App == "web_console_ng" {
			assert.Equal(t, []string{"APP_UID=1000<WEB_CONSOLE_UID", "APP_GID=1000<WEB_CONSOLE_GID"}, args, s.Name)
		} else {
			assert.Empty(t, args, s.Name)
		}
	}
}

// Rules that hold for every service, including new ones.
func TestEveryService(t *testing.T) {
	for _, s := range catalog.Services() {
		t.Run(s.Name, func(t *testing.T) {
			assert.NotEmpty(t, s.About)
			assert.Contains(t, catalog.Tiers, s.Tier)
			assert.Positive(t, s.Memory, "without a limit it can take the host down")
			for _, name := range s.Capabilities {
				assert.Contains(t, []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"}, name, "more than a change of user takes")
			}
			for _, m := range s.Mounts {
				assert.NotContains(t, m.Host, "docker.sock", "whoever has the engine's socket is root on the host")
			}
			if s.ReadOnly {
				assert.Empty(t, s.Certs, "the engine puts no file into a container whose image is read-only")
			}
			assert.Positive(t, s.Grace, "without a grace time the engine kills it")
			assert.Contains(t, []string{"CMD", "CMD-SHELL"}, s.Probe.Command[0])
			if s.Probe.Command[0] == "CMD-SHELL" {
				assert.Len(t, s.Probe.Command, 2)
			}
			assert.Equal(t, s.Tier == catalog.Workers, s.Scalable, "workers can be scaled, and only they")
			assert.Equal(t, s.Tier == catalog.Proxy, s.Proxy, "nginx has a fixed address, and only it")
			if s.Image != "" {
				_, tag, tagged := strings.Cut(s.Image, ":")
				assert.True(t, tagged && tag != "latest", "%s is not pinned", s.Image)
			}
			seen := map[string]bool{}
			for _, v := range s.Env {
				assert.False(t, seen[v.Name], "%s stands twice", v.Name)
				seen[v.Name] = true
			}
			for _, m := range s.Mounts {
				assert.NotEmpty(t, m.Path)
				assert.NotEmpty(t, m.Volume+m.Checkout+m.Host)
			}
			if s.Proxy {
				assert.Equal(t, []string{"server.crt", "server.key", "ca.crt", "dhparam.pem"}, s.Certs)
			}
		})
	}
}

// postgres must not count as ready while its image's first run initializes it on a socket.
func TestPostgresProbeConnectsOverTCPAsTheConfiguredUser(t *testing.T) {
	s, _ := catalog.Lookup("postgres")
	assert.True(t, strings.HasPrefix(s.Probe.Command[1], `pg_isready -q -h 127.0.0.1 -U "$POSTGRES_USER" -d postgres && `))
}

func TestLookup(t *testing.T) {
	_, ok := catalog.Lookup("postgress")
	assert.False(t, ok)
	assert.Len(t, catalog.ServiceNames(), len(catalog.Services()))
}
