package catalog

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Variable is one environment variable (or build argument) of a service.
//
// Package plan decides its value: a fixed variable always has Value; any other has the
// value of the first variable in From that the user has set, or else Value. It is an
// error if a Required variable has no value. A variable that the user sets to an empty
// value counts as not set.
//
// Value may contain facts, written as ${fact}: those of the stack that Facts lists, those
// of the service itself, ${port} and ${probe_url}, and those of another service of the
// catalog, ${url:NAME}, ${port:NAME} and ${origins:NAME}.
type Variable struct {
	Name     string
	Value    string
	From     []string // the user's variables to take the value from, in order; empty for a fixed variable
	Required bool
	Initial  string // what `platform init` gives a required variable that is not set; if empty, it generates a secret
	Ask      bool   // the value cannot be generated, so `platform init` asks the user for it
}

// Facts are the values of a stack that a Variable's Value may contain as ${fact}.
// Package plan computes them.
var Facts = []string{
	"stack",         // the stack's name
	"secured",       // true if one of its profiles is secured, else false
	"docker_root",   // the dockerRoot setting
	"database_url",  // postgresql://user:password@host:port/db, from postgres and its POSTGRES_*
	"redis_url",     // redis://host:port/0, with REDIS_PASSWORD if that is set
	"nginx_address", // the nginxAddress setting
	"nginx_subnet",  // the subnet setting
	"public_url",    // the URL of nginx for browsers
}

// Facts of services: of the service that has the variable, and of another service by name.
var (
	ownFacts     = []string{"port", "probe_url"}      // its Port; the URL that its probe requests
	serviceFacts = []string{"url", "port", "origins"} // its URL; its Port; its URLs for a browser on this host
)

// fixed returns variables that the user cannot set, each written as NAME=value.
func fixed(pairs ...string) []Variable {
	var all []Variable
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		all = append(all, Variable{Name: name, Value: value})
	}
	return all
}

// optional returns variables that the user can set, each written as NAME=default, or as NAME if the default is empty.
func optional(pairs ...string) []Variable {
	return change(fixed(pairs...), func(v *Variable) { v.From = []string{v.Name} })
}

// required returns variables that the user must set.
func required(names ...string) []Variable {
	return change(optional(names...), func(v *Variable) { v.Required = true })
}

// from returns a variable, written as NAME=default, that takes its value from the user's variables of other names.
func from(pair string, users ...string) []Variable {
	return change(fixed(pair), func(v *Variable) { v.From = users })
}

func change(all []Variable, edit func(*Variable)) []Variable {
	for i := range all {
		edit(&all[i])
	}
	return all
}

// factName matches a fact in a value. It does not match a shell's ${VARIABLE}.
var factName = regexp.MustCompile(`\$\{([a-z_]+)(?::([a-z_]+))?\}`)

// Expand replaces the facts in a value. service is empty for a fact without one, such as ${port}.
func Expand(value string, fact func(name, service string) string) string {
	return factName.ReplaceAllStringFunc(value, func(text string) string {
		parts := factName.FindStringSubmatch(text)
		return fact(parts[1], parts[2])
	})
}

// Fill replaces the facts of services in a value of s. Facts of the stack are left in place.
func (s Service) Fill(value string) string {
	return Expand(value, func(fact, service string) string {
		of := s
		if service != "" {
			of, _ = Lookup(service)
		}
		switch fact {
		case "port":
			return strconv.Itoa(of.Port)
		case "url":
			return of.URL()
		case "probe_url":
			return "http://127.0.0.1:" + strconv.Itoa(of.Port) + of.Probe.Path
		}
		return "${" + strings.TrimSuffix(fact+":"+service, ":") + "}"
	})
}

// LocalOnly holds the passwords and keys that ship with the dev and workers stacks so
// that they run on a fresh clone. They are public, and are therefore refused where
// others could reach the service: in secured profiles, and on an address that is not
// loopback.
var LocalOnly = map[string][]string{
	"POSTGRES_PASSWORD":           {"trader"},
	"GF_SECURITY_ADMIN_PASSWORD":  {"admin"},
	"WEB_CONSOLE_PASSWORD":        {"admin"},
	"ALERT_RECIPIENT_HASH_SECRET": {"local-only-alert-hash-secret"},
	"HMAC_SIGNING_KEYS":           {devSigningKeys},
	"SESSION_ENCRYPTION_KEY":      {devSessionKey},
}

// IsLocalOnly reports whether a variable has one of those public values.
func IsLocalOnly(name, value string) bool { return slices.Contains(LocalOnly[name], value) }

// secretName matches the names of variables that hold a secret.
var secretName = regexp.MustCompile(`^DATABASE_URL|_(PASSWORD|SECRET|TOKEN|KEY|KEYS)$`)

// IsSecret reports whether a variable must be kept secret: because of its name, or
// because its value is a URL that contains a password.
func IsSecret(name, value string) bool {
	if secretName.MatchString(name) {
		return true
	}
	u, err := url.Parse(value)
	if err != nil {
		return strings.Contains(value, "://") && strings.Contains(value, "@")
	}
	_, set := u.User.Password()
	return set
}

// UserVariables returns the sorted names of all variables that a user may set.
func UserVariables() []string {
	var names []string
	for _, s := range Services() {
		for _, v := range slices.Concat(s.Env, s.BuildArgs, s.BuildContexts) {
			names = append(names, v.From...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
