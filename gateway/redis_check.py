"""What is wrong with how an outside Redis is set up, and what to change; for ``antiprompt doctor``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.redis_cluster import ClusterRedis
from gateway.redis_nodes import SentinelRedis
from gateway.settings import RedisSettings

MIN_VERSION: Final = (6, 2)
MEMORY_SHARE: Final = 0.8
LEAST_SENTINELS: Final = 3
"""With two, the loss of one leaves no majority to elect a new primary."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about an outside Redis that an operator should know; ``message`` ends in what to do."""

    level: Literal["error", "warning"]
    name: str
    message: str


async def check_redis(redis: Redis, settings: RedisSettings) -> list[Finding]:
    """What is wrong: persistence, eviction, version, role, replicas, Sentinels, slots. Raises as ``redis`` does."""
    if isinstance(redis, ClusterRedis):
        return await _check_cluster(redis, settings)
    findings = await _check_node(redis, settings, apart=not isinstance(redis, SentinelRedis))
    if isinstance(redis, SentinelRedis):
        findings += await _check_sentinels(redis, settings)
    return findings


async def _check_node(redis: Redis, settings: RedisSettings, *, apart: bool, name: str = "") -> list[Finding]:
    """One server. ``apart`` says that nothing promotes a replica of it when it is gone."""
    info: dict[str, Any] = await redis.info()
    try:
        # Two calls, because Redis 6 takes one pattern; not all settings, because those hold passwords.
        config = await redis.config_get("append*") | await redis.config_get("maxmemory-policy")
    except ResponseError:  # managed services forbid CONFIG
        config = None
    found = [
        *_check_server(info),
        *_check_memory(info),
        *_check_config(config),
        *_check_replicas(info, settings, apart=apart),
    ]
    if apart and info.get("cluster_enabled"):
        found.append(Finding("error", "cluster", "Redis runs as a cluster; name its nodes in redis.cluster_nodes"))
    return [Finding(each.level, f"{each.name}{name}", each.message) for each in found]


async def _check_cluster(cluster: ClusterRedis, settings: RedisSettings) -> list[Finding]:
    findings = []
    for node in await cluster.primaries():
        findings += await _check_node(node, settings, apart=False, name=f" of {_address(node)}")
        told: Any = node
        state = await told.execute_command("CLUSTER INFO")
        if state.get("cluster_state") != "ok":
            name = f"cluster at {_address(node)}"
            findings.append(Finding("error", name, "the cluster is down or lacks slots; redis-cli --cluster check"))
    return findings


async def _check_sentinels(redis: SentinelRedis, settings: RedisSettings) -> list[Finding]:
    findings = []
    for sentinel in redis.sentinels.sentinels:
        name = f"sentinel {_address(sentinel)}"
        try:
            await sentinel.execute_command("SENTINEL CKQUORUM", settings.sentinel_name)  # type: ignore[no-untyped-call]
        except (RedisConnectionError, RedisTimeoutError) as error:
            why = type(error).__name__
            findings.append(Finding("error", name, f"it does not answer ({why}); start it, or take it out"))
        except ResponseError as error:
            findings.append(Finding("error", name, f"it could not fail over ({error}); start more Sentinels"))
    if len(settings.sentinels) < LEAST_SENTINELS:
        few = f"{len(settings.sentinels)} Sentinels: one lost, and none is promoted; run {LEAST_SENTINELS} or more"
        findings.append(Finding("warning", "sentinels", few))
    return findings


def _address(node: Any) -> str:
    values = node.connection_pool.connection_kwargs
    return f"{values.get('host')}:{values.get('port')}"


def _check_server(info: Mapping[str, Any]) -> list[Finding]:
    findings = []
    version = tuple(int(number) for number in re.findall(r"\d+", str(info.get("redis_version", "0")))[:2])
    if version < MIN_VERSION:
        findings.append(Finding("error", "version", f"Redis is {info.get('redis_version')}; use 6.2 or newer"))
    if info.get("role") != "master":
        findings.append(
            Finding("error", "role", "Redis is a replica and takes no writes; point redis.url at the primary")
        )
    return findings


def _check_memory(info: Mapping[str, Any]) -> list[Finding]:
    """Whether Redis is about to refuse writes."""
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not most or used < MEMORY_SHARE * most:
        return []
    told = f"{used >> 20} of {most >> 20} MiB are used: soon nothing is taken; raise maxmemory, or keep less"
    return [Finding("error" if used >= most else "warning", "memory", f"{told} (retention)")]


def _check_replicas(info: Mapping[str, Any], settings: RedisSettings, *, apart: bool) -> list[Finding]:
    """Whether a new primary would have all that was acknowledged."""
    there, wanted = int(info.get("connected_slaves", 0)), settings.wait_replicas
    if there < wanted:
        return [
            Finding("error", "replicas", f"writes wait for {wanted} replicas, and {there} are there; start the others")
        ]
    if apart or wanted:
        return []
    if not there:
        return [Finding("warning", "replicas", "it has no replica to take its place; start one, set wait_replicas")]
    return [Finding("warning", "replicas", "a failover can lose what was acknowledged; set redis.wait_replicas to 1")]


def _check_config(config: Mapping[Any, Any] | None) -> list[Finding]:
    if config is None:
        return [
            Finding(
                "warning", "config", "CONFIG is forbidden here; make sure of appendonly, appendfsync and noeviction"
            )
        ]
    wanted = {
        "appendonly": ("yes", "what was acknowledged is lost when Redis ends"),
        "appendfsync": ("always", "up to a second of what was acknowledged can be lost"),
        "maxmemory-policy": ("noeviction", "flags and keys may be thrown away when memory is short"),
    }
    return [
        Finding("warning", name, f"{name} is {config.get(name)}: {danger}; CONFIG SET {name} {value}")
        for name, (value, danger) in wanted.items()
        if config.get(name) != value
    ]
