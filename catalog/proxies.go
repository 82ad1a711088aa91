package catalog

func proxies() []Service {
	return []Service{
		nginx("nginx_mtls", "mtls", Service{
			About: "nginx, lets in client certificates",
			After: []string{"web_console_mtls"},
		}),
		nginx("nginx_oauth2", "oauth2", Service{
			About: "nginx, lets in logged-in sessions",
			After: []string{"web_console_oauth2", "auth_service"},
			Env:   optional("CSP_REPORT_ONLY=false", "TRUSTED_PROXY_SUBNET=${nginx_subnet}"),
		}),
	}
}

// nginx sets what both proxies have in common.
func nginx(name, profile string, s Service) Service {
	s.Name, s.Tier, s.Profile = name, Proxy, profile
	s.Image = "nginx:1.25-alpine"
	s.Port, s.Files = 443, "nginx"
	s.Ports = []Port{{Host: 443, Login: true, URL: "https"}, {Host: 80, Container: 80, Login: true}}
	s.Certs = []string{"server.crt", "server.key", "ca.crt", "dhparam.pem"}
	s.Needs = s.After // its upstreams
	s.Networks = []string{EdgeNetwork}
	s.Proxy = true
	// nginx.conf has a separate server for it, which listens inside of the container only.
	s.Probe = Probe{Command: []string{"CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8081/healthz"}}
	s.Metrics = Metrics{Component: "proxy", Port: 9113} // a server of its own, too
	s.Capabilities, s.Memory = []string{"CHOWN", "NET_BIND_SERVICE", "SETGID", "SETUID"}, 512
	return s
}
