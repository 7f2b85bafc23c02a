"""The moderators' queue: which flags wait, in which order, a page at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.errors import BadRequest
from gateway.flag_records import Flag, FlagState, facet, flag_from_hash
from gateway.redis_client import RedisClient
from gateway.redis_keys import FLAG, FLAG_FACET, FLAG_QUEUE, FLAG_STATE
from gateway.review_records import QueueFilter, QueueOrder

MAX_PAGE: Final = 200
MAX_SCANNED: Final = 2000
"""Flags that are looked at for one page; where a filter passes few, the page is short and ``next`` goes on."""

_CHUNK: Final = 200

_SCAN: Final = """
local index, created = KEYS[1], KEYS[2]
local score, id, since_ms, limit, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local function passes(flag)
    for at = 3, #KEYS do
        if not redis.call('ZSCORE', KEYS[at], flag) then return false end
    end
    return since_ms == 0 or tonumber(redis.call('ZSCORE', created, flag) or '0') >= since_ms
end
local found, looked_at, skip, last = {}, 0, 0, {score, id}
while true do
    local rows = redis.call('ZREVRANGEBYSCORE', index, score, '-inf', 'WITHSCORES', 'LIMIT', skip, CHUNK)
    if #rows == 0 then return {found, last[1], last[2], 0} end
    for at = 1, #rows, 2 do
        local behind = id == '' or tonumber(rows[at + 1]) < tonumber(score) or rows[at] < id
        if behind then
            if #found == limit or looked_at == most then return {found, last[1], last[2], 1} end
            looked_at, last = looked_at + 1, {rows[at + 1], rows[at]}
            if passes(rows[at]) then found[#found + 1] = rows[at] end
        end
    end
    skip = skip + #rows / 2
end
""".replace("CHUNK", str(_CHUNK))
"""The flags of an index behind a place (score and id; +inf and nothing: from the start) that stand in every facet given
and were made since then: their ids, the last place that was looked at, and whether anything is behind it. One call
instead of one for each flag: Redis looks at 2,000 flags in a few milliseconds."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some flags of the queue. ``next`` is what ``after`` takes for those behind them; None at the end.

    ``total`` counts the flags in that state, filters aside.
    """

    flags: tuple[Flag, ...]
    next: str | None
    total: int


@dataclass(frozen=True, slots=True)
class _Cursor:
    """The last flag that was looked at: its place in the index, highest score first, then highest id."""

    score: float
    id: str

    @classmethod
    def parse(cls, text: str) -> _Cursor:
        score, _, id = text.partition(":")
        try:
            found = cls(float(score), id)
        except ValueError:
            found = cls(math.nan, "")
        if not id or not math.isfinite(found.score) or len(text) > 200:
            raise BadRequest("the cursor is none that a page of the queue gave", param="after")
        return found

    def __str__(self) -> str:
        return f"{self.score!r}:{self.id}"


class ReviewQueue:
    """Reads the queue; ``ReviewStore`` changes it."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def page(
        self, state: FlagState, filters: QueueFilter, order: QueueOrder, after: str | None, limit: int
    ) -> Page:
        """See ``ReviewStore.queue``."""
        if not 1 <= limit <= MAX_PAGE:
            raise BadRequest(f"a page holds 1 to {MAX_PAGE} flags, not {limit}", param="limit")
        state = FlagState.OPEN if state is FlagState.CLAIMED else state
        cursor = None if after is None else _Cursor.parse(after)
        with self._redis.guard() as redis:
            total = int(await redis.zcard(FLAG_STATE(state)))
            index = await self._index(redis, state, filters, order)
            if filters.asks and not state.decided:
                return await self._scanned(redis, state, filters, index, cursor, limit, total)
            found: list[str] = []
            looked_at = 0
            while len(found) < limit and looked_at < MAX_SCANNED:
                chunk = await self._behind(redis, index, cursor, count=_CHUNK if filters.asks else limit)
                if not chunk:
                    return Page(await _flags(redis, found), None, total)
                for place, passes in zip(chunk, await _passing(redis, chunk, filters), strict=True):
                    looked_at += 1
                    cursor = place
                    if passes:
                        found.append(place.id)
                        if len(found) == limit:
                            break
            more = cursor is not None and bool(await self._behind(redis, index, cursor, count=1))
            return Page(await _flags(redis, found), str(cursor) if more else None, total)

    async def _scanned(
        self,
        redis: Any,
        state: FlagState,
        filters: QueueFilter,
        index: str,
        cursor: _Cursor | None,
        limit: int,
        total: int,
    ) -> Page:
        """A page of flags that wait: every property that can be asked for is an index of its own."""
        facets = [FLAG_FACET(state, facet(name, value)) for name, value in _asked(filters).items()]
        keys = [index, FLAG_STATE(state), *(name for name in facets if name != index)]
        score, id = ("+inf", "") if cursor is None else (repr(cursor.score), cursor.id)
        since_ms = 0 if filters.max_age_s is None else int((time.time() - filters.max_age_s) * 1000)
        found, *last, more = await redis.eval(_SCAN, len(keys), *keys, score, id, since_ms, limit, MAX_SCANNED)
        following = str(_Cursor(float(last[0]), last[1])) if more else None
        return Page(await _flags(redis, found), following, total)

    async def _index(self, redis: Any, state: FlagState, filters: QueueFilter, order: QueueOrder) -> str:
        """The shortest index that has every flag asked for, in the order asked for."""
        if order == "newest" or state.decided:
            return FLAG_STATE(state)
        names = [FLAG_QUEUE(state)]
        names += [FLAG_FACET(state, facet(name, value)) for name, value in _asked(filters).items()]
        pipe = redis.pipeline(transaction=False)
        for name in names:
            pipe.zcard(name)
        return min(zip(await pipe.execute(), names, strict=True))[1]

    async def _behind(self, redis: Any, index: str, cursor: _Cursor | None, *, count: int = _CHUNK) -> list[_Cursor]:
        """The next places of an index, behind a cursor whose flag may have left meanwhile."""
        highest = "+inf" if cursor is None else repr(cursor.score)
        skip = 0
        while True:
            rows = await redis.zrange(
                index, highest, "-inf", desc=True, byscore=True, offset=skip, num=_CHUNK, withscores=True
            )
            places = [_Cursor(score, id) for id, score in rows]
            if cursor is not None:  # those of the same score that were looked at stand first
                places = [place for place in places if (place.score, place.id) < (cursor.score, cursor.id)]
            if places or len(rows) < _CHUNK:
                return places[:count]
            skip += _CHUNK


