"""What Redis holds, taken out at one moment and put back: every key with its end, streams with their groups.

Redis' own form of a value (DUMP and RESTORE) keeps all of it, down to what a consumer group has given to whom; a Redis
reads what an older one wrote, not the other way round. While it is taken, writes wait (CLIENT PAUSE): gateways go on
screening, as they do while Redis is away, and flags go to disk.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.backup_files import BackupError
from gateway.redis_client import RedisClient
from gateway.redis_cluster import ClusterRedis
from gateway.redis_keys import (
    ARCHIVING,
    CONFIRMED,
    INSTALLATION_SECRET,
    OIDC,
    RATE,
    REPLICA,
    REPLICAS,
    RETRAINING_BUILDER,
    SESSION,
)

PREFIX: Final = "antiprompt:"
_OF_THE_MOMENT: Final = (ARCHIVING, CONFIRMED, OIDC, RATE, REPLICA, REPLICAS, RETRAINING_BUILDER, SESSION)
MOMENTARY: Final = tuple(key.pattern.partition("%")[0] for key in _OF_THE_MOMENT)
"""How keys begin that say something of processes and people who are there now: who is logged in, who builds."""

_BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class Value:
    """One key. ``ends_ms`` is when it goes by itself (UTC milliseconds since 1970), None for never."""

    key: str
    ends_ms: int | None
    dump: bytes

    def to_line(self) -> bytes:
        told = {"key": self.key, "ends_ms": self.ends_ms, "dump": base64.b64encode(self.dump).decode()}
        return orjson.dumps(told) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Value:
        """Raises ``BackupError`` for what is no such line."""
        try:
            told = orjson.loads(line)
            return cls(told["key"], told["ends_ms"], base64.b64decode(told["dump"], validate=True))
        except (ValueError, KeyError, TypeError) as error:
            raise BackupError(f"a line of the state cannot be read: {type(error).__name__}") from None


class StateCopy:
    """The state in Redis, as a whole. Every method raises ``StateUnavailable`` while Redis is away."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def version(self) -> str:
        """Redis' version."""
        with self._redis.guard():
            info: Any = await (await self._nodes())[0].info("server")
        return str(info["redis_version"])

    async def take(self, to: BinaryIO, *, pause_s: float) -> int:
        """Write everything that is to be kept, as it is at one moment, to a file; how many keys.

        Writes wait for at most ``pause_s`` seconds; with 0 nothing waits, and what changes meanwhile may be of
        different moments. Raises ``BackupError`` where Redis does not let writes wait, or reading takes longer.
        """
        count = 0
        with self._redis.guard():
            nodes = await self._nodes()
            async with _paused(nodes, pause_s):
                for node in nodes:
                    async for value in _values(node):
                        to.write(value.to_line())
                        count += 1
        return count

    async def keys(self) -> list[str]:
        """The keys that a backup would hold; the secret that any connection makes is none."""
        with self._redis.guard():
            found = [key for node in await self._nodes() async for key in _kept(node)]
        return [key for key in found if key != INSTALLATION_SECRET()]

    async def gateways(self) -> int:
        """How many gateways have lately said that they run."""
        with self._redis.guard() as redis:
            names: Any = await redis.zrange(REPLICAS(), 0, -1)
            return sum([bool(await redis.exists(REPLICA(name))) for name in names])

    async def clear(self) -> None:
        """Delete every key of the gateway's, and none of anybody else's."""
        with self._redis.guard() as redis:
            for node in await self._nodes():
                keys = [str(key) async for key in node.scan_iter(match=f"{PREFIX}*", count=1000)]
                for some in _batches(keys):
                    pipe = redis.pipeline(transaction=False)
                    for key in some:
                        pipe.delete(key)
                    await pipe.execute()

    async def put(self, values: Iterable[Value]) -> int:
        """Write values, each in the place of what has its key; how many. What has ended meanwhile stays away.

        Raises ``BackupError`` where this Redis is older than the one they came from.
        """
        now_ms, count = int(time.time() * 1000), 0
        with self._redis.guard() as redis:
            try:
                for some in _batches(values):
                    pipe = redis.pipeline(transaction=False)
                    lasting = [value for value in some if value.ends_ms is None or value.ends_ms > now_ms]
                    for value in lasting:
                        pipe.restore(value.key, value.ends_ms or 0, value.dump, replace=True, absttl=True)
                    await pipe.execute()
                    count += len(lasting)
            except ResponseError as error:
                if "payload" not in str(error):
                    raise
                raise BackupError("this Redis is older than the one that was backed up; use that version") from None
        return count

    async def _nodes(self) -> Sequence[Redis]:
        client = self._redis.client
        return await client.primaries() if isinstance(client, ClusterRedis) else [client]


@asynccontextmanager
async def _paused(nodes: Sequence[Redis], pause_s: float) -> AsyncIterator[None]:
    if pause_s == 0:
        yield
        return
    began_s, waiting = time.monotonic(), list[Redis]()
    try:
        for node in nodes:
            try:
                await node.execute_command("CLIENT PAUSE", int(pause_s * 1000), "WRITE")  # type: ignore[no-untyped-call]
            except ResponseError as error:
                raise BackupError(
                    f"this Redis does not let writes wait ({error}); stop gateways and workers, then --pause 0"
                ) from None
            waiting.append(node)
        yield
        if time.monotonic() - began_s >= pause_s:
            raise BackupError(
                f"reading took longer than the {pause_s:g} s for which writes wait; give it more: --pause"
            )
    finally:
        for node in waiting:
            await node.execute_command("CLIENT UNPAUSE")  # type: ignore[no-untyped-call]


async def _values(node: Redis) -> AsyncIterator[Value]:
    keys = [key async for key in _kept(node)]
    for some in _batches(sorted(set(keys))):  # a scan may meet a key twice
        pipe = node.pipeline(transaction=False)
        for key in some:
            pipe.pttl(key)
            pipe.dump(key)
        answers: Any = await pipe.execute()
        now_ms = int(time.time() * 1000)
        for key, left_ms, dump in zip(some, answers[::2], answers[1::2], strict=True):
            if dump is not None:  # None: its time has come
                yield Value(key, now_ms + left_ms if left_ms >= 0 else None, dump)


async def _kept(node: Redis) -> AsyncIterator[str]:
    async for key in node.scan_iter(match=f"{PREFIX}*", count=1000):
        if not str(key).startswith(MOMENTARY):
            yield str(key)


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    some: list[Any] = []
    for item in items:
        some.append(item)
        if len(some) == _BATCH:
            yield some
            some = []
    if some:
        yield some
