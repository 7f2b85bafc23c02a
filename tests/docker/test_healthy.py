"""The health check of the images: ready is what /readyz says, on the port of what was started."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gateway.commands.worker import ALIVE
from tests.docker.scripts import script

HEALTHY = script("healthy")


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """The port of a server that gives one answer to /readyz and 404 to all else."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_a_process_that_is_ready_is_healthy() -> None:
    with answering(200, b'{"status":"ready"}') as port:
        assert HEALTHY.ready(port) == (True, '{"status":"ready"}')


def test_one_that_is_not_ready_is_not_and_its_reason_is_told() -> None:
    with answering(503, b'{"status":"failed","reason":"no bank"}') as port:
        healthy, said = HEALTHY.ready(port)
    assert not healthy
    assert "no bank" in said


def test_one_that_does_not_listen_is_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        healthy, said = HEALTHY.ready(taken.getsockname()[1])
    assert not healthy
    assert "ConnectionRefusedError" in said


@pytest.mark.parametrize(
    ("command", "environment", "port"),
    [
        (["python", "/opt/antiprompt/bin/antiprompt", "serve"], {}, 8080),
        (["python", "/opt/antiprompt/bin/antiprompt", "serve"], {"ANTIPROMPT_PORT": "9000"}, 9000),
        (["python", "/opt/antiprompt/bin/antiprompt", "serve"], {"ANTIPROMPT_REVIEW__PORT": "9001"}, 8080),
        (["/sbin/docker-init", "--", "antiprompt", "review"], {"ANTIPROMPT_REVIEW__PORT": "9001"}, 9001),
        (["/sbin/docker-init", "--", "antiprompt", "review"], {"ANTIPROMPT_PORT": "9000"}, 9000),
        (["python", "/opt/antiprompt/bin/antiprompt", "worker", "--name", "serve"], {}, None),
    ],
)
def test_the_port_is_that_of_the_command(command: list[str], environment: dict[str, str], port: int | None) -> None:
    assert HEALTHY.port_of(command, environment) == port


def test_a_worker_is_healthy_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    assert HEALTHY.beats(tmp_path)[0] is False  # none yet
    alive = tmp_path / ALIVE
    alive.touch()
    assert HEALTHY.beats(tmp_path)[0] is True
    old = time.time() - HEALTHY.SILENT_S - 1
    os.utime(alive, (old, old))
    healthy, said = HEALTHY.beats(tmp_path)
    assert not healthy
    assert "s old" in said
