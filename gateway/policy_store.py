"""PolicyStore: the versions of the policy in Redis, the one in force, and break-glass.

At first start the policy file becomes the first version. From then on:

* Until somebody publishes, the file leads: a gateway that starts with a changed file puts it in force everywhere.
* After ``publish`` or ``rollback``, Redis leads; the file serves only until Redis has been reached.
* A file that says ``locked: true`` is the only source: nothing is read from Redis; publishing and break-glass are
  refused. To put such a gateway into shadow, change the file and restart.

Gateways ask Redis once a second and swap one reference. While Redis is away the last good policy stays; a stored one
that cannot be used never replaces it. Break-glass ends with its key's lifetime, also while Redis is away.

Keys in Redis (``{policy}`` is a cluster's hash tag: they change in one transaction):

====================================  ======  ==================================================  =================
key                                   type    meaning                                             lifetime
====================================  ======  ==================================================  =================
antiprompt:{policy}:version:VERSION   string  the YAML of this version, as it was given           for ever
antiprompt:{policy}:current           string  the version in force, source, author, note (JSON)   for ever
antiprompt:{policy}:history           stream  who did what, when and why; break-glass too         newest 1,000,000
antiprompt:{policy}:break_glass       string  author and reason (JSON), while all is in shadow    at most 24 hours
====================================  ======  ==================================================  =================
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from redis.exceptions import ResponseError, WatchError

from gateway.errors import Forbidden, NotFound, StateUnavailable
from gateway.policy import Policy, PolicyError
from gateway.policy_file import DEFAULT_POLICY_FILE
from gateway.policy_records import (
    FILE,
    AuditEntry,
    BreakGlass,
    Event,
    InForce,
    PolicyStatus,
    audit_row,
    check_words,
)
from gateway.redis_client import RedisClient
from gateway.redis_keys import POLICY, POLICY_BREAK_GLASS, POLICY_CURRENT, POLICY_HISTORY
from gateway.telemetry import logger

MAX_BREAK_GLASS: Final = timedelta(hours=24)
HISTORY_MAX_ENTRIES: Final = 1_000_000


class PolicyStore:
    """The policy in force. ``start`` before use in a gateway, ``attach`` in a command beside one.

    Methods that change something raise ``StateUnavailable`` while Redis is away, ``Forbidden`` where the file is
    locked, and ``ValueError`` for an author or a reason that says nothing.
    """

    def __init__(self, redis: RedisClient, file: Path | None = None) -> None:
        self._redis = redis
        self._path = file or DEFAULT_POLICY_FILE
        self._file: tuple[Policy, str] | None = None
        self._file_offered = False
        self._base: Policy | None = None
        self._current: Policy | None = None
        self._in_force: InForce | None = None
        self._unusable: tuple[str, str] | None = None
        self._problem: str | None = None
        self._glass: BreakGlass | None = None
        self._glass_ends_s = 0.0

    @property
    def current(self) -> Policy:
        """The policy in force, for all tenants. Take it once for each request, so that one policy decides about it."""
        if self._current is None:
            raise RuntimeError("PolicyStore.start has not run")
        return self._current

    @property
    def locked(self) -> bool:
        """Whether the file is the only source. Raises ``PolicyError`` for a file that cannot be used."""
        return self._read_file()[0].locked

    @property
    def status(self) -> PolicyStatus:
        """What is in force here and now."""
        held = self._in_force or InForce(self.current.version, FILE, FILE, self._path.name)
        return PolicyStatus(**asdict(held), locked=self.locked, break_glass=self._glass, problem=self._problem)

    async def start(self) -> None:
        """Read the file, offer it to Redis and take over what is in force there; Redis may be away.

        Raises ``PolicyError`` for a file that cannot be used: a gateway without a policy does not start.
        """
        self._use(self._read_file()[0])
        await self._follow_once()

    async def attach(self) -> None:
        """Read the file and what is in force in Redis, and change nothing there.

        Raises ``PolicyError`` and ``StateUnavailable``.
        """
        self._use(self._read_file()[0])
        if not self.locked:
            await self.refresh()

    async def follow(self, *, interval_s: float = 1.0) -> None:
        """Keep up with Redis until cancelled; returns at once where the file is locked."""
        while not self.locked:
            await asyncio.sleep(interval_s)
            await self._follow_once()

    async def refresh(self) -> None:
        """Take over what is in force in Redis now. Raises ``StateUnavailable``; the last good policy stays."""
        with self._redis.guard() as redis:
            try:
                pipe = redis.pipeline(transaction=False)
                pipe.get(POLICY_CURRENT())
                pipe.get(POLICY_BREAK_GLASS())
                pipe.pttl(POLICY_BREAK_GLASS())
                current, glass, lifetime_ms = await pipe.execute()
                in_force = InForce.from_json(current) if current is not None else None
                text = None if in_force is None or self._has(in_force) else await redis.get(POLICY(in_force.version))
                self._note_break_glass(glass, lifetime_ms)
            except (ResponseError, ValueError) as error:
                return self._complain(f"what Redis holds in the policy's place cannot be read: {error}")
        if in_force is not None:
            self._adopt(in_force, text)
        self._swap()
        return None

    async def publish(self, text: str, *, author: str, note: str) -> str:
        """Put ``text`` (YAML) in force on every gateway within about a second; returns its version.

        Raises ``PolicyError`` for a text that cannot be used, or that locks: only a file can say that.
        """
        return await self._put_in_force(Event.PUBLISH, text, author, note)

    async def rollback(self, version: str, *, author: str, note: str) -> str:
        """Put an earlier version in force again. Raises ``NotFound`` for one that was never stored."""
        return await self._put_in_force(Event.ROLLBACK, await self.text(version), author, note)

    async def text(self, version: str | None = None) -> str:
        """The YAML of a version, as it was given; None: of the one in force. Raises ``NotFound``."""
        if version is None:
            if self._in_force is None:
                return self._read_file()[1]
            version = self._in_force.version
        with self._redis.guard() as redis:
            text = await redis.get(POLICY(version))
        if text is None:
            raise NotFound(f"there is no policy {version!r}; `antiprompt policy history` shows all")
        return str(text)

    async def history(self, *, limit: int = 100) -> Sequence[AuditEntry]:
        """What was put in force, newest first."""
        return [entry for entry in await self.audit(limit=HISTORY_MAX_ENTRIES) if entry.event.puts_in_force][:limit]

    async def audit(self, *, limit: int = 100) -> Sequence[AuditEntry]:
        """Everything that was done, newest first."""
        with self._redis.guard() as redis:
            rows: Any = await redis.xrevrange(POLICY_HISTORY(), count=limit)
        return [AuditEntry.from_stream(id, row) for id, row in rows]

    async def break_glass(self, lifetime: timedelta, *, author: str, reason: str) -> BreakGlass:
        """Put everything into shadow on every gateway for ``lifetime``, at most 24 hours; see ``Policy.in_shadow``."""
        self._check_change(author, reason)
        if not timedelta(seconds=1) <= lifetime <= MAX_BREAK_GLASS:
            raise ValueError(f"break-glass lasts from one second to 24 hours, not {lifetime}")
        glass = BreakGlass(author, reason, datetime.now(UTC) + lifetime)
        row = audit_row(Event.BREAK_GLASS, self.current.version, author, reason, lifetime.total_seconds() / 60)
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=True)
            pipe.set(POLICY_BREAK_GLASS(), glass.to_json(), px=lifetime)
            _note(pipe, row)
            await pipe.execute()
        await self.refresh()
        return glass

    async def restore(self, *, author: str, note: str) -> bool:
        """End break-glass before its time. Says whether there was one."""
        self._check_change(author, note)
        with self._redis.guard() as redis:
            if not await redis.exists(POLICY_BREAK_GLASS()):
                return False
            pipe = redis.pipeline(transaction=True)
            pipe.delete(POLICY_BREAK_GLASS())
            _note(pipe, audit_row(Event.RESTORE, self.current.version, author, note))
            await pipe.execute()
        await self.refresh()
        return True

    async def _put_in_force(self, event: Event, text: str, author: str, note: str) -> str:
        self._check_change(author, note)
        policy = Policy.from_yaml(text)
        if policy.locked:
            raise PolicyError(["locked: says that the file is the only source; it has no place in a published policy"])
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=True)
            _store(pipe, event, InForce(policy.version, "published", author, note), text)
            await pipe.execute()
        await self.refresh()
        return policy.version

    async def _follow_once(self) -> None:
        if self.locked:
            return
        try:
            if not self._file_offered:
                await self._offer_file()
            await self.refresh()
        except StateUnavailable:
            self._swap()  # break-glass may have run out meanwhile

    async def _offer_file(self) -> None:
        """Put the file in force unless somebody has published: at first start, and when the file has changed."""
        policy, text = self._read_file()
        offer = InForce(policy.version, FILE, FILE, self._path.name)
        with self._redis.guard() as redis:
            async with redis.pipeline(transaction=True) as pipe:
                try:
                    await pipe.watch(POLICY_CURRENT())
                    held: Any = await pipe.get(POLICY_CURRENT())
                    before = InForce.from_json(held) if held is not None else None
                    if before is None or (before.source == FILE and before.version != policy.version):
                        pipe.multi()  # type: ignore[no-untyped-call]
                        _store(pipe, Event.FILE, offer, text)
                        await pipe.execute()
                    elif before.version != policy.version:
                        logger().warning("a published policy is in force, not the policy file", file=policy.version)
                except WatchError:
                    return  # another gateway was faster; the next round looks again
                except (ResponseError, ValueError):
                    return  # refresh, which comes next, says what is wrong
        self._file_offered = True

    def _has(self, in_force: InForce) -> bool:
        return self._base is not None and self._base.version == in_force.version

    def _adopt(self, in_force: InForce, text: Any) -> None:
        """Use the stored version in force, unless it cannot be used."""
        version = in_force.version
        if not self._has(in_force):
            if text is None:
                return self._complain(f"the policy in force, {version}, is missing from Redis; publish one")
            if (version, text) == self._unusable:
                return None  # told already
            try:
                policy = Policy.from_yaml(text)
            except PolicyError as error:
                self._unusable = version, text
                return self._complain(f"the policy in force, {version}, cannot be used by this gateway: {error}")
            if policy.version != version:
                self._unusable = version, text
                return self._complain(f"the policy in force, {version}, is not the text that was published")
            self._base = policy
        self._in_force, self._unusable, self._problem = in_force, None, None
        return None

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            logger().error("the last good policy stays in force", problem=problem)
        self._problem = problem

    def _note_break_glass(self, text: str | None, lifetime_ms: int) -> None:
        # A key without a lifetime was not set by break_glass: open for ever is not on offer.
        if text is None or lifetime_ms <= 0:
            self._glass = None
            return
        lifetime = min(timedelta(milliseconds=lifetime_ms), MAX_BREAK_GLASS)
        self._glass = BreakGlass.from_json(text, datetime.now(UTC) + lifetime)
        self._glass_ends_s = time.monotonic() + lifetime.total_seconds()

    def _use(self, policy: Policy) -> None:
        self._base = policy
        self._swap()

    def _swap(self) -> None:
        """Make what was learned the policy in force, if it is another."""
        assert self._base is not None
        if self._glass is not None and time.monotonic() >= self._glass_ends_s:
            self._glass = None
        before, shadow = self._current, self._glass is not None
        if before is not None and (before.version, before.break_glass) == (self._base.version, shadow):
            return
        self._current = self._base.in_shadow() if shadow else self._base
        logger().info("policy in force", version=self._base.version, break_glass=shadow)

    def _read_file(self) -> tuple[Policy, str]:
        if self._file is None:
            try:
                text = self._path.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise PolicyError([f"{self._path} cannot be read: {error}"]) from None
            self._file = Policy.from_yaml(text), text
        return self._file

    def _check_change(self, author: str, why: str) -> None:
        if self.locked:
            raise Forbidden(f"{self._path.name} says locked: true; change the file and restart the gateway")
        check_words(author, why)


def _store(pipe: Any, event: Event, in_force: InForce, text: str) -> None:
    pipe.set(POLICY(in_force.version), text)
    pipe.set(POLICY_CURRENT(), in_force.to_json())
    _note(pipe, audit_row(event, in_force.version, in_force.author, in_force.note))


def _note(pipe: Any, row: Any) -> None:
    pipe.xadd(POLICY_HISTORY(), row, maxlen=HISTORY_MAX_ENTRIES)
