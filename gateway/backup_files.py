"""The folder of a backup: files kept by what is in them, and a manifest that vouches for every byte.

    <folder>/manifest.json        which file stands for what, hashes and sizes, what it was taken from; its own hash
    <folder>/contents/<sha256>    what is in them; equal files are there once

It is written beside its place, synced to disk and moved there in one step: it is there whole or not at all. It holds
what users wrote, so only its owner can read it. Synchronous: callers in an event loop use a thread.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, Self

import orjson

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
_CONTENTS: Final = "contents"
_CHUNK_BYTES: Final = 1 << 20
_LINKED_FROM_BYTES: Final = 1 << 20
"""Files from this size that are equal are one on the disk again: an encoder is in every version of a bank."""


class BackupError(ValueError):
    """A backup cannot be made, read or put back; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: the SHA-256 of what is in it (hexadecimal), and its size."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. ``files`` by name (relative, ``/`` between the parts); ``about`` is the caller's."""

    files: Mapping[str, Entry]
    about: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        files = {name: asdict(entry) for name, entry in sorted(self.files.items())}
        body = {"format": FORMAT, "about": dict(self.about), "files": files}
        return orjson.dumps({**body, "sha256": _hash_of(body)}, option=orjson.OPT_INDENT_2) + b"\n"

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises ``BackupError`` for what is no manifest, is damaged, or is of a later format."""
        try:
            body: dict[str, Any] = orjson.loads(raw)
            claimed = body.pop("sha256")
            if body["format"] > FORMAT:
                raise BackupError(f"this backup is of format {body['format']}, and this release knows up to {FORMAT}")
            files = {name: Entry(**entry) for name, entry in body["files"].items()}
            about = body["about"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, BackupError):
                raise
            raise BackupError(f"{MANIFEST} cannot be read: {type(error).__name__}") from None
        if _hash_of(body) != claimed:
            raise BackupError(f"{MANIFEST} was changed since it was written")
        for name, entry in files.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
                raise BackupError(f"{MANIFEST} names a file outside the backup: {name!r}")
            if len(entry.sha256) != 64 or not set(entry.sha256) <= set("0123456789abcdef"):
                raise BackupError(f"{MANIFEST} has no hash for {name!r}")
        return cls(files, about)


class BackupWriter:
    """Makes a backup at ``folder``, which must not exist or be empty; of one that fails nothing is left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Entry] = {}
        self._made: Path | None = None

    def __enter__(self) -> Self:
        if self._folder.exists() and (not self._folder.is_dir() or any(self._folder.iterdir())):
            raise BackupError(f"{self._folder} is not empty; name a folder that does not exist yet")
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._made = Path(tempfile.mkdtemp(prefix=f".{self._folder.name}-", dir=self._folder.parent))
        (self._made / _CONTENTS).mkdir(mode=0o700)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)

    def add(self, name: str, source: Path) -> None:
        """Keep a file as ``name``. Raises ``FileNotFoundError`` where it has gone."""
        with source.open("rb") as file:
            self.write(name, iter(lambda: file.read(_CHUNK_BYTES), b""))

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Keep what ``chunks`` give as ``name``."""
        assert self._made is not None
        digest, size = hashlib.sha256(), 0
        handle, path = tempfile.mkstemp(dir=self._made)
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            _sync(file)
        place = self._made / _CONTENTS / digest.hexdigest()
        if place.exists():
            Path(path).unlink()
        else:
            Path(path).rename(place)
        self._files[name] = Entry(digest.hexdigest(), size)

    def finish(self, **about: Any) -> Manifest:
        """Write the manifest and put the backup in its place."""
        assert self._made is not None
        manifest = Manifest(self._files, about)
        with (self._made / MANIFEST).open("wb") as file:
            file.write(manifest.to_bytes())
            _sync(file)
        for folder in (self._made / _CONTENTS, self._made):
            _sync_folder(folder)
        self._made.rename(self._folder)
        _sync_folder(self._folder.parent)
        self._made = None
        return manifest


class BackupReader:
    """Reads the backup at ``folder``. Raises ``BackupError`` where there is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self.manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes())
        except FileNotFoundError:
            raise BackupError(f"{folder} holds no backup: there is no {MANIFEST}") from None

    def verify(self) -> None:
        """Read every byte and hold it against the manifest. Raises ``BackupError`` for the first that differs."""
        checked = set()
        for name, entry in self.manifest.files.items():
            if entry not in checked:
                self._each(name, lambda chunk: None)
                checked.add(entry)

    def names(self, below: str) -> list[str]:
        """The files whose names begin with ``below``, in order."""
        return sorted(name for name in self.manifest.files if name.startswith(below))

    def read(self, name: str) -> bytes:
        """What is in a file."""
        chunks: list[bytes] = []
        self._each(name, chunks.append)
        return b"".join(chunks)

    def open(self, name: str) -> BinaryIO:
        """A file to read line by line; ``verify`` first."""
        return (self._folder / _CONTENTS / self.manifest.files[name].sha256).open("rb")

    def put(self, names: Mapping[str, Path]) -> None:
        """Write files to where they belong, each in one step; large equal ones share their place on the disk."""
        written: dict[Entry, Path] = {}
        for name, target in names.items():
            entry = self.manifest.files[name]
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.restored")
            partial.unlink(missing_ok=True)
            if not (entry in written and entry.bytes >= _LINKED_FROM_BYTES and _linked(written[entry], partial)):
                with partial.open("wb") as file:
                    os.fchmod(file.fileno(), 0o600)
                    self._each(name, file.write)
                    _sync(file)
            partial.replace(target)
            written[entry] = target
        for folder in {target.parent for target in names.values()}:
            _sync_folder(folder)

    def _each(self, name: str, take: Callable[[bytes], object]) -> None:
        entry, digest, size = self.manifest.files[name], hashlib.sha256(), 0
        try:
            with self.open(name) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    take(chunk)
        except FileNotFoundError:
            raise BackupError(f"{name} is missing from the backup") from None
        if (digest.hexdigest(), size) != (entry.sha256, entry.bytes):
            raise BackupError(f"{name} is not what was backed up: its hash differs")


def _hash_of(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _linked(source: Path, target: Path) -> bool:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        return False
    return True


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
