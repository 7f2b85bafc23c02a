"""An append-only file for what must not be lost while Redis is away.

One record a line: length and CRC-32 of the payload in hexadecimal, then the payload (which holds no line feed).
``append`` returns only after the bytes are on the disk. A crash can leave a torn last record, which was never
acknowledged and is cut off at the next start. Synchronous: callers in an event loop use a thread.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from gateway.errors import StateUnavailable

_HEAD_BYTES = 18  # two numbers of eight digits, a space after each
_READ_BYTES = 1 << 20


class SpoolInUse(Exception):
    """Another process has this spool open; the message names it."""


class Spool:
    """Records in the order in which they were appended, each known by the offset at which it begins.

    ``len()`` counts the records, ``size_bytes`` the file, ``damaged`` the records that were found unreadable at
    ``open`` (a torn last one is no damage).
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.damaged = 0
        self._end = 0
        self._count = 0
        self._file: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        return self._end

    def open(self) -> None:
        """Lock and read the file, and cut off a torn tail. Raises ``SpoolInUse``, or ``OSError`` for a bad folder."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self.path.with_suffix(".lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise SpoolInUse(f"another gateway writes {self.path}; give this one its own data_dir") from None
        self._lock = lock
        self._partial.unlink(missing_ok=True)
        self._open_file()
        self._count = self.damaged = 0
        lines = 0
        for offset, line in self._lines(0):
            payload = _payload(line)
            if payload is not None:
                self._count += 1
            elif line.endswith(b"\n"):
                self.damaged += 1
            else:
                break
            lines = offset + len(line)
        self._end = lines
        os.ftruncate(self._descriptor, self._end)

    def close(self) -> None:
        for file in (self._file, self._lock):
            if file is not None:
                file.close()
        self._file = self._lock = None

    def append(self, payloads: Sequence[bytes]) -> list[int]:
        """Put all of ``payloads`` on the disk and return the offset of each, or leave the file as it was.

        Raises ``StateUnavailable`` when the spool is at its bound or the disk is full or failing.
        """
        offsets, chunks, end = [], [], self._end
        for payload in payloads:
            line = _line(payload)
            offsets.append(end)
            chunks.append(line)
            end += len(line)
        if end > self.max_bytes:
            raise StateUnavailable(
                f"Redis is away and the spool is full ({self.max_bytes} bytes); try again later", retry_after_s=5.0
            )
        try:
            _write_at(self._descriptor, b"".join(chunks), self._end)
            os.fsync(self._descriptor)
        except OSError as error:
            self._cut_back()
            raise StateUnavailable(
                f"Redis is away and the spool cannot be written ({os.strerror(error.errno or 0)}); try again later",
                retry_after_s=5.0,
            ) from error
        self._end = end
        self._count += len(payloads)
        return offsets

    def read(self, offset: int = 0, *, limit: int | None = None) -> tuple[list[tuple[int, bytes]], int]:
        """Up to ``limit`` records from ``offset`` on, each with its own offset, and the offset at which to go on."""
        records: list[tuple[int, bytes]] = []
        for start, line in self._lines(offset):
            if limit is not None and len(records) >= limit:
                break
            payload = _payload(line)
            if payload is not None:
                records.append((start, payload))
            offset = start + len(line)
        return records, offset

    def clear(self) -> None:
        """Forget all records. To be called when each of them is safe elsewhere."""
        os.ftruncate(self._descriptor, 0)
        os.fsync(self._descriptor)
        self._end = self._count = 0

    def rewrite(self, edit: Callable[[bytes], bytes]) -> None:
        """Replace every record by what ``edit`` makes of it: all of them, or after a crash none. Offsets change."""
        records, _ = self.read()
        with self._partial.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            for _, payload in records:
                file.write(_line(edit(payload)))
            file.flush()
            os.fsync(file.fileno())
        self._partial.replace(self.path)
        assert self._file is not None
        self._file.close()
        self._open_file()
        self._count = len(records)
        self._end = self.path.stat().st_size

    @property
    def _partial(self) -> Path:
        return self.path.with_suffix(".new")

    @property
    def _descriptor(self) -> int:
        if self._file is None:
            raise RuntimeError("Spool.open has not run")
        return self._file.fileno()

    def _open_file(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the file's name must survive a crash as well as its bytes
        finally:
            os.close(folder)
        self._end = os.fstat(descriptor).st_size

    def _cut_back(self) -> None:
        """Take back a write that failed. Where even that fails, the next append overwrites it."""
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError:
            return

    def _lines(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Lines from ``offset`` to the end, with the line feed where there is one."""
        position, rest = offset, b""
        while position < self._end:
            block = os.pread(self._descriptor, min(_READ_BYTES, self._end - position), position)
            if not block:
                break
            position += len(block)
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                yield offset, line + b"\n"
                offset += len(line) + 1
        if rest:
            yield offset, rest


def _line(payload: bytes) -> bytes:
    return b"%08x %08x %s\n" % (len(payload), zlib.crc32(payload), payload)


def _payload(line: bytes) -> bytes | None:
    """The payload of one line, or None where length or checksum deny it."""
    payload = line[_HEAD_BYTES:-1]
    return payload if line == _line(payload) else None


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
