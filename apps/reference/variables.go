package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
)

// variables reads a service's environment. Its error names all variables of the contract that are missing or malformed. An error
// never repeats a value, since any value may be a secret.
func (c contract) variables(environ []string) (map[string]string, error) {
	values := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		values[name] = value
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(c.Variables)) {
		value, required := values[name], slices.Contains(c.Required, name)
		if value == "" && (required || c.Variables[name] != "") {
			faults = append(faults, fmt.Errorf("%s: is required and not set", name))
		} else if value != "" {
			if err := checkValue(name, value, c.Variables[name], required); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	return values, errors.Join(faults...)
}

// checkValue checks a value by the variable's name where this program depends on it, else by what the catalog's default looks like.
func checkValue(name, value, standard string, required bool) (err error) {
	n, notNumber := strconv.Atoi(standard)
	switch {
	case name == "DATABASE_URL":
		if _, err = pgxpool.ParseConfig(value); err != nil {
			err = errors.New("is not a URL that PostgreSQL's client understands (is the password percent-encoded?)")
		}
	case name == "REDIS_URL":
		if _, bad := redis.ParseURL(value); bad != nil || !strings.Contains(value, "://") {
			err = errors.New("is not a URL of the form redis://:password@host:port/db (is the password percent-encoded?)")
		}
	case name == "SESSION_ENCRYPTION_KEY":
		var key []byte
		if key, err = sessionKey(value); err == nil && required && slices.Max(key) == 0 {
			err = errors.New("is the public development key (all zeros); make one with: openssl rand -base64 32")
		}
	case name == "AUTH0_DOMAIN" && required:
		_, err = issuerOf(value)
	case name == "LOG_LEVEL":
		_, err = levelOf(value)
	case name == "RQ_QUEUES":
		queues := strings.Split(value, ",")
		if slices.ContainsFunc(queues, func(q string) bool { return !identifier.MatchString(q) }) || len(slices.Compact(slices.Sorted(slices.Values(queues)))) < len(queues) {
			err = errors.New("is not a list of queues, each once and without spaces")
		}
	case standard == "${nginx_address}":
		_, err = addressesOf(value)
	case standard == "true" || standard == "false":
		if _, err = strconv.ParseBool(value); err != nil {
			err = errors.New("is neither true nor false")
		}
	case notNumber == nil:
		if got, bad := strconv.Atoi(value); bad != nil || got < min(n, 1) {
			err = fmt.Errorf("is not a whole number, %d or more", min(n, 1))
		}
	case strings.HasPrefix(standard, "http") && !strings.Contains(standard, ",") || strings.HasPrefix(standard, "${public_url}"):
		if u, bad := url.Parse(value); bad != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
			err = errors.New("is not a URL of the form http://host or https://host")
		}
	}
	return err
}

// levelOf accepts the level names of Python's logging, which the platform uses.
func levelOf(name string) (level slog.Level, err error) {
	name = strings.NewReplacer("WARNING", "WARN", "CRITICAL", "ERROR+4").Replace(strings.ToUpper(name))
	if level.UnmarshalText([]byte(name)) != nil {
		err = errors.New("is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL")
	}
	return level, err
}

// sessionKey reads 32 bytes in base64, of the standard or the URL alphabet.
func sessionKey(text string) ([]byte, error) {
	compact := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	key, err := base64.RawStdEncoding.DecodeString(compact)
	if err != nil || len(key) != 32 {
		return nil, errors.New("is not 32 bytes in base64; make one with: openssl rand -base64 32")
	}
	return key, nil
}

// issuerOf returns the issuer of a bare domain in the form of Auth0; a value with a scheme is used as it is. Plain http is allowed only for
// providers that are not reached over a public network: a loopback or private address, or a host name without a dot on a container network.
func issuerOf(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + strings.TrimRight(text, "/") + "/"
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("is neither a domain nor a plain https URL")
	}
	ip := net.ParseIP(u.Hostname())
	private := ip.IsLoopback() || ip.IsPrivate() || ip == nil && !strings.Contains(u.Hostname(), ".")
	if u.Scheme == "http" && !private {
		return "", errors.New("has http, which is for a provider on a loopback or private address only; use https")
	}
	return text, nil
}

// addresses are IP addresses of proxies that are trusted.
type addresses []netip.Addr

func addressesOf(text string) (list addresses, err error) {
	if text == "" {
		return nil, nil
	}
	for _, part := range strings.Split(text, ",") {
		address, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil {
			return nil, errors.New("is not a list of IP addresses")
		}
		list = append(list, address.Unmap())
	}
	return list, nil
}

// holds reports whether a TCP peer ("address:port") is one of the addresses.
func (a addresses) holds(peer string) bool {
	ap, err := netip.ParseAddrPort(peer)
	return err == nil && slices.Contains(a, ap.Addr().Unmap())
}
