package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
		"missing and malformed together":    {"execution_gateway", map[string]string{"REDIS_PORT": "6379x", "STRATEGY_ID": ""}, []string{`REDIS_PORT: is not a whole number, 1 or more`, "STRATEGY_ID: is required"}, ""},
		"a database URL keeps its password": {"signal_service", map[string]string{"DATABASE_URL": "mysql://u:pa55@h/db"}, []string{"DATABASE_URL: is not a URL that PostgreSQL"}, "pa55"},
		"a broken database URL too":         {"signal_service", map[string]string{"DATABASE_URL": "postgresql://u:pa55%zz@h/db"}, []string{"DATABASE_URL: is not a URL"}, "pa55"},
		"a Redis URL":                       {"alert_worker", map[string]string{"REDIS_URL": "redis:6379"}, []string{"REDIS_URL: is not a URL of the form redis://"}, ""},
		"a log level":                       {"signal_service", map[string]string{"LOG_LEVEL": "LOUD"}, []string{`LOG_LEVEL: is not one of DEBUG`}, ""},
		"a switch":                          {"execution_gateway", map[string]string{"DEBUG": "maybe"}, []string{"DEBUG: is neither true nor false"}, ""},
		"a queue twice":                     {"alert_worker", map[string]string{"RQ_QUEUES": "alerts,alerts"}, []string{`RQ_QUEUES: is not a list of queues, each once`}, ""},
		"a memory limit":                    {"backtest_worker_dev", map[string]string{"BACKTEST_JOB_MEMORY_LIMIT": "4GB"}, []string{`BACKTEST_JOB_MEMORY_LIMIT: is not a whole number`}, ""},
		"folders that cannot be written":    {"backtest_worker_dev", nil, []string{"give the folder, or the volume that it lies in, to user"}, ""},
		"a session key that is too short":   {"web_console_oauth2", map[string]string{"SESSION_ENCRYPTION_KEY": "c2hvcnQ="}, []string{"SESSION_ENCRYPTION_KEY: is not 32 bytes in base64; make one with"}, "c2hvcnQ="},
		"the development key in oauth2":     {"auth_service", map[string]string{"SESSION_ENCRYPTION_KEY": strings.Repeat("A", 43) + "="}, []string{"SESSION_ENCRYPTION_KEY: is the public development key"}, ""},
		"a console of another auth type":    {"web_console_mtls", map[string]string{"WEB_CONSOLE_AUTH_TYPE": "dev"}, []string{`WEB_CONSOLE_AUTH_TYPE: web_console_mtls is the console of auth type mtls`}, ""},
		"a proxy that is no address":        {"web_console_mtls", map[string]string{"TRUSTED_PROXY_IPS": "nginx"}, []string{`TRUSTED_PROXY_IPS: is not a list of IP addresses or subnets`}, ""},
		"plain http to a public provider":   {"auth_service", map[string]string{"AUTH0_DOMAIN": "http://tenant.example.com"}, []string{"AUTH0_DOMAIN: has http, which is for a provider on a loopback or private address only"}, ""},
		"secrets are never said": {"auth_service", map[string]string{"AUTH0_DOMAIN": "", "AUTH0_CLIENT_SECRET": "hush", "SESSION_ENCRYPTION_KEY": key + "x"},
			[]string{"AUTH0_DOMAIN: is required", "SESSION_ENCRYPTION_KEY: is not 32 bytes"}, "hush"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var log syncBuffer
			ctx, cancel := context.WithTimeout(t.Context(), time.Second) // a service that starts after all is stopped
			defer cancel()
			err := serve(ctx, contractFor(test.service), environment(test.service, test.changes), &log)
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
			got, err := issuerOf(value)
			if want == "" {
				assert.Error(t, err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}

func TestSwitchesAndNumbersKeepTheirForm(t *testing.T) {
	for name, test := range map[string]struct{ value, standard string }{
		"a switch": {"yes please", "false"}, "a number": {"-1", "100"}, "zero where the default is more": {"0", "15"}, "a URL": {"iex.example", "https://api.example"},
	} {
		assert.Error(t, readAs(test.standard, test.value), name)
	}
	for _, test := range []struct{ value, standard string }{{"TRUE", "false"}, {"0", "0"}, {"7", "100"}, {"http://h:1/p", "https://api.example"}, {"anything", "text"}} {
		assert.NoError(t, readAs(test.standard, test.value), test)
	}
}

// readAs reads a variable whose default is standard.
func readAs(standard, value string) error {
	return newService(contract{Variables: map[string]string{"X": standard}}, io.Discard).read("X", value)
}

func TestEveryServiceStartsWithTheEnvironmentOfTheStack(t *testing.T) {
	for name := range contracts {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, name, nil)
			code, text, _ := f.ask(t, "GET", f.service.contract.url().Path, "")
			assert.Equal(t, http.StatusOK, code, text)
			assert.NotEmpty(t, f.service.contract.url().Port())
		})
	}
}

func TestCommandLine(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	good := write("good.json", `{"name":"orchestrator","health":"http://orchestrator:1/health"}`)
	for name, test := range map[string]struct {
		args     []string
		contract string
		says     string
	}{
		"no command":            {nil, good, "usage: reference serve"},
		"an unknown command":    {[]string{"run"}, good, "usage: reference serve"},
		"no contract":           {[]string{"serve"}, filepath.Join(folder, "none.json"), "none.json: no such file or directory; the stack program puts it there"},
		"a contract of no JSON": {[]string{"serve"}, write("bad.json", "hello"), "bad.json: invalid character"},
		"a contract of no port": {[]string{"serve"}, write("empty.json", "{}"), "empty.json: health is not a URL with a port"},
		"nothing to probe":      {[]string{"probe"}, good, "orchestrator does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.ErrorContains(t, run(t.Context(), test.args, test.contract, nil, &syncBuffer{}), test.says)
		})
	}
}

func TestProbe(t *testing.T) {
	f := newFixture(t, "execution_gateway", nil, needs("postgres"))
	assert.NoError(t, probe(t.Context(), f.url+"/health", f.Name))
	f.db.fail(errors.New("connection refused"))
	f.health.ask(t.Context(), true)
	assert.ErrorContains(t, probe(t.Context(), f.url+"/health", f.Name), `execution_gateway answers 503: {"service":"execution_gateway","status":"unavailable"`)
}

// The image has no C library.
func TestBuildsWithoutCgo(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if .CgoFiles}}{{.ImportPath}}{{end}}", ".")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	require.NoError(t, err)
	assert.Empty(t, strings.TrimSpace(string(out)))
}
