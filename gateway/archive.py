"""Archive: the older part of Redis' logs as files, so that Redis stays bounded and nothing of them is lost.

Each log keeps its newest ``retention.stream_entries`` entries in Redis. What is older goes, a segment at a time, into
``<archive>/<log>/<first id>_<last id>.jsonl.gz`` and leaves Redis only when the file was read back. A segment begins
with the oldest entry and has a fixed size, so whoever is cut off, or does the same at the same time, writes the same
file. The logs hold ids, names and numbers, no text.
"""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import fsspec
import orjson
from fsspec.implementations.local import LocalFileSystem

from gateway.errors import StateUnavailable
from gateway.redis_client import RedisClient
from gateway.redis_keys import (
    ARCHIVING,
    AUDIT,
    BANK_HISTORY,
    FLAG_STREAM,
    POLICY_HISTORY,
    RETRAINING_DEAD,
    RETRAINING_RUNS,
    REVIEW_AUDIT,
    Key,
)
from gateway.settings import Settings
from gateway.telemetry import logger

LOGS: Final[Mapping[str, Key]] = {
    "flags": FLAG_STREAM,
    "reviews": REVIEW_AUDIT,
    "administration": AUDIT,
    "policy": POLICY_HISTORY,
    "bank": BANK_HISTORY,
    "retraining": RETRAINING_RUNS,
    "dead-letters": RETRAINING_DEAD,
}
"""The logs, by the name of their folder."""

KEPT_AT_MOST: Final[Mapping[str, int]] = {"retraining": 2_000, "dead-letters": 20_000}
"""Logs of which fewer stay in Redis: their entries are larger, and their own bound is lower."""

SEGMENT_ENTRIES: Final = 10_000
INTERVAL_S: Final = 600.0
LEASE_S: Final = 300

log = logger()


class ArchiveError(Exception):
    """The place of the archive cannot be used; what is to go there stays in Redis."""


class Archive:
    """The archive of ``settings``. ``follow`` keeps Redis' logs short until it is cancelled."""

    def __init__(self, redis: RedisClient, settings: Settings, *, segment_entries: int = SEGMENT_ENTRIES) -> None:
        self.url = settings.retention.archive or str(settings.data_dir / "archive")
        self._redis = redis
        self._kept = settings.retention.stream_entries
        self._segment = segment_entries

    async def follow(self, *, interval_s: float = INTERVAL_S) -> None:
        """Archive what is due, again and again. What fails is told and tried again: Redis still has it."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.once()
            except StateUnavailable:
                continue
            except ArchiveError as error:
                log.error("logs stay in Redis: they cannot be archived", reason=str(error))

    async def once(self) -> Mapping[str, int]:
        """Archive what is due now: how many entries of which log. One process does it at a time; others find nothing.

        Raises ``StateUnavailable`` and ``ArchiveError``.
        """
        with self._redis.guard() as redis:
            if not await redis.set(ARCHIVING(), "1", nx=True, ex=LEASE_S):
                return {}
        try:
            return {name: count for name, key in LOGS.items() if (count := await self._shorten(name, key))}
        finally:
            with self._redis.guard() as redis:
                await redis.delete(ARCHIVING())

    async def lengths(self) -> Mapping[str, int]:
        """How many entries each log has in Redis. Raises ``StateUnavailable``."""
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=False)
            for key in LOGS.values():
                pipe.xlen(key())
            return dict(zip(LOGS, await pipe.execute(), strict=True))

    def kept(self, name: str) -> int:
        """How many entries of a log stay in Redis; until a segment more has come together nothing is archived."""
        return min(self._kept, KEPT_AT_MOST.get(name, self._kept))

    async def _shorten(self, name: str, key: Key) -> int:
        moved, segment = 0, min(self._segment, self.kept(name))
        while True:
            with self._redis.guard() as redis:
                if await redis.xlen(key()) < self.kept(name) + segment:
                    return moved
                rows: Any = await redis.xrange(key(), count=segment)
            first, last = rows[0][0], rows[-1][0]
            await asyncio.to_thread(self._keep, f"{name}/{first}_{last}.jsonl.gz", rows)
            with self._redis.guard() as redis:
                await redis.xtrim(key(), minid=_after(last), approximate=False)
                await redis.expire(ARCHIVING(), LEASE_S)
            moved += len(rows)

    def _keep(self, name: str, rows: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        """Write a segment and read it back. Raises ``ArchiveError``."""
        lines = b"".join(orjson.dumps({"id": id, **fields}) + b"\n" for id, fields in rows)
        content = gzip.compress(lines, mtime=0)  # the same rows, the same bytes
        try:
            files, root = fsspec.core.url_to_fs(self.url)
            path = f"{str(root).rstrip('/')}/{name}"
            if not files.exists(path) or files.cat_file(path) != content:
                files.makedirs(path.rpartition("/")[0], exist_ok=True)
                files.pipe_file(path, content)
                _sync(files, path)
                if files.cat_file(path) != content:
                    raise ArchiveError(f"{name} is not what was written")
        except (OSError, ValueError, ImportError) as error:
            raise ArchiveError(f"{name} cannot be written: {type(error).__name__}") from error


def _after(id: str) -> str:
    """The id right behind another one."""
    milliseconds, _, sequence = id.partition("-")
    return f"{milliseconds}-{int(sequence) + 1}"


def _sync(files: Any, path: str) -> None:
    """See a local file to the disk, and its name too; an object store has it when it has answered."""
    if not isinstance(files, LocalFileSystem):
        return
    for place in (Path(path), Path(path).parent):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
