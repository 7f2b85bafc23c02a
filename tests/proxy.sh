#!/usr/bin/env bash
# The proxy of docker/compose.yaml for its tests: Debian's HAProxy. Does nothing where it is there already, brings it
# where it can (as root, with apt), and otherwise says which tests are left out. In continuous integration a missing one
# fails.
set -uo pipefail
PATH=$PATH:/usr/sbin
command -v haproxy >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Bringing HAProxy for the tests of the compose file ..."
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1  # a tool is wanted here, not a service
    apt-get update -qq && apt-get install -y -qq --no-install-recommends haproxy >/dev/null
    command -v haproxy >/dev/null && exit 0
fi
echo "Left out: tests/docker/test_proxy.py, which tries out docker/haproxy.cfg." >&2
echo "To have it: apt-get install haproxy (as root), then make test again." >&2
[ -z "${CI:-}" ]
