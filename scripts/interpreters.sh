#!/usr/bin/env bash
# Installs the Pythons that few machines have yet, with their test suites, from Debian's next release into a directory of
# this project. Nothing of the machine's own installation changes. Run as root; running it again does nothing.
#
#   scripts/interpreters.sh            install into .interpreters/debian
#   HOTLOOP_CHROOT=/srv/forky ...      use or make that directory instead
#   HOTLOOP_DEBIAN_MIRROR=URL ...      use that mirror, not the one this machine's apt uses
#
# scripts/in-interpreter runs commands with them.
set -euo pipefail

versions=(3.14 3.15)
# The release that has these versions. debootstrap knows it under this name only when newer than the release itself; every
# suite since long is made by the same script, which is named below.
suite=forky
project=$(cd "$(dirname "$0")/.." && pwd)
chroot=${HOTLOOP_CHROOT:-$project/.interpreters/debian}

main() {
    install_debian
    configure
    for version in "${versions[@]}"; do
        chroot "$chroot" "python$version" -c 'import sys, test.test_asyncio; print(sys.version)'
    done
}

install_debian() {
    if complete; then
        return
    fi
    if [ -e "$chroot" ] && [ -n "${HOTLOOP_CHROOT:-}" ]; then
        echo "$chroot exists but lacks a Python or its tests; remove it first" >&2
        exit 1
    fi
    # What an interrupted run left. Nothing is mounted below: in-interpreter mounts in a namespace of its own.
    rm -rf --one-file-system "$chroot"
    mkdir -p "$chroot"
    command -v debootstrap >/dev/null || apt-get install -y debootstrap
    export_proxy
    local include=ca-certificates,gcc,libc6-dev version
    for version in "${versions[@]}"; do
        include+=",python$version,python$version-venv,libpython$version-testsuite,libpython$version-dev"
    done
    debootstrap --variant=minbase --include="$include" "$suite" "$chroot" "$(mirror)" /usr/share/debootstrap/scripts/sid
}

complete() {
    local version
    for version in "${versions[@]}"; do
        [ -x "$chroot/usr/bin/python$version" ] || return 1
        [ -d "$chroot/usr/lib/python$version/test/test_asyncio" ] || return 1
    done
}

# The mirror from which this machine gets its own Debian release, so that a machine without the internet uses what it has.
mirror() {
    if [ -n "${HOTLOOP_DEBIAN_MIRROR:-}" ]; then
        echo "$HOTLOOP_DEBIAN_MIRROR"
        return
    fi
    local codename found
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    found=$({ mirrors_deb822; mirrors_one_line; } | awk -v suite="$codename" '$2 == suite { print $1; exit }')
    if [ -z "$found" ]; then
        echo "apt's configuration names no mirror of $codename; set HOTLOOP_DEBIAN_MIRROR" >&2
        exit 1
    fi
    echo "$found"
}

# Both print a line "URI SUITE" for each pair configured.
mirrors_deb822() {
    find /etc/apt/sources.list.d -name '*.sources' -exec cat {} \; -exec echo \; 2>/dev/null | awk '
        /^#/ { next }
        /^[Uu][Rr][Ii][Ss]:/ { uri_count = split(substr($0, 6), uris, " ") }
        /^[Ss][Uu][Ii][Tt][Ee][Ss]:/ { suite_count = split(substr($0, 8), suites, " ") }
        /^[ \t]*$/ { print_pairs() }
        END { print_pairs() }
        function print_pairs(   i, j) {
            for (i = 1; i <= uri_count; i++)
                for (j = 1; j <= suite_count; j++)
                    print uris[i], suites[j]
            uri_count = suite_count = 0
        }'
}

mirrors_one_line() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed -nE 's/^deb[ \t]+(\[[^]]*\][ \t]+)?//p' |
        awk '{ print $1, $2 }'
}

export_proxy() {
    local proxy=
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    if [ -n "$proxy" ] && [ "$proxy" != DIRECT ]; then
        export http_proxy=$proxy
    fi
}

# Gives the inside this machine's names, trust and pip settings: whatever reaches a package index outside does so inside.
configure() {
    cp --dereference /etc/resolv.conf "$chroot/etc/resolv.conf"
    # What serves one moment of this release for long is still what is wanted.
    echo 'Acquire::Check-Valid-Until "false";' >"$chroot/etc/apt/apt.conf.d/99-any-moment"
    local file
    if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
        cp /usr/local/share/ca-certificates/*.crt "$chroot/usr/local/share/ca-certificates/"
        chroot "$chroot" update-ca-certificates >/dev/null
    elif [ -e /etc/ssl/certs/ca-certificates.crt ]; then
        cp --dereference /etc/ssl/certs/ca-certificates.crt "$chroot/etc/ssl/certs/ca-certificates.crt"
    fi
    for file in /etc/pip.conf "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" "$HOME/.pip/pip.conf"; do
        if [ -e "$file" ]; then
            cp --dereference "$file" "$chroot/etc/pip.conf"
        fi
    done
}

main
