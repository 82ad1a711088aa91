#!/usr/bin/env bash
# Starts PostgreSQL the way the official image does: the same variables, paths, users and first-start steps.
set -Eeuo pipefail

fail() {
	printf 'postgres: %s\n' "$*" >&2
	exit 1
}

# from_file NAME DEFAULT: NAME from the environment, or from the file that NAME_FILE names, or the default.
from_file() {
	local name=$1 file_name=$1_FILE
	if [ -n "${!name:-}" ] && [ -n "${!file_name:-}" ]; then
		fail "both $name and $file_name are set; unset one"
	fi
	if [ -n "${!file_name:-}" ]; then
		printf -v "$name" %s "$(<"${!file_name}")"
	else
		printf -v "$name" %s "${!name:-$2}"
	fi
	export "${name?}"
	unset "$file_name"
}

query() {
	psql --set ON_ERROR_STOP=1 --no-password --no-psqlrc --username "$POSTGRES_USER" "$@"
}

run_init_files() {
	local file
	for file in /docker-entrypoint-initdb.d/*; do
		echo "postgres: running $file"
		case $file in
		*.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
		*.sql) query --dbname "$POSTGRES_DB" --file "$file" ;;
		*.sql.gz) gunzip --stdout "$file" | query --dbname "$POSTGRES_DB" ;;
		*) echo "postgres: ignoring $file (neither .sh, .sql nor .sql.gz)" ;;
		esac
	done
}

# initialise makes the cluster in a folder of its own and moves it up when it is complete, PG_VERSION last: what was
# interrupted half-way is seen as such at the next start, and made again.
initialise() {
	local data=$PGDATA making=$PGDATA/.initialising
	if [ -d "$making" ]; then
		echo "postgres: the first start was interrupted; starting it again"
		find "$data" -mindepth 1 -delete
	fi
	[ -z "$(ls -A "$data")" ] ||
		fail "$data is not empty and holds no database (no PG_VERSION); give an empty volume, or one that PostgreSQL $PG_MAJOR wrote"
	if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
		fail "POSTGRES_PASSWORD is not set; a new database needs a superuser password"
	fi

	export PGDATA=$making PGPASSWORD=$POSTGRES_PASSWORD
	local arguments=()
	eval "arguments=(${POSTGRES_INITDB_ARGS:-})"
	if [ -n "$POSTGRES_PASSWORD" ]; then
		initdb --pgdata "$making" --username "$POSTGRES_USER" --pwfile <(printf '%s\n' "$POSTGRES_PASSWORD") "${arguments[@]}"
	else
		initdb --pgdata "$making" --username "$POSTGRES_USER" "${arguments[@]}"
	fi
	printf "\nlisten_addresses = '*'\n" >>"$making/postgresql.conf"
	printf '\nhost all all all %s\n' "$POSTGRES_HOST_AUTH_METHOD" >>"$making/pg_hba.conf"

	# On the socket alone, so that nobody takes the bootstrap server for the real one.
	local options='-c listen_addresses=' option
	for option in "${@:2}"; do
		printf -v options '%s %q' "$options" "$option"
	done
	pg_ctl --pgdata "$making" --wait --silent --options "$options" start
	if [ "$POSTGRES_DB" != postgres ]; then
		query --dbname postgres --set name="$POSTGRES_DB" <<<'CREATE DATABASE :"name";'
	fi
	run_init_files
	pg_ctl --pgdata "$making" --wait --silent --mode fast stop

	find "$making" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv -t "$data" {} +
	mv "$making/PG_VERSION" "$data/"
	rmdir "$making"
	export PGDATA=$data
	unset PGPASSWORD
	echo "postgres: the database is initialised"
}

shopt -s nullglob
[ "${1:0:1}" != - ] || set -- postgres "$@"
[ "${1:-}" = postgres ] || exec "$@"
case " $* " in *' --help '* | *' -? '* | *' --version '* | *' -V '* | *' --describe-config '*) exec "$@" ;; esac

if [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA" /run/postgresql
	chmod 700 "$PGDATA"
	chmod 3777 /run/postgresql
	find "$PGDATA" /run/postgresql ! -user postgres -exec chown postgres:postgres {} +
	exec setpriv --reuid postgres --regid postgres --init-groups -- "$BASH_SOURCE" "$@"
fi

if [ -s "$PGDATA/PG_VERSION" ]; then
	found=$(<"$PGDATA/PG_VERSION")
	[ "$found" = "$PG_MAJOR" ] ||
		fail "the data in $PGDATA was made by PostgreSQL $found and this image is PostgreSQL $PG_MAJOR; nothing was changed: use an image of PostgreSQL $found, or dump the data there and restore it here into a new volume"
	[ ! -d "$PGDATA/.initialising" ] || rmdir "$PGDATA/.initialising"
	unset POSTGRES_PASSWORD POSTGRES_PASSWORD_FILE
else
	from_file POSTGRES_PASSWORD ''
	from_file POSTGRES_USER postgres
	from_file POSTGRES_DB "$POSTGRES_USER"
	from_file POSTGRES_INITDB_ARGS ''
	POSTGRES_HOST_AUTH_METHOD=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
	initialise "$@"
fi

exec "$@"
