"""Fixtures that every test may use: a real redis-server on a unix socket."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket as sockets
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
import structlog
from hypothesis import settings
from pydantic import SecretStr

from gateway.redis_client import RedisClient
from gateway.redis_server import arguments, find_binary
from gateway.settings import RedisSettings

# Continuous integration looks at the same examples each time, so that what lands does not depend on luck; everywhere
# else hypothesis goes on searching.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands set logging up for their own process; in a test their stream is closed afterwards."""
    configured, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**configured)
    root.handlers[:] = handlers
    root.setLevel(level)


class RealRedis:
    """A redis-server of a test's own, with the options of the embedded one. Can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen([str(find_binary()), *arguments(self.socket, self.directory)])
        while not self.command("PING").startswith("+PONG"):
            assert self.process.poll() is None, (self.directory / "redis.log").read_text()
            time.sleep(0.005)

    def command(self, line: str) -> str:
        """One inline command and the start of its answer; the empty text when nobody listens."""
        with sockets.socket(sockets.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return ""
            connection.sendall(f"{line}\r\n".encode())
            return connection.recv(4096).decode()

    def kill(self) -> None:
        """kill -9, as a crash would."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


class Part(Protocol):
    """A part of the gateway that is started and closed."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...


P = TypeVar("P", bound=Part)


@asynccontextmanager
async def running(part: P) -> AsyncIterator[P]:
    """``part``, started, and closed again whatever happens."""
    await part.start()
    try:
        yield part
    finally:
        await part.close()


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A temporary folder whose path is short enough for a unix socket."""
    directory = Path(tempfile.mkdtemp(prefix="ap-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def redis_server(short_dir: Path) -> Iterator[RealRedis]:
    """A running redis-server that this test has to itself, so that it may kill it."""
    server = RealRedis(short_dir)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _session_redis() -> Iterator[RealRedis]:
    directory = Path(tempfile.mkdtemp(prefix="ap-"))
    server = RealRedis(directory)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
def redis_url(_session_redis: RealRedis) -> str:
    """The URL of a running redis-server, emptied for this test."""
    assert _session_redis.command("FLUSHALL").startswith("+OK")
    return _session_redis.url


@pytest.fixture
async def redis_client(redis_url: str, tmp_path: Path) -> AsyncIterator[RedisClient]:
    """A started client of an empty redis-server."""
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_url)), tmp_path / "data")) as client:
        yield client
