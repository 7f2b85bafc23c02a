#!/usr/bin/env bash
# Prometheus for the tests of metrics, dashboard and alerts: Debian's, which brings promtool. Does nothing where it is
# there already, brings it where it can (as root, with apt; no daemon is started), and otherwise says which tests are
# left out. In continuous integration a missing one fails.
set -uo pipefail
command -v prometheus >/dev/null && command -v promtool >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Bringing Prometheus for the tests of metrics and alerts ..."
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus >/dev/null
    command -v prometheus >/dev/null && command -v promtool >/dev/null && exit 0
fi
echo "Left out: what needs Prometheus in tests/monitoring and tests/end_to_end/test_monitoring.py." >&2
echo "To have it: apt-get install prometheus (as root), then make test again." >&2
[ -z "${CI:-}" ]
