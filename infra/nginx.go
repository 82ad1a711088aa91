package infra

import (
	"net/netip"
	"strconv"
)

// Nginx is the template data of an nginx in front of the web console.
type Nginx struct {
	// Upstreams has the addresses (host:port) of the services that nginx forwards to, by the app that they run.
	Upstreams map[string]string
	// ClientCerts says that clients must show a certificate; without it they log in through auth_service.
	ClientCerts bool
	// HTTPSPort is the host port that container port 443 is published on. Port 80 redirects to it.
	HTTPSPort int
	// CSPReportOnly makes browsers report violations of the content security policy instead of blocking them.
	CSPReportOnly bool
	// ServerNames are the names and addresses that the server accepts; a request for any other gets 421. If it is empty,
	// all are accepted. Port 80 redirects a request for an unknown name to the first.
	ServerNames []string
	// TrustedProxies is the subnet of proxies in front of nginx: X-Forwarded-For is accepted from these addresses
	// only. With the zero value it is never accepted.
	TrustedProxies netip.Prefix
	// Gateway is the gateway of nginx's network, which is never trusted. Connections to the host's published ports can
	// reach nginx from this address, so that any client could forge its address and evade the rate limits.
	Gateway netip.Addr
}

// Port returns the port for a URL, with its colon; empty for 443.
func (n Nginx) Port() string {
	if n.HTTPSPort == 443 {
		return ""
	}
	return ":" + strconv.Itoa(n.HTTPSPort)
}

// Names returns ServerNames as they are written in a URL, which is what nginx compares them with.
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

// Believed returns TrustedProxies without the gateway, as subnets.
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
		// Flipping this bit of the gateway gives the half of the next larger block that does not contain the gateway.
		bytes := n.Gateway.AsSlice()
		bytes[(bits-1)/8] ^= 1 << (7 - (bits-1)%8)
		if sibling, ok := netip.AddrFromSlice(bytes); ok {
			parts = append(parts, netip.PrefixFrom(sibling, bits).Masked())
		}
	}
	return parts
}
