"""The processes of a run: the fake model, the gateway as a user starts it, and a peer beside it. Linux only (/proc)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_START_TIMEOUT_S = 600.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.01


class NotStarted(Exception):
    """A process ended or did not become ready; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is up. ``start_s`` passed from the start of its process until it was ready."""

    port: int
    pid: int
    start_s: float

    def cpu_s(self) -> float:
        """Processor time the server's own process has used, in user and in system mode."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Resident memory of the server and its children, redis-server apart."""
        pages = (Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in _family(self.pid))
        return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE") / 1e6

    @contextmanager
    def on_one_core(self) -> Iterator[None]:
        """Keep the server, and this process off its core, while entered. Does nothing where there is one core."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) == 1:
            yield
            return
        self._pin({cores[0]})
        os.sched_setaffinity(0, set(cores[1:]))
        try:
            yield
        finally:
            os.sched_setaffinity(0, set(cores))
            self._pin(set(cores))

    def _pin(self, cores: set[int]) -> None:
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def _family(pid: int) -> Iterator[int]:
    if "redis" in Path(f"/proc/{pid}/comm").read_text():
        return
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


@contextmanager
def fake_model() -> Iterator[int]:
    """The fake model server; gives its port."""
    command = [sys.executable, "-m", "tests.benchmarks.fake_model"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@contextmanager
def gateway(model_port: int, data_dir: Path, **settings: str) -> Iterator[Served]:
    """``antiprompt serve`` with one worker and default settings, in front of the model at ``model_port``."""
    port = free_port()
    variables = {
        "ANTIPROMPT_PORT": str(port),
        "ANTIPROMPT_UPSTREAM__BASE_URL": f"http://127.0.0.1:{model_port}/v1",
        "ANTIPROMPT_DATA_DIR": str(data_dir),
        **settings,
    }
    command = [sys.executable, "-c", "from gateway.cli import main; main()", "serve"]
    with _server(command, port, "/readyz", data_dir / "gateway.log", variables) as served:
        yield served


@contextmanager
def litellm(model_port: int, folder: Path) -> Iterator[Served]:
    """LiteLLM's proxy with one worker, if its command is installed; raises ``NotStarted`` if it is not."""
    command = shutil.which("litellm")
    if command is None:
        raise NotStarted("there is no litellm command on the path; install litellm[proxy] to measure beside it")
    port = free_port()
    parameters = {"model": "openai/m", "api_base": f"http://127.0.0.1:{model_port}/v1", "api_key": "none"}
    configuration = folder / "litellm.json"  # JSON is YAML
    configuration.write_text(json.dumps({"model_list": [{"model_name": "m", "litellm_params": parameters}]}))
    arguments = ["--config", str(configuration), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    with _server([command, *arguments], port, "/health/readiness", folder / "litellm.log", {}) as served:
        yield served


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _server(
    command: Sequence[str], port: int, ready_path: str, log: Path, variables: Mapping[str, str]
) -> Iterator[Served]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPROMPT_")}
    start_s = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(command, env={**inherited, **variables}, stdout=output, stderr=output)
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}{ready_path}", log)
        yield Served(port, process.pid, time.monotonic() - start_s)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    give_up_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < give_up_s and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                if reply.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(_POLL_S)
    end = log.read_text(errors="replace")[-2000:]
    raise NotStarted(f"{' '.join(process.args)} is not ready\n{end}")  # type: ignore[arg-type]
