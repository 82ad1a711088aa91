//go:build live

package test

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestManual(t *testing.T) {
	t.Parallel()
	s := newStack(t, "manual", map[string]any{
		"disabled": databases["disabled"], "env": secrets,
	})
	s.up()
	assertHealthy(t, s)
	assert.Subset(t, s.names(), []string{"postgres", "redis", "web_console"})
	assert.Empty(t, s.inspect("web_console").HostConfig.PortBindings, "no port of the host")
	s.unchanged("a preview after up")

	page := s.fromInside(t, "default", "web_console", 8080, "/")
	assert.Contains(t, page, "303 See Other", "a stranger has to log in")
	assert.Contains(t, page, "Location: /login")
	assert.Contains(t, s.fromInside(t, "default", "web_console", 8080, "/login"), `<form method="post" action="/login">`)
	forged := s.fromInside(t, "default", "web_console", 8080, "/", "X-SSL-Client-Verify", "SUCCESS", "X-SSL-Client-S-DN", "CN=mallory")
	assert.Contains(t, forged, "303 See Other", "the headers of mtls mean nothing here")
}
