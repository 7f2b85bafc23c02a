"""Connections to Redis servers: how one is opened, and how a write is confirmed by its replicas.

``NodeRedis`` is redis-py's client of one server, or of the primary that Sentinels name. With ``replicas`` above 0 a
write returns once that many replicas have it (``WAIT``), so that what was acknowledged outlives the primary: the
Sentinels promote a replica that has it. What may be lost without harm (``MAY_BE_LOST``) does not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, Sentinel
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.commands import READ_COMMANDS
from redis.exceptions import ResponseError

from gateway.redis_keys import CONFIRMED, MAY_BE_LOST
from gateway.settings import RedisSettings

CONFIRMED_TTL_S: Final = 60
_KEYLESS: Final = frozenset(
    {"ASKING", "BGREWRITEAOF", "CLIENT", "CLUSTER", "CONFIG", "DBSIZE", "DISCARD", "EXEC", "FLUSHALL", "INFO", "KEYS"}
    | {"MULTI", "PING", "ROLE", "SAVE", "SCAN", "SCRIPT", "SENTINEL", "TIME", "UNWATCH", "WAIT"}
)

Address = tuple[str, int]
"""Host and port."""

Command = Sequence[Any]
"""A command's name and its arguments."""


class NotReplicated(ResponseError):
    """A write is on the primary, but too few replicas said in time that they have it. It may or may not last."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """How many replicas must have a write, and how long (ms) to wait for them."""

    replicas: int
    wait_ms: int


def address_of(text: str) -> Address:
    """``host:port`` as a pair; an IPv6 host stands in brackets. Raises ``ValueError``."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.port is None or parts.path or parts.username is not None:
        raise ValueError(f"{text!r} is not host:port")
    return parts.hostname, parts.port


def key_of(command: Command) -> str | None:
    """The first key that a command names, or None where it has none."""
    name = str(command[0]).upper()
    if name.partition(" ")[0] in _KEYLESS:
        return None
    if name in ("EVAL", "EVALSHA"):
        return str(command[3]) if int(command[2]) else None
    if name in ("XREAD", "XREADGROUP"):
        return str(command[[word in (b"STREAMS", "STREAMS") for word in command].index(True) + 1])
    return str(command[1])


def must_last(command: Command) -> bool:
    """Whether somebody relies on a command's effect once it was answered."""
    if str(command[0]).upper() in READ_COMMANDS:
        return False
    key = key_of(command)
    return key is not None and not key.startswith(MAY_BE_LOST)


class NodeRedis(Redis):
    """The client of one server; a command is sent once."""

    def __init__(self, pool: BlockingConnectionPool, confirmation: Confirmation | None = None) -> None:
        super().__init__(connection_pool=pool)
        self.confirmation = confirmation

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose()
        await self.connection_pool.disconnect()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if self.confirmation is None or not must_last(args):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        pipe = self.pipeline(transaction=False)
        pipe.execute_command(*args, **options)
        return (await pipe.execute())[0]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> NodePipeline:
        return NodePipeline(self.connection_pool, self.response_callbacks, transaction, self.confirmation)


class NodePipeline(Pipeline):
    """Commands for one server, sent together. What must last is confirmed after it, on the same connection.

    ``WAIT`` speaks of what its own connection wrote. A repeated command may find everything written already, by a
    connection that is gone: so something is always written before, which comes after all that this server has.
    """

    def __init__(
        self, pool: Any, response_callbacks: Any, transaction: bool, confirmation: Confirmation | None
    ) -> None:
        super().__init__(pool, response_callbacks, transaction, None)
        self._confirmation = confirmation

    # redis-py's own steps: nothing else is given the connection on which the commands went.

    async def _execute_transaction(self, connection: Any, commands: Any, raise_on_error: bool) -> Any:
        answers = await super()._execute_transaction(connection, commands, raise_on_error)
        await self._confirm(connection, (args for args, _ in commands))
        return answers

    async def _execute_pipeline(self, connection: Any, commands: Any, raise_on_error: bool) -> Any:
        answers = await super()._execute_pipeline(connection, commands, raise_on_error)
        await self._confirm(connection, (args for args, _ in commands))
        return answers

    async def _confirm(self, connection: Any, commands: Iterable[Command]) -> None:
        """Raises ``NotReplicated``."""
        wanted = self._confirmation
        key = next((key_of(command) for command in commands if must_last(command)), None)
        if wanted is None or key is None:
            return
        written = ("SET", CONFIRMED(hash_tag(key)), 1, "EX", CONFIRMED_TTL_S)
        await connection.send_packed_command(
            connection.pack_commands([written, ("WAIT", wanted.replicas, wanted.wait_ms)])
        )
        refused = None
        try:
            await self.parse_response(connection, "SET")
        except ResponseError as error:  # the answer to WAIT must be read all the same
            refused = error
        reached = int(await self.parse_response(connection, "WAIT"))
        if refused is not None:
            raise refused
        if reached < wanted.replicas:
            raise NotReplicated(f"{reached} of {wanted.replicas} replicas have the write after {wanted.wait_ms} ms")


