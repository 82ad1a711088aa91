//go:build live

package test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestNobodyOutsideNamesTheirAddress asks nginx through the host's port, where everyone
// comes from the gateway, and from a container on its network, where a proxy may stand.
func TestNobodyOutsideNamesTheirAddress(t *testing.T) {
	t.Parallel()
	dir := makeCerts(t, time.Now())
	s := newSite(t, newStack(t, "oauth2", map[string]any{"certsDir": dir, "disabled": databases["disabled"]}), dir)
	whole := netip.MustParsePrefix(s.subnet)
	at := whole.Addr().As4()
	at[3] = 64
	quarter := netip.PrefixFrom(netip.AddrFrom4(at), whole.Bits()+2).String()
	for _, place := range []struct{ subnet, trusted string }{
		{quarter, ""},                             // all of it, by default
		{quarter, "10.0.0.0/8"},                   // more than it
		{s.subnet, "0.0.0.0/0"},                   // everybody
		{s.subnet, whole.Addr().String() + "/30"}, // a part with the gateway
	} {
		t.Run(place.subnet+" with "+place.trusted, func(t *testing.T) {
			s := &site{stack: s.in(t), nginx: s.nginx, roots: s.roots}
			s.configure(map[string]any{"subnet": place.subnet, "nginxAddress": "", "env": with(secrets, map[string]any{
				"AUTH0_DOMAIN": "tenant.example.com", "AUTH0_CLIENT_ID": "console", "AUTH0_CLIENT_SECRET": "of-the-test-provider",
				"SESSION_ENCRYPTION_KEY": base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32))), "TRUSTED_PROXY_SUBNET": place.trusted,
			})})
			s.up()
			gateway := netip.MustParsePrefix(place.subnet).Addr().Next().String()
			a, err := ask(t, s.client(nil), http.MethodGet, s.https("/outside"), "X-Forwarded-For", "198.51.100.7")
			require.NoError(t, err)
			assert.NotEmpty(t, a.status)
			assert.Equal(t, gateway, s.clientOf(t, "/outside"), "the forged address is not believed")
			s.fromInside(t, "trading_platform", s.nginx, 80, "/inside", "X-Forwarded-For", "198.51.100.8")
			if strings.HasSuffix(place.trusted, "/30") {
				assert.NotEqual(t, "198.51.100.8", s.clientOf(t, "/inside"), "the container is not in that part")
			} else {
				assert.Equal(t, "198.51.100.8", s.clientOf(t, "/inside"), "a proxy in front is believed")
			}
		})
	}
}

// clientOf returns the address that nginx's log has for the last request of a path.
func (s *site) clientOf(t *testing.T, path string) string {
	t.Helper()
	found := ""
	require.Eventually(t, func() bool {
		for line := range strings.Lines(s.logs(s.prefix+"_"+s.nginx, "all")) {
			var entry struct{ Path, Client string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Path == path {
				found = entry.Client
			}
		}
		return found != ""
	}, 10*time.Second, 100*time.Millisecond, "no line of %s", path)
	return found
}
