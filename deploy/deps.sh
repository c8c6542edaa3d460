#!/bin/sh
# Installs the Debian packages that "make demo" and "make test" need and that are missing, and nothing else.
# When nothing is missing it asks no package server and takes a few milliseconds.
#
# The database packages are the "core" ones: programs without a service, an account or a configuration that listens.
# Nothing is started, also not sshd, whose package would do so: servers run only in the laboratory's network namespaces.
#
# With the argument "bench" it installs what "make bench" compares Remora with, too. Debian's keepalived starts only where
# there is an /etc/keepalived/keepalived.conf (its unit's ConditionFileNotEmpty), and this makes none. ucarp has no service; it runs
# for interfaces that /etc/network/interfaces names.
set -eu

# Debian keeps administrators' programs where a plain user's PATH does not look.
PATH=$PATH:/usr/sbin:/sbin

# program (or file) and the package that brings it
needs='
ip                          iproute2
mariadbd                    mariadb-server-core
mariadb-install-db          mariadb-server-core
my_print_defaults           mariadb-client-core
mariadb                     mariadb-client-core
strace                      strace
nft                         nftables
gcc                         gcc
/usr/include/stdlib.h       libc6-dev
masterha_manager            mha4mysql-manager
save_binary_logs            mha4mysql-node
/usr/sbin/sshd              openssh-server
ssh                         openssh-client
mariadb-binlog              mariadb-client
arping                      iputils-arping
mkfs.ext4                   e2fsprogs
'

if [ "${1:-}" = bench ]; then
	needs="$needs
keepalived                  keepalived
ucarp                       ucarp
"
fi

present() {
	case $1 in
	/*) [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null 2>&1 ;;
	esac
}

missing=$(printf '%s\n' "$needs" | while read -r program package; do
	[ -z "$program" ] || present "$program" || printf '%s\n' "$package"
done | sort -u | tr '\n' ' ')

# The tests' MySQL does not come from Debian 12: it is unpacked beside the system, see mysql.sh.
here=$(dirname "$0")
[ -n "${missing% }" ] || exec sh "$here/mysql.sh"

echo "Missing packages: $missing"
if [ "$(id -u)" -ne 0 ]; then
	echo "Install them as root: apt-get install --no-install-recommends $missing" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
	echo "This is no Debian system: install what these packages hold in your system's own way." >&2
	exit 1
fi

# Packages ask this program whether they may start their service. 101 forbids it, by the rules of invoke-rc.d(8).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
options='-qq -o DPkg::Lock::Timeout=180 -o Acquire::Retries=3'
# shellcheck disable=SC2086 # the lists are meant to be split
apt-get $options update
# shellcheck disable=SC2086
apt-get $options install -y --no-install-recommends $missing
exec sh "$here/mysql.sh"
