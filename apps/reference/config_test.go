package main

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// beyond are the variables that the stack tells only to the reference app, or that two services have to agree on.
var beyond = map[string][]string{
	"auth_service":    {"REDIS_SESSION_DB"},
	"web_console":     {"STACK_SERVICES", "STACK_LINKS"},
	"web_console_dev": {"STACK_SERVICES", "STACK_LINKS"}, "web_console_mtls": {"STACK_SERVICES", "STACK_LINKS"}, "web_console_oauth2": {"STACK_SERVICES", "STACK_LINKS"},
}

func TestEachServiceReadsItsEnvironmentAndNoMore(t *testing.T) {
	require.Len(t, services(), len(contract))
	for _, svc := range services() {
		t.Run(svc.name, func(t *testing.T) {
			want := append([]string{"STACK_DEPENDENCIES"}, beyond[svc.name]...)
			for _, entry := range strings.Fields(contract[svc.name]) {
				name, _, _ := strings.Cut(entry, "=")
				want = append(want, name)
			}
			got := slices.DeleteFunc(variables(svc.config), func(name string) bool { return name == "" })
			assert.ElementsMatch(t, want, got)
		})
	}
}

func TestFaultsOfTheEnvironment(t *testing.T) {
	const key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	tests := map[string]struct {
		service string
		changes map[string]string
		says    []string
		// hides must not be said: it is, or could be, secret.
		hides string
	}{
		"all that is missing comes at once": {"orchestrator", map[string]string{"DATABASE_URL": "", "REDIS_HOST": "", "SIGNAL_SERVICE_URL": ""},
			[]string{"DATABASE_URL: is required and not set", "REDIS_HOST: is required and not set", "SIGNAL_SERVICE_URL: is required and not set"}, ""},
		"missing and malformed together":       {"execution_gateway", map[string]string{"REDIS_PORT": "99999", "STRATEGY_ID": ""}, []string{`REDIS_PORT: "99999" is not a port`, "STRATEGY_ID: is required"}, ""},
		"a database URL keeps its password":    {"signal_service", map[string]string{"DATABASE_URL": "mysql://u:pa55@h/db"}, []string{"DATABASE_URL: is not a URL of the form postgresql://"}, "pa55"},
		"a broken database URL too":            {"signal_service", map[string]string{"DATABASE_URL": "postgresql://u:pa55%zz@h/db"}, []string{"DATABASE_URL: is not a URL"}, "pa55"},
		"a Redis URL":                          {"alert_worker", map[string]string{"REDIS_URL": "redis:6379"}, []string{"REDIS_URL: is not a URL of the form redis://"}, ""},
		"a log level":                          {"signal_service", map[string]string{"LOG_LEVEL": "LOUD"}, []string{`LOG_LEVEL: "LOUD" is not one of DEBUG`}, ""},
		"a switch":                             {"execution_gateway", map[string]string{"DEBUG": "maybe"}, []string{"DEBUG: invalid syntax"}, ""},
		"orders to a broker":                   {"execution_gateway", map[string]string{"DRY_RUN": "false"}, []string{"DRY_RUN: is false, but the reference app sends orders to no broker"}, ""},
		"a model that is not there":            {"signal_service", map[string]string{"ALLOW_MODELLESS": "false"}, []string{"ALLOW_MODELLESS: is false"}, ""},
		"a token asked for and not set":        {"market_data_service", map[string]string{"INTERNAL_TOKEN_REQUIRED": "true"}, []string{"INTERNAL_TOKEN_SECRET: is empty"}, ""},
		"an auth mode":                         {"market_data_service", map[string]string{"API_AUTH_MODE": "off"}, []string{`API_AUTH_MODE: "off" is neither log_only nor enforce`}, ""},
		"an unknown dependency":                {"market_data_service", map[string]string{"STACK_DEPENDENCIES": "redis,kafka"}, []string{`STACK_DEPENDENCIES: names "kafka"`}, ""},
		"a queue twice":                        {"alert_worker", map[string]string{"RQ_QUEUES": "alerts,alerts"}, []string{`RQ_QUEUES: entry 2 ("alerts")`}, ""},
		"a memory limit":                       {"backtest_worker_dev", map[string]string{"BACKTEST_JOB_MEMORY_LIMIT": "4GB"}, []string{`BACKTEST_JOB_MEMORY_LIMIT: "4GB" is not a number of bytes`}, ""},
		"folders that cannot be written":       {"backtest_worker_dev", map[string]string{"DATA_LOCK_DIR": "/dev/null/locks", "YFINANCE_DATA_DIR": "/dev/null/y"}, []string{"DATA_LOCK_DIR: ", "YFINANCE_DATA_DIR: "}, ""},
		"a models' folder that is not there":   {"model_registry", map[string]string{"MODEL_REGISTRY_DIR": "/nowhere/at/all"}, []string{"MODEL_REGISTRY_DIR: "}, ""},
		"a session key that is too short":      {"web_console_oauth2", map[string]string{"SESSION_ENCRYPTION_KEY": "c2hvcnQ="}, []string{"SESSION_ENCRYPTION_KEY: is not 32 bytes in base64; make one with"}, "c2hvcnQ="},
		"the development key in oauth2":        {"auth_service", map[string]string{"SESSION_ENCRYPTION_KEY": strings.Repeat("A", 43) + "="}, []string{"SESSION_ENCRYPTION_KEY: is the public development key"}, ""},
		"a current HMAC key that is not there": {"web_console_dev", map[string]string{"HMAC_CURRENT_KEY_ID": "02"}, []string{`HMAC_CURRENT_KEY_ID: "02" is not an id in HMAC_SIGNING_KEYS`}, ""},
		"a console of another auth type":       {"web_console_mtls", map[string]string{"WEB_CONSOLE_AUTH_TYPE": "dev"}, []string{`WEB_CONSOLE_AUTH_TYPE: is "dev", but web_console_mtls is the console of auth type mtls`}, ""},
		"a proxy that is no address":           {"web_console_mtls", map[string]string{"TRUSTED_PROXY_IPS": "nginx"}, []string{`TRUSTED_PROXY_IPS: "nginx" is not an IP address`}, ""},
		"services that are no JSON":            {"web_console_dev", map[string]string{"STACK_SERVICES": "postgres"}, []string{"STACK_SERVICES: "}, ""},
		"plain http to a public provider":      {"auth_service", map[string]string{"AUTH0_DOMAIN": "http://tenant.example.com"}, []string{"AUTH0_DOMAIN: http is for a loopback or private provider only"}, ""},
		"secrets are never said": {"auth_service", map[string]string{"AUTH0_DOMAIN": "", "AUTH0_CLIENT_SECRET": "hush", "SESSION_ENCRYPTION_KEY": key + "x"},
			[]string{"AUTH0_DOMAIN: is required", "SESSION_ENCRYPTION_KEY: is not 32 bytes"}, "hush"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			svc, err := findService(test.service)
			require.NoError(t, err)
			var log syncBuffer
			err = serve(context.Background(), svc, environment(test.service, test.changes), &log)
			require.ErrorIs(t, err, errLogged)
			for _, text := range test.says {
				assert.Contains(t, strings.ReplaceAll(log.String(), `\"`, `"`), text)
			}
			if test.hides != "" {
				assert.NotContains(t, log.String(), test.hides)
			}
		})
	}
}

