"""ClusterRedis: a Redis Cluster, spoken to as if it were one server.

Each command goes to the primary that has its key's slot, and pipelines are split by primary. redis-py has a client of
clusters too; it is not used because it sends a command again whose answer was lost, queues the commands of a
transaction through a thread each, and has no way to ``WAIT`` for replicas on the connection that wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.redis_nodes import Address, Command, NodePipeline, NodeRedis, key_of

_TRIES: Final = 5
"""How often a command is sent where a slot has moved: each answer tells where it is."""

_AWAY: Final = (RedisConnectionError, RedisTimeoutError)


def slot_of(key: str) -> int:
    """The slot in which a key lives."""
    return key_slot(key.encode("utf-8", "surrogatepass"))


class ClusterRedis(Redis):
    """All primaries of a cluster. ``first`` are some of its nodes; they say which others there are."""

    def __init__(self, first: Sequence[Address], open_node: Callable[[Address], NodeRedis]) -> None:
        super().__init__()  # for its commands; the connections are the nodes'
        self._first = tuple(first)
        self._open = open_node
        self._nodes: dict[Address, NodeRedis] = {}
        self._owners: list[Address | None] = []
        self._stale = True
        self._learning = asyncio.Lock()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose()
        for node in self._nodes.values():
            await node.aclose()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        key = key_of(args)
        if key is None:
            return await self._without_key(args, options)
        for _ in range(_TRIES):
            node = await self.node_for(key)
            try:
                return await node.execute_command(*args, **options)
            except (MovedError, ClusterDownError) as error:
                self.mistrust()
                refusal: ResponseError = error
            except AskError as error:
                pipe = self.node_at((error.host, error.port)).pipeline(transaction=False)
                pipe.execute_command("ASKING")
                pipe.execute_command(*args, **options)
                return (await pipe.execute())[1]
            except _AWAY:
                self.mistrust()
                raise
        raise refusal

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> ClusterPipeline:
        return ClusterPipeline(self, transaction)

    def mistrust(self) -> None:
        """Ask who has which slot before the next command."""
        self._stale = True

    def node_at(self, address: Address) -> NodeRedis:
        """The node at an address."""
        if address not in self._nodes:
            self._nodes[address] = self._open(address)
        return self._nodes[address]

    async def node_for(self, key: str) -> NodeRedis:
        """The primary that has a key's slot. Raises ``ClusterDownError`` where none has."""
        if self._stale:
            await self._learn()
        owner = self._owners[slot_of(key)]
        if owner is None:
            raise ClusterDownError("CLUSTERDOWN no node has the slot")
        return self.node_at(owner)

    async def primaries(self) -> list[NodeRedis]:
        """All primaries."""
        if self._stale:
            await self._learn()
        return [self.node_at(owner) for owner in dict.fromkeys(self._owners) if owner is not None]

    async def _without_key(self, args: Command, options: Mapping[str, Any]) -> Any:
        """A cluster is there when all of it is; nothing else without a key means all of it."""
        if args[0] != "PING":
            raise RedisError(f"{args[0]} names no key: ask each of the cluster's primaries")
        self.mistrust()
        answers = [await node.execute_command(*args, **options) for node in await self.primaries()]
        if None in self._owners:
            raise ClusterDownError("CLUSTERDOWN some slots have no node")
        return answers[0]

    async def _learn(self) -> None:
        """Ask any node which primary has which slot. Raises what the last one raised."""
        async with self._learning:
            if not self._stale:
                return
            known = [owner for owner in dict.fromkeys(self._owners) if owner is not None]
            problem: RedisError = RedisConnectionError("the cluster has no node")
            for address in dict.fromkeys([*known, *self._first]):
                try:
                    ranges: Any = await self.node_at(address).execute_command("CLUSTER SLOTS")
                except (*_AWAY, ResponseError) as error:
                    problem = error
                    continue
                owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
                for first, last, primary, *_ in ranges:
                    host, port = primary[0] or address[0], int(primary[1])  # a node alone does not know its own name
                    owners[int(first) : int(last) + 1] = [(host, port)] * (int(last) - int(first) + 1)
                self._owners, self._stale = owners, False
                return
            raise problem


