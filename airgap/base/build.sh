#!/bin/sh
# Makes the one root file system that every air-gap image stands on.
#
#   build.sh OUT.tar
#
# Debian 12 with the packages below, without what no container reads. mmdebstrap rather than debootstrap: it takes
# security updates, writes a tar file, and needs no root where user namespaces are allowed.
set -eu

out=$1
components=main
suite=bookworm
packages=postgresql-15,redis-server,prometheus,prometheus-alertmanager,prometheus-node-exporter,prometheus-postgres-exporter,prometheus-redis-exporter,nginx,locales,busybox,ca-certificates,tzdata
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

if ! command -v mmdebstrap >/dev/null || ! [ -e "$keyring" ]; then
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "air-gap images need mmdebstrap and Debian's archive keys: sudo apt-get install -y mmdebstrap debian-archive-keyring" >&2
		exit 1
	fi
	echo "installing mmdebstrap from Debian"
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends mmdebstrap debian-archive-keyring
fi

# The official images' numbers, so that a volume written by one can be read by the other (redis: its entrypoint
# takes the files over, as the official one does; 999 is taken by postgres).
users='set -e
groupadd -R "$1" -g 999 postgres
useradd  -R "$1" -u 999 -g 999 -d /var/lib/postgresql -s /bin/bash postgres
groupadd -R "$1" -g 998 redis
useradd  -R "$1" -u 998 -g 998 -d /var/lib/redis -M -s /usr/sbin/nologin redis
groupadd -R "$1" -g 101 nginx
useradd  -R "$1" -u 101 -g 101 -d /nonexistent -M -s /usr/sbin/nologin nginx
groupadd -R "$1" -g 10001 loki
useradd  -R "$1" -u 10001 -g 10001 -d /nonexistent -M -s /usr/sbin/nologin loki
groupadd -R "$1" -g 1000 app
useradd  -R "$1" -u 1000 -g 1000 -d /tmp -M -s /usr/sbin/nologin app
'

# The package would otherwise make a database cluster in the image.
no_cluster='mkdir -p "$1/etc/postgresql-common" && echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"'

# en_US.UTF-8 is the official locale: a cluster made there does not open without it.
locale='chroot "$1" localedef -i en_US -c -f UTF-8 -A /usr/share/locale/locale.alias en_US.UTF-8'

# Needed while packages install (perl), or made by them: a shared private key must not be in an image.
tidy='set -e
cd "$1"
rm -rf usr/share/postgresql/*/man usr/share/perl usr/lib/*/perl usr/lib/*/libperl.so* usr/share/i18n usr/lib/*/gconv
rm -rf etc/ssl/private/* etc/ssl/certs/ssl-cert-snakeoil.pem etc/nginx/sites-enabled etc/nginx/sites-available
rm -rf var/cache/debconf/* var/cache/ldconfig/* var/log/* run/*
: > etc/machine-id
ln -sf /bin/busybox usr/bin/wget
'

work=$(mktemp -d)
chmod 755 "$work" # without root, mmdebstrap works as another user inside

# Runs at any end. mmdebstrap tidies up when it can; stopped while packages install, it leaves mounts behind.
cleanup() {
	trap '' INT TERM HUP
	if [ -n "$maker" ]; then
		kill -TERM "-$maker" 2>/dev/null || :
		wait "$maker" || :
	fi
	awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mounted; do
		umount "$mounted" || umount --lazy "$mounted"
	done
	rm -rf --one-file-system "$work"
}
maker=
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# In a process group of its own, so that it can be stopped with all that it started.
# JIT code for PostgreSQL brings LLVM (135 MB) and is optional: without llvmjit.so the server does not use it.
TMPDIR=$work setsid mmdebstrap --variant=essential --format=tar \
	--include="$packages" \
	--dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/info/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*/*' \
	--dpkgopt='path-exclude=/usr/share/javascript/moment-timezone/data/*' \
	--dpkgopt='path-exclude=/usr/lib/postgresql/*/lib/bitcode/*' \
	--dpkgopt='path-exclude=/usr/lib/postgresql/*/lib/llvmjit*' \
	--dpkgopt='path-exclude=/usr/lib/*/libLLVM*' \
	--dpkgopt='path-exclude=/usr/lib/*/libz3.so*' \
	--essential-hook="$users" \
	--essential-hook="$no_cluster" \
	--customize-hook="$locale" \
	--customize-hook="$tidy" \
	"$suite" "$out" \
	"deb [signed-by=$keyring] http://deb.debian.org/debian $suite $components" \
	"deb [signed-by=$keyring] http://deb.debian.org/debian $suite-updates $components" \
	"deb [signed-by=$keyring] http://deb.debian.org/debian-security $suite-security $components" &
maker=$!
status=0
wait "$maker" || status=$?
maker=
exit "$status"
