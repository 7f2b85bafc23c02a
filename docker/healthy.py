"""Exit status 0 when the process of this container is ready: what an image's health check asks.

``serve`` and ``review`` tell over HTTP. A worker has no listener; it touches a file every few seconds, also while it
builds.
"""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMEOUT_S = 4.0  # less than the health check's own, so that this says why
SILENT_S = 60.0
"""A worker whose file is older than this hangs."""


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


def beats(data_dir: Path) -> tuple[bool, str]:
    """Whether the worker with this ``data_dir`` has given a sign of life lately, and what is known of it."""
    try:
        silent_s = time.time() - (data_dir / "worker.alive").stat().st_mtime
    except OSError as error:
        return False, str(error)
    return silent_s < SILENT_S, f"the last sign of life is {silent_s:.0f} s old"


def main() -> None:
    first_process = Path("/proc/1/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    port = port_of(first_process, os.environ)
    healthy, said = ready(port) if port is not None else beats(Path(os.environ["ANTIPROMPT_DATA_DIR"]))
    if not healthy:
        sys.exit(said)


if __name__ == "__main__":
    main()
