package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// readEnvironment reads a service's environment. Its error names all variables that are missing or malformed. It never repeats a value,
// since any value may be a secret.
func (s *service) readEnvironment(environ []string) error {
	var faults []error
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		s.env[name] = value
		if value != "" {
			if err := s.read(name, value); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Variables)) {
		if s.env[name] == "" && (s.Variables[name] != "" || slices.Contains(s.Required, name)) {
			faults = append(faults, fmt.Errorf("%s: is required and not set", name))
		}
	}
	return errors.Join(faults...)
}

// read reads a variable that this program uses, and checks any other by what the catalog's default looks like. Its errors are its own,
// because those of libraries repeat the value.
func (s *service) read(name, value string) (err error) {
	standard, required := s.Variables[name], slices.Contains(s.Required, name)
	least, notNumber := strconv.Atoi(standard)
	ok, wrong := true, ""
	switch {
	case name == "DATABASE_URL":
		s.database, err = pgxpool.ParseConfig(value)
		ok, wrong = err == nil, "is not a URL that PostgreSQL's client understands (is the password percent-encoded?)"
	case name == "REDIS_URL":
		ok = isURL(value, "redis", "rediss")
		wrong = "is not a URL of the form redis://:password@host:port/db (is the password percent-encoded?)"
	case name == "SESSION_ENCRYPTION_KEY":
		compact := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(value, "="))
		s.sessionKey, err = base64.RawStdEncoding.DecodeString(compact)
		ok, wrong = err == nil && len(s.sessionKey) == 32, "is not 32 bytes in base64; make one with: openssl rand -base64 32"
		if ok && required && slices.Max(s.sessionKey) == 0 {
			ok, wrong = false, "is the public development key (all zeros); make one with: openssl rand -base64 32"
		}
	case name == "AUTH0_DOMAIN" && required:
		s.issuer, err = issuerOf(value)
		return err
	case name == "LOG_LEVEL": // the names of Python's logging, which the platform uses
		err = s.level.UnmarshalText([]byte(strings.NewReplacer("WARNING", "WARN", "CRITICAL", "ERROR+4").Replace(strings.ToUpper(value))))
		ok, wrong = err == nil, "is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL"
	case name == "TRUSTED_PROXY_IPS":
		for part := range strings.SplitSeq(value, ",") {
			proxies, bad := parseProxies(strings.TrimSpace(part))
			s.proxies, ok = append(s.proxies, proxies), ok && bad == nil
		}
		wrong = "is not a list of IP addresses or subnets"
	case name == "RQ_QUEUES":
		s.takes = strings.Split(value, ",")
		unique := slices.Compact(slices.Sorted(slices.Values(s.takes)))
		bad := slices.ContainsFunc(unique, func(queue string) bool { return !identifier.MatchString(queue) })
		ok, wrong = len(unique) == len(s.takes) && !bad, "is not a list of queues, each once and without spaces"
	case standard == "true" || standard == "false":
		_, err = strconv.ParseBool(value)
		ok, wrong = err == nil, "is neither true nor false"
	case notNumber == nil:
		n, bad := strconv.Atoi(value)
		ok, wrong = bad == nil && n >= min(least, 1), fmt.Sprintf("is not a whole number, %d or more", min(least, 1))
	case strings.HasPrefix(standard, "http") && !strings.Contains(standard, ",") || strings.HasPrefix(standard, "${public_url}"):
		ok, wrong = isURL(value, "http", "https"), "is not a URL of the form http://host or https://host"
	}
	if !ok {
		return errors.New(wrong)
	}
	return nil
}

// parseProxies reads an address, or the subnet of proxies whose address the orchestrator chooses.
func parseProxies(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	address, err := netip.ParseAddr(text)
	address = address.Unmap()
	return netip.PrefixFrom(address, address.BitLen()), err
}

func isURL(text string, schemes ...string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Hostname() != "" && slices.Contains(schemes, u.Scheme)
}

// issuerOf returns the issuer of a bare domain in the form of Auth0; a value with a scheme is used as it is. Plain http is allowed
// only for providers that are not reached over a public network: a loopback or private address, or a host name without a dot on a
// container network.
func issuerOf(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + strings.TrimRight(text, "/") + "/"
	}
	u, _ := url.Parse(text)
	if !isURL(text, "https", "http") || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("is neither a domain nor a plain https URL")
	}
	ip := net.ParseIP(u.Hostname())
	private := ip.IsLoopback() || ip.IsPrivate() || ip == nil && !strings.Contains(u.Hostname(), ".")
	if u.Scheme == "http" && !private {
		return "", errors.New("has http, which is for a provider on a loopback or private address only; use https")
	}
	return text, nil
}
