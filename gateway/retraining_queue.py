"""RetrainingQueue: what the workers share in Redis: reviews to learn from, what is due, who builds, what came of it.

A review is delivered to one worker of the consumer group and stays pending until it has been learned; what a dead
worker left is claimed by another one. Learning it twice is no different from learning it once. What fails again and
again goes to the dead letters with its reason, so that it neither blocks the others nor gets lost.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson
from redis.exceptions import ResponseError

from gateway.redis_client import RedisClient
from gateway.redis_keys import (
    RETRAINING,
    RETRAINING_BUILDER,
    RETRAINING_DEAD,
    RETRAINING_DUE,
    RETRAINING_RUNS,
)

GROUP: Final = "workers"
LEASE_MS: Final = 60_000
"""How long a build is its worker's without a sign of life."""

DEAD_MAX_ENTRIES: Final = 100_000
RUNS_MAX_ENTRIES: Final = 10_000

_RENEW = """
local builder = redis.call('GET', KEYS[1])
if builder and builder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message of the stream; ``tries`` counts how often it was delivered, this time included."""

    id: str
    review_id: str
    action: str
    tries: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A review that could not be learned from. ``at`` is UTC in seconds since 1970."""

    at: float
    review_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Due:
    """Exemplars that no version holds yet: how many, and since when (UTC seconds) the oldest waits."""

    exemplars: int
    since: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at a new version. ``outcome`` is published, refused, failed, or nothing where nothing was new.

    ``why`` says it in words; ``candidate`` is None where it came to none; ``scores`` is the gate's report.
    """

    at: float
    outcome: str
    base: str
    candidate: str | None
    why: tuple[str, ...]
    scores: Mapping[str, Any] | None = None

    @property
    def bad(self) -> bool:
        """Whether somebody should look: it was refused, or could not be built."""
        return self.outcome in ("refused", "failed")

    @classmethod
    def from_json(cls, line: str) -> Run:
        values: dict[str, Any] = orjson.loads(line)
        return cls(**{**values, "why": tuple(values["why"])})


class RetrainingQueue:
    """What the workers share. Every method raises ``StateUnavailable`` while Redis is away."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def read(self, worker: str, *, count: int = 50) -> Sequence[Delivery]:
        """New messages for this worker; none where there are none."""
        await self._group()
        with self._redis.guard() as redis:
            found: Any = await redis.xreadgroup(GROUP, worker, {RETRAINING(): ">"}, count=count)
        rows = [row for _, rows in found or () for row in rows]
        return [_delivery(id, fields, 1) for id, fields in rows]

    async def claim_left(self, worker: str, *, idle_ms: int, count: int = 50) -> Sequence[Delivery]:
        """Messages that some worker took and did not finish in ``idle_ms``, now this one's."""
        await self._group()
        with self._redis.guard() as redis:
            _, rows, *_ = await redis.xautoclaim(RETRAINING(), GROUP, worker, min_idle_time=idle_ms, count=count)
            if not rows:
                return []
            pending: Any = await redis.xpending_range(
                RETRAINING(), GROUP, min=rows[0][0], max=rows[-1][0], count=len(rows), consumername=worker
            )
        tries = {entry["message_id"]: int(entry["times_delivered"]) for entry in pending}
        return [_delivery(id, fields, tries.get(id, 1)) for id, fields in rows]

    async def done(self, delivery: Delivery, due: Sequence[str]) -> None:
        """A message was learned: its exemplars are due, and it leaves the stream, in one transaction."""
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=True)
            if due:
                pipe.zadd(RETRAINING_DUE(), dict.fromkeys(due, time.time()), nx=True)
            pipe.xack(RETRAINING(), GROUP, delivery.id)
            pipe.xdel(RETRAINING(), delivery.id)
            await pipe.execute()

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """A message has failed too often: it goes to the dead letters, in one transaction."""
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=True)
            row: Any = {"review": delivery.review_id, "action": delivery.action, "reason": reason}
            pipe.xadd(RETRAINING_DEAD(), row, maxlen=DEAD_MAX_ENTRIES)
            pipe.xack(RETRAINING(), GROUP, delivery.id)
            pipe.xdel(RETRAINING(), delivery.id)
            await pipe.execute()

    async def dead(self, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest dead letters."""
        with self._redis.guard() as redis:
            rows: Any = await redis.xrevrange(RETRAINING_DEAD(), count=limit)
        return [DeadLetter(int(id.partition("-")[0]) / 1000, row["review"], row["reason"]) for id, row in rows]

    async def buried(self) -> int:
        """How many dead letters there are."""
        with self._redis.guard() as redis:
            return int(await redis.xlen(RETRAINING_DEAD()))

    async def waiting(self) -> int:
        """Messages that no worker has learned yet."""
        with self._redis.guard() as redis:
            return int(await redis.xlen(RETRAINING()))

    async def due(self) -> Due:
        """What no version holds yet."""
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=False)
            pipe.zcard(RETRAINING_DUE())
            pipe.zrange(RETRAINING_DUE(), 0, 0, withscores=True)
            count, oldest = await pipe.execute()
        return Due(int(count), float(oldest[0][1]) if oldest else None)

    async def finish(self, run: Run, *, until: float) -> None:
        """Write down what came of a build; what was due before it began (``until``, UTC seconds) no longer is."""
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=True)
            row: Any = {"run": orjson.dumps(asdict(run)).decode()}
            pipe.xadd(RETRAINING_RUNS(), row, maxlen=RUNS_MAX_ENTRIES)
            pipe.zremrangebyscore(RETRAINING_DUE(), "-inf", until)
            await pipe.execute()

    async def runs(self, *, limit: int = 20) -> Sequence[Run]:
        """What came of the newest builds."""
        with self._redis.guard() as redis:
            rows: Any = await redis.xrevrange(RETRAINING_RUNS(), count=limit)
        return [Run.from_json(row["run"]) for _, row in rows]

    async def take_build(self) -> str | None:
        """Become the one worker that builds; a token for ``keep_build`` and ``end_build``, or None: another one is."""
        token = secrets.token_hex(8)
        with self._redis.guard() as redis:
            taken = await redis.set(RETRAINING_BUILDER(), token, nx=True, px=LEASE_MS)
        return token if taken else None

    async def keep_build(self, token: str) -> bool:
        """A sign of life. False where the build is somebody else's by now: then nothing may be published.

        A lease that ran out while Redis was away, and that nobody else took, is taken again.
        """
        with self._redis.guard() as redis:
            return bool(await redis.eval(_RENEW, 1, RETRAINING_BUILDER(), token, LEASE_MS))

    async def end_build(self, token: str) -> None:
        """Let others build."""
        with self._redis.guard() as redis:
            await redis.eval(_RELEASE, 1, RETRAINING_BUILDER(), token)

    async def _group(self) -> None:
        try:
            with self._redis.guard() as redis:
                await redis.xgroup_create(RETRAINING(), GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise


def _delivery(id: str, fields: Mapping[str, str], tries: int) -> Delivery:
    return Delivery(id, fields.get("review", ""), fields.get("action", ""), tries)