async def _flags(redis: Any, ids: list[str]) -> tuple[Flag, ...]:
    """The flags themselves; one that was erased to nothing meanwhile is left out."""
    pipe = redis.pipeline(transaction=False)
    for id in ids:
        pipe.hgetall(FLAG(id))
    rows = await pipe.execute() if ids else []
    return tuple(flag_from_hash(id, row) for id, row in zip(ids, rows, strict=True) if row)


async def _passing(redis: Any, places: list[_Cursor], filters: QueueFilter) -> list[bool]:
    """Which flags a filter lets pass; their texts, which may be long, are not read for it."""
    if not filters.asks:
        return [True] * len(places)
    pipe = redis.pipeline(transaction=False)
    for place in places:
        pipe.hget(FLAG(place.id), "record")
    return [line is not None and _passes(orjson.loads(line), filters) for line in await pipe.execute()]


def _passes(record: Mapping[str, Any], filters: QueueFilter) -> bool:
    if filters.max_age_s is not None and record["created_at"] < time.time() - filters.max_age_s:
        return False
    return all(record.get(name) == value for name, value in _asked(filters).items())


def _asked(filters: QueueFilter) -> dict[str, str]:
    """The properties that a filter asks for, age apart."""
    asked = {"hazard": filters.hazard, "source": filters.source}
    asked |= {"tenant": filters.tenant, "language": filters.language}
    return {name: str(value) for name, value in asked.items() if value is not None}
