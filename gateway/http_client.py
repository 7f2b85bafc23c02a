"""The one HTTP client: how bytes reach the model server and come back, and what may go wrong on the way.

It follows no redirect, reads no proxy from the environment, keeps no cookie, decompresses nothing (it asks for
identity encoding, so that no small reply can grow into a large one), and sends nothing twice unless the request
provably never left. Every wait and every buffer has a bound. Headers are pairs of latin-1 strings, as ASGI has them.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self

import aiohttp
from yarl import URL

from gateway.errors import GatewayError, Overloaded, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from gateway.settings import UpstreamSettings

Headers = tuple[tuple[str, str], ...]

_KEEP_ALIVE_S: Final = 4.0
"""Shorter than the 5 s after which uvicorn, and with it vLLM, closes an idle connection: a request must not meet a
connection that is being closed, because it could not be sent again."""

_DNS_TTL_S: Final = 30
_FIRST_RETRY_WAIT_S: Final = 0.05
_STREAMED_BODY_BYTES: Final = 256 << 10
"""Bodies from this size are written piece by piece, so that they do not block the event loop."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait: for a connection, through a silence, for the whole exchange."""

    connect_s: float
    read_s: float
    total_s: float

    @classmethod
    def from_settings(cls, settings: UpstreamSettings) -> Self:
        return cls(settings.connect_timeout_s, settings.read_timeout_s, settings.total_timeout_s)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much to hold: connections open at once, retries of a connection, bytes of a whole reply."""

    max_connections: int
    connect_retries: int
    max_reply_bytes: int

    @classmethod
    def from_settings(cls, settings: UpstreamSettings) -> Self:
        return cls(settings.max_connections, settings.connect_retries, settings.max_reply_bytes)


class CircuitBreaker:
    """Refuses at once while the server keeps failing, instead of letting every caller find out by waiting.

    ``failures`` in a row open the circuit. After ``reset_s`` one request is let through as a trial: its success
    closes the circuit, its failure opens it anew. ``clock`` gives seconds on any steady scale. No I/O.
    """

    def __init__(self, failures: int, reset_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._reset_s = reset_s
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._trial_under_way = False

    @property
    def state(self) -> Literal["closed", "open", "half_open"]:
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._trial_under_way or self._wait_s() <= 0 else "open"

    def admit(self) -> bool:
        """Let a request go; says whether it is the trial. Raises ``UpstreamUnreachable`` while the circuit is open."""
        if self._opened_at is None:
            return False
        wait_s = self._wait_s()
        if wait_s > 0 or self._trial_under_way:
            message = "the model server keeps failing, so it is not asked for a moment; try again later"
            raise UpstreamUnreachable(message, retry_after_s=max(wait_s, 1.0))
        self._trial_under_way = True
        return True

    def succeeded(self) -> None:
        """The server answered, whatever it said."""
        self._failures = 0
        self._opened_at = None
        self._trial_under_way = False

    def failed(self, trial: bool) -> None:
        """The server could not be reached, was silent for too long or broke off."""
        self._failures += 1
        if trial or self._failures >= self._limit:
            self._opened_at = self._clock()
        if trial:
            self._trial_under_way = False

    def abandoned(self, trial: bool) -> None:
        """The caller left before the outcome was known: the next request is the trial."""
        if trial:
            self._trial_under_way = False

    def _wait_s(self) -> float:
        return 0.0 if self._opened_at is None else self._opened_at + self._reset_s - self._clock()


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A whole reply. ``body`` is at most ``max_reply_bytes`` long."""

    status: int
    headers: Headers
    body: bytes


class HttpStream:
    """A reply whose body is still arriving: iterate over it for chunks as the network delivers them.

    Leaving early (``close``, or the end of ``async with``) closes the connection, which is how the server learns of
    it. Errors while reading: ``UpstreamTimeout``, ``UpstreamUnreachable``.
    """

    __slots__ = ("_breaker", "_max_bytes", "_on_close", "_response", "headers", "status")

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        max_bytes: int,
        breaker: CircuitBreaker,
        on_close: Callable[[], None],
    ) -> None:
        self.status = response.status
        self.headers: Headers = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in response.raw_headers)
        self._response = response
        self._max_bytes = max_bytes
        self._breaker = breaker
        self._on_close: Callable[[], None] | None = on_close

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._response.content.readany()
        except _FAULTS as fault:
            self._breaker.failed(trial=False)
            raise _as_gateway_error(fault) from fault
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def read(self) -> bytes:
        """The rest of the body. Raises ``UpstreamInvalid`` where it is longer than ``max_reply_bytes``."""
        if (self._response.content_length or 0) > self._max_bytes:
            raise self._too_long()
        chunks: list[bytes] = []
        size = 0
        async for chunk in self:
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_long()
            chunks.append(chunk)
        return b"".join(chunks)

    async def close(self) -> None:
        """Give the connection back; where the body has not been read to its end, close it. May be called twice."""
        if self._on_close is None:
            return
        on_close, self._on_close = self._on_close, None
        self._response.close()
        on_close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _too_long(self) -> UpstreamInvalid:
        return UpstreamInvalid(
            f"the model server's reply is longer than {self._max_bytes} bytes, the most that is read"
        )


