"""A model server that does exactly what a test writes down, byte for byte, over a real socket.

    async with ScriptedUpstream() as upstream:
        upstream.on("/chat/completions", whole(chat_completion("Hello")))
        upstream.on("/chat/completions", stream(*chat_stream("Hello"), CUT))     # replaces the script above
        ...
        assert upstream.last.json["model"] == "m"

``tests.transcripts`` has the bodies and the events; here is how they travel.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self, cast

import httptools


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next step, so that what follows arrives in another read."""

    seconds: float = 0.02


@dataclass(frozen=True, slots=True)
class Gate:
    """Wait until the test opens it, so that what follows comes after something that the test has seen."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self) -> None:
        self.opened.set()


class Ending(Enum):
    """How a connection may end other than by an answer."""

    CUT = "reset the connection"
    CLOSE = "close the connection in an orderly way, wherever the reply stands"
    HANG = "say nothing more until the client leaves"


CUT, CLOSE, HANG = Ending.CUT, Ending.CLOSE, Ending.HANG

Step = bytes | Pause | Gate | Ending


@dataclass(frozen=True, slots=True)
class Script:
    """What the server does on the wire once a request is complete. Each ``bytes`` is one write."""

    steps: tuple[Step, ...]


def whole(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Script:
    """A reply with a Content-Length. ``body`` is sent as JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    sent = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
    return Script((_head(status, sent) + data,))


def stream(*steps: Step, status: int = 200, headers: Mapping[str, str] | None = None) -> Script:
    """A chunked reply; each ``bytes`` travels as an HTTP chunk of its own. Ends properly unless an Ending says not."""
    sent = {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked", **(headers or {})}
    chunks = (b"%x\r\n%b\r\n" % (len(step), step) if isinstance(step, bytes) else step for step in steps)
    return Script((_head(status, sent), *chunks, b"0\r\n\r\n"))


def error(
    status: int, message: str = "scripted error", *, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Script:
    """An error in OpenAI's shape."""
    body = {"error": {"message": message, "type": "scripted", "param": None, "code": code}}
    return whole(body, status=status, headers=headers)


def redirect(location: str, status: int = 307) -> Script:
    return whole(b"", status=status, headers={"Location": location})


def raw(*steps: Step) -> Script:
    """Bytes exactly as given, the reply's head among them."""
    return Script(steps)


def hang() -> Script:
    """Take the request and never answer."""
    return Script((HANG,))


def cut() -> Script:
    """Take the request and reset the connection."""
    return Script((CUT,))


@dataclass(eq=False)
class Received:
    """One request as it arrived. ``headers`` has lower-case names; ``raw_headers`` keeps order, case and doubles."""

    method: str
    path: str
    query: str
    raw_headers: list[tuple[str, str]]
    body: bytes
    connection: int
    arrived_at_s: float
    closed_early: bool = False
    ended_at_s: float | None = None
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.raw_headers}

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def ended(self, within_s: float = 5.0) -> Self:
        """Wait until the reply is written or the client has left; ``closed_early`` then says which."""
        await asyncio.wait_for(self._ended.wait(), within_s)
        return self

    def _end(self, *, early: bool) -> None:
        if not self._ended.is_set():
            self.closed_early = early
            self.ended_at_s = asyncio.get_running_loop().time()
            self._ended.set()


Answer = Script | Callable[[Received], Script]


class ScriptedUpstream:
    """Listens on a free loopback port while it is entered. A path without a script is answered with 404."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.port = 0
        self._scripts: dict[str, list[Answer]] = {}
        self._open: set[_Connection] = set()
        self._arrival = asyncio.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def last(self) -> Received:
        return self.requests[-1]

    def on(self, path: str, *answers: Answer) -> Self:
        """Answer requests for ``path`` (below /v1) in this order; the last answer repeats."""
        self._scripts[path] = list(answers)
        return self

    async def arrived(self, count: int = 1, within_s: float = 5.0) -> Received:
        """Wait until ``count`` requests have come in all; the last of them."""
        async with asyncio.timeout(within_s):
            while len(self.requests) < count:
                self._arrival.clear()
                await self._arrival.wait()
        return self.requests[count - 1]

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        for _ in range(3):  # one that was taken as the server closed appears a turn later; an abort takes a turn, too
            for connection in tuple(self._open):
                connection.transport.abort()
            await asyncio.sleep(0)

    def _answer(self, request: Received) -> Script:
        self.requests.append(request)
        self._arrival.set()
        answers = self._scripts.get(request.path.removeprefix("/v1"))
        if not answers:
            return error(404, f"no script for {request.path}")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer if isinstance(answer, Script) else answer(request)


class _Connection(asyncio.Protocol):
    """One client connection: parses requests, plays a script for each, notices when the client leaves."""

    transport: asyncio.Transport

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._parser = httptools.HttpRequestParser(self)
        self._player: asyncio.Task[None] | None = None
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._upstream.connections += 1
        self._number = self._upstream.connections
        self._upstream._open.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.write(_head(400, {"Content-Length": "0"}))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream._open.discard(self)
        if self._player is not None:
            self._player.cancel()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode("latin-1").partition("?")
        request = Received(
            method=self._parser.get_method().decode(),
            path=path,
            query=query,
            raw_headers=self._headers,
            body=b"".join(self._body),
            connection=self._number,
            arrived_at_s=asyncio.get_running_loop().time(),
        )
        self._url, self._headers, self._body = b"", [], []
        script = self._upstream._answer(request)
        self._player = asyncio.get_running_loop().create_task(self._play(script, request))

    async def _play(self, script: Script, request: Received) -> None:
        early = True
        try:
            await self._take(script.steps)
            early = False
        finally:
            request._end(early=early)

    async def _take(self, steps: Iterable[Step]) -> None:
        for step in steps:
            match step:
                case bytes():
                    self.transport.write(step)
                    await asyncio.sleep(0)
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case Gate(opened):
                    await opened.wait()
                case Ending.HANG:
                    await asyncio.get_running_loop().create_future()
                case Ending.CLOSE:
                    self.transport.close()
                    return
                case Ending.CUT:
                    sock = self.transport.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.transport.abort()
                    return


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
