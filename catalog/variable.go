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
// Its value is decided in package plan: a fixed variable always has Value; any
// other takes the first of From that the user has set, else Value, and is an
// error when Required. An empty value of the user's counts as unset.
//
// Value may name facts in ${braces}: those of the stack that Facts lists, those of the
// service itself, ${port} and ${probe_url}, and those of another service of the catalog,
// ${url:NAME}, ${port:NAME} and ${origins:NAME}.
type Variable struct {
	Name     string
	Value    string
	From     []string // the user's variables that may give it, in order; empty for a fixed one
	Required bool
	// Initial is what `platform init` sets a required variable to that nobody has set.
	// Empty makes up a secret.
	Initial string
	// Ask says that only somebody else can give the value, so `platform init` asks for it.
	Ask bool
}

// Facts are the values of a stack that a Variable's Value may name in ${braces}.
// Package plan works them out.
var Facts = []string{
	"stack",         // the stack's name
	"secured",       // true where one of its profiles is secured, else false
	"docker_root",   // the dockerRoot setting
	"database_url",  // postgresql://user:password@host:port/db, from postgres and its POSTGRES_*
	"redis_url",     // redis://host:port/0, with REDIS_PASSWORD where that is set
	"nginx_address", // the nginxAddress setting
	"nginx_subnet",  // the subnet setting
	"public_url",    // where a browser finds nginx
}

// Facts of services: of the one whose value it is, and of another by its name.
var (
	ownFacts     = []string{"port", "probe_url"}      // its Port; where its probe asks for its health
	serviceFacts = []string{"url", "port", "origins"} // its URL; its Port; where a browser on this host finds it
)

func fixed(name, value string) Variable { return Variable{Name: name, Value: value} }

func optional(name, value string) Variable {
	return Variable{Name: name, Value: value, From: []string{name}}
}

func required(name string) Variable {
	return Variable{Name: name, From: []string{name}, Required: true}
}

// asked is a required variable that only somebody else can give.
func asked(name string) Variable {
	return Variable{Name: name, From: []string{name}, Required: true, Ask: true}
}

// from is a variable that takes its value from the user's variables of other names.
func from(name, value string, users ...string) Variable {
	return Variable{Name: name, Value: value, From: users}
}

// factName is a fact in a value. A shell's ${VARIABLE} is none.
var factName = regexp.MustCompile(`\$\{([a-z_]+)(?::([a-z_]+))?\}`)

// Expand replaces the facts in a value. The service is empty for a fact that names none.
func Expand(value string, fact func(name, service string) string) string {
	return factName.ReplaceAllStringFunc(value, func(text string) string {
		parts := factName.FindStringSubmatch(text)
		return fact(parts[1], parts[2])
	})
}

// Fill replaces the facts of services in a value of s. Those that only a stack knows stay.
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
