"""ExemplarHits: how often each exemplar was behind what policy did, by day, and what those in shadow would have hit.

Counts only, no texts. They are kept in memory for a second and then added up in Redis for all gateways; while Redis
is away they are lost. What people decided about the hits is counted where they decide (``review_scripts``).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from antiprompt_bank import Bank, Prepared, Score
from antiprompt_bank.reach import seen
from antiprompt_bank.shadowed import Shadowed
from gateway.errors import StateUnavailable
from gateway.redis_client import RedisClient
from gateway.redis_keys import EXEMPLAR_HITS, EXEMPLAR_VERDICTS

DAYS: Final = 30
"""Days that a page looks back."""

KEPT_DAYS: Final = 60
MAX_EXEMPLARS_A_DAY: Final = 50_000
"""Counters of one day; beyond that only those that are there already go on counting."""

FLUSH_S: Final = 1.0
WINDOWS: Final = 16
"""Windows of a text that exemplars in shadow are compared with."""

RISKY: Final = 0.5
"""The risk from which a text counts as hit already."""

_MAX_WAITING: Final = 100_000
_HIT: Final = "hit"
_SHADOW: Final = "shadow"
_SHADOW_NEW: Final = "shadow_new"

_ADD_SCRIPT: Final = """
local ttl_s, most = ARGV[1], tonumber(ARGV[2])
local held = redis.call('HLEN', KEYS[1])
for at = 3, #ARGV, 2 do
    local known = redis.call('HEXISTS', KEYS[1], ARGV[at]) == 1
    if known or held < most then
        redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 1])
        if not known then held = held + 1 end
    end
end
redis.call('EXPIRE', KEYS[1], ttl_s)
return held
"""


@dataclass(frozen=True, slots=True)
class DayHits:
    """One day (UTC) of an exemplar: texts that policy acted on because of it, and texts that it would have hit from
    the shadow, of which ``shadow_new`` had been taken for what they would no longer be."""

    day: str
    hits: int
    shadow: int
    shadow_new: int


@dataclass(frozen=True, slots=True)
class HitReport:
    """An exemplar's last days, oldest first, and how many flags of its hits people confirmed and dismissed."""

    days: tuple[DayHits, ...]
    confirmed: int
    dismissed: int

    @property
    def hits(self) -> int:
        return sum(day.hits for day in self.days)

    @property
    def shadow(self) -> int:
        return sum(day.shadow for day in self.days)

    @property
    def shadow_new(self) -> int:
        return sum(day.shadow_new for day in self.days)

    @property
    def most(self) -> int:
        """The largest figure of any day."""
        return max((max(day.hits, day.shadow) for day in self.days), default=0)


def behind(score: Score, hazard: str | None) -> str | None:
    """The exemplar behind a hit: the nearest harmful one of its hazard, or of any; None without one."""
    harmful = [neighbour for neighbour in score.nearest if neighbour.harmful]
    of_hazard = [neighbour for neighbour in harmful if neighbour.hazard == hazard]
    return next((neighbour.id for neighbour in (*of_hazard, *harmful)), None)


class ExemplarHits:
    """All counters. ``note`` and ``note_scored`` may be called from any thread; ``follow`` brings them to Redis."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._waiting: deque[str] = deque(maxlen=_MAX_WAITING)  # appending is safe from any thread
        self._shadowed: tuple[Bank, Shadowed] | None = None

    def note(self, exemplar_id: str) -> None:
        """Count an exemplar as behind something that policy did."""
        self._waiting.append(f"{exemplar_id} {_HIT}")

    def note_scored(self, bank: Bank, prepared: Prepared, score: Score) -> None:
        """Count which exemplars in shadow a text that was just scored would have repeated. Quick, and never raises."""
        known = self._shadowed
        if known is None or known[0] is not bank:
            known = self._shadowed = bank, Shadowed(bank)  # two threads may both do so; that is no harm
        shadowed = known[1]
        if not prepared.cut or not shadowed.watches(prepared.side):
            return
        try:
            text = seen(bank, prepared, most=WINDOWS)
        except RuntimeError:  # the encoder failed meanwhile: the text has its score, and a count can be missed
            return
        for id in shadowed.hits(text):
            self._waiting.append(f"{id} {_SHADOW}")
            if (score.risk < RISKY) == shadowed.harmful[id]:
                self._waiting.append(f"{id} {_SHADOW_NEW}")

    async def follow(self) -> None:
        """Bring what was noted to Redis until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Bring what was noted to Redis now; while it is away, the counts are lost."""
        counts = Counter(self._waiting.popleft() for _ in range(len(self._waiting)))
        if not counts:
            return
        added: list[str | int] = [part for pair in counts.items() for part in pair]
        key, ttl_s = EXEMPLAR_HITS(_day(0)), KEPT_DAYS * 86_400
        try:
            with self._redis.guard() as redis:
                await redis.eval(_ADD_SCRIPT, 1, key, ttl_s, MAX_EXEMPLARS_A_DAY, *added)
        except StateUnavailable:
            return

    async def report(self, exemplar_id: str, *, days: int = DAYS) -> HitReport:
        """The last days of an exemplar. Raises ``StateUnavailable``."""
        names = [_day(ago) for ago in reversed(range(days))]
        fields = [f"{exemplar_id} {kind}" for kind in (_HIT, _SHADOW, _SHADOW_NEW)]
        verdicts = [f"{exemplar_id} {outcome}" for outcome in ("confirmed", "dismissed")]
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=False)
            for name in names:
                pipe.hmget(EXEMPLAR_HITS(name), fields)
            pipe.hmget(EXEMPLAR_VERDICTS(), verdicts)
            *rows, decided = await pipe.execute()
        found = [DayHits(name, *_numbers(row)) for name, row in zip(names, rows, strict=True)]
        return HitReport(tuple(found), *_numbers(decided))


def _numbers(row: Sequence[Any]) -> list[int]:
    return [int(value or 0) for value in row]


def _day(ago: int) -> str:
    return (datetime.now(UTC) - timedelta(days=ago)).strftime("%Y-%m-%d")
