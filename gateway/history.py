"""What a tenant has met before: texts that were acted on, and ids that the upstream gave out to it.

Both are asked for while a request waits: a local memory answers first, Redis second. Texts are kept as keyed digests
only. With Redis away a text counts as new (it is screened and judged again, which is safe), while an id that is not
known here cannot be told from a stranger's and is ``StateUnavailable``.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.errors import StateUnavailable
from gateway.redis_client import RedisClient, end_tasks
from gateway.redis_keys import ISSUED, JUDGED

GIVEN: Final = "given"
"""The action noted for a reply's text that a caller was given."""

FLUSH_S: Final = 0.05
MAX_BUFFERED_GIVEN: Final = 10_000
TTL_S = 30 * 86_400  # as long as OpenAI keeps stored responses
MAX_LOCAL_ENTRIES = 100_000


class TenantHistory:
    """Judged texts and issued ids, by tenant."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._judged = _Recent()
        self._issued = _Recent()
        self._given: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._flusher = asyncio.create_task(self._flush_for_ever())

    async def close(self) -> None:
        """Stop; what was given and is not in Redis yet goes there now."""
        if self._flusher is not None:
            await end_tasks(self._flusher)
        await self._flush()

    def note_given(self, tenant: str, texts: Sequence[str]) -> None:
        """Note the texts of a reply that a caller was given. Never waits: they reach Redis a moment later.

        A reply is screened window by window as it streams, but whole when it comes back in a history: without this
        note a reply that passed could lock its own conversation.
        """
        try:
            keys = [self._judged_key(tenant, text) for text in texts if text]
        except StateUnavailable:
            return
        for key in keys:
            if self._judged.get(key) is None:
                self._judged.put(key, GIVEN)
                if len(self._given) < MAX_BUFFERED_GIVEN:
                    self._given[key] = GIVEN
        if self._given:
            self._wake.set()

    async def _flush_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(FLUSH_S)  # let others join
            self._wake.clear()
            await self._flush()

    async def _flush(self) -> None:
        given, self._given = self._given, {}
        if given:
            await self._store(given)

    async def remember_judged(self, tenant: str, texts: Sequence[str], action: str) -> None:
        """Note that policy acted on ``texts`` (flag, rewrite or block). With Redis away only this process knows."""
        try:
            keys = [self._judged_key(tenant, text) for text in texts]
        except StateUnavailable:  # no secret yet: nothing can be looked up later either
            return
        for key in keys:
            self._judged.put(key, action)
        await self._store(dict.fromkeys(keys, action))

    async def judged(self, tenant: str, texts: Sequence[str]) -> Mapping[str, str]:
        """Those of ``texts`` that were acted on before for this tenant, with the last action."""
        try:
            keys = {text: self._judged_key(tenant, text) for text in texts}
        except StateUnavailable:
            return {}
        known = {text: action for text, key in keys.items() if (action := self._judged.get(key)) is not None}
        missing = [text for text in keys if text not in known]
        if not missing:
            return known
        try:
            with self._redis.guard() as redis:
                pipe = redis.pipeline(transaction=False)
                for text in missing:
                    pipe.get(keys[text])
                actions = await pipe.execute()
        except StateUnavailable:
            return known
        for text, action in zip(missing, actions, strict=True):
            if action is not None:
                self._judged.put(keys[text], action)
                known[text] = action
        return known

    async def remember_issued(self, tenant: str, ids: Sequence[str]) -> None:
        """Note that the upstream gave ``ids`` (responses, conversations) to this tenant.

        Await it before the reply goes out: the next request may come at once, and to another replica.
        """
        keys = [ISSUED(tenant, id) for id in ids]
        for key in keys:
            self._issued.put(key, "1")
        await self._store(dict.fromkeys(keys, "1"))

    async def owns(self, tenant: str, id: str) -> bool:
        """Whether ``id`` was issued to this tenant. Raises ``StateUnavailable`` where only Redis could tell."""
        key = ISSUED(tenant, id)
        if self._issued.get(key) is not None:
            return True
        with self._redis.guard() as redis:
            found = await redis.exists(key)
        if found:
            self._issued.put(key, "1")
        return bool(found)

    def _judged_key(self, tenant: str, text: str) -> str:
        return JUDGED(tenant, self._redis.digest("judged", text))

    async def _store(self, values: Mapping[str, str]) -> None:
        try:
            with self._redis.guard() as redis:
                pipe = redis.pipeline(transaction=False)
                for key, value in values.items():
                    pipe.set(key, value, ex=TTL_S)
                await pipe.execute()
        except StateUnavailable:
            return


class _Recent:
    """The entries used last, up to a number, each for ``TTL_S``."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def get(self, key: str) -> str | None:
        entry = self._entries.get(key)
        if entry is None or entry[1] < time.monotonic():
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: str, value: str) -> None:
        self._entries[key] = (value, time.monotonic() + TTL_S)
        self._entries.move_to_end(key)
        if len(self._entries) > MAX_LOCAL_ENTRIES:
            self._entries.popitem(last=False)
