"""Cases: what was decided and why, kept for a while; and apart from them, for a shorter while, the text itself.

``CaseStore.record`` stands on the path of every request: it only puts the case into a bounded buffer. One task takes
the buffer to Redis every few milliseconds, many cases in one script. Until then a case is found in the buffer.
Traffic never waits for this: with Redis away, or the buffer full, texts go first, then the oldest cases, counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Literal

from redis.exceptions import ResponseError

from gateway.case_records import Case, CaseFinding, Exchange, new_case_id
from gateway.errors import NotFound, StateUnavailable
from gateway.redis_client import RedisClient, end_tasks
from gateway.redis_keys import (
    CASE,
    CASE_BY_COMPLETION,
    CASE_END_USER,
    CASE_RECENT,
    EXCHANGE,
    EXCHANGE_ORDER,
    EXCHANGE_SIZES,
)
from gateway.settings import RetentionSettings
from gateway.telemetry import logger

__all__ = ["Case", "CaseFinding", "CaseStore", "Exchange", "new_case_id"]

log = logger()

FLUSH_S = 0.02
FLUSH_CASES = 128
FLUSH_CHARACTERS = 1 << 20
RETRY_S = 0.5
MAX_BUFFERED_CASES = 10_000
MAX_BUFFERED_CHARACTERS = 32 << 20
CLEAN_AT_LEAST_S = 600.0
EXPIRY_SLACK_S = 10.0  # Redis removes what has expired by and by

DropCause = Literal["redis_away", "buffer_full", "too_large"]
Kept = tuple[Case, Exchange | None]

_FORGET = """
local order, sizes, prefix = KEYS[1], KEYS[2], ARGV[1]
local function forget(ids)
    local found = 0
    for _, id in ipairs(ids) do
        local size = redis.call('HGET', sizes, id)
        if size then
            redis.call('DEL', prefix .. id)
            redis.call('HDEL', sizes, id)
            redis.call('HINCRBY', sizes, 'total', -size)
            found = found + 1
        end
        redis.call('ZREM', order, id)
    end
    return found
end
"""

_RECORD = (
    _FORGET
    + """
