"""ReviewLog: what people decided, undid and wrote: reviews, comments, the audit log, and numbers of all that."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import orjson
from redis.exceptions import ResponseError

from gateway.errors import BadRequest, NotFound
from gateway.flag_records import FlagState
from gateway.redis_client import Field, RedisClient
from gateway.redis_keys import FLAG, FLAG_COMMENTS, FLAG_REVIEWS, FLAG_STATE, REVIEW, REVIEW_AUDIT, REVIEW_RECENT
from gateway.review_numbers import numbers_of
from gateway.review_records import MAX_WORDS, AuditEntry, Comment, Numbers, Review
from gateway.review_scripts import AUDIT_MAX_ENTRIES

_DAY_S: Final = 86_400
_CHUNK: Final = 250
_MAX_COUNTED: Final = 5000
_MAX_SETTLED: Final = 2 * _MAX_COUNTED
_SETTLES_S: Final = 60.0
"""How long after its last moment a review may still change: the clocks of gateways and of Redis may differ."""


class ReviewLog:
    """All that was decided and said. Every method raises ``StateUnavailable`` while Redis is away."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._settled: OrderedDict[str, Review] = OrderedDict()

    async def comment(self, flag_id: str, moderator: str, text: str) -> Comment:
        """Write something beside a flag. Raises ``BadRequest`` for an empty or too long text, and ``NotFound``."""
        check_person(moderator)
        if not text.strip() or len(text) > MAX_WORDS:
            raise BadRequest(f"a comment has 1 to {MAX_WORDS} characters", param="text")
        with self._redis.guard() as redis:
            if not await redis.exists(FLAG(flag_id)):
                raise NotFound(f"there is no flag {flag_id!r}")
        comment = Comment(time.time(), moderator, text.encode("utf-8", "replace").decode())
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=True)
            pipe.rpush(FLAG_COMMENTS(flag_id), orjson.dumps(comment).decode())
            row: dict[Field, Field] = {"actor": moderator, "action": "comment", "subject": flag_id, "note": ""}
            pipe.xadd(REVIEW_AUDIT(), row, maxlen=AUDIT_MAX_ENTRIES)
            await pipe.execute()
        return comment

    async def comments(self, flag_id: str) -> Sequence[Comment]:
        """What was written beside a flag, oldest first."""
        with self._redis.guard() as redis:
            lines: Any = await redis.lrange(FLAG_COMMENTS(flag_id), 0, -1)
        return [Comment(**orjson.loads(line)) for line in lines]

    async def reviews_of(self, flag_id: str) -> Sequence[Review]:
        """The reviews of a flag, oldest first, undone ones too."""
        with self._redis.guard() as redis:
            ids: Any = await redis.lrange(FLAG_REVIEWS(flag_id), 0, -1)
        return await self._reviews(ids)

    async def review(self, review_id: str) -> Review:
        """One review. Raises ``NotFound``."""
        found = await self._reviews([review_id])
        if not found:
            raise NotFound(f"there is no review {review_id!r}")
        return found[0]

    async def recent(self, *, limit: int = 100) -> Sequence[Review]:
        """The newest reviews, undone ones too."""
        with self._redis.guard() as redis:
            ids: Any = await redis.zrange(REVIEW_RECENT(), 0, limit - 1, desc=True)
        return await self._reviews(ids)

    async def audit(self, *, after: str | None = None, limit: int = 100) -> Sequence[AuditEntry]:
        """What people did, newest first; ``after`` is the id of the last entry of the page before."""
        with self._redis.guard() as redis:
            try:
                rows: Any = await redis.xrevrange(
                    REVIEW_AUDIT(), max="+" if after is None else f"({after}", count=limit
                )
            except ResponseError:
                raise BadRequest("after is none that the audit log gave", param="after") from None
        return [AuditEntry.from_stream(id, row) for id, row in rows]

    async def numbers(self) -> Numbers:
        """How the work goes."""
        since_ms = int((time.time() - _DAY_S) * 1000)
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=False)
            for state in FlagState:
                pipe.zcard(FLAG_STATE(state))
            for state in FlagState:
                pipe.zcount(FLAG_STATE(state), since_ms, "+inf")
            pipe.zcount(REVIEW_RECENT(), since_ms, "+inf")
            *found, decided = await pipe.execute()
        by_state = {str(state): count for state, count in zip(FlagState, found[: len(FlagState)], strict=True)}
        reviews = await self.recent(limit=_MAX_COUNTED)
        return numbers_of(reviews, by_state, sum(found[len(FlagState) :]), decided)

    async def _reviews(self, ids: Sequence[str]) -> list[Review]:
        """Those of the reviews that there are. What can no longer be undone does not change, and is read once."""
        missing = [id for id in ids if id not in self._settled]
        read: dict[str, Review] = {}
        for first in range(0, len(missing), _CHUNK):  # thousands at once would take longer than Redis' time-out
            some = missing[first : first + _CHUNK]
            with self._redis.guard() as redis:
                pipe = redis.pipeline(transaction=False)
                for id in some:
                    pipe.hgetall(REVIEW(id))
                rows = await pipe.execute()
            read |= {id: Review.from_row(row) for id, row in zip(some, rows, strict=True) if row}
        found = [review for id in ids if (review := read.get(id) or self._settled.get(id)) is not None]
        settled_before = time.time() - _SETTLES_S
        self._settled.update((id, review) for id, review in read.items() if review.undo_until < settled_before)
        while len(self._settled) > _MAX_SETTLED:
            self._settled.popitem(last=False)
        return found


def check_person(moderator: str) -> None:
    """Raise ``BadRequest`` where nobody is named."""
    if not moderator.strip():
        raise BadRequest("name the person who does this", param="moderator")
