package infra

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
)

// nginxView is what the template of nginx.conf reads.
type nginxView struct {
	Nginx
	// Service is nginx_mtls or nginx_oauth2.
	Service string
	// MTLS says that clients must show a certificate; without it they log in through auth_service.
	MTLS bool
	// TrustedProxies are the parts of TrustedProxySubnet that are believed.
	TrustedProxies []netip.Prefix
	// Port follows the host name in URLs: empty for 443, else with its colon.
	Port string
}

func nginx(service string, n Nginx) (map[string]string, error) {
	mtls := service == "nginx_mtls"
	if err := n.check(mtls); err != nil {
		return nil, err
	}
	view := nginxView{Nginx: n, Service: service, MTLS: mtls}
	if n.HTTPSPort != 443 {
		view.Port = ":" + strconv.Itoa(n.HTTPSPort)
	}
	if n.TrustedProxySubnet != "" {
		view.TrustedProxies = without(n.Gateway, netip.MustParsePrefix(n.TrustedProxySubnet))
	}
	view.ServerNames = nil
	for _, name := range n.ServerNames {
		// As it stands in a URL, so that it is what nginx compares with.
		if address, err := netip.ParseAddr(name); err == nil && address.Is6() {
			name = "[" + address.String() + "]"
		}
		view.ServerNames = append(view.ServerNames, name)
	}
	return tree("files/nginx", "/etc/nginx", view)
}

// without splits a subnet around an address.
func without(gateway netip.Addr, subnet netip.Prefix) []netip.Prefix {
	subnet = subnet.Masked()
	if !subnet.Contains(gateway) {
		return []netip.Prefix{subnet}
	}
	var parts []netip.Prefix
	for bits := subnet.Addr().BitLen(); bits > subnet.Bits(); bits-- {
		// The half of the next larger block that does not hold the gateway: the bit that tells the halves apart, turned.
		bytes := gateway.AsSlice()
		bytes[(bits-1)/8] ^= 1 << (7 - (bits-1)%8)
		if sibling, ok := netip.AddrFromSlice(bytes); ok {
			parts = append(parts, netip.PrefixFrom(sibling, bits).Masked())
		}
	}
	return parts
}

// serverName is what may stand in a configuration without quotes: anything else could end a directive and start another.
var serverName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$|^\[?[0-9a-fA-F:.]+\]?$`)

// check finds what nginx would refuse, and what it would read as more than a value.
func (n Nginx) check(mtls bool) error {
	var faults []error
	upstream := func(name, address string) {
		host, port, err := net.SplitHostPort(address)
		if number, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || number == 0 || !serverName.MatchString(host) {
			faults = append(faults, fmt.Errorf("the address of %s is %q: it must be host:port", name, address))
		}
	}
	upstream("the web console", n.Console)
	if !mtls {
		upstream("auth_service", n.Auth)
	}
	if n.HTTPSPort < 1 || n.HTTPSPort > 65535 {
		faults = append(faults, fmt.Errorf("the HTTPS port is %d: it must be from 1 to 65535", n.HTTPSPort))
	}
	for _, name := range n.ServerNames {
		if !serverName.MatchString(name) {
			faults = append(faults, fmt.Errorf("the server name %q is neither a host name nor an address", name))
		}
	}
	if n.TrustedProxySubnet != "" {
		if _, err := netip.ParsePrefix(n.TrustedProxySubnet); err != nil {
			faults = append(faults, fmt.Errorf("TRUSTED_PROXY_SUBNET is %q: it must be a subnet, for example 172.28.0.0/24", n.TrustedProxySubnet))
		}
	}
	return errors.Join(faults...)
}
