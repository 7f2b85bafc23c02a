"""The one connection to Redis: a shared one by URL, by Sentinels or a cluster, or the gateway's own private server.

Whatever goes wrong with Redis leaves through ``RedisClient.guard`` as ``StateUnavailable``. After a lost connection
the guard refuses at once, without waiting, until a probe in the background has had an answer: a dead Redis does not
cost each request its time-out. Names of keys stand in ``gateway.redis_keys``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote

from redis.asyncio import Redis
from redis.exceptions import AskError, ClusterDownError, OutOfMemoryError, ReadOnlyError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.errors import StateUnavailable
from gateway.redis_check import Finding, check_redis
from gateway.redis_cluster import ClusterRedis
from gateway.redis_keys import CONFIRMED, INSTALLATION_SECRET
from gateway.redis_nodes import NotReplicated, address_of, hash_tag, node_opener, open_by_sentinels, open_server
from gateway.redis_server import LOCK_TIMEOUT_S, DataDirInUse, RedisServer
from gateway.settings import RedisSettings
from gateway.telemetry import logger

__all__ = ["Field", "Finding", "RedisClient", "end_tasks"]

log = logger()

Field: TypeAlias = "bytes | bytearray | memoryview[int] | str | int | float"
"""What the names and values of a hash or a stream entry may be."""

PROBE_S = 0.2
_CANCEL_AGAIN_S = 0.5
ATTACH_AFTER_S = 0.2  # a gateway that runs holds its lock for good, so a command need not wait for it

_TAKES_NO_WRITES: Final = (OutOfMemoryError, ReadOnlyError, ClusterDownError, TryAgainError, AskError)
"""Full, a replica, or a cluster that is being mended or whose slots are moving; all but the first soon pass."""


_WRONG_NODE: Final = "it is one node of a cluster; name its nodes in redis.cluster_nodes"


async def end_tasks(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks that talk to Redis until they have ended; what they raised stays with them.

    Once is not enough: a cancellation that meets an answer can get lost (Python 3.11's ``wait_for``).
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)


class RedisClient:
    """A pool of connections, watched. ``start`` before use, ``close`` at the end.

    ``attach`` is for commands beside a running gateway: use its private server if one runs, instead of refusing.
    """

    def __init__(self, settings: RedisSettings, data_dir: Path, *, attach: bool = False) -> None:
        self.server = None if settings.outside else RedisServer(data_dir / "redis")
        self._settings = settings
        self._data_dir = data_dir
        self._attach = attach
        self._client: Redis | None = None
        self._secret: bytes | None = None
        self._reason: str | None = None  # why Redis is away, as last logged
        self._back = asyncio.Event()
        self._lost = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect. An outside Redis that is away is not an error here: ``available`` tells, and a probe goes on.

        Raises ``RedisServerError`` when the private server cannot run, ``DataDirInUse`` when another gateway has it.
        """
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._client = await self._connect()
        self._secret = _read_secret(self._secret_path)
        await self._probe()
        self._tasks.append(asyncio.create_task(self._probe_when_lost()))

    async def close(self) -> None:
        await end_tasks(*self._tasks)
        for task in self._tasks:
            if not task.cancelled():
                task.result()
        self._tasks.clear()
        self._back.clear()
        if self._client is not None:
            await self._client.aclose()
            self._client = None
        if self.server is not None:
            await self.server.stop()

    @property
    def client(self) -> Redis:
        """The connection itself; use it inside ``guard``. Answers are text, not bytes."""
        if self._client is None:
            raise RuntimeError("RedisClient.start has not run")
        return self._client

    @property
    def available(self) -> bool:
        """Whether Redis answered last time, and this installation's secret is known."""
        return self._back.is_set()

    async def wait_until_available(self) -> None:
        """Return as soon as ``available`` holds. The caller bounds the wait."""
        await self._back.wait()

    @contextmanager
    def guard(self) -> Iterator[Redis]:
        """Everything done with Redis is done in here: ``with redis.guard() as r: await r.get(...)``.

        Raises ``StateUnavailable`` at once while Redis is away, and in the place of a lost connection, a time-out,
        a full memory, a read-only replica, a server that refuses writes or replicas that do not confirm one.
        """
        if not self._back.is_set():
            raise StateUnavailable("the gateway's state (Redis) is away; try again", retry_after_s=1.0)
        try:
            yield self.client
        except (RedisConnectionError, RedisTimeoutError) as error:
            self._lose(error)
            raise StateUnavailable("the gateway's state (Redis) went away; try again", retry_after_s=1.0) from error
        except NotReplicated as error:
            raise StateUnavailable("Redis' replicas do not have it yet; try again", retry_after_s=1.0) from error
        except _TAKES_NO_WRITES as error:
            raise StateUnavailable("Redis takes no writes now; try again", retry_after_s=1.0) from error
        except ResponseError as error:
            if str(error).startswith(("MISCONF", "NOREPLICAS")):
                raise StateUnavailable("Redis takes no writes now; try again", retry_after_s=1.0) from error
            raise

    async def confirm(self, key: str) -> None:
        """Return once what ``key`` holds now is on as many replicas as ``redis.wait_replicas`` says.

        For an answer that rests on what an earlier attempt wrote, of which nobody knows whether the replicas have it.
        Raises ``StateUnavailable``.
        """
        if self._settings.wait_replicas:
            with self.guard() as redis:
                await redis.set(CONFIRMED(hash_tag(key)), 1, ex=1)

    def digest(self, *parts: str) -> str:
        """A keyed digest of ``parts``, 32 hexadecimal digits, the same on every gateway of this installation.

        Texts and end users are looked up by it, so that neither can be guessed from what is stored. Raises
        ``StateUnavailable`` before the first contact with an outside Redis, when the secret is not known yet.
        """
        if self._secret is None:
            raise StateUnavailable("the gateway has not reached Redis yet; try again", retry_after_s=1.0)
        message = b"".join(b"%d:%s" % (len(raw), raw) for raw in (part.encode("utf-8", "replace") for part in parts))
        return hmac.digest(self._secret, message, "sha256").hex()[:32]

    def end_user_digest(self, end_user: str) -> str:
        """What stands for an end user wherever something is kept. Raises as ``digest`` does."""
        return self.digest("end user", end_user)

    async def check(self) -> list[Finding]:
        """What is wrong with how Redis is set up (see ``redis_check``). Raises ``StateUnavailable``."""
        with self.guard() as redis:
            return await check_redis(redis, self._settings)

    async def rewrite_append_only_file(self) -> None:
        """Make the private server write its file anew, so that what was deleted leaves the disk too.

        Returns when it is done. Does nothing to an outside Redis, whose files are its operator's.
        """
        if self.server is None:
            return
        with self.guard() as redis:
            with contextlib.suppress(
                ResponseError
            ):  # one is under way: it may have begun too early, so wait and ask again
                await redis.bgrewriteaof()
            await self._rewrite_done()

    async def _rewrite_done(self) -> None:
        while True:
            persistence = await self.client.info("persistence")
            if not persistence["aof_rewrite_in_progress"] and not persistence["aof_rewrite_scheduled"]:
                return
            await asyncio.sleep(PROBE_S / 10)

    async def _connect(self) -> Redis:
        settings = self._settings
        if settings.cluster_nodes:
            return ClusterRedis([address_of(text) for text in settings.cluster_nodes], node_opener(settings))
        if settings.sentinels:
            return open_by_sentinels(settings)
        return open_server(settings, settings.url.get_secret_value() if settings.url else await self._start_server())

    async def _start_server(self) -> str:
        assert self.server is not None
        try:
            await self.server.start(lock_timeout_s=ATTACH_AFTER_S if self._attach else LOCK_TIMEOUT_S)
        except DataDirInUse:
            if not self._attach:
                raise
        else:
            self._tasks.append(asyncio.create_task(self.server.watch()))
        return f"unix://{quote(str(self.server.socket))}"

    @property
    def _secret_path(self) -> Path:
        return self._data_dir / "secret"

    def _lose(self, error: Exception) -> None:
        self._back.clear()
        self._lost.set()
        reason = _WRONG_NODE if isinstance(error, AskError) else type(error).__name__
        if reason != self._reason:
            log.warning("Redis is away", reason=reason)
            self._reason = reason

    async def _probe_when_lost(self) -> None:
        while True:
            await self._lost.wait()
            await self._probe()
            if not self.available:
                await asyncio.sleep(PROBE_S)

    async def _probe(self) -> None:
        try:
            await self.client.ping()
            await self._share_secret()
        except (RedisConnectionError, RedisTimeoutError, ResponseError) as error:
            self._lose(error)
            return
        if self._reason is not None:
            log.info("Redis is back")
            self._reason = None
        self._lost.clear()
        self._back.set()

    async def _share_secret(self) -> None:
        """One secret for all gateways on this Redis; the copy in data_dir serves while Redis is away."""
        shared = await self.client.get(INSTALLATION_SECRET())
        if shared is None:  # only then: a Redis whose memory is full still serves what it has
            mine = self._secret.hex() if self._secret is not None else secrets.token_hex(32)
            await self.client.set(INSTALLATION_SECRET(), mine, nx=True)
            shared = await self.client.get(INSTALLATION_SECRET())
        secret = bytes.fromhex(str(shared))
        if secret != self._secret:
            _write_secret(self._secret_path, secret)
            self._secret = secret


def _read_secret(path: Path) -> bytes | None:
    try:
        return bytes.fromhex(path.read_text("ascii").strip())
    except FileNotFoundError:
        return None


def _write_secret(path: Path, secret: bytes) -> None:
    partial = path.with_suffix(".new")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secret.hex())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
