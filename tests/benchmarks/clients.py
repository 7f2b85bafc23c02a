"""Clients that cost little: one caller over a plain socket, load over many connections, a crowd of streams."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import orjson
import uvloop

PATH = "/v1/chat/completions"

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_SENT = re.compile(rb'"sent_s":([0-9.]+)')
_WRK_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_WRK_MEDIAN = re.compile(r"50%\s+([\d.]+)(us|ms|s)")
_WRK_FAILED = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)")
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class Unexpected(Exception):
    """A reply that a benchmark must not count: an error, a refusal, a broken connection."""


def chat(content: str, **more: Any) -> bytes:
    """The body of a chat completion."""
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **more})


def request(port: int, body: bytes) -> bytes:
    """A whole HTTP request for a chat completion."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Caller:
    """One client on one kept connection, blocking, so that nothing but the server is waited for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, body: bytes) -> float:
        """Milliseconds until the whole reply is there. Raises ``Unexpected`` unless it is a 200 of the model's."""
        message = request(self._port, body)
        start_s = time.perf_counter()
        self._socket.sendall(message)
        received = b""
        while (end := _reply_end(received)) is None or len(received) < end:
            data = self._socket.recv(65536)
            if not data:
                raise Unexpected("the connection was closed in the middle of a reply")
            received += data
        took_ms = (time.perf_counter() - start_s) * 1e3
        if not received.startswith(b"HTTP/1.1 200") or b'"finish_reason":"stop"' not in received:
            raise Unexpected(received[:500].decode(errors="replace"))
        return took_ms

    def close(self) -> None:
        self._socket.close()


def _reply_end(received: bytes) -> int | None:
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    length = _LENGTH.search(received, 0, head_end)
    return head_end + 4 + int(length[1]) if length else head_end + 4


@contextmanager
def calling(port: int) -> Iterator[Caller]:
    caller = Caller(port)
    try:
        yield caller
    finally:
        caller.close()


@dataclass(frozen=True, slots=True)
class Load:
    """What many clients at once got: requests a second, and the median of their waits."""

    requests_per_s: float
    median_ms: float


def load(port: int, body: bytes, *, clients: int, seconds: float) -> Load:
    """The same request from ``clients`` connections, each asking again as soon as it is answered.

    By wrk where it is installed, else by our own loop, which costs the machine more.
    """
    if shutil.which("wrk"):
        return _load_by_wrk(port, body, clients, seconds)
    return uvloop.run(_load_by_loop(port, body, clients, seconds))


def _load_by_wrk(port: int, body: bytes, clients: int, seconds: float) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        script, text = Path(folder) / "post.lua", Path(folder) / "body.json"
        text.write_bytes(body)
        script.write_text(
            'wrk.method = "POST"\n'
            'wrk.headers["Content-Type"] = "application/json"\n'
            f'wrk.body = io.open("{text}", "rb"):read("*a")\n'
        )
        options = ["-t", "1", "-c", str(clients), "-d", f"{max(round(seconds), 1)}s", "--latency", "-s", str(script)]
        command = ["wrk", *options, f"http://127.0.0.1:{port}{PATH}"]
        return read_wrk(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def read_wrk(report: str) -> Load:
    """wrk's report as a ``Load``. Raises ``Unexpected`` where any request failed."""
    failed, rate, median = _WRK_FAILED.search(report), _WRK_RATE.search(report), _WRK_MEDIAN.search(report)
    if failed or rate is None or median is None:
        raise Unexpected(report)
    return Load(float(rate[1]), float(median[1]) * _MS[median[2]])


async def _load_by_loop(port: int, body: bytes, clients: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    message, waits_ms = request(port, body), list[float]()
    until_s = time.monotonic() + seconds
    made = [
        await loop.create_connection(lambda: _Asker(message, until_s, waits_ms), "127.0.0.1", port)
        for _ in range(clients)
    ]
    await asyncio.gather(*(asker.done for _, asker in made))
    waits_ms.sort()
    return Load(len(waits_ms) / seconds, waits_ms[len(waits_ms) // 2])


class _Asker(asyncio.Protocol):
    """One connection of the load: asks until the time is up."""

    def __init__(self, message: bytes, until_s: float, waits_ms: list[float]) -> None:
        self._message, self._until_s, self._waits_ms = message, until_s, waits_ms
        self._received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = _reply_end(self._received)
        if end is None or len(self._received) < end:
            return
        if not self._received.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(Unexpected(self._received[:500].decode(errors="replace")))
            self._transport.close()
            return
        now_s = time.monotonic()
        self._waits_ms.append((now_s - self._asked_s) * 1e3)
        if now_s < self._until_s:
            self._ask()
        else:
            self.done.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(Unexpected(f"the connection was closed: {exc}"))

    def _ask(self) -> None:
        self._received = b""
        self._asked_s = time.monotonic()
        self._transport.write(self._message)


@dataclass(slots=True)
class Streamed:
    """How one stream went. ``arrivals`` are pairs of when a chunk was sent and when it came, on one clock."""

    asked_s: float = 0.0
    arrivals: list[tuple[float, float]] = field(default_factory=list)
    ended_s: float | None = None

    @property
    def first_text_ms(self) -> float:
        return (self.arrivals[0][1] - self.asked_s) * 1e3

    @property
    def lags_ms(self) -> list[float]:
        return [(came_s - sent_s) * 1e3 for sent_s, came_s in self.arrivals]

    @property
    def end_lag_ms(self) -> float:
        """From the last chunk's sending to the end of the stream."""
        assert self.ended_s is not None
        return (self.ended_s - self.arrivals[-1][0]) * 1e3


def streams(port: int, bodies: Sequence[bytes], *, apart_s: float = 0.0, within_s: float = 60.0) -> list[Streamed]:
    """One stream a body, all at once, each begun ``apart_s`` after the one before; a stream that has not ended
    within ``within_s`` has no ``ended_s``. Raises ``Unexpected`` for a reply that is no stream of the model's."""
    return uvloop.run(_streams(port, bodies, apart_s, within_s))


async def _streams(port: int, bodies: Sequence[bytes], apart_s: float, within_s: float) -> list[Streamed]:
    loop = asyncio.get_running_loop()
    listeners = []
    for body in bodies:
        _, listener = await loop.create_connection(partial(_Listener, request(port, body)), "127.0.0.1", port)
        listeners.append(listener)
        await asyncio.sleep(apart_s)
    await asyncio.wait([listener.done for listener in listeners], timeout=within_s)
    for listener in listeners:
        listener.transport.abort()
        if listener.done.done():
            listener.done.result()
    return [listener.streamed for listener in listeners]


class _Listener(asyncio.Protocol):
    """One stream: notes when each chunk that carries text came."""

    transport: asyncio.Transport

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._pending = b""
        self._begun = False
        self.streamed = Streamed()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.streamed.asked_s = time.monotonic()
        self.transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        self._pending += data
        if not self._begun and not self._pending.startswith(b"HTTP/1.1 200"):
            return self._fail(self._pending[:500].decode(errors="replace"))
        self._begun = True
        read_to = 0
        for found in _SENT.finditer(self._pending):
            self.streamed.arrivals.append((float(found[1]), now_s))
            read_to = found.end()
        if b"[DONE]" in self._pending and not self.done.done():
            if b'"finish_reason":"stop"' not in self._pending:
                return self._fail(self._pending[-500:].decode(errors="replace"))
            self.streamed.ended_s = now_s
            self.done.set_result(None)
        self._pending = self._pending[read_to:]
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was closed: {exc}")

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(Unexpected(why))
