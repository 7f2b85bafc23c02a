"""The official ``openai`` client, sync or async, behind one interface, so that a test of it is written once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from typing import Any

import httpx2  # what the official client is built on
import openai

Method = Callable[[Any], Any]
"""Calls a method of a client: ``lambda client: client.models.list()``."""


class Official:
    """One client. What a ``Method`` returns is awaited where it has to be; the sync client runs in a thread."""

    def __init__(self, base_url: str, api_key: str, *, is_async: bool) -> None:
        self.client: openai.OpenAI | openai.AsyncOpenAI
        # Nothing is encrypted here, and certificates take time to load.
        if is_async:
            http = httpx2.AsyncClient(verify=False, timeout=30)
            self.client = openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0, http_client=http)
        else:
            self.client = openai.OpenAI(
                base_url=base_url, api_key=api_key, max_retries=0, http_client=httpx2.Client(verify=False, timeout=30)
            )

    async def ask(self, method: Method) -> Any:
        """What the method returns."""
        if isinstance(self.client, openai.AsyncOpenAI):
            return await method(self.client)
        return await asyncio.to_thread(method, self.client)

    async def read(self, method: Method) -> list[Any]:
        """All chunks or events of the stream that the method returns."""
        if isinstance(self.client, openai.AsyncOpenAI):
            return [item async for item in await method(self.client)]
        return await asyncio.to_thread(lambda: list(method(self.client)))

    async def follow(self, method: Method, final: str) -> list[Any]:
        """The same for the client's stream helpers (``with client.responses.stream(...)``), then what their method
        ``final`` makes of it all."""
        if isinstance(self.client, openai.AsyncOpenAI):
            async with method(self.client) as events:
                return [*[event async for event in events], await getattr(events, final)()]
        return await asyncio.to_thread(self._follow_sync, method, final)

    def _follow_sync(self, method: Method, final: str) -> list[Any]:
        with method(self.client) as events:
            return [*events, getattr(events, final)()]

    async def follow_bytes(self, method: Method) -> bytes:
        """The bytes of a ``with_streaming_response`` method."""
        if isinstance(self.client, openai.AsyncOpenAI):
            async with method(self.client) as reply:
                return b"".join([chunk async for chunk in reply.iter_bytes()])
        return await asyncio.to_thread(self._bytes_sync, method)

    def _bytes_sync(self, method: Method) -> bytes:
        with method(self.client) as reply:
            return b"".join(reply.iter_bytes())

    def with_options(self, **options: Any) -> Official:
        """The same client with other options (``max_retries``, ``timeout``, ``api_key``)."""
        other = copy(self)
        other.client = self.client.with_options(**options)
        return other

    async def close(self) -> None:
        if isinstance(self.client, openai.AsyncOpenAI):
            await self.client.close()
        else:
            self.client.close()
