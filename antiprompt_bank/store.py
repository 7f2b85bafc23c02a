"""Store: the versions of a bank in a folder, each sealed with hashes; which one is published; what changed.

    <root>/CURRENT                       the published version's name
    <root>/versions/<version>/
        manifest.json                    hashes of all other files, encoder id, parent, counts, what each row stands for
        records.jsonl                    one Antiprompt a line
        vectors.npy                      float32, one row a window (never a pickle)
        calibration.json                 the curves, bound to this version and encoder
        encoder/                         card, tokeniser and exported graph, hard-linked between versions

A version is written beside its place, synced to disk and moved there in one step: it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.bank import Bank
from antiprompt_bank.calibration import Calibration
from antiprompt_bank.encoder import Device, Encoder, open_encoder
from antiprompt_bank.errors import BankCorrupt, BankNotFound, EncoderMismatch
from antiprompt_bank.manifest import MANIFEST, Manifest
from antiprompt_bank.model_files import file_sha256
from antiprompt_bank.records import Antiprompt

_NAME: Final = re.compile(r"\d{8}T\d{9}Z-[0-9a-f]{12}")
_RECORDS: Final = "records.jsonl"
_VECTORS: Final = "vectors.npy"
_CALIBRATION: Final = "calibration.json"
_ENCODER: Final = "encoder"
_CURRENT: Final = "CURRENT"


@dataclass(frozen=True, slots=True)
class Difference:
    """What one version has beside another; ``changed`` holds records of one id whose other fields differ, as new."""

    added: tuple[Antiprompt, ...]
    removed: tuple[Antiprompt, ...]
    changed: tuple[Antiprompt, ...]


class BankStore:
    """The versions under ``root``, which need not exist before the first ``save``.

    Several processes may read while one writes. Version names sort by time.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._versions = root / "versions"

    def versions(self) -> tuple[str, ...]:
        """All versions, oldest first."""
        if not self._versions.is_dir():
            return ()
        return tuple(sorted(entry.name for entry in self._versions.iterdir() if _NAME.fullmatch(entry.name)))

    def current(self) -> str:
        """The published version. Raises ``BankNotFound`` when none is, ``BankCorrupt`` when the pointer is damaged."""
        try:
            name = (self.root / _CURRENT).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise BankNotFound(f"no version is published in {self.root}") from None
        except UnicodeDecodeError:
            name = ""
        if not _NAME.fullmatch(name):
            raise BankCorrupt(f"{self.root / _CURRENT} does not name a version")
        return name

    def save(self, bank: Bank, *, parent: str | None = None) -> str:
        """Write a bank as a version and give its name; it is not published. Saving it again changes nothing.

        ``parent`` is the version it was made from.
        """
        place = self._versions / bank.version
        if place.is_dir():
            return bank.version
        self._versions.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".new-", dir=self._versions))
        try:
            made.chmod(0o755)
            self._write(bank, parent, made)
            made.rename(place)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        _sync(self._versions)
        return bank.version

    def load(
        self,
        version: str | None = None,
        *,
        device: Device = "auto",
        threads: int = 1,
        encoder: Encoder | None = None,
    ) -> Bank:
        """The bank of a version (the published one by default), every file's hash checked.

        ``encoder`` spares opening the version's own where one of the same id is loaded already. Raises
        ``BankNotFound``, ``BankCorrupt``, ``EncoderMismatch`` and ``EncoderUnavailable``.
        """
        name = version if version is not None else self.current()
        folder, manifest = self._open(name)
        contents = {file: _checked(folder / file, sha256) for file, sha256 in manifest.files.items()}
        if encoder is not None and encoder.id != manifest.encoder:
            raise EncoderMismatch(f"version {name} was made with {manifest.encoder}, not with {encoder.id}")
        runtime = encoder or open_encoder(folder / _ENCODER, device=device, threads=threads)
        try:
            return Bank(
                version=name,
                encoder=runtime,
                records=_records(contents[_RECORDS]),
                rows=manifest.rows,
                vectors=_vectors(contents[_VECTORS]),
                calibration=Calibration.from_json(json.loads(contents[_CALIBRATION])),
            )
        except (ValueError, KeyError) as error:
            raise BankCorrupt(f"version {name} does not fit together: {error}") from error

    def manifest(self, version: str) -> Manifest:
        """What a version says of itself. Raises ``BankNotFound`` and ``BankCorrupt``."""
        return self._open(version)[1]

    def publish(self, version: str) -> None:
        """Point at a version, in one step. Raises ``BankNotFound`` when there is no such version."""
        self._open(version)
        made = self.root / f".{_CURRENT}-{os.getpid()}"
        _write(made, f"{version}\n".encode())
        made.replace(self.root / _CURRENT)
        _sync(self.root)

    def rollback(self) -> str:
        """Publish the version from which the published one was made, and give its name.

        Raises ``BankNotFound`` when it was made from none.
        """
        current = self.current()
        parent = self.manifest(current).parent
        if parent is None:
            raise BankNotFound(f"version {current} was made from no earlier one")
        self.publish(parent)
        return parent

    def diff(self, older: str, newer: str) -> Difference:
        """What ``newer`` has beside ``older``, in the order of the records."""
        before, after = ({record.id: record for record in self._records(version)} for version in (older, newer))
        return Difference(
            added=tuple(record for id, record in after.items() if id not in before),
            removed=tuple(record for id, record in before.items() if id not in after),
            changed=tuple(record for id, record in after.items() if id in before and before[id] != record),
        )

    def _records(self, version: str) -> list[Antiprompt]:
        folder, manifest = self._open(version)
        try:
            return _records(_checked(folder / _RECORDS, manifest.files[_RECORDS]))
        except ValueError as error:
            raise BankCorrupt(f"version {version} has a record that cannot be read: {error}") from error

    def _open(self, version: str) -> tuple[Path, Manifest]:
        folder = self._versions / version
        if not _NAME.fullmatch(version) or not folder.is_dir():
            raise BankNotFound(f"there is no version {version!r} in {self.root}")
        manifest = Manifest.read(folder)
        if manifest.version != version or not {_RECORDS, _VECTORS, _CALIBRATION} <= manifest.files.keys():
            raise BankCorrupt(f"{folder / MANIFEST} is not the manifest of version {version}")
        return folder, manifest

    def _write(self, bank: Bank, parent: str | None, folder: Path) -> None:
        lines = [json.dumps(record.to_json(), ensure_ascii=False, sort_keys=True) for record in bank.records]
        array = io.BytesIO()
        np.save(array, bank.vectors, allow_pickle=False)
        _write(folder / _RECORDS, "".join(f"{line}\n" for line in lines).encode())
        _write(folder / _VECTORS, array.getvalue())
        _write(folder / _CALIBRATION, (json.dumps(bank.calibration.to_json(), indent=2) + "\n").encode())
        (folder / _ENCODER).mkdir()
        for source in sorted(bank.encoder.folder.iterdir()):
            _link(source, folder / _ENCODER / source.name)
        _sync(folder / _ENCODER)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest = Manifest.of(bank, parent, {path.relative_to(folder).as_posix(): file_sha256(path) for path in files})
        _write(folder / MANIFEST, manifest.to_bytes())
        _sync(folder)


def _records(lines: bytes) -> list[Antiprompt]:
    return [Antiprompt.from_json(json.loads(line)) for line in lines.splitlines()]


def _vectors(array: bytes) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = np.load(io.BytesIO(array), allow_pickle=False)
    return vectors


def _checked(path: Path, sha256: str) -> bytes:
    """A file's bytes, once their hash is the one the manifest states (an encoder's are only hashed, not returned)."""
    try:
        if path.parent.name == _ENCODER:
            found, content = file_sha256(path), b""
        else:
            content = path.read_bytes()
            found = hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise BankCorrupt(f"{path} cannot be read: {error}") from error
    if found != sha256:
        raise BankCorrupt(f"{path} has sha256 {found}, but the manifest states {sha256}")
    return content


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
        _sync(target)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
