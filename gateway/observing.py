"""Observer: the gauges that nobody sets in passing, read off the parts and Redis now and then.

What Redis holds is the whole installation's: every process shows the same, so a dashboard takes the largest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from gateway.cases import CaseStore
from gateway.drift import drift_of
from gateway.errors import StateUnavailable
from gateway.flag_records import FlagState
from gateway.flags import FlagStore
from gateway.overlay import Overlay
from gateway.policy_store import PolicyStore
from gateway.redis_client import RedisClient
from gateway.redis_keys import FLAG_STATE, REVIEW_RECENT
from gateway.retraining_queue import RetrainingQueue
from gateway.screening import Screener
from gateway.telemetry import Metrics

OFTEN_S: Final = 1.0
NOW_AND_THEN_S: Final = 15.0
SELDOM_S: Final = 300.0
"""Drift is a matter of days, and costs a thousand cases read."""

DAY_S: Final = 86_400
CASES_READ: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Sets ``metrics`` from what the other parts know; ``follow`` until cancelled."""

    metrics: Metrics
    redis: RedisClient
    flags: FlagStore
    cases: CaseStore
    policies: PolicyStore
    screener: Screener
    overlay: Overlay
    retraining: RetrainingQueue

    async def follow(self) -> None:
        """Observe for ever. While Redis is away what it holds keeps its last value; ``redis_up`` says so."""
        due_s = [0.0, 0.0]
        while True:
            self.here()
            for at, (look, every_s) in enumerate(((self.shared, NOW_AND_THEN_S), (self.drift, SELDOM_S))):
                if time.monotonic() >= due_s[at] and self.redis.available:
                    with suppress(StateUnavailable):
                        await look()
                        due_s[at] = time.monotonic() + every_s
            await asyncio.sleep(OFTEN_S)

    def here(self) -> None:
        """What is true of this process."""
        policy = self.policies.current
        self.metrics.redis_up.set(self.redis.available)
        self.metrics.spooled_flags.set(self.flags.spool_flags)
        self.metrics.bank_behind.set(self.overlay.state.problem is not None)
        in_shadow = policy.break_glass or self.screener.calibration.in_shadow
        self.metrics.name_policy(policy.version, "shadow" if in_shadow else str(policy.mode))

    async def shared(self) -> None:
        """What all processes share: flags, reviews, and the workers, who have no metrics of their own."""
        metrics = self.metrics
        with self.redis.guard() as redis:
            pipe = redis.pipeline(transaction=False)
            for state in FlagState:
                pipe.zcard(FLAG_STATE(state))
            pipe.zcard(REVIEW_RECENT())
            pipe.zrange(FLAG_STATE(FlagState.OPEN), 0, 0, withscores=True)
            *counts, reviews, oldest = await pipe.execute()
        for state, count in zip(FlagState, counts, strict=True):
            metrics.flags_kept.labels(str(state)).set(count)
        metrics.reviews_kept.set(reviews)
        metrics.oldest_open_flag.set(max(0.0, time.time() - oldest[0][1] / 1000) if oldest else 0.0)
        runs = await self.retraining.runs(limit=1)
        metrics.retraining_refused.set(bool(runs) and runs[0].bad)
        metrics.retraining_run_at.set(runs[0].at if runs else 0)
        metrics.retraining_waiting.set(await self.retraining.waiting())
        metrics.retraining_due.set((await self.retraining.due()).exemplars)
        metrics.retraining_dead.set(await self.retraining.buried())

    async def drift(self) -> None:
        """How far the risks of the last day are from those of the six before; not a number with too few cases."""
        now = time.time()
        lately, before = await self._risks(now - DAY_S, now), await self._risks(now - 7 * DAY_S, now - DAY_S)
        index = drift_of(lately, before).index
        self.metrics.drift_index.set(float("nan") if index is None else index)

    async def _risks(self, since: float, until: float) -> Sequence[float]:
        return [case.risk for case in await self.cases.spread(since, until, limit=CASES_READ)]
