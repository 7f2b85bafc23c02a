"""A client of the gateway: the official one, async and sync, and plain HTTP. What it receives is kept, byte by byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import httpx2  # what the official client is built on
import openai


@dataclass(slots=True)
class Received:
    """One HTTP reply as it came; ``body`` grows while it streams."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    ended: bool = False


class Caller:
    """One tenant's clients. ``received`` holds the replies to ``openai`` and ``http``, oldest first.

    ``on_first_bytes`` is called when a reply's first bytes have arrived. Nothing is retried, so that a test sees the
    first answer. ``sync`` blocks: use it in a thread, where the scripted model server runs in the same loop.
    """

    def __init__(self, base_url: str, tenant: str, token: str) -> None:
        self.tenant = tenant
        self.token = token
        self.received: list[Received] = []
        self.on_first_bytes: Callable[[], object] = lambda: None
        transport = _Recording(self)
        self.http = httpx2.AsyncClient(
            base_url=base_url, headers={"Authorization": f"Bearer {token}"}, transport=transport, timeout=30
        )
        self.openai = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=token,
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=transport, timeout=30),
        )
        self._sync: openai.OpenAI | None = None

    @property
    def sync(self) -> openai.OpenAI:
        if self._sync is None:
            http = httpx2.Client(verify=False, timeout=30)
            self._sync = openai.OpenAI(
                base_url=str(self.openai.base_url), api_key=self.token, max_retries=0, http_client=http
            )
        return self._sync

    @property
    def last(self) -> Received:
        return self.received[-1]

    @property
    def case_id(self) -> str:
        """The case of the last reply."""
        return self.last.headers["x-antiprompt-case"]

    async def close(self) -> None:
        await self.http.aclose()
        await self.openai.close()
        if self._sync is not None:
            self._sync.close()


class _Recording(httpx2.AsyncBaseTransport):
    """The usual transport, overheard."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._inner = httpx2.AsyncHTTPTransport(
            verify=False
        )  # nothing is encrypted here, and certificates take time to load

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        received = Received(response.status_code, dict(response.headers))
        self._caller.received.append(received)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Overheard(response.stream, received, self._caller)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass(slots=True)
class _Overheard(httpx2.AsyncByteStream):
    inner: httpx2.AsyncByteStream
    received: Received
    caller: Caller
    begun: bool = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self.inner:
            self.received.body += chunk
            if not self.begun:
                self.begun = True
                self.caller.on_first_bytes()
            yield chunk
        self.received.ended = True

    async def aclose(self) -> None:
        await self.inner.aclose()
