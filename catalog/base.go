package catalog

import (
	"slices"
	"time"
)

func base() []Service {
	return []Service{
		{
			Name: "postgres", Tier: Base, About: "PostgreSQL, the system of record",
			Image:  "postgres:16",
			Env:    optional("POSTGRES_USER=trader", "POSTGRES_PASSWORD=trader", "POSTGRES_DB=trader"),
			Port:   5432,
			Ports:  []Port{{Host: 5433, Guard: "POSTGRES_PASSWORD", URL: "postgresql"}},
			Mounts: []Mount{{Volume: "pgdata", Path: "/var/lib/postgresql/data"}},
			Probe: Probe{
				Command: []string{"CMD-SHELL", postgresProbe},
				Timeout: 15 * time.Second, // it may create a database
				Start:   5 * time.Minute,  // replaying its log after a crash
			},
			Memory: 4096,
			Clients: Clients{
				Facts: []string{"database_url"}, Max: 100, Reserved: 20, Memory: 3,
				Raise: []string{"postgres", "-c", "max_connections="},
			},
			ReadOnly: true, Tmpfs: []string{"/tmp", "/run/postgresql"},
			// A probe that times out leaves its psql to the first process. If that were PostgreSQL, it would
			// treat the exit of psql as the crash of a session, and restart. The init needs KILL to forward
			// the stop signal to a process of another user; without it, PostgreSQL would be killed.
			Init: true, Capabilities: append(slices.Clone(rootSetup), "KILL"),
			Grace: 60 * time.Second, // a fast shutdown writes a checkpoint
		},
		{
			Name: "redis", Tier: Base, About: "Redis, queues and caches",
			Image:   "redis:7-alpine",
			Command: []string{"sh", "-c", redisCommand},
			Env:     redisPassword,
			Port:    6379,
			Ports:   []Port{{Host: 6379, Guard: "REDIS_PASSWORD", URL: "redis"}},
			Mounts:  []Mount{{Volume: "redisdata", Path: "/data"}},
			// A server that is loading its data answers LOADING, and redis-cli exits with 0. So the answer is compared.
			Probe: Probe{
				Command: []string{"CMD-SHELL", `{ [ -z "$REDIS_PASSWORD" ] || export REDISCLI_AUTH="$REDIS_PASSWORD"; redis-cli ping | grep -q PONG; }`},
				Timeout: 3 * time.Second,
				Start:   2 * time.Minute, // loading a large append-only file
			},
			Capabilities: []string{"CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID"}, Memory: 4096,
			Clients:  Clients{Facts: []string{"redis_url", "port:redis"}, Max: 10000, Reserved: 100},
			ReadOnly: true, Tmpfs: []string{"/tmp"},
			Grace: 60 * time.Second,
		},
		{
			Name: "prometheus", Tier: Base, About: "Prometheus, metrics and alerts",
			Image: "prom/prometheus:v2.55.1", Files: "prometheus",
			Command: []string{"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"},
			Port:    9090,
			Ports:   []Port{{Host: 9090, URL: "http"}},
			Mounts:  []Mount{{Volume: "prometheusdata", Path: "/prometheus"}},
			After:   []string{"postgres"},
			Probe: Probe{
				Command: wget, Path: "/-/ready",
				Start: 2 * time.Minute, // replaying its write-ahead log
			},
			Metrics: Metrics{Component: "monitoring"},
			// nginx, one of its targets, is on the edge network only.
			Networks: []string{DefaultNetwork, EdgeNetwork},
			// Its targets are all services of the catalog. The engine would ask the host's DNS servers for those that
			// the stack does not have; with this option, it answers itself for every name without a dot.
			DNSOptions: []string{"ndots:1"},
			Memory:     4096,
			Grace:      30 * time.Second,
		},
		{
			Name: "loki_server", Tier: Base, About: "Loki, logs",
			Image: "grafana/loki:3.0.0", Files: "loki_server",
			Command: []string{"-config.file=/etc/loki/loki-config.yml"},
			User:    "0", // the Compose stack's volume belongs to root; all capabilities are dropped
			Port:    3100,
			Ports:   []Port{{Host: 3100, URL: "http"}},
			Mounts:  []Mount{{Volume: "lokidata", Path: "/tmp/loki"}},
			Probe: Probe{
				Command: wget, Path: "/ready",
				Start: 2 * time.Minute, // replaying its write-ahead log
			},
			Metrics: Metrics{Component: "logging"},
			Memory:  4096,
			Grace:   30 * time.Second,
		},
		{
			Name: "promtail", Tier: Base, About: "Promtail, ships the containers' logs to Loki",
			Image: "grafana/promtail:3.0.0", Files: "promtail",
			Port:    9080,
			Command: []string{"-config.file=/etc/promtail/promtail-config.yml"},
			Mounts: []Mount{
				{Volume: "promtaildata", Path: "/tmp"},
				// Only the logs. Access to the engine's socket, even read-only, equals root on the host.
				{Host: "${docker_root}/containers", Path: "/var/lib/docker/containers", ReadOnly: true},
			},
			After: []string{"loki_server"}, Needs: []string{"loki_server"},
			// The image has bash, but neither wget nor curl. Only the first line of the
			// response is read.
			Probe: Probe{
				Command: []string{"CMD", "bash", "-c",
					`exec 3<>/dev/tcp/127.0.0.1/${port} && printf 'GET /ready HTTP/1.0\r\n\r\n' >&3 && read -r line <&3 && [[ $line == *" 200 "* ]]`},
				Path: "/ready",
			},
			Metrics: Metrics{Component: "logging"},
			Memory:  1024,
		},
		{
			Name: "grafana", Tier: Base, About: "Grafana, dashboards",
			Image: "grafana/grafana:10.4.2", Files: "grafana",
			Env:    optional("GF_SECURITY_ADMIN_USER=admin", "GF_SECURITY_ADMIN_PASSWORD=admin"),
			Port:   3000,
			Ports:  []Port{{Host: 3000, Login: true, URL: "http"}},
			Mounts: []Mount{{Volume: "grafanadata", Path: "/var/lib/grafana"}},
			After:  []string{"prometheus", "postgres", "loki_server"},
			Probe: Probe{
				Command: wget, Path: "/api/health",
				Start: 2 * time.Minute, // migrating its database
			},
			Metrics: Metrics{Component: "dashboards"},
			Memory:  1024,
			Grace:   30 * time.Second,
		},
	}
}

