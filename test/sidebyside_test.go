//go:build live

package test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTwoStacksSideBySide has a dev and an mtls stack on one engine, under their own names, ports and subnets.
func TestTwoStacksSideBySide(t *testing.T) {
	t.Parallel()
	dir := makeCerts(t, time.Now(), "alice")
	dev := newStack(t, "dev", databases)
	mtls := newSite(t, newStack(t, "mtls", with(databases, map[string]any{"certsDir": dir, "env": secrets})), dir)
	dev.up()
	before := dev.ids()
	mtls.up()
	assertHealthy(t, dev)
	assertHealthy(t, mtls.stack)
	assert.Equal(t, before, dev.ids(), "the second stack leaves the first as it is")
	dev.unchanged("dev, with mtls beside it")
	mtls.unchanged("mtls, with dev beside it")

	origins := fmt.Sprintf("http://localhost:%d,http://127.0.0.1:%d", 8080+dev.offset, 8080+dev.offset)
	assert.Equal(t, origins, dev.inspectEnv("model_registry")["ALLOWED_ORIGINS"], "the allowed origins follow the console's port")
	answers := func(t *testing.T) {
		t.Helper()
		page := mtls.get(t, mtls.client(clientCert(t, dir, "alice")), "/")
		assert.Equal(t, http.StatusOK, page.status)
		assert.Contains(t, page.body, "CN=alice,")
	}
	answers(t)
	a, err := ask(t, http.DefaultClient, http.MethodGet, dev.url(8080, "/healthz"))
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, a.status)

	kept := mtls.ids()
	dev.destroy()
	assert.Empty(t, dev.names())
	assert.Empty(t, dev.networks())
	assert.Equal(t, kept, mtls.ids(), "destroying one leaves the other untouched")
	assertHealthy(t, mtls.stack)
	answers(t)
	mtls.unchanged("mtls, after dev has gone")
	mtls.destroy()
	assert.Empty(t, mtls.names())
	assert.Empty(t, mtls.networks())
}
