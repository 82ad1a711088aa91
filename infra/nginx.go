package infra

import (
	"net/netip"
	"strconv"
)

// Nginx fills the configuration of an nginx in front of the web console.
type Nginx struct {
	// Upstreams are the services that requests go to, as host:port, by the app that they run.
	Upstreams map[string]string
	// ClientCerts says that clients must show a certificate; without it they log in through auth_service.
	ClientCerts bool
	// HTTPSPort is the port of the host that leads to container port 443. Port 80 redirects to it.
	HTTPSPort int
	// CSPReportOnly has browsers report what the content security policy forbids instead of blocking it.
	CSPReportOnly bool
	// ServerNames are the names and addresses that the server answers to. A request for any other gets 421. None
	// means any. The first is where port 80 redirects a request for an unknown name.
	ServerNames []string
	// TrustedProxies is where a proxy in front of nginx may stand: from there, and from nowhere else,
	// X-Forwarded-For is believed. The zero value means from nowhere.
	TrustedProxies netip.Prefix
	// Gateway is the gateway of nginx's network, which is never believed: the engine brings what arrives at the host's
	// own ports from there, so that anyone could name any address as theirs and slip under the limits.
	Gateway netip.Addr
}

// Port follows the host name in URLs: empty for 443, else with its colon.
func (n Nginx) Port() string {
	if n.HTTPSPort == 443 {
		return ""
	}
	return ":" + strconv.Itoa(n.HTTPSPort)
}

// Names gives ServerNames as they stand in a URL, which is what nginx compares with.
func (n Nginx) Names() []string {
	var names []string
	for _, name := range n.ServerNames {
		if address, err := netip.ParseAddr(name); err == nil && address.Is6() {
			name = "[" + address.String() + "]"
		}
		names = append(names, name)
	}
	return names
}

// Believed gives TrustedProxies without the gateway, as subnets.
func (n Nginx) Believed() []netip.Prefix {
	subnet := n.TrustedProxies.Masked()
	switch {
	case !subnet.IsValid():
		return nil
	case !subnet.Contains(n.Gateway):
		return []netip.Prefix{subnet}
	}
	var parts []netip.Prefix
	for bits := subnet.Addr().BitLen(); bits > subnet.Bits(); bits-- {
		// The half of the next larger block that does not hold the gateway: the bit that tells the halves apart, turned.
		bytes := n.Gateway.AsSlice()
		bytes[(bits-1)/8] ^= 1 << (7 - (bits-1)%8)
		if sibling, ok := netip.AddrFromSlice(bytes); ok {
			parts = append(parts, netip.PrefixFrom(sibling, bits).Masked())
		}
	}
	return parts
}