class Opening:
    """A stream about to be opened: ``async with client.stream(...) as s``, or ``s = await client.stream(...)``."""

    __slots__ = ("_open", "_stream")

    def __init__(self, open_stream: Callable[[], Generator[object, None, HttpStream]]) -> None:
        self._open = open_stream
        self._stream: HttpStream | None = None

    def __await__(self) -> Generator[object, None, HttpStream]:
        return self._open()

    async def __aenter__(self) -> HttpStream:
        self._stream = await self
        return self._stream

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            await self._stream.close()


class HttpClient:
    """Sends requests to one server, over connections that are kept and shared. ``start`` it inside the event loop."""

    def __init__(self, settings: UpstreamSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.timeouts = Timeouts.from_settings(settings)
        self.limits = Limits.from_settings(settings)
        self.breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_reset_s, clock)
        self._slots = asyncio.Semaphore(self.limits.max_connections)
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        # The bound on connections is the semaphore's, whose wait has an error of its own; aiohttp's is off.
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=_DNS_TTL_S, keepalive_timeout=_KEEP_ALIVE_S)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=self.timeouts.total_s, connect=self.timeouts.connect_s, sock_read=self.timeouts.read_s
            ),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
            auto_decompress=False,
            trust_env=False,
            raise_for_status=False,
            middlewares=(_send_once,),
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def send(
        self, method: str, url: str, headers: Iterable[tuple[str, str]] = (), body: bytes | None = None
    ) -> HttpReply:
        """The whole reply, whatever its status.

        Raises ``UpstreamUnreachable``, ``UpstreamTimeout``, ``UpstreamInvalid``, or ``Overloaded`` where no
        connection becomes free in time.
        """
        stream = await self._open(method, url, headers, body)
        try:
            return HttpReply(stream.status, stream.headers, await stream.read())
        finally:
            await stream.close()

    def stream(
        self, method: str, url: str, headers: Iterable[tuple[str, str]] = (), body: bytes | None = None
    ) -> Opening:
        """The reply as soon as its head is there. Raises the errors of ``send``."""
        return Opening(lambda: self._open(method, url, headers, body).__await__())

    async def _open(self, method: str, url: str, headers: Iterable[tuple[str, str]], body: bytes | None) -> HttpStream:
        await self._take_slot()
        try:
            trial = self.breaker.admit()
            try:
                response = await self._request(method, url, headers, body)
            except _FAULTS as fault:
                self.breaker.failed(trial)
                raise _as_gateway_error(fault) from fault
            except BaseException:
                self.breaker.abandoned(trial)
                raise
            self.breaker.succeeded()
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding.strip().lower() not in ("", "identity"):
                response.close()
                raise UpstreamInvalid("the model server sent a compressed reply, although it was asked not to")
        except BaseException:
            self._slots.release()
            raise
        return HttpStream(response, self.limits.max_reply_bytes, self.breaker, self._slots.release)

    async def _take_slot(self) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                await self._slots.acquire()
        except TimeoutError:
            message = "all connections to the model server are taken; try again later"
            raise Overloaded(message, retry_after_s=1.0) from None

    async def _request(
        self, method: str, url: str, headers: Iterable[tuple[str, str]], body: bytes | None
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the HTTP client is not started")
        # In lower case, because aiohttp takes a repeated name in another case for a correction of the first.
        sent = [(name.lower(), _as_utf8(value)) for name, value in headers]
        sent = [pair for pair in sent if pair[0] != "accept-encoding"] + [("accept-encoding", "identity")]
        for attempt in range(self.limits.connect_retries + 1):
            data = body if body is None or len(body) < _STREAMED_BODY_BYTES else io.BytesIO(body)
            try:
                return await self._session.request(
                    method, URL(url, encoded=True), headers=sent, data=data, allow_redirects=False
                )
            except _NEVER_LEFT as fault:
                if attempt == self.limits.connect_retries or isinstance(fault, aiohttp.ClientSSLError):
                    raise
            await asyncio.sleep(_FIRST_RETRY_WAIT_S * 2**attempt)
        raise AssertionError("unreachable")


_NEVER_LEFT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""What aiohttp raises before it has a connection: nothing has been sent, so it may be tried again."""

_FAULTS: Final = (aiohttp.ClientError, TimeoutError, OSError, UpstreamUnreachable)


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keeps aiohttp from sending a GET again where a kept connection broke: a GET can have effects here too."""
    try:
        return await handler(request)
    except _NEVER_LEFT:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as fault:
        raise _as_gateway_error(fault) from fault


def _as_gateway_error(fault: BaseException) -> GatewayError:
    """Messages name the fault and never the address: it is the operator's secret."""
    match fault:
        case GatewayError():
            return fault
        case aiohttp.ConnectionTimeoutError():
            return UpstreamTimeout("the model server did not accept a connection in time")
        case TimeoutError():
            return UpstreamTimeout("the model server did not answer in time")
        case aiohttp.ClientSSLError():
            return UpstreamUnreachable("the model server's TLS certificate or handshake was refused")
        case aiohttp.ClientConnectorError():
            return UpstreamUnreachable("the model server cannot be reached")
        case aiohttp.ClientResponseError() | aiohttp.InvalidURL():
            return UpstreamInvalid("the model server's reply is not valid HTTP")
    return UpstreamUnreachable("the model server broke the connection off")


def _as_utf8(value: str) -> str:
    """A latin-1 header as the string that aiohttp, which writes UTF-8, turns back into the same bytes."""
    return value if value.isascii() else value.encode("latin-1", "replace").decode("utf-8", "replace")
