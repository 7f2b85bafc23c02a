"""Exit status 0 when the process of this container is ready: what an image's health check asks.

``serve`` and ``review`` tell over HTTP. A worker has no listener and nobody waits for it: it is healthy while it runs,
since it ends by itself when it cannot go on.
"""

from __future__ import annotations

import http.client
import os
import sys
from pathlib import Path

TIMEOUT_S = 4.0  # less than the health check's own, so that this says why


def command() -> list[str]:
    """How the container's first process was started."""
    return Path("/proc/1/cmdline").read_bytes().decode("utf-8", "replace").split("\0")


def ready(port: int) -> tuple[bool, str]:
    """Whether the process that listens on this machine's ``port`` is ready, and what it says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status == 200, answer.read(1000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return False, f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def main() -> None:
    if "worker" in command():
        return
    is_ready, said = ready(int(os.environ.get("ANTIPROMPT_PORT", "8080")))
    if not is_ready:
        sys.exit(said)


if __name__ == "__main__":
    main()
