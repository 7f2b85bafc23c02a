"""BankVersions: which version of the bank is in force on all gateways, who put it there, and the way back.

The pointer stands in Redis, so that it reaches every gateway at once; the versions themselves are folders, each
written once and never changed (``antiprompt_bank.store``). The folder's own pointer follows, for a gateway that starts
while Redis is away. Every gateway must see the same folder, or one with the same versions in it; with ``bank.remote``
each has its own, and a version is put there before it is put in force.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from antiprompt_bank import BankError, BankNotFound, BankStore
from antiprompt_bank.remote import RemoteUnavailable, RemoteVersions
from gateway.errors import BadRequest, Conflict, NotFound, StateUnavailable
from gateway.redis_client import RedisClient
from gateway.redis_keys import BANK_CURRENT, BANK_HISTORY, BANK_SCORES, REVIEW_AUDIT

AUDIT_MAX_ENTRIES: Final = 1_000_000
_MAX_WORDS: Final = 1000


@dataclass(frozen=True, slots=True)
class Published:
    """A version that was put in force. ``action`` is publish or rollback; ``at`` is UTC in seconds since 1970.

    ``before`` is the version that was in force until then, None where nobody knew.
    """

    version: str
    action: str
    by: str
    note: str
    at: float
    before: str | None = None

    def to_json(self) -> str:
        return orjson.dumps(self).decode()

    @classmethod
    def from_json(cls, line: str) -> Published:
        values: Mapping[str, Any] = orjson.loads(line)
        return cls(**values)


class BankVersions:
    """The versions in ``folder`` (None: there is none), and the pointer to one of them in Redis.

    ``pinned`` is a version that settings hold on to: nothing else is published here then. ``remote`` keeps the
    versions for all gateways, where each has a folder of its own. Methods that ask Redis raise ``StateUnavailable``
    while it is away.
    """

    def __init__(
        self,
        redis: RedisClient,
        folder: Path | None,
        *,
        pinned: str | None = None,
        remote: RemoteVersions | None = None,
    ) -> None:
        self.folder = folder
        self.pinned = pinned
        self._remote = remote
        self._redis = redis

    def versions(self) -> Sequence[str]:
        """All versions in the folder, newest first. Blocking: it reads the disk."""
        return [] if self.folder is None else BankStore(self.folder).versions()[::-1]

    async def current(self) -> Published | None:
        """What was put in force last; None where nobody has, and the folder's own pointer counts."""
        with self._redis.guard() as redis:
            line: Any = await redis.get(BANK_CURRENT())
        return None if line is None else Published.from_json(line)

    async def publish(self, version: str, *, by: str, note: str) -> Published:
        """Put a version in force on every gateway within two seconds. Raises ``NotFound`` for one that is not there,
        ``Conflict`` where settings pin a version, ``BadRequest`` without a person or a reason."""
        return await self._put_in_force(version, "publish", by, note)

    async def rollback(self, *, by: str, note: str, version: str | None = None) -> Published:
        """Put an earlier version in force again: ``version``, or the one before the current one.

        Raises as ``publish`` does, and ``NotFound`` where nothing was in force before.
        """
        if version is None:
            current = await self.current()
            version = None if current is None else current.before
            if version is None:
                version = await asyncio.to_thread(self._folders_parent, current)
        return await self._put_in_force(version, "rollback", by, note)

    async def history(self, *, limit: int = 100) -> Sequence[Published]:
        """What was put in force, newest first."""
        with self._redis.guard() as redis:
            rows: Any = await redis.xrevrange(BANK_HISTORY(), count=limit)
        return [Published.from_json(row["published"]) for _, row in rows]

    async def scores(self, version: str) -> Mapping[str, Any] | None:
        """What the retraining gate measured of a version; None where it was made by hand."""
        with self._redis.guard() as redis:
            line: Any = await redis.hget(BANK_SCORES(), version)
        return None if line is None else dict(orjson.loads(line))

    async def keep_scores(self, version: str, scores: Mapping[str, Any]) -> None:
        """Keep what was measured of a version beside it."""
        with self._redis.guard() as redis:
            await redis.hset(BANK_SCORES(), version, orjson.dumps(scores).decode())

    async def _put_in_force(self, version: str, action: str, by: str, note: str) -> Published:
        for name, words in (("by", by), ("note", note)):
            if not words.strip() or len(words) > _MAX_WORDS:
                raise BadRequest(f"{name} must be given, in at most {_MAX_WORDS} characters", param=name)
        if self.pinned is not None and self.pinned != version:
            raise Conflict(f"settings pin bank.version to {self.pinned}; take that out first")
        await asyncio.to_thread(self._check, version)
        held = await self.current()
        before = held.version if held is not None else await asyncio.to_thread(self._folders_own)
        if held is not None and held.version == version:
            before = held.before  # published again: the way back stays
        published = Published(version, action, by, note, time.time(), before)
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=True)
            pipe.set(BANK_CURRENT(), published.to_json())
            pipe.xadd(BANK_HISTORY(), {"published": published.to_json()})
            row: Any = {"actor": by, "action": f"bank {action}", "subject": version, "note": note}
            pipe.xadd(REVIEW_AUDIT(), row, maxlen=AUDIT_MAX_ENTRIES)
            await pipe.execute()
        await asyncio.to_thread(self._point_folder, version)
        return published

    def _store(self) -> BankStore:
        if self.folder is None:
            raise NotFound("there is no folder of versions; set bank.path")
        return BankStore(self.folder)

    def _check(self, version: str) -> None:
        """Raises ``NotFound`` unless the version is there and says so itself, for every gateway.

        ``StateUnavailable`` where the remote store cannot be reached: gateways could not fetch it either.
        """
        try:
            store = self._store()
            if self._remote is not None and version not in store.versions():
                self._remote.pull(version, store)
            store.manifest(version)
            if self._remote is not None:
                self._remote.push(store, version)
        except RemoteUnavailable as error:
            raise StateUnavailable(f"{error}; nothing was put in force", retry_after_s=5.0) from error
        except BankError as error:
            raise NotFound(f"{version!r} cannot be put in force: {error}") from None

    def _folders_own(self) -> str | None:
        try:
            return self._store().current()
        except BankError:
            return None

    def _folders_parent(self, current: Published | None) -> str:
        """The version from which the one in force was made. Raises ``NotFound``."""
        try:
            version = current.version if current is not None else self._store().current()
            parent = self._store().manifest(version).parent
        except BankNotFound as error:
            raise NotFound(str(error)) from None
        except BankError as error:
            raise NotFound(f"no way back is known: {error}") from None
        if parent is None:
            raise NotFound(f"nothing was in force before {version}; name the version to go back to")
        return parent

    def _point_folder(self, version: str) -> None:
        self._store().publish(version)
