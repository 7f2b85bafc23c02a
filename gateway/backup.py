"""Backup and restore of a whole installation: what Redis holds, the bank's versions, policy, calibration, spool, logs.

The order makes it fit together while gateways run. The spool of flags is copied before Redis, so that a flag on its
way from one to the other is in at least one of them (replaying it twice is no harm). The bank's folder and the archive
of logs are copied after Redis: versions are written before anything names them, segments before they leave Redis, and
neither changes.

Left out is what says something of the moment only (who is logged in, rate windows), what settings say, and what is
kept elsewhere by their word (``bank.remote``, an archive in an object store).
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, cast

import orjson

from gateway import __version__
from gateway.backup_files import BackupError, BackupReader, BackupWriter, Manifest
from gateway.backup_state import StateCopy, Value
from gateway.calibration import calibration_file
from gateway.redis_client import RedisClient
from gateway.redis_keys import BANK_CURRENT, POLICY_CURRENT
from gateway.settings import Settings

PAUSE_S: Final = 30.0

_STATE: Final = "redis.jsonl"
_SPOOL: Final = "spool"
_CALIBRATION: Final = "calibration.json"
_POLICY: Final = "policy.yaml"
_BANK: Final = "bank/"
_ARCHIVE: Final = "archive/"

Layout = Literal["folder", "data"]
"""What the bank's files are: those of ``bank.path``, or of the data folder's own bank."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back: keys, files, and where the policy file stands now (None: there was none)."""

    keys: int
    files: int
    policy_file: Path | None


async def back_up(redis: RedisClient, settings: Settings, folder: Path, *, pause_s: float = PAUSE_S) -> Manifest:
    """Make a backup at ``folder``, which must not exist or be empty.

    Raises ``BackupError``, and ``StateUnavailable`` while Redis is away.
    """
    state, places = StateCopy(redis), _Places.of(settings)
    with BackupWriter(folder) as writer, tempfile.TemporaryFile() as lines:
        await asyncio.to_thread(_add_if_there, writer, _SPOOL, places.spool)
        keys = await state.take(cast(BinaryIO, lines), pause_s=pause_s)
        lines.seek(0)
        await asyncio.to_thread(writer.write, _STATE, iter(lambda: lines.read(1 << 20), b""))
        await asyncio.to_thread(_add_folder, writer, _BANK, places.bank)
        if places.archive is not None:
            await asyncio.to_thread(_add_folder, writer, _ARCHIVE, places.archive)
        await asyncio.to_thread(_add_if_there, writer, _CALIBRATION, places.calibration)
        if settings.policy_file is not None:
            await asyncio.to_thread(writer.add, _POLICY, settings.policy_file)
        return await asyncio.to_thread(
            writer.finish,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            gateway=__version__,
            redis=await state.version(),
            keys=keys,
            one_moment=pause_s > 0,
            bank_layout=places.layout,
            bank=await _named(redis, BANK_CURRENT()),
            policy=await _named(redis, POLICY_CURRENT()),
        )


async def restore(redis: RedisClient, settings: Settings, folder: Path, *, replace: bool = False) -> Restored:
    """Put a backup back: files first, then the state that names them. Every hash is checked before anything is written.

    Where something is there already it is refused, unless ``replace`` says so: then all of the gateway's keys are
    deleted first, and files of the same names replaced. A spool with flags in it is never replaced. Raises
    ``BackupError`` for that, for a damaged backup and for gateways that run.
    """
    reader, state, places = BackupReader(folder), StateCopy(redis), _Places.of(settings)
    await asyncio.to_thread(reader.verify)
    about = reader.manifest.about
    if about.get("bank_layout") != places.layout and reader.names(_BANK):
        needed = "set bank.path to where it is to go" if about.get("bank_layout") == "folder" else "unset bank.path"
        raise BackupError(f"the backup's bank is not laid out as settings say; {needed}")
    if running := await state.gateways():
        raise BackupError(f"{running} gateways run on this Redis; stop them first, and the workers")
    targets = {name: places.bank / name.removeprefix(_BANK) for name in reader.names(_BANK)}
    if places.archive is not None:
        targets |= {name: places.archive / name.removeprefix(_ARCHIVE) for name in reader.names(_ARCHIVE)}
    single = {_CALIBRATION: places.calibration, _POLICY: places.policy, _SPOOL: places.spool}
    targets |= {name: path for name, path in single.items() if name in reader.manifest.files}
    _refuse_waiting_flags(places.spool)
    if not replace:
        await _refuse_what_is_there(state, reader, targets)
    await asyncio.to_thread(reader.put, targets)
    await state.clear()
    with reader.open(_STATE) as lines:
        keys = await state.put(map(Value.from_line, lines))
    return Restored(keys, len(targets), targets.get(_POLICY))


@dataclass(frozen=True, slots=True)
class _Places:
    bank: Path
    layout: Layout
    archive: Path | None
    calibration: Path
    policy: Path
    spool: Path

    @classmethod
    def of(cls, settings: Settings) -> _Places:
        return cls(
            bank=settings.bank.path or settings.data_dir / "bank",
            layout="data" if settings.bank.path is None else "folder",
            archive=settings.data_dir / "archive" if settings.retention.archive is None else None,
            calibration=calibration_file(settings),
            policy=settings.policy_file or settings.data_dir / _POLICY,
            spool=settings.data_dir / "spool",
        )


def _add_if_there(writer: BackupWriter, name: str, path: Path) -> None:
    if path.is_file() and path.stat().st_size > 0:
        writer.add(name, path)


def _add_folder(writer: BackupWriter, name: str, root: Path) -> None:
    for path in _files(root):
        try:
            writer.add(name + path.relative_to(root).as_posix(), path)
        except FileNotFoundError:  # a version that is just being written has another name a moment later
            continue


def _files(root: Path) -> Iterator[Path]:
    """The files below, without those that are only being made and without locks."""
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.is_file() and not hidden and path.suffix != ".lock":
            yield path


def _refuse_waiting_flags(spool: Path) -> None:
    if spool.is_file() and spool.stat().st_size > 0:
        raise BackupError(f"flags wait in {spool} for Redis; start a gateway until they are replayed, or move the file")


async def _refuse_what_is_there(state: StateCopy, reader: BackupReader, targets: dict[str, Path]) -> None:
    if keys := await state.keys():
        raise BackupError(f"Redis holds {len(keys)} keys of a gateway already; --replace deletes them")
    for name, path in targets.items():
        if path.exists() and not _same(reader, name, path):
            raise BackupError(f"{path} is there already; --replace puts the backup's in its place")


def _same(reader: BackupReader, name: str, path: Path) -> bool:
    entry = reader.manifest.files[name]
    return path.is_file() and path.stat().st_size == entry.bytes and path.read_bytes() == reader.read(name)


async def _named(redis: RedisClient, key: str) -> str | None:
    """The version that a pointer names, for whoever reads the manifest."""
    with redis.guard() as connection:
        line: Any = await connection.get(key)
    try:
        return None if line is None else str(orjson.loads(line)["version"])
    except (ValueError, KeyError, TypeError):
        return None
