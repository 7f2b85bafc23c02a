"""A real Prometheus of a test's own: it scrapes what it is told to and holds the alert rules that ship."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.end_to_end.running_gateway import free_port

ALERTS = Path(__file__).parents[2] / "helm" / "antiprompt" / "files" / "alerts.yaml"
PATIENCE_S = 60.0


class Prometheus:
    """Scrapes ``targets`` (host:port) twice a second; its data lie in ``folder``."""

    def __init__(self, folder: Path, targets: Sequence[str]) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [{"job_name": "antiprompt", "static_configs": [{"targets": list(targets)}]}],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        binary = shutil.which("prometheus")
        assert binary is not None
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={self._folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE_S)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives now. Fails where Prometheus does not understand it."""
        found = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}).json()
        assert found["status"] == "success", f"{expression}: {found}"
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def range(self, expression: str, seconds: float, step_s: float) -> list[dict[str, Any]]:
        """What an expression gave over the last seconds."""
        now = time.time()
        asked = {"query": expression, "start": now - seconds, "end": now, "step": step_s}
        found = httpx.get(f"{self.url}/api/v1/query_range", params=asked).json()
        assert found["status"] == "success", f"{expression}: {found}"
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def alerts(self) -> set[str]:
        """The alerts that are pending or firing."""
        found = httpx.get(f"{self.url}/api/v1/alerts").json()["data"]["alerts"]
        return {each["labels"]["alertname"] for each in found}

    def until(self, holds: Callable[[], Any]) -> None:
        """Wait until something holds."""
        ends_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends_s:
            try:
                if holds():
                    return
            except (httpx.TransportError, json.JSONDecodeError, KeyError):
                pass  # it is still starting
            time.sleep(0.05)
        raise AssertionError((self._folder / "prometheus.log").read_text("utf-8", "replace")[-2000:])
