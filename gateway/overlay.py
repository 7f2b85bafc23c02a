"""Overlay: each gateway follows what people decided: the version in force, and the entries laid over it.

What Redis holds is the whole truth, not a list of steps: a gateway that lost its connection, or was started later,
reads it again and has caught up. Changes that come in a burst are applied together. A version or an entry that cannot
be used leaves the last good bank in force, and the gateway says so where it reports its state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from antiprompt_bank import Bank, BankError
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.layers import Layers
from gateway.bank_versions import BankVersions, Published
from gateway.calibration import CalibrationInForce
from gateway.errors import StateUnavailable
from gateway.overlay_entries import EntryStore
from gateway.overlay_records import BankEntry, Replica
from gateway.redis_client import RedisClient
from gateway.redis_keys import BANK_CHANGES, BANK_CURRENT, BANK_ENTRIES
from gateway.screening import Screener
from gateway.telemetry import logger

INTERVAL_S: Final = 0.25
REPORT_S: Final = 2.0
RETRY_S: Final = 5.0
"""After what could not be used, how long until it is tried again: a folder may be copied meanwhile."""

NOWHERE: Final = "0-0"
"""The position before the first change."""

Load = Callable[[str | None, Encoder | None], Bank]
"""Loads a version (None: the one that settings or the folder name); an encoder that is loaded already is used again."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What Redis holds: the version in force (None: nobody published), the last change and the entries.

    ``problem`` says in words what of it could not be read, and was left out.
    """

    version: str | None
    position: str
    entries: Sequence[BankEntry]
    problem: str | None


class Overlay:
    """Keeps the screener's bank at what people decided. ``begin`` once, then ``follow`` until cancelled.

    ``calibration_for`` is the screener's: a version for which one's own fit would be stale, so that nothing were
    enforced, is not put in force.
    """

    def __init__(
        self,
        redis: RedisClient,
        screener: Screener,
        versions: BankVersions,
        load: Load,
        *,
        name: str,
        calibration_for: Callable[[Bank], CalibrationInForce] = lambda bank: CalibrationInForce(),
    ) -> None:
        self._redis = redis
        self._screener = screener
        self._versions = versions
        self._load = load
        self._name = name
        self._calibration_for = calibration_for
        self._entry_store = EntryStore(redis)
        self._layers: Layers | None = None
        self._base = ""  # the version below what answers now; not yet that of ``_layers`` while entries are laid on
        self._wanted: str | None = None  # the version that Redis named last
        self._position = ""  # of the last change that was looked at; none yet
        self._applied = False
        self._due_s = 0.0  # when an entry's time comes, 0 for never
        self._retry_s = 0.0
        self._reported_s = 0.0
        self._problem: str | None = None

    @property
    def state(self) -> Replica:
        """Where this gateway stands."""
        bank = self._screener.bank
        position = self._position or NOWHERE
        version = "" if bank is None else bank.version
        return Replica(self._name, version, self._base, position, time.time(), self._problem)

    async def begin(self) -> Bank:
        """Load the bank in force with all entries and put it into the screener.

        While Redis is away it is the one that the folder names, until ``follow`` has caught up. Raises what loading
        raises: a gateway without a bank is not ready.
        """
        try:
            told = await self._ask()
        except StateUnavailable:
            told = None
        version, problem = (None if told is None else told.version), None
        try:
            base = await asyncio.to_thread(self._load, version, None)
        except BankError as error:
            if version is None:
                raise
            problem = f"bank {version} is in force, but cannot be used here: {error}"
            self._retry_s = time.time() + RETRY_S
            base = await asyncio.to_thread(self._load, None, None)
        self._layers = await asyncio.to_thread(Layers, base)
        self._wanted = version
        failure = "" if told is None else await self._apply(told)
        if failure is not None:
            self._screener.swap(base)
            self._base = base.version
        self._note(failure or problem or (None if told is None else told.problem))
        return self._screener.in_force

    async def follow(self, *, interval_s: float = INTERVAL_S) -> None:
        """Keep up with Redis until cancelled; does nothing before ``begin`` is done."""
        while True:
            await asyncio.sleep(interval_s)
            if self._layers is None:
                continue
            try:
                if await self._is_behind():
                    await self._catch_up()
                await self._report()
            except StateUnavailable:
                continue  # the last good bank stays; the next round looks again

    async def _is_behind(self) -> bool:
        now_s = time.time()
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=False)
            pipe.get(BANK_CURRENT())
            pipe.xrevrange(BANK_CHANGES(), count=1)
            current, last = await pipe.execute()
        changed = (self._named(current), _position(last)) != (self._wanted, self._position)
        return changed or 0 < self._due_s <= now_s or 0 < self._retry_s <= now_s

    async def _catch_up(self) -> None:
        told = await self._ask()
        assert self._layers is not None
        now_s = time.time()
        changed = told.position != self._position or not self._applied or 0 < self._due_s <= now_s
        problem, self._retry_s = told.problem, 0.0
        if told.version is not None and told.version != self._layers.base.version:
            failure = await self._rebase(told.version)
            changed = changed or failure is None
            if failure is not None:
                problem, self._retry_s = failure, now_s + RETRY_S
        self._wanted = told.version
        if changed:
            problem = await self._apply(told) or problem
        self._note(problem)

    async def _rebase(self, version: str) -> str | None:
        """Load another version and build on it from now on; in words, why that could not be."""
        assert self._layers is not None
        try:
            base = await asyncio.to_thread(self._load, version, self._layers.base.encoder)
            if self._calibration_for(base).in_shadow and not self._screener.calibration.in_shadow:
                return f"bank {version} waits: with it one's own calibration is stale; run `antiprompt calibrate`"
            self._layers = await asyncio.to_thread(Layers, base)
        except (BankError, OSError, ValueError) as error:
            return f"bank {version} is in force, but cannot be used here: {error}"
        return None

    async def _apply(self, told: _Told) -> str | None:
        """Lay the entries over the base and put that into the screener; in words, why the last good bank stays."""
        assert self._layers is not None
        now_s = time.time()
        held_below = self._layers.base.has
        laid = [entry for entry in told.entries if not entry.edits or held_below(entry.id)]
        records = [entry.record_at(now_s, self._name) for entry in laid]
        self._position, self._applied = told.position, False
        try:
            bank = await asyncio.to_thread(self._layers.with_records, records)
            held = self._screener.bank
            if held is None or held.version != bank.version:  # a swap forgets all scores: not without need
                self._screener.swap(bank)
        except (BankError, RuntimeError, ValueError) as error:
            self._retry_s = now_s + RETRY_S
            return f"the bank's entries cannot be used: {error}"
        self._applied, self._base = True, self._layers.base.version
        self._due_s = min((e.disabled_until for e in laid if e.disabled_until > now_s), default=0.0)
        self._reported_s = 0.0  # say so now
        logger().info("bank in force", bank=bank.version, base=self._layers.base.version, entries=len(laid))
        return None

    async def _ask(self) -> _Told:
        """What Redis holds, at one moment. An entry that cannot be read is left out, and said."""
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=True)
            pipe.get(BANK_CURRENT())
            pipe.xrevrange(BANK_CHANGES(), count=1)
            pipe.hgetall(BANK_ENTRIES())
            current, last, lines = await pipe.execute()
        entries, problem = [], None
        for id, line in lines.items():
            try:
                entries.append(BankEntry.from_json(line))
            except (ValueError, TypeError, KeyError) as error:
                problem = f"entry {id} cannot be read: {type(error).__name__}"
        return _Told(self._named(current), _position(last), entries, problem)

    def _named(self, current: str | None) -> str | None:
        """The version that Redis puts in force, unless settings pin another."""
        if self._versions.pinned is not None or current is None:
            return None
        try:
            return Published.from_json(current).version
        except (ValueError, TypeError):
            self._note("what Redis holds in the place of the bank's version cannot be read")
            return self._wanted

    async def _report(self) -> None:
        if time.monotonic() - self._reported_s < REPORT_S:
            return
        await self._entry_store.report(self.state)
        self._reported_s = time.monotonic()

    def _note(self, problem: str | None) -> None:
        """Keep what is wrong for the report, and say it once."""
        if problem is not None and problem != self._problem:
            logger().error("the last good bank stays in force", problem=problem)
        self._problem = problem


def _position(last: Any) -> str:
    return str(last[0][0]) if last else NOWHERE