local recent = KEYS[3]
local now_ms, case_ttl_s, exchange_ttl_s, max_bytes = unpack(ARGV, 2, 5)
for i = 0, (#KEYS - 3) / 4 - 1 do
    local case, completion, end_user, exchange = unpack(KEYS, i * 4 + 4, i * 4 + 7)
    local id, created_ms, json, has_completion, has_end_user, text = unpack(ARGV, i * 6 + 6, i * 6 + 11)
    redis.call('SET', case, json, 'EX', case_ttl_s)
    redis.call('ZADD', recent, created_ms, id)
    if has_completion == '1' then redis.call('SET', completion, id, 'EX', case_ttl_s) end
    if has_end_user == '1' then
        redis.call('ZADD', end_user, created_ms, id)
        redis.call('EXPIRE', end_user, case_ttl_s)
    end
    if text ~= '' then
        forget({id})
        redis.call('SET', exchange, text, 'EX', exchange_ttl_s)
        redis.call('ZADD', order, created_ms, id)
        redis.call('HSET', sizes, id, #text)
        redis.call('HINCRBY', sizes, 'total', #text)
    end
end
redis.call('ZREMRANGEBYSCORE', recent, '-inf', now_ms - case_ttl_s * 1000)
forget(redis.call('ZRANGEBYSCORE', order, '-inf', now_ms - exchange_ttl_s * 1000, 'LIMIT', 0, 1000))
while tonumber(redis.call('HGET', sizes, 'total') or '0') > tonumber(max_bytes) do
    local oldest = redis.call('ZRANGE', order, 0, 0)
    if #oldest == 0 then break end
    forget(oldest)
end
"""
)

_ERASE = _FORGET + "return forget(redis.call('ZRANGE', KEYS[3], 0, -1))"


class CaseStore:
    """Cases and exchanges. ``start`` before use, ``close`` at the end (it flushes what it can).

    ``on_dropped`` is called with a cause and how many were dropped, for metrics.
    """

    def __init__(
        self,
        redis: RedisClient,
        retention: RetentionSettings,
        *,
        on_dropped: Callable[[DropCause, int], object] | None = None,
    ) -> None:
        self._redis = redis
        self._retention = retention
        self._on_dropped = on_dropped
        self._keeps_text = retention.exchange_ttl_s > 0 and retention.exchange_max_bytes > 0
        self._buffer: dict[str, Kept] = {}
        self._buffered_characters = 0
        self._wake = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._text_written = self._text_expiring = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._flush_for_ever()), asyncio.create_task(self._clean_disk_for_ever())]

    async def close(self) -> None:
        await end_tasks(*self._tasks)
        await self.flush()

    @property
    def buffered(self) -> int:
        """Cases that are not in Redis yet."""
        return len(self._buffer)

    def record(self, case: Case, exchange: Exchange | None = None) -> None:
        """Keep a case, and its text if text is kept. Never waits, never raises for the state of Redis."""
        if case.id in self._buffer:
            self._forget(case.id)
        if exchange is not None:
            exchange = self._admitted(exchange)
        if len(self._buffer) >= MAX_BUFFERED_CASES:
            self._forget(next(iter(self._buffer)))
            self._dropped("buffer_full", 1)
        self._buffer[case.id] = (case, exchange)
        if not self._wake.is_set():
            self._wake.set()

    async def get(self, id: str, *, tenant: str | None) -> Case:
        """The case; ``tenant`` None is an administrator's view. Raises ``NotFound`` or ``StateUnavailable``."""
        if (kept := self._buffer.get(id)) is not None:
            case = kept[0]
        else:
            with self._redis.guard() as redis:
                line = await redis.get(CASE(id))
            if line is None:
                raise NotFound(f"there is no case {id!r}; cases are kept for {self._retention.case_ttl_s} s")
            case = Case.from_json(line)
        if tenant not in (None, case.tenant):
            raise NotFound(f"there is no case {id!r}; cases are kept for {self._retention.case_ttl_s} s")
        return case

    async def by_completion(self, completion_id: str, *, tenant: str) -> Case:
        """The case whose reply had this id. Raises ``NotFound`` or ``StateUnavailable``."""
        for case, _ in self._buffer.values():
            if case.completion_id == completion_id and case.tenant == tenant:
                return case
        with self._redis.guard() as redis:
            id = await redis.get(CASE_BY_COMPLETION(tenant, completion_id))
        if id is None:
            raise NotFound(f"there is no case for {completion_id!r}; cases are kept for {self._retention.case_ttl_s} s")
        return await self.get(str(id), tenant=tenant)

    async def exchange(self, id: str, *, tenant: str | None) -> Exchange | None:
        """The text of a case, or None once it is gone (or was never kept). Raises as ``get`` does."""
        await self.get(id, tenant=tenant)
        if (kept := self._buffer.get(id)) is not None:
            return kept[1]
        with self._redis.guard() as redis:
            line = await redis.get(EXCHANGE(id))
        return Exchange.from_json(line) if line is not None else None

    async def recent(self, *, limit: int = 100) -> Sequence[Case]:
        """The newest cases of all tenants, newest first. Raises ``StateUnavailable``."""
        await self.flush()
        with self._redis.guard() as redis:
            ids = [str(id) for id in await redis.zrange(CASE_RECENT(), 0, limit - 1, desc=True)]
            lines = await redis.mget([CASE(id) for id in ids]) if ids else []
        return [Case.from_json(line) for line in lines if line is not None]

    async def spread(self, since: float, until: float, *, limit: int) -> Sequence[Case]:
        """Up to ``limit`` cases between two moments (UTC seconds), evenly spread over them, newest first.

        For figures about a stretch of time that would cost too much to read whole. Raises ``StateUnavailable``.
        """
        await self.flush()
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=False)
            pipe.zcount(CASE_RECENT(), "-inf", f"({int(since * 1000)}")
            pipe.zcount(CASE_RECENT(), int(since * 1000), int(until * 1000))
            before, count = await pipe.execute()
            taken = min(limit, count)
            pipe = redis.pipeline(transaction=False)
            for at in range(taken):
                rank = before + at * count // taken
                pipe.zrange(CASE_RECENT(), rank, rank)
            ids = [str(id) for found in await pipe.execute() for id in found]
            lines = await redis.mget([CASE(id) for id in reversed(ids)]) if ids else []
        return [Case.from_json(line) for line in lines if line is not None]

    async def exchange_bytes(self) -> int:
        """Bytes of text that are kept now. Raises ``StateUnavailable``."""
        with self._redis.guard() as redis:
            return int(await redis.hget(EXCHANGE_SIZES(), "total") or 0)

    async def flush(self) -> None:
        """Bring the buffer to Redis now. With Redis away the texts are dropped and the cases stay buffered."""
        async with self._flushing:
            while self._buffer:
                batch = self._next_batch()
                try:
                    await self._write(batch)
                except (StateUnavailable, ResponseError) as error:
                    log.warning("cases cannot be written now", reason=type(error).__name__)
                    self._drop_texts()
                    return
                for kept in batch:
                    if self._buffer.get(kept[0].id) is kept:  # not recorded anew meanwhile
                        self._forget(kept[0].id)

    async def erase_end_user(self, end_user: str) -> tuple[int, int]:
        """Remove the person (a digest) from their cases, and their texts. Returns the numbers of cases and of texts.

        Raises ``StateUnavailable``; then run it again.
        """
        await self.flush()
        with self._redis.guard() as redis:
            ids = [str(id) for id in await redis.zrange(CASE_END_USER(end_user), 0, -1)]
            if not ids:
                return 0, 0
            lines = await redis.mget([CASE(id) for id in ids])
            keys = (EXCHANGE_ORDER(), EXCHANGE_SIZES(), CASE_END_USER(end_user))
            texts = int(await redis.eval(_ERASE, len(keys), *keys, EXCHANGE("")))
            pipe = redis.pipeline(transaction=True)
            for id, line in zip(ids, lines, strict=True):
                if line is not None:
                    pipe.set(CASE(id), replace(Case.from_json(line), end_user=None).to_json(), xx=True, keepttl=True)
            pipe.delete(CASE_END_USER(end_user))
            await pipe.execute()
        return sum(line is not None for line in lines), texts

    def _admitted(self, exchange: Exchange) -> Exchange | None:
        if not self._keeps_text:
            return None
        characters = exchange.characters
        if not self._redis.available:
            self._dropped("redis_away", 1)
        elif characters > self._retention.exchange_max_bytes:
            self._dropped("too_large", 1)
        elif self._buffered_characters + characters > MAX_BUFFERED_CHARACTERS:
            self._dropped("buffer_full", 1)
        else:
            self._buffered_characters += characters
            return exchange
        return None

    def _next_batch(self) -> Sequence[Kept]:
        """The oldest cases, as many as one script may bring without holding up the event loop."""
        batch, characters = [], 0
        for kept in islice(self._buffer.values(), FLUSH_CASES):
            batch.append(kept)
            characters += kept[1].characters if kept[1] is not None else 0
            if characters > FLUSH_CHARACTERS:
                break
        return batch

    def _forget(self, id: str) -> None:
        _, exchange = self._buffer.pop(id)
        if exchange is not None:
            self._buffered_characters -= exchange.characters

    def _drop_texts(self) -> None:
        with_text = [case for case, exchange in self._buffer.values() if exchange is not None]
        for case in with_text:
            self._buffer[case.id] = (case, None)
        self._buffered_characters = 0
        if with_text:
            self._dropped("redis_away", len(with_text))

    def _dropped(self, cause: DropCause, number: int) -> None:
        if self._on_dropped is not None:
            self._on_dropped(cause, number)

    async def _flush_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(FLUSH_S)  # let others join
            await self.flush()
            if self._buffer:
                await asyncio.sleep(RETRY_S)
                await self._redis.wait_until_available()
                self._wake.set()

    async def _write(self, batch: Sequence[Kept]) -> None:
        keys = [EXCHANGE_ORDER(), EXCHANGE_SIZES(), CASE_RECENT()]
        args: list[str | int | bytes] = [
            EXCHANGE(""),
            int(time.time() * 1000),
            self._retention.case_ttl_s,
            max(1, self._retention.exchange_ttl_s),
            self._retention.exchange_max_bytes,
        ]
        for case, exchange in batch:
            key = CASE(case.id)
            completion = CASE_BY_COMPLETION(case.tenant, case.completion_id) if case.completion_id else key
            end_user = CASE_END_USER(case.end_user) if case.end_user else key
            keys += [key, completion, end_user, EXCHANGE(case.id)]
            text = exchange.to_json() if exchange is not None else b""
            args += [case.id, int(case.created_at * 1000), case.to_json()]
            args += [int(completion != key), int(end_user != key), text]
        with self._redis.guard() as redis:
            await redis.eval(_RECORD, len(keys), *keys, *args)
        self._text_written |= any(exchange is not None for _, exchange in batch)

    async def _clean_disk_for_ever(self) -> None:
        while True:
            await asyncio.sleep(max(CLEAN_AT_LEAST_S, self._retention.exchange_ttl_s + EXPIRY_SLACK_S))
            with contextlib.suppress(StateUnavailable):
                await self._clean_disk()

    async def _clean_disk(self) -> None:
        """Have the append-only file written anew: text that Redis let expire still stands in it.

        Called once a lifetime of texts. What was written in the last period has expired by the end of this one.
        """
        if self._text_expiring:
            await self._redis.rewrite_append_only_file()
        self._text_expiring, self._text_written = self._text_written, False
