#!/bin/sh
# Brings a real MySQL, or a MariaDB that is newer than Debian 12's, beside the system, for the tests and the laboratory. Packages
# of another Debian suite are unpacked into a directory of their own, with all libraries that they need, the C library among
# them. Nothing is installed, no script of a package runs, and nothing outside the directory changes.
#
#   deploy/mysql.sh [DIRECTORY]             MySQL 9.7 from sid, to /var/cache/remora-mysql if no directory is named
#   deploy/mysql.sh --mariadb [DIRECTORY]   MariaDB 11.8 from trixie, to /var/cache/remora-mariadb
#
# A finished directory is left alone. It is a basedir of the server: bin/mysqld or bin/mariadbd starts it by the loader that
# belongs to it. Mirror and key are those of the system's own apt.
set -eu

name=MySQL suite=sid target=/var/cache/remora-mysql server=mysqld
wanted='mysql-server-core mysql-client-core'
programs='usr/sbin/mysqld usr/bin/mysql'
if [ "${1:-}" = --mariadb ]; then
	shift
	name=MariaDB suite=trixie target=/var/cache/remora-mariadb server=mariadbd
	wanted='mariadb-server-core mariadb-client-core'
	programs='usr/sbin/mariadbd usr/bin/mariadb usr/bin/my_print_defaults usr/bin/resolveip'
fi
target=${1:-$target}
[ ! -e "$target/ready" ] || exit 0
# shellcheck disable=SC1091 # a file of every Debian system
. /etc/os-release
# shellcheck disable=SC2016 # these are apt-get's, not the shell's
uri=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(CODENAME)' 'Identifier: Packages' |
	awk -F'|' -v suite="$VERSION_CODENAME" '$2 == "Debian" && $3 == suite { print $1; exit }')
if [ -z "$uri" ]; then
	echo "There is no Debian mirror in the system's apt configuration (run apt-get update?): bring $name to $target/bin/$server in your own way." >&2
	exit 1
fi

# An apt of its own, with an empty system: so it names every library.
mkdir -p "$target"
work=$(mktemp -d "$target/apt.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial"
: >"$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main" >"$work/sources.list"
# Images of containers throw away what apt has fetched after each update: not here.
printf '#clear %s;\n' APT::Update::Post-Invoke APT::Update::Post-Invoke-Success DPkg::Post-Invoke >"$work/apt.conf"
own() {
	program=$1
	shift
	"$program" -qq -c "$work/apt.conf" -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::Etc::preferencesparts=/dev/null -o Dir::State="$work" -o Dir::State::Lists="$work/lists" \
		-o Dir::State::status="$work/status" -o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives" \
		-o APT::Sandbox::User=root -o APT::Install-Recommends=0 -o Acquire::Languages=none -o Acquire::Retries=3 \
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::IndexTargets::deb::CNF::DefaultEnabled=false "$@"
}
own apt-get update

# Of what the packages need, the server itself loads libraries only; the rest serves scripts that do not run here.
# shellcheck disable=SC2086 # the list is meant to be split
packages=$(own apt-get -s install $wanted |
	awk '$1 == "Inst" { sub(/:.*/, "", $2); sub(/^\(/, "", $3)
		if ($2 ~ /^(lib|(mysql|mariadb)-.*-core|zlib|gcc)/ && $2 !~ /^lib(perl|pam|systemd-shared).*|-perl$/) print $2 "=" $3 }')
[ -n "$packages" ] || { echo "apt can not resolve $name in $suite." >&2; exit 1; }
# shellcheck disable=SC2086 # the list is meant to be split
(cd "$work/archives" && own apt-get download $packages)

for deb in "$work"/archives/*.deb; do
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$target" --exclude='./usr/share/doc*' --exclude='./usr/share/man*' --exclude='./usr/share/locale*'
done
libraries=$(cd "$target" && dirname usr/lib/*/libc.so.6)
loader=$(cd "$target" && find usr/lib64 "$libraries" -maxdepth 1 -name 'ld-linux*.so.*' | head -n 1)
# The loader is what runs, and a process has its name from the file that was started: so the loader has one of each name.
mkdir -p "$target/bin" "$target/loader"
for program in $programs; do
	file=${program##*/}
	ln -sf "../$loader" "$target/loader/$file"
	cat >"$target/bin/$file" <<END
#!/bin/sh
exec "$target/loader/$file" --argv0 "\$0" --library-path "$target/$libraries:$target/$libraries/private:$target/usr/lib/mysql/private" "$target/$program" "\$@"
END
	chmod +x "$target/bin/$file"
done
# What mariadb-install-db, a script, looks for in a basedir.
ln -sfn bin "$target/sbin"
ln -sfn usr/share "$target/share"
[ $name = MySQL ] || ln -sf ../usr/bin/mariadb-install-db "$target/bin/"
"$target/bin/$server" --no-defaults --version
: >"$target/ready"