func TestIssuer(t *testing.T) {
	for value, want := range map[string]string{
		"tenant.eu.auth0.com":     "https://tenant.eu.auth0.com/",
		"tenant.eu.auth0.com/":    "https://tenant.eu.auth0.com/",
		"https://idp:8443":        "https://idp:8443",
		"https://idp:8443/realm/": "https://idp:8443/realm/",
		"http://127.0.0.1:1234":   "http://127.0.0.1:1234",
		"http://172.28.0.20:80":   "http://172.28.0.20:80",
		"http://idp:9000":         "http://idp:9000",
		"http://8.8.8.8":          "",
		"http://idp.example.com":  "",
		"https://u:p@idp":         "",
		"https://idp/?a=b":        "",
		"ftp://idp":               "",
	} {
		t.Run(value, func(t *testing.T) {
			var got issuer
			err := got.UnmarshalText([]byte(value))
			if want == "" {
				assert.Error(t, err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, want, string(got))
		})
	}
}

func TestCommandLine(t *testing.T) {
	tests := map[string]struct {
		args    []string
		environ []string
		says    string
	}{
		"an unknown service":        {[]string{"serve", "kafka"}, nil, `no service "kafka"; there are alert_worker, auth_service`},
		"no service":                {nil, nil, "say `reference serve <service>` or set SERVICE_NAME"},
		"SERVICE_NAME":              {nil, []string{"SERVICE_NAME=nothing"}, `no service "nothing"`},
		"SERVICE_NAME of a command": {[]string{"probe"}, []string{"SERVICE_NAME=nothing"}, `no service "nothing"`},
		"an unknown command":        {[]string{"run", "orchestrator"}, nil, "usage: reference serve <service>"},
		"nobody answers":            {[]string{"probe", "model_registry"}, []string{"MODEL_REGISTRY_PORT=1"}, "model_registry does not answer"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			assert.ErrorContains(t, run(context.Background(), test.args, test.environ, &syncBuffer{}), test.says)
		})
	}
}

// The image has no C library.
func TestBuildsWithoutCgo(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if .CgoFiles}}{{.ImportPath}}{{end}}", ".")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	require.NoError(t, err)
	assert.Empty(t, strings.TrimSpace(string(out)))
}
