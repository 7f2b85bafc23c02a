"""Exit status 0 when the process of this container is ready: what an image's health check asks.

``serve`` and ``review`` tell over HTTP. A worker has no listener and nobody waits for it: it is healthy while it runs,
since it ends by itself when it cannot go on.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMEOUT_S = 4.0  # less than the health check's own, so that this says why


def port_of(command: Sequence[str], environment: Mapping[str, str]) -> int | None:
    """Where the process that was started as ``command`` listens, None for one that does not."""
    if "worker" in command:
        return None
    gateways = environment.get("ANTIPROMPT_PORT", "8080")
    return int(environment.get("ANTIPROMPT_REVIEW__PORT", gateways) if "review" in command else gateways)


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
    first_process = Path("/proc/1/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    port = port_of(first_process, os.environ)
    if port is None:
        return
    is_ready, said = ready(port)
    if not is_ready:
        sys.exit(said)


if __name__ == "__main__":
    main()
