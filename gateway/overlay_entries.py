"""EntryStore: the bank's entries since its version, as people see and change them; which gateway stands where."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from redis.exceptions import WatchError

from antiprompt_bank import Antiprompt, State
from gateway.errors import BadRequest, Conflict, Forbidden, NotFound
from gateway.overlay_records import BankEntry, Replica
from gateway.redis_client import RedisClient
from gateway.redis_keys import BANK_CHANGES, BANK_ENTRIES, REPLICA, REPLICAS, REVIEW_AUDIT

CHANGES_MAX_ENTRIES: Final = 10_000
AUDIT_MAX_ENTRIES: Final = 1_000_000
REPLICA_TTL_S: Final = 15

_OF_RECORD: Final = ("state", "hazard", "severity", "kind", "expires_at")
_OF_ENTRY: Final = ("disabled_until", "canary")

Edit = Callable[[BankEntry | None], BankEntry]
"""From an entry as it is (None: there is none) to what it becomes."""


class EntryStore:
    """All entries. Every method raises ``StateUnavailable`` while Redis is away."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._read: dict[str, BankEntry] = {}  # by their JSON, as it was read last

    async def all(self) -> Sequence[BankEntry]:
        """Every entry, the one changed last first."""
        with self._redis.guard() as redis:
            lines: Any = await redis.hvals(BANK_ENTRIES())
        known = self._read  # each is read once: thousands of them take a good part of a second
        self._read = {line: known.get(line) or BankEntry.from_json(line) for line in lines}
        return sorted(self._read.values(), key=lambda entry: (-entry.changed_at, entry.id))

    async def get(self, entry_id: str) -> BankEntry:
        """Raises ``NotFound``."""
        with self._redis.guard() as redis:
            line: Any = await redis.hget(BANK_ENTRIES(), entry_id)
        if line is None:
            raise NotFound(f"there is no entry {entry_id!r}")
        return BankEntry.from_json(line)

    async def change(
        self,
        record: Antiprompt,
        *,
        by: str,
        state: State | None = None,
        hazard: str | None = None,
        severity: int | None = None,
        kind: str | None = None,
        expires_at: str | None = None,
        disabled_until: float | None = None,
        canary: float | None = None,
        note: str = "",
        of_version: bool = True,
    ) -> BankEntry:
        """Change what a person may change of an exemplar, be it an entry or of the version below; None stays.

        A record that is no entry yet is taken to be of a version, unless ``of_version`` says that it is new.

        ``hazard`` and ``kind`` may be "" for none, ``expires_at`` is ISO 8601 with a zone ("" for never) and
        ``disabled_until`` UTC seconds (0: not at all). What changed stands in the audit log, so that it can be changed
        back. Making live what waits for a second person is ``second``'s: here it raises ``Conflict``. Raises
        ``BadRequest`` for a value out of its range.
        """
        _check_person(by)
        if canary is not None and not 0 < canary <= 1:
            raise BadRequest(f"canary is {canary}, not above 0 and at most 1", param="canary")

        wanted = {"state": state, "hazard": hazard, "severity": severity, "kind": kind, "expires_at": expires_at}

        def edit(held: BankEntry | None) -> BankEntry:
            entry = held or BankEntry(record=record, by=by, edits=of_version)
            if entry.awaits_second and state is State.LIVE:
                raise Conflict("a second person makes this entry live")
            changed = _edited(entry.record, wanted)
            return replace(
                entry,
                record=changed,
                awaits_second=entry.awaits_second and changed.state is State.SHADOW,
                disabled_until=entry.disabled_until if disabled_until is None else disabled_until,
                canary=entry.canary if canary is None else canary,
                changed_at=time.time(),
            )

        return await self._edit(record.id, edit, by, "change", note, record)

    async def second(self, entry_id: str, moderator: str) -> BankEntry:
        """Make a wide entry live. Raises ``Conflict`` unless it waits for that, ``Forbidden`` for the same person."""
        _check_person(moderator)

        def edit(held: BankEntry | None) -> BankEntry:
            if held is None:
                raise NotFound(f"there is no entry {entry_id!r}")
            if not held.awaits_second:
                raise Conflict("this entry does not wait for a second person")
            if held.by == moderator:
                raise Forbidden(f"{moderator} asked for this entry; another person must make it live")
            record = replace(held.record, state=State.LIVE)
            return replace(held, record=record, second=moderator, awaits_second=False, changed_at=time.time())

        return await self._edit(entry_id, edit, moderator, "second", "")

    async def replicas(self) -> Sequence[Replica]:
        """The gateways that have lately said where they stand."""
        with self._redis.guard() as redis:
            names: Any = await redis.zrange(REPLICAS(), 0, -1)
            lines: list[Any] = [await redis.get(REPLICA(name)) for name in names]  # keys of different slots
        return [Replica.from_json(line) for line in lines if line is not None]

    async def report(self, replica: Replica) -> None:
        """Say where a gateway stands; it is forgotten unless it says so again within 15 seconds."""
        now_ms = int(replica.seen_at * 1000)
        with self._redis.guard() as redis:
            await redis.set(REPLICA(replica.name), replica.to_json(), ex=REPLICA_TTL_S)
            pipe = redis.pipeline(transaction=True)
            pipe.zadd(REPLICAS(), {replica.name: now_ms})
            pipe.zremrangebyscore(REPLICAS(), "-inf", now_ms - REPLICA_TTL_S * 1000)
            await pipe.execute()

    async def _edit(
        self, entry_id: str, edit: Edit, by: str, action: str, note: str, below: Antiprompt | None = None
    ) -> BankEntry:
        """Change one entry and tell the gateways and the audit log, in one transaction.

        ``below`` is the exemplar that the version holds, for the log.
        """
        while True:
            with self._redis.guard() as redis:
                async with redis.pipeline(transaction=True) as pipe:
                    await pipe.watch(BANK_ENTRIES())
                    line: Any = await pipe.hget(BANK_ENTRIES(), entry_id)
                    held = None if line is None else BankEntry.from_json(line)
                    changed = edit(held)
                    before = BankEntry(record=below, by=by) if held is None and below is not None else held
                    told = "; ".join((*_differences(before, changed), *([note] if note else ())))
                    pipe.multi()  # type: ignore[no-untyped-call]
                    pipe.hset(BANK_ENTRIES(), entry_id, changed.to_json())
                    pipe.xadd(BANK_CHANGES(), {"entry": entry_id}, maxlen=CHANGES_MAX_ENTRIES)
                    pipe.xadd(
                        REVIEW_AUDIT(),
                        {"actor": by, "action": action, "subject": entry_id, "note": told},
                        maxlen=AUDIT_MAX_ENTRIES,
                    )
                    try:
                        await pipe.execute()
                    except WatchError:
                        continue  # an entry changed meanwhile: look again
            return changed


def _edited(record: Antiprompt, wanted: Mapping[str, Any]) -> Antiprompt:
    """A record with other values, where they are not None; "" stands for none. Raises ``BadRequest``."""
    for name, value in wanted.items():
        if value is not None:
            changed: dict[str, Any] = {name: None if value == "" else value}
            try:
                record = replace(record, **changed)
            except ValueError as error:
                raise BadRequest(str(error), param=name) from None
    return record


def _differences(before: BankEntry | None, after: BankEntry) -> list[str]:
    """What a person changed of an exemplar, in words without its text."""
    if before is None:
        return []
    pairs = [(name, getattr(before.record, name), getattr(after.record, name)) for name in _OF_RECORD]
    pairs += [(name, getattr(before, name), getattr(after, name)) for name in _OF_ENTRY]
    return [f"{name} {_word(was)} -> {_word(now)}" for name, was, now in pairs if was != now]


def _word(value: object) -> str:
    return "none" if value is None else f"{value:.0f}" if isinstance(value, float) and value > 1 else str(value)


def _check_person(name: str) -> None:
    if not name.strip():
        raise BadRequest("name the person who does this", param="by")