def hash_tag(key: str) -> str:
    """The part of a key that says in which slot of a cluster it lives: what stands in braces, or all of it."""
    start = key.find("{")
    end = key.find("}", start + 1)
    return key[start + 1 : end] if start >= 0 and end > start + 1 else key


class SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the primary that the Sentinels name; whoever finds none free waits for one."""


class SentinelRedis(NodeRedis):
    """The primary that ``sentinels`` name."""

    def __init__(self, sentinels: Sentinel, pool: Any, confirmation: Confirmation | None) -> None:
        super().__init__(pool, confirmation)
        self.sentinels = sentinels

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose()
        await self.sentinels.aclose()


def confirmation_of(settings: RedisSettings) -> Confirmation | None:
    """What settings ask of the replicas. Half the time-out is for them, so that their answer comes within it."""
    if settings.wait_replicas == 0:
        return None
    return Confirmation(settings.wait_replicas, max(1, int(settings.timeout_s * 500)))


def open_server(settings: RedisSettings, url: str) -> NodeRedis:
    """The server at ``url``; nothing is connected yet."""
    return NodeRedis(BlockingConnectionPool(**_pooled(settings), **parse_url(url)), confirmation_of(settings))


def node_opener(settings: RedisSettings) -> Callable[[Address], NodeRedis]:
    """What opens the nodes of a cluster, with the user, password and TLS of ``redis.url``."""
    shared = _shared(settings)

    def open_node(address: Address) -> NodeRedis:
        host, port = address
        return NodeRedis(
            BlockingConnectionPool(**_pooled(settings), **shared, host=host, port=port), confirmation_of(settings)
        )

    return open_node


def open_by_sentinels(settings: RedisSettings) -> SentinelRedis:
    """The primary that the Sentinels of ``settings`` name; nothing is connected yet."""
    shared = _shared(settings)
    tls = shared.pop("connection_class", None) is SSLConnection
    secured = {"ssl": True} | {name: value for name, value in shared.items() if name.startswith("ssl_")} if tls else {}
    password = settings.sentinel_password
    if password is not None:
        secured["password"] = password.get_secret_value()
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        [address_of(text) for text in settings.sentinels], sentinel_kwargs={**_timed(settings), **secured}
    )
    pool = SentinelPool(  # type: ignore[no-untyped-call]
        settings.sentinel_name,
        sentinels,
        connection_class=SentinelManagedSSLConnection if tls else SentinelManagedConnection,
        **_pooled(settings),
        **shared,
    )
    return SentinelRedis(sentinels, pool, confirmation_of(settings))


def _shared(settings: RedisSettings) -> dict[str, Any]:
    """What ``redis.url`` says beside its host."""
    url = "" if settings.url is None else settings.url.get_secret_value()
    values: dict[str, Any] = dict(parse_url(url)) if url else {}
    for name in ("host", "port", "path"):
        values.pop(name, None)
    return values


def _timed(settings: RedisSettings) -> dict[str, Any]:
    return {
        "socket_timeout": settings.timeout_s,
        "socket_connect_timeout": settings.timeout_s,
        # A command is sent once: whoever may repeat it knows so, and the probe finds out when Redis is back.
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
    }


def _pooled(settings: RedisSettings) -> dict[str, Any]:
    return {"max_connections": settings.max_connections, "timeout": settings.timeout_s, **_timed(settings)}
