#!/usr/bin/env bash
# The browser of the dashboard's tests: Debian's Chromium. Does nothing where it is there already, brings it where it
# can (as root, with apt), and otherwise says which tests are left out. In continuous integration a missing one fails.
set -uo pipefail
[ -x /usr/bin/chromium ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Bringing Chromium for the tests of the dashboard ..."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null
    [ -x /usr/bin/chromium ] && exit 0
fi
echo "Left out: tests/end_to_end/test_review_browser.py and test_review_outside.py, which drive the dashboard in a browser." >&2
echo "To have it: apt-get install chromium (as root), then make test again." >&2
[ -z "${CI:-}" ]
