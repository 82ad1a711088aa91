package catalog_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"trading-platform/catalog"
)

func TestIsSecret(t *testing.T) {
	for name, test := range map[string]struct {
		variable, value string
		want            bool
	}{
		"a password":                   {"POSTGRES_PASSWORD", "x", true},
		"a password, by name alone":    {"POSTGRES_PASSWORD", "", true},
		"a secret":                     {"INTERNAL_TOKEN_SECRET", "x", true},
		"a secret key":                 {"ALPACA_API_SECRET_KEY", "x", true},
		"a token":                      {"MODEL_REGISTRY_TOKEN", "x", true},
		"a key":                        {"ALPACA_API_KEY", "x", true},
		"keys":                         {"HMAC_SIGNING_KEYS", "x", true},
		"the database's URL":           {"DATABASE_URL", "postgresql://u@h/d", true},
		"the workers' database's URL":  {"DATABASE_URL_DOCKER", "", true},
		"a URL with a password":        {"REDIS_URL", "redis://:hunter2@redis:6379/0", true},
		"a URL that does not parse":    {"REDIS_URL", "redis://:50%zz@redis:6379", true},
		"a URL with a user alone":      {"SOME_URL", "http://user@host", false},
		"a URL without a password":     {"REDIS_URL", "redis://redis:6379/0", false},
		"a key's name":                 {"ALPACA_API_KEY_ID", "x", false},
		"which key is the current one": {"HMAC_CURRENT_KEY_ID", "01", false},
		"whether a token is required":  {"INTERNAL_TOKEN_REQUIRED", "false", false},
		"a user":                       {"POSTGRES_USER", "trader", false},
		"a path":                       {"DATA_ROOT", "/app/data", false},
		"an address with an @":         {"MAIL", "me@example.com", false},
		"what is no URL at all":        {"X", "%zz", false},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, catalog.IsSecret(test.variable, test.value))
		})
	}
}

// Every secret that has a default or is fixed must be in LocalOnly, so that it is refused
// where others could reach the service.
func TestLocalOnlyListsEverySecretWithAValue(t *testing.T) {
	for _, s := range catalog.Services() {
		for _, v := range s.Env {
			if v.Value == "" || !catalog.IsSecret(v.Name, "") || v.Name == "DATABASE_URL" {
				continue
			}
			assert.Contains(t, catalog.LocalOnly[v.Name], v.Value, "%s of %s", v.Name, s.Name)
		}
	}
	assert.Equal(t, map[string][]string{
		"POSTGRES_PASSWORD":           {"trader"},
		"GF_SECURITY_ADMIN_PASSWORD":  {"admin"},
		"WEB_CONSOLE_PASSWORD":        {"admin"},
		"ALERT_RECIPIENT_HASH_SECRET": {"local-only-alert-hash-secret"},
		"HMAC_SIGNING_KEYS":           {"01:" + strings.Repeat("0", 64)},
		"SESSION_ENCRYPTION_KEY":      {"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},
	}, catalog.LocalOnly)
}

func TestUserVariables(t *testing.T) {
	names := catalog.UserVariables()
	assert.True(t, slices.IsSorted(names))
	assert.Equal(t, names, slices.Compact(slices.Clone(names)), "each once")
	for _, settable := range []string{
		"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "REDIS_URL_DOCKER", "DATABASE_URL_DOCKER",
		"GF_SECURITY_ADMIN_USER", "GF_SECURITY_ADMIN_PASSWORD", "WEB_CONSOLE_UID", "WEB_CONSOLE_GID",
		"ALPACA_API_KEY", "ALPACA_API_KEY_ID", "NOTEBOOK_LAUNCH_COMMAND", "QLIB_SOURCE_DIR",
		"REDIS_HOST", "ENVIRONMENT", // fixed in some services, and a user's in others
	} {
		assert.Contains(t, names, settable)
	}
	for _, fixed := range []string{
		"DATABASE_URL", "REDIS_URL", "REDIS_DB", "RQ_QUEUES", "EXECUTION_GATEWAY_URL", "ORCHESTRATOR_URL", "MODEL_REGISTRY_URL",
		"SIGNAL_SERVICE_URL", "MARKET_DATA_SERVICE_URL", "PROJECT_ROOT", "HOME", "JUPYTER_DATA_DIR", "SESSION_TIMEOUT_MINUTES",
		"SESSION_ABSOLUTE_TIMEOUT_HOURS", "WEB_CONSOLE_AUTH_TYPE", "TRUSTED_PROXY_IPS", "OAUTH2_LOGIN_URL", "OAUTH2_LOGOUT_URL",
		"INTERNAL_CA_BUNDLE", "MODEL_REGISTRY_DIR", "MODEL_REGISTRY_PORT", "ALLOWED_ORIGINS", "DATA_ROOT", "DATA_LOCK_DIR",
		"YFINANCE_DATA_DIR", "HMAC_SIGNING_KEYS", "HMAC_CURRENT_KEY_ID", "WEB_CONSOLE_NG_DEBUG", "APP_UID", "APP_GID",
	} {
		assert.NotContains(t, names, fixed)
	}
}

// Every fact of a stack is used in some value. Check finds facts that are used but do not exist.
func TestEveryFactIsUsed(t *testing.T) {
	named := map[string]bool{}
	for _, s := range catalog.Services() {
		words := slices.Clone(s.Probe.Command)
		for _, m := range s.Mounts {
			words = append(words, m.Host)
		}
		for _, v := range s.Env {
			words = append(words, v.Value)
		}
		for _, word := range words {
			catalog.Expand(word, func(fact, _ string) string {
				named[fact] = true
				return ""
			})
		}
	}
	for _, fact := range catalog.Facts {
		assert.True(t, named[fact], "%s is worked out and never used", fact)
	}
}