// redisCommand passes the password to the server on standard input, so that no process
// list shows it. With an empty password, the server accepts every client.
const redisCommand = `password=$(printf %s "$REDIS_PASSWORD" | sed 's/[\\"]/\\&/g')
exec docker-entrypoint.sh redis-server - --appendonly yes <<END
requirepass "$password"
END`

// postgresProbe connects over TCP, because the image's bootstrap server, which listens
// only on a socket, must not count as ready. Once after each start it then applies the
// settings over the socket, which the image's pg_hba.conf trusts; the image itself reads
// them only for a new cluster. So the server is not healthy before its role has the
// configured password and the database exists. A file in /dev/shm, which is empty after
// a restart, records that this was done. psql reads the values from the environment and
// quotes them, and logging is turned off for these statements.
const postgresProbe = `pg_isready -q -h 127.0.0.1 -U "$POSTGRES_USER" -d postgres && { [ -e /dev/shm/set-up ] || { said=$(PGPASSWORD=$POSTGRES_PASSWORD psql -Xqw -U "$POSTGRES_USER" -d postgres 2>&1 <<'SQL'
SET log_statement = none; SET log_min_error_statement = panic; SET log_min_duration_statement = -1;
\set ON_ERROR_STOP on
\set role ` + "`printenv POSTGRES_USER`" + `
\set password ` + "`printenv POSTGRES_PASSWORD`" + `
\set database ` + "`printenv POSTGRES_DB`" + `
ALTER ROLE :"role" PASSWORD :'password';
SELECT format('CREATE DATABASE %I', :'database') WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
SELECT format('COPY (SELECT %L) TO %L', '${stack}', current_setting('data_directory') || '/` + SecuredMark + `') WHERE ${secured} \gexec
SQL
) && : > /dev/shm/set-up || { echo "$said"; case $said in *'role "'*'" does not exist'*)
echo "POSTGRES_USER is $POSTGRES_USER, a role that the database in this volume does not have. Fix: pulumi config set -s ${stack} POSTGRES_USER <the role that the database was made with>"
esac; false; }; }; }`

// SecuredMark is the file in PostgreSQL's data directory that says which secured stack has used it.
const SecuredMark = "trading-platform-secured"
