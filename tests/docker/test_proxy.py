"""The proxy of the compose file as a real HAProxy: what passes, which gateway gets it, that streams are not held."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.docker.scripts import DOCKER
from tests.end_to_end.running_gateway import PATIENCE_S, free_port

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
pytestmark = pytest.mark.skipif(
    HAPROXY is None, reason="left out: the proxy of docker/compose.yaml. apt-get install haproxy to have it"
)


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A proxy that closes a connection it does not need any more is no error."""
        assert isinstance(sys.exception(), ConnectionError)


@dataclass
class Behind:
    """A server that says its name to whatever it is asked; /v1/stream sends a second event when ``go_on`` is set."""

    name: str
    ready: bool = True
    go_on: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        behind = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(503 if self.path == "/readyz" and not behind.ready else 200)
                if self.path == "/v1/stream":
                    self.send_header("content-type", "text/event-stream")
                    self.send_header("connection", "close")
                    self.end_headers()
                    self.wfile.write(b"data: first\n\n")
                    behind.go_on.wait(PATIENCE_S)
                    self.wfile.write(b"data: second\n\n")
                    self.close_connection = True
                    return
                self.send_header("content-length", str(len(behind.name)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # a check reads the head alone
                    self.wfile.write(behind.name.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Answer)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Proxy:
    port: int
    gateways: tuple[Behind, Behind]

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; the path is sent as it stands."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def answers_only(self, *names: str) -> None:
        """Wait until twenty requests in a row were answered, by these gateways."""
        expected = {(200, name) for name in names}
        ends_s = time.monotonic() + PATIENCE_S
        while {self.get("/v1/models") for _ in range(20)} != expected:
            assert time.monotonic() < ends_s
            time.sleep(0.1)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    servers = {name: Behind(name) for name in ("gateway-1", "gateway-2", "review")}
    port = free_port()
    text = (DOCKER / "haproxy.cfg").read_text("utf-8").replace("bind :8080", f"bind 127.0.0.1:{port}")
    for name, server in servers.items():
        text = text.replace(f"{name}:8080", f"127.0.0.1:{server.port}")
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(text, "utf-8")
    assert HAPROXY is not None
    checked = subprocess.run([HAPROXY, "-c", "-f", str(configuration)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr
    with subprocess.Popen([HAPROXY, "-db", "-f", str(configuration)], stdout=subprocess.DEVNULL) as process:
        made = Proxy(port, (servers["gateway-1"], servers["gateway-2"]))
        wait_until_it_listens(made)
        yield made
        process.terminate()
        for server in servers.values():
            server.close()


def wait_until_it_listens(proxy: Proxy) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            if proxy.get("/v1/models")[0] == proxy.get("/review")[0] == 200:
                return
        except ConnectionError:
            pass
        assert time.monotonic() < ends_s
        time.sleep(0.02)


def test_callers_reach_the_gateways_moderators_the_dashboard_and_nobody_anything_else(proxy: Proxy) -> None:
    for path in ("/v1/models", "/v1/chat/completions", "/healthz"):
        status, name = proxy.get(path)
        assert status == 200
        assert name.startswith("gateway-"), path
    for path in ("/review", "/review/log-in", "/review/static/review.css"):
        assert proxy.get(path) == (200, "review")
    for path in ("/metrics", "/readyz", "/", "/v1", "/reviews", "/healthz/x", "//v1/models", "/metrics/v1/"):
        assert proxy.get(path)[0] == 404, path


def test_both_gateways_are_used_and_one_that_is_not_ready_gets_nothing(proxy: Proxy) -> None:
    proxy.answers_only("gateway-1", "gateway-2")
    proxy.gateways[0].ready = False
    proxy.answers_only("gateway-2")
    proxy.gateways[0].ready = True
    proxy.answers_only("gateway-1", "gateway-2")


def test_a_gateway_that_stops_listening_costs_no_request(proxy: Proxy) -> None:
    proxy.answers_only("gateway-1", "gateway-2")
    proxy.gateways[0].close()
    assert {proxy.get("/v1/models") for _ in range(50)} == {(200, "gateway-2")}


def test_a_stream_passes_event_by_event(proxy: Proxy) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", "/v1/stream")
        answer = connection.getresponse()
        assert answer.readline() == b"data: first\n"
        for gateway in proxy.gateways:
            gateway.go_on.set()  # only now that the first one has arrived
        assert answer.read() == b"\ndata: second\n\n"
