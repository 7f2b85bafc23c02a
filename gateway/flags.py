"""Flags: what people, or policy, want a moderator to look at. Acknowledged means kept.

``FlagStore.add`` returns when the flag is in Redis, or, while Redis is away, in the spool on the disk; the spool is
replayed in order when Redis is back. One writer task joins concurrent flags, so that many share one synced write.

Exactly once: a flag's id follows from its tenant, its Idempotency-Key and what was sent, and is made before anything
is written. A retry, a replay after a crash, or a write whose answer was lost all meet the same id, in Redis and in
the spool alike. One script writes record, index, stream and idempotency marker together or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis.exceptions import ResponseError

from gateway.errors import BadRequest, Conflict, NotFound, Overloaded, StateUnavailable
from gateway.flag_records import ADD_SCRIPT, Flag, FlagEntry, FlagState, Source, flag_from_hash
from gateway.languages import language_of
from gateway.redis_client import RedisClient
from gateway.redis_keys import FLAG, FLAG_END_USER, FLAG_ERASED, FLAG_LEASES, FLAG_REPORTER, FLAG_STATE
from gateway.spool import Spool
from gateway.telemetry import logger

__all__ = ["Flag", "FlagState", "FlagStore", "Source"]

log = logger()

BATCH_FLAGS = 128
REPLAY_FLAGS = 256  # more than a batch: the spool shrinks even while flags come in as fast as they can be written
MAX_PENDING_FLAGS = 10_000
RETRY_S = 0.05


@dataclass(slots=True)
class _Waiting:
    """An entry whose caller waits for its acknowledgement, or has left."""

    entry: FlagEntry
    answer: asyncio.Future[FlagState]

    def acknowledge(self, state: FlagState) -> None:
        if not self.answer.done():
            self.answer.set_result(state)

    def refuse(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class FlagStore:
    """All flags. ``start`` before use, ``close`` at the end (it finishes what it has begun).

    ``spool`` is None for commands beside a running gateway: without Redis they are refused. The counters
    ``spooled_total`` and ``replayed_total`` are for metrics.
    """

    def __init__(self, redis: RedisClient, spool: Spool | None) -> None:
        self.spooled_total = 0
        self.replayed_total = 0
        self._redis = redis
        self._spool = spool
        self._spooled: dict[str, int] = {}  # id -> offset in the spool
        self._spooled_markers: dict[str, str] = {}  # marker -> fingerprint
        self._replayed_to = 0
        self._pending: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._closing = False
        self._writer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the spool and begin to replay what an earlier process left. Raises ``SpoolInUse`` or ``OSError``."""
        if self._spool is not None:
            await asyncio.to_thread(self._spool.open)
            await asyncio.to_thread(self._read_spool)
        self._writer = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        self._closing = True
        self._wake.set()
        if self._writer is not None:
            await self._writer
        if self._spool is not None:
            self._spool.close()

    @property
    def spool_flags(self) -> int:
        """Flags that wait in the spool, or are being replayed."""
        return len(self._spooled)

    @property
    def spool_bytes(self) -> int:
        return self._spool.size_bytes if self._spool is not None else 0

    async def add(
        self, flag: Flag, *, idempotency_key: str | None = None, fingerprint: str = ""
    ) -> tuple[str, FlagState]:
        """Keep ``flag`` and return its id and state.

        A repeated ``idempotency_key`` of the tenant gives the first flag again; ``fingerprint`` is what must be the
        same then (the request's body; the flag's content if empty). Policy flags of one text are one flag.
        A repeat that is taken while Redis is away is answered ``open``, whatever has been decided since.

        Raises ``BadRequest`` for text that is not Unicode, ``Conflict`` for the same key with another fingerprint,
        ``Overloaded``, and ``StateUnavailable`` when neither Redis nor the spool can take it; then nothing was kept.
        """
        if self._closing or self._writer is None or self._writer.done():
            raise StateUnavailable("flags are not taken now; try again", retry_after_s=1.0)
        if len(self._pending) >= MAX_PENDING_FLAGS:
            raise Overloaded("too many flags at once; try again", retry_after_s=1.0)
        entry = self._entry(flag, idempotency_key, fingerprint)
        waiting = _Waiting(entry, asyncio.get_running_loop().create_future())
        self._pending.append(waiting)
        self._wake.set()
        return entry.id, await waiting.answer

    async def get(self, id: str, *, tenant: str | None) -> Flag:
        """The flag, wherever it is kept; ``tenant`` None is an administrator's view.

        Raises ``NotFound`` (also for another tenant's flag), or ``StateUnavailable`` when only Redis could tell.
        """
        flag = await self._find(id)
        if flag is None or tenant not in (None, flag.tenant):
            raise NotFound(f"there is no flag {id!r}")
        return flag

    async def list(self, state: FlagState = FlagState.OPEN, *, limit: int = 100) -> list[Flag]:
        """Up to ``limit`` flags in ``state``, newest first. Raises ``StateUnavailable``."""
        with self._redis.guard() as redis:
            ids = [str(id) for id in await redis.zrange(FLAG_STATE(state), 0, limit - 1, desc=True)]
            pipe = redis.pipeline(transaction=False)
            for id in ids:
                pipe.hgetall(FLAG(id))
            rows = await pipe.execute()
        return [flag_from_hash(id, row) for id, row in zip(ids, rows, strict=True) if row]

    async def counts(self) -> dict[FlagState, int]:
        """How many flags stand in each state; claimed ones are among the open ones too. Raises ``StateUnavailable``."""
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=False)
            for state in FlagState:
                pipe.zcard(FLAG_STATE(state))
            pipe.zcount(FLAG_LEASES(), int(time.time() * 1000), "+inf")
            *found, claimed = await pipe.execute()
            return {**dict(zip(FlagState, found, strict=True)), FlagState.CLAIMED: claimed}

    async def erase_end_user(self, end_user: str, *, marker_ttl_s: int = 30 * 86_400) -> int:
        """Remove the texts and the name from every flag of ``end_user`` (a digest); the flags themselves stay.

        A marker in Redis makes the spools of other gateways lose the texts when they are replayed. Returns the
        number of flags found. Raises ``StateUnavailable``; then run it again, nothing is half-marked.
        """
        async with self._writing:
            with self._redis.guard() as redis:
                await redis.set(FLAG_ERASED(end_user), int(time.time() * 1000), ex=marker_ttl_s)
            spooled = await asyncio.to_thread(self._erase_from_spool, end_user) if self._spooled else set()
            with self._redis.guard() as redis:
                ids = [str(id) for id in await redis.smembers(FLAG_END_USER(end_user))]
                pipe = redis.pipeline(transaction=True)
                for id in ids:
                    pipe.hdel(FLAG(id), "texts", "end_user")
                pipe.delete(FLAG_END_USER(end_user))
                pipe.delete(FLAG_REPORTER(end_user))
                await pipe.execute()
        return len(spooled.union(ids))

    def _entry(self, flag: Flag, idempotency_key: str | None, fingerprint: str) -> FlagEntry:
        content = fingerprint or repr(replace(flag, created_at=0.0))
        digest, marker = self._redis.digest("body", content), ""
        if idempotency_key is not None:
            marker = self._redis.digest("idempotency", flag.tenant, idempotency_key)
            suffix = self._redis.digest("flag", marker, digest)[:24]
        elif flag.source is Source.POLICY:
            words = (flag.tenant, flag.side or "", flag.text or "", flag.prompt or "")
            suffix = self._redis.digest("policy flag", *words)[:24]
        else:
            suffix = secrets.token_hex(12)
        language = flag.language or language_of(flag.text or "")
        created_at = flag.created_at or time.time()
        named = replace(flag, id=f"flag_{suffix}", created_at=created_at, language=language)
        try:
            return FlagEntry.of(named, marker, digest)
        except TypeError:
            raise BadRequest("the flag holds half a surrogate pair; send valid Unicode") from None

    async def _find(self, id: str) -> Flag | None:
        try:
            with self._redis.guard() as redis:
                row: Mapping[Any, Any] = await redis.hgetall(FLAG(id))
        except StateUnavailable:
            if id not in self._spooled:
                raise
            row = {}
        if row:
            return flag_from_hash(id, row)
        offset = self._spooled.get(id)
        if offset is None or self._spool is None:
            return None
        (_, payload), *_ = self._spool.read(offset, limit=1)[0]
        return FlagEntry.from_line(payload).flag()

    # The writer: the only task that writes flags, so that spool and Redis see them in one order.

    async def _write_all(self) -> None:
        try:
            while not (self._closing and not self._pending):
                await self._wait_for_work()
                async with self._writing:
                    batch = [self._pending.popleft() for _ in range(min(BATCH_FLAGS, len(self._pending)))]
                    await self._write(batch)
                    if self._spooled and self._redis.available and not await self._replay():
                        await asyncio.sleep(RETRY_S)  # there, but taking nothing: do not spin
        finally:
            for waiting in self._pending:
                waiting.refuse(StateUnavailable("flags are not taken now; try again", retry_after_s=1.0))

    async def _wait_for_work(self) -> None:
        if self._pending or self._closing or (self._spooled and self._redis.available):
            return
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S if self._spooled else None):
                await self._wake.wait()

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            if batch and not self._spooled:
                batch = await self._to_redis(batch)
            if batch:
                await self._to_spool(batch)
        finally:
            for waiting in batch:  # whatever happens, nobody waits for ever
                waiting.refuse(StateUnavailable("the flag could not be kept; try again", retry_after_s=1.0))

    async def _to_redis(self, batch: Sequence[_Waiting]) -> Sequence[_Waiting]:
        """Write and acknowledge; returns those whose fate in Redis is unknown or bad."""
        states = await self._run_script([waiting.entry for waiting in batch], replay=False)
        left = []
        for waiting, state in zip(batch, states, strict=True):
            if state == "conflict":
                waiting.refuse(Conflict("this Idempotency-Key came with another body before; use a new one"))
            elif state is None:
                left.append(waiting)
            else:
                waiting.acknowledge(FlagState(state))
        return left

    async def _run_script(self, entries: Sequence[FlagEntry], *, replay: bool) -> Sequence[str | None]:
        """What the script said of each entry; None where Redis is away or takes no writes."""
        try:
            with self._redis.guard() as redis:
                pipe = redis.pipeline(transaction=False)
                for entry in entries:
                    keys, args = entry.script_call(replay=replay)
                    pipe.eval(ADD_SCRIPT, len(keys), *keys, *args)
                answers = await pipe.execute(raise_on_error=False)
        except StateUnavailable:
            return [None] * len(entries)
        return [None if isinstance(answer, ResponseError) else str(answer) for answer in answers]

    async def _to_spool(self, batch: Sequence[_Waiting]) -> None:
        if self._spool is None:
            return
        new: dict[str, FlagEntry] = {}
        markers: dict[str, str] = {}
        for waiting in batch:
            entry = waiting.entry
            held = self._spooled_markers.get(entry.marker) or markers.get(entry.marker)
            if entry.marker and held not in (None, entry.fingerprint):
                waiting.refuse(Conflict("this Idempotency-Key came with another body before; use a new one"))
            elif entry.id in self._spooled:
                waiting.acknowledge(FlagState.OPEN)
            else:
                new.setdefault(entry.id, entry)
                markers[entry.marker] = entry.fingerprint
        try:
            offsets = await asyncio.to_thread(self._spool.append, [entry.to_line() for entry in new.values()])
        except StateUnavailable as error:
            for waiting in batch:
                waiting.refuse(error)
            return
        for entry, offset in zip(new.values(), offsets, strict=True):
            self._remember(entry, offset)
        self.spooled_total += len(new)
        for waiting in batch:
            waiting.acknowledge(FlagState.OPEN)

    async def _replay(self) -> bool:
        """Bring the next records of the spool to Redis; forget the spool once all are there. False: not now."""
        assert self._spool is not None
        try:
            records, after = await asyncio.to_thread(self._spool.read, self._replayed_to, limit=REPLAY_FLAGS)
            entries = [FlagEntry.from_line(payload) for _, payload in records]
            if None in await self._run_script(entries, replay=True):
                return False
            self.replayed_total += len(entries)
            self._replayed_to = after
            if after >= self._spool.size_bytes:
                await asyncio.to_thread(self._spool.clear)
                self._forget_spooled()
        except OSError as error:
            log.error("spool cannot be replayed", path=str(self._spool.path), reason=error.strerror)
            return False
        return True

    def _read_spool(self) -> None:
        assert self._spool is not None
        self._forget_spooled()
        for offset, payload in self._spool.read()[0]:
            self._remember(FlagEntry.from_line(payload), offset)

    def _forget_spooled(self) -> None:
        self._spooled.clear()
        self._spooled_markers.clear()
        self._replayed_to = 0

    def _remember(self, entry: FlagEntry, offset: int) -> None:
        self._spooled[entry.id] = offset
        if entry.marker:
            self._spooled_markers[entry.marker] = entry.fingerprint

    def _erase_from_spool(self, end_user: str) -> set[str]:
        assert self._spool is not None
        erased = set()

        def edit(payload: bytes) -> bytes:
            entry = FlagEntry.from_line(payload)
            if entry.end_user != end_user:
                return payload
            erased.add(entry.id)
            return entry.without_person().to_line()

        self._spool.rewrite(edit)
        self._read_spool()
        return erased