class ClusterPipeline(NodePipeline):
    """Commands for a cluster, sent together: a transaction to one primary, all others split by primary."""

    def __init__(self, cluster: ClusterRedis, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    async def watch(self, *names: Any) -> Any:  # type: ignore[override]
        for tries_left in reversed(range(_TRIES)):
            await self._choose([str(name) for name in names])
            try:
                return await super().watch(*names)
            except (*_AWAY, MovedError, ClusterDownError) as error:
                self._cluster.mistrust()
                if isinstance(error, _AWAY) or not tries_left:
                    raise
                # Gives the connection back to the node that no longer has the slot.
                await self.reset()  # type: ignore[no-untyped-call]
        raise AssertionError("the last try raises")

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        if self.explicit_transaction or self.watching:
            await self._choose(_keys(self.command_stack))
            return await self._once(raise_on_error)
        if not self.command_stack:
            return []
        if self.is_transaction:
            return await self._transaction(raise_on_error)
        return await self._split(raise_on_error)

    async def _choose(self, keys: Sequence[str]) -> None:
        """Make this the pipeline of the primary that has ``keys``. Raises ``ValueError`` for keys of several slots."""
        if len({slot_of(key) for key in keys}) > 1:
            raise ValueError(f"a transaction's keys share one hash tag, but these do not: {sorted(set(keys))}")
        if keys and self.connection is None:
            node = await self._cluster.node_for(keys[0])
            self.connection_pool = node.connection_pool
            self._confirmation = node.confirmation

    async def _once(self, raise_on_error: bool) -> list[Any]:
        try:
            answers: list[Any] = await super().execute(raise_on_error)
        except (*_AWAY, MovedError, ClusterDownError):
            self._cluster.mistrust()
            raise
        return answers

    async def _transaction(self, raise_on_error: bool) -> list[Any]:
        stack = self.command_stack
        await self._choose(_keys(stack))
        for _ in range(_TRIES - 1):
            try:
                return await self._once(raise_on_error)
            except (MovedError, ClusterDownError):  # refused as a whole: nothing of it was done
                self.command_stack = stack
                await self._choose(_keys(stack))
        return await self._once(raise_on_error)

    async def _split(self, raise_on_error: bool) -> list[Any]:
        stack, self.command_stack = self.command_stack, []
        shares: dict[NodeRedis, list[int]] = {}
        for place, (args, _) in enumerate(stack):
            key = key_of(args)
            if key is None:
                raise RedisError(f"{args[0]!r} names no key: ask each of the cluster's primaries")
            shares.setdefault(await self._cluster.node_for(key), []).append(place)
        answers: list[Any] = [None] * len(stack)
        for node, places in shares.items():
            for place, answer in zip(places, await self._share(node, [stack[at] for at in places]), strict=True):
                answers[place] = answer
        for place, answer in enumerate(answers):
            if isinstance(answer, (AskError, ClusterDownError)):
                args, options = stack[place]
                answers[place] = await self._again(args, options)
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, ResponseError):
                    raise answer
        return answers

    async def _share(self, node: NodeRedis, commands: Any) -> list[Any]:
        pipe = node.pipeline(transaction=False)
        pipe.command_stack = commands
        try:
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        except _AWAY:
            self._cluster.mistrust()
            raise
        return answers

    async def _again(self, args: Command, options: Mapping[str, Any]) -> Any:
        """One command whose slot was elsewhere."""
        self._cluster.mistrust()
        try:
            return await self._cluster.execute_command(*args, **options)
        except ResponseError as error:
            return error


def _keys(stack: Any) -> list[str]:
    return [key for args, _ in stack if (key := key_of(args)) is not None]
