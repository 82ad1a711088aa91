package catalog

import (
	"net/url"
	"slices"
	"strings"
)

// Variable is one environment variable (or build argument) of a service.
//
// Its value is decided in package plan: a fixed variable always has Value; any
// other takes the first of From that the user has set, else Value, and is an
// error when Required. An empty value of the user's counts as unset.
//
// Value may name facts of the stack in ${braces}; Facts lists them.
type Variable struct {
	Name     string
	Value    string
	From     []string // the user's variables that may give it, in order; empty for a fixed one
	Required bool
}

// Facts are the values of a stack that a Variable's Value may name in ${braces}.
// Package plan works them out.
var Facts = []string{
	"stack",           // the stack's name
	"secured",         // true where one of its profiles is secured, else false
	"docker_root",     // the dockerRoot setting
	"database_url",    // postgresql://user:password@postgres:5432/db, from POSTGRES_*
	"redis_url",       // redis://redis:6379/0, with REDIS_PASSWORD where that is set
	"nginx_address",   // the nginxAddress setting
	"nginx_subnet",    // the subnet setting
	"console_origins", // where a browser on this host finds the dev console
	"public_url",      // where a browser finds nginx
}

func fixed(name, value string) Variable { return Variable{Name: name, Value: value} }

func optional(name, value string) Variable {
	return Variable{Name: name, Value: value, From: []string{name}}
}

func required(name string) Variable {
	return Variable{Name: name, From: []string{name}, Required: true}
}

// from is a variable that takes its value from the user's variables of other names.
func from(name, value string, users ...string) Variable {
	return Variable{Name: name, Value: value, From: users}
}

// LocalOnly holds the values that the dev and workers stacks ship so that they
// run on a clean clone. They are no secrets, and therefore refused wherever
// others could reach the service: in mtls and oauth2, and on an address that is
// not loopback.
var LocalOnly = map[string][]string{
	"POSTGRES_PASSWORD":           {"trader"},
	"GF_SECURITY_ADMIN_PASSWORD":  {"admin"},
	"WEB_CONSOLE_PASSWORD":        {"admin"},
	"ALERT_RECIPIENT_HASH_SECRET": {"local-only-alert-hash-secret"},
	"HMAC_SIGNING_KEYS":           {devSigningKeys},
	"SESSION_ENCRYPTION_KEY":      {devSessionKey},
}

// IsSecret tells whether a variable of this name and value must be kept secret:
// by its name's ending, or because its value is a URL with a password in it.
func IsSecret(name, value string) bool {
	for _, ending := range []string{"_PASSWORD", "_SECRET", "_SECRET_KEY", "_TOKEN", "_KEY", "_KEYS"} {
		if strings.HasSuffix(name, ending) {
			return true
		}
	}
	if strings.HasPrefix(name, "DATABASE_URL") {
		return true
	}
	u, err := url.Parse(value)
	if err != nil {
		return strings.Contains(value, "://") && strings.Contains(value, "@")
	}
	_, set := u.User.Password()
	return set
}

// UserVariables gives the names of all variables that a user may set, sorted.
func UserVariables() []string {
	var names []string
	for _, s := range Services() {
		for _, v := range slices.Concat(s.Env, s.BuildArgs, s.BuildContexts) {
			names = append(names, v.From...)
		}
		for _, p := range s.Ports {
			if p.When != "" {
				names = append(names, p.When)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
