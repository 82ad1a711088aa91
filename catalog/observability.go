package catalog

// observability returns what shows more of a stack than its services do themselves. It is a profile, and not in every stack,
// because each exporter takes memory and a connection, and nobody needs them to work on one service.
func observability() []Service {
	return []Service{
		exporter("postgres_exporter", 9187, Service{
			About:       "metrics of PostgreSQL",
			Image:       "quay.io/prometheuscommunity/postgres-exporter:v0.15.0",
			Env:         fixed("DATA_SOURCE_NAME=${database_url}?sslmode=disable"),
			After:       []string{"postgres"},
			Connections: 2,
			Metrics:     Metrics{Component: "database"},
		}),
		exporter("redis_exporter", 9121, Service{
			About:       "metrics of Redis",
			Image:       "oliver006/redis_exporter:v1.58.0-alpine", // the image without alpine has nothing to probe with
			Env:         join(fixed("REDIS_ADDR=redis://redis:${port:redis}"), redisPassword),
			After:       []string{"redis"},
			Connections: 1,
			Metrics:     Metrics{Component: "database"},
		}),
		exporter("node_exporter", 9100, Service{
			About: "metrics of the engine's host, and which services the stack should have",
			Image: "prom/node-exporter:v1.8.2", Files: "node_exporter",
			// Without a mount of the host, the kernel still shows it the host's processors, memory and disks. Its own root
			// file system has the space of the disk that the engine stores everything on.
			Command: []string{
				"--collector.textfile.directory=/etc/node_exporter", "--no-collector.systemd",
				"--collector.filesystem.mount-points-exclude=^/.+", "--collector.filesystem.fs-types-exclude=^$",
			},
			Metrics: Metrics{Component: "host"},
		}),
		exporter("alertmanager", 9093, Service{
			About: "Alertmanager, passes alerts on",
			Image: "prom/alertmanager:v0.27.0", Files: "alertmanager",
			Command: []string{"--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager", "--cluster.listen-address="},
			Ports:   []Port{{Host: 9093, URL: "http"}},
			Tmpfs:   []string{"/alertmanager"}, // silences end with the container
			Probe:   Probe{Path: "/-/ready"},
			Metrics: Metrics{Component: "monitoring"},
		}),
	}
}

// exporter sets what the services of the profile have in common.
func exporter(name string, port int, s Service) Service {
	s.Name, s.Tier, s.Profile, s.Port = name, Observability, "observability", port
	s.Probe.Command = wget
	if s.Probe.Path == "" {
		s.Probe.Path = "/" // a page that does not ask the server which the metrics are of
	}
	s.Memory = 256
	return s
}
