"""A gateway as its users have it: the real command in a process of its own, with its own data folder and Redis."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 180.0


def free_port() -> int:
    """A port that nothing listens on, outside the range that outgoing connections are given theirs from."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class RunningGateway:
    """``antiprompt serve``; ``settings`` are environment variables without their prefix.

    ``data_dir`` stays when the process ends, so that another one can be started on it.
    """

    def __init__(self, data_dir: Path, settings: Mapping[str, str]) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = data_dir / "gateway.log"
        self.process: subprocess.Popen[bytes] | None = None
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("ANTIPROMPT_")}
        chosen = {"DATA_DIR": str(data_dir), "PORT": str(self.port), **settings}
        self._environment = {**inherited, **{f"ANTIPROMPT_{name}": value for name, value in chosen.items()}}

    def start(self, *, until_ready: bool = True) -> RunningGateway:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", "serve"], env=self._environment, stdout=log, stderr=log
            )
        if until_ready:
            self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        ends_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends_s:
            assert self.process is not None
            assert self.process.poll() is None, f"the gateway ended:\n{self.log()}"
            try:
                told = httpx.get(f"{self.url}/readyz", verify=_NO_TLS).json()
                assert told["status"] != "failed", f"the gateway will never be ready:\n{self.log()}"
                if told["status"] == "ready":
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready in time:\n{self.log()}")

    def stop(self) -> int:
        """SIGTERM, an orderly end; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def command(self, *arguments: str, status: int = 0) -> str:
        """What ``antiprompt ARGUMENTS`` prints, run beside the gateway."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.command(*arguments, "--json"))

    def key(self, tenant: str, *options: str) -> str:
        """A new client key, made as an operator makes it."""
        token: str = self.json("keys", "create", "--tenant", tenant, *options)["token"]
        return token

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        lines = httpx.get(f"{self.url}/metrics", verify=_NO_TLS).text.splitlines()
        mine = "\n".join(line for line in lines if line.startswith(name))
        samples = (sample for family in text_string_to_metric_families(mine) for sample in family.samples)
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())


_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nothing is encrypted here, and loading the system's certificates takes longer than a request."""
