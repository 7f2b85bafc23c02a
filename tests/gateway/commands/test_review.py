"""``antiprompt review``: the dashboard in a process of its own, and nothing else in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.end_to_end.running_gateway import PATIENCE_S, free_port


class Dashboard:
    """The command as an operator runs it, on a port of its own, with a folder that holds no bank yet."""

    def __init__(self, redis_url: str, data_dir: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = data_dir / "log"
        data_dir.mkdir()
        settings = {
            "REDIS__URL": redis_url,
            "DATA_DIR": str(data_dir),
            "BANK__PATH": str(data_dir / "versions"),
            "REVIEW__PORT": str(self.port),
            "REVIEW__ENABLED": "false",  # of the gateways that share these settings
        }
        environment = os.environ | {f"ANTIPROMPT_{name}": value for name, value in settings.items()}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", "review"], env=environment, stdout=log, stderr=log
            )

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}")

    def wait_until_it_listens(self) -> None:
        ends_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends_s:
            assert self.process.poll() is None, self.log_file.read_text()
            try:
                if self.get("/readyz").json()["status"] != "starting":
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(self.log_file.read_text())

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def dashboard(redis_url: str, tmp_path: Path) -> Iterator[Dashboard]:
    running = Dashboard(redis_url, tmp_path / "data")
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()


def test_the_dashboard_alone_is_served_and_ends_when_it_is_told_to(dashboard: Dashboard) -> None:
    dashboard.wait_until_it_listens()
    assert dashboard.get("/healthz").json() == {"status": "ok"}
    assert dashboard.get("/readyz").status_code == 503  # its folder holds no bank, and it says so
    assert "antiprompt_in_flight_requests" in dashboard.get("/metrics").text
    page = dashboard.get("/review/log-in")
    assert page.status_code == 200
    assert "antiprompt moderators create" in page.text  # there is no account yet
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for path in ("/v1/models", "/v1/flags"):
        refused = dashboard.get(path)
        assert refused.status_code == 404
        assert refused.json()["error"]["type"] == "invalid_request_error"
    assert dashboard.stop() == 0


def test_without_a_redis_to_share_it_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTIPROMPT_REDIS__URL", raising=False)
    monkeypatch.setenv("ANTIPROMPT_DATA_DIR", str(tmp_path / "data"))
    refused = CliRunner().invoke(app, ["review"])
    assert refused.exit_code == 1
    assert "ANTIPROMPT_REDIS__URL" in refused.output
    assert not (tmp_path / "data").exists()
