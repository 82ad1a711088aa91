#!/bin/sh
# Starts Redis the way the official image does: as the user redis, in /data, reachable from other containers.
set -eu

case ${1:-} in
-* | *.conf) set -- redis-server "$@" ;;
esac
[ "${1:-}" = redis-server ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
	find /data ! -user redis -exec chown redis:redis {} +
	exec setpriv --reuid redis --regid redis --init-groups -- "$0" "$@"
fi

# The official image's build answers other hosts by default; Debian's does only when told to. What the caller says
# about it, in an argument or in the configuration file, counts.
case " $* " in
*' --protected-mode '*) ;;
*)
	if ! { [ -f "${2:-}" ] && grep -qi '^[[:space:]]*protected-mode' "$2"; }; then
		set -- "$@" --protected-mode no
	fi
	;;
esac
[ "$(umask)" != 0022 ] || umask 0077
exec "$@"
