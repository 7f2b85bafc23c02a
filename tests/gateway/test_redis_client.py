import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.errors import StateUnavailable
from gateway.redis_client import RedisClient
from gateway.redis_server import DataDirInUse
from gateway.settings import RedisSettings
from tests.conftest import RealRedis, running


async def test_the_private_server_starts_answers_and_stops(short_dir: Path) -> None:
    async with running(RedisClient(RedisSettings(), short_dir)) as client:
        with client.guard() as redis:
            await redis.set("x", "1")
            assert await redis.config_get("appendfsync") == {"appendfsync": "always"}
        assert await client.check() == []
        assert client.server is not None
        pid = client.server.pid
        assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_private_server_keeps_what_was_written_over_a_kill_and_is_started_again(short_dir: Path) -> None:
    async with running(RedisClient(RedisSettings(), short_dir)) as client:
        assert client.server is not None
        assert client.server.pid is not None
        with client.guard() as redis:
            await redis.set("x", "1")
        os.kill(client.server.pid, signal.SIGKILL)
        while client.available:
            with contextlib.suppress(StateUnavailable), client.guard() as redis:
                await redis.ping()
        async with asyncio.timeout(10):
            await client.wait_until_available()
        with client.guard() as redis:
            assert await redis.get("x") == "1"
        assert client.server.restarts == 1


async def test_a_second_gateway_on_the_same_folder_is_refused_and_a_command_attaches(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.redis_server.LOCK_TIMEOUT_S", 0.0)
    async with running(RedisClient(RedisSettings(), short_dir)) as first:
        with pytest.raises(DataDirInUse, match=f"process {os.getpid()}"):
            await RedisClient(RedisSettings(), short_dir).start()
        async with running(RedisClient(RedisSettings(), short_dir, attach=True)) as command:
            assert command.digest("x") == first.digest("x")
        with first.guard() as redis:
            assert await redis.ping()


async def test_an_outside_redis_that_dies_is_refused_at_once_and_found_again(
    redis_server: RealRedis, tmp_path: Path
) -> None:
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path)) as client:
        assert client.available
        redis_server.kill()
        with pytest.raises(StateUnavailable, match="went away"), client.guard() as redis:
            await redis.ping()
        with pytest.raises(StateUnavailable, match="is away"), client.guard():
            pytest.fail("the guard let a command through")
        redis_server.start()
        async with asyncio.timeout(10):
            await client.wait_until_available()
        with client.guard() as redis:
            assert await redis.ping()


async def test_a_redis_that_is_full_still_serves_what_it_has(redis_server: RealRedis, tmp_path: Path) -> None:
    settings = RedisSettings(url=SecretStr(redis_server.url))
    async with running(RedisClient(settings, tmp_path / "a")) as first:
        with first.guard() as redis:
            await redis.set("x", "1")
            await redis.config_set("maxmemory", 1)
        with pytest.raises(StateUnavailable, match="takes no writes"), first.guard() as redis:
            await redis.set("x", "2")
        assert first.available
        async with running(RedisClient(settings, tmp_path / "b")) as second:
            with second.guard() as redis:
                assert await redis.get("x") == "1"
            assert second.digest("x") == first.digest("x")


async def test_the_digest_is_keyed_and_does_not_run_parts_together(redis_url: str, tmp_path: Path) -> None:
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_url)), tmp_path)) as client:
        assert client.digest("ab", "c") != client.digest("a", "bc")
        first = client.digest("x")
    (tmp_path / "secret").unlink()
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_url)), tmp_path)) as client:
        assert client.digest("x") == first  # Redis has the secret
        with client.guard() as redis:
            await redis.flushall()
    (tmp_path / "secret").unlink()
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_url)), tmp_path)) as client:
        assert client.digest("x") != first


async def test_a_client_that_starts_without_redis_knows_the_secret_of_before(
    redis_server: RealRedis, tmp_path: Path
) -> None:
    settings = RedisSettings(url=SecretStr(redis_server.url))
    async with running(RedisClient(settings, tmp_path)) as client:
        before = client.digest("x")
    redis_server.kill()
    async with running(RedisClient(settings, tmp_path)) as client:
        assert not client.available
        assert client.digest("x") == before
    async with running(RedisClient(settings, tmp_path / "new")) as client:
        with pytest.raises(StateUnavailable, match="has not reached Redis yet"):
            client.digest("x")
