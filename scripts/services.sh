#!/bin/sh
# Installs what tests run against: PostgreSQL and Redis for tests/ecosystem, strace for tests/test_faults.py; where they
# are missing and can be installed: as root, with apt-get. Elsewhere it does nothing, and the tests that need them skip,
# saying so.
set -eu

missing=
command -v redis-server >/dev/null || missing="$missing redis-server"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing="$missing postgresql"

command -v strace >/dev/null || missing="$missing strace"

[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "services.sh: not installed, and cannot be without root and apt-get:$missing" >&2
    exit 0
fi

# The packages start their service on its well-known port when they are installed. The tests start their own, on free
# ports, so tell the packages not to, unless this machine has a policy already.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086 # a list of words
apt-get install -q -y --no-install-recommends $missing
