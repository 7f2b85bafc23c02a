import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.errors import StateUnavailable
from gateway.redis_client import RedisClient
from gateway.redis_keys import TABLE
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


def test_every_key_is_named_once_and_under_the_prefix() -> None:
    patterns = [key.pattern for key in TABLE]
    assert len(set(patterns)) == len(patterns)
    assert all(pattern.startswith("antiprompt:") for pattern in patterns)
