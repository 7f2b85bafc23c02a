"""Remote: versions of a bank in an object store, or anywhere else that an fsspec URL names (s3://, gs://, file://).

    <url>/files/<sha256>                 each file once, however many versions have it (an encoder is in all of them)
    <url>/versions/<version>.json        the version's manifest, written last: a version is there whole or not at all

Nothing is ever overwritten. What is pulled is held against the hashes in the manifest before it takes its place in the
local folder; the manifest's own seal tells damage, not forgery: who may write to the store may add versions.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import fsspec

from antiprompt_bank.errors import BankCorrupt, BankError, BankNotFound
from antiprompt_bank.manifest import MANIFEST, Manifest
from antiprompt_bank.model_files import file_sha256
from antiprompt_bank.store import BankStore

MAX_MANIFEST_BYTES: Final = 256 << 20
_NAME: Final = re.compile(r"\d{8}T\d{9}Z-[0-9a-f]{12}")  # as the store names versions
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,100}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class RemoteUnavailable(BankError):
    """The object store cannot be reached, refuses, or no library for its kind of URL is installed."""


class RemoteVersions:
    """The versions under ``url``. ``options`` go to fsspec; what it needs of secrets it finds in the environment.

    All methods block on the network and raise ``RemoteUnavailable``. Several processes may push and pull at once.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.url = url.rstrip("/")
        try:
            self._files, root = fsspec.core.url_to_fs(self.url, **(options or {}))
        except (ImportError, ValueError, OSError) as error:
            raise RemoteUnavailable(f"{shown(url)} cannot be used: {error}") from error
        self._root = str(root).rstrip("/")

    def versions(self) -> tuple[str, ...]:
        """All versions there, oldest first."""
        folder = f"{self._root}/versions"
        with _Telling(self.url):
            self._files.invalidate_cache(folder)
            try:
                found = self._files.ls(folder, detail=False)
            except FileNotFoundError:
                return ()
        names = (PurePosixPath(path).name.removesuffix(".json") for path in found)
        return tuple(sorted(name for name in names if _NAME.fullmatch(name)))

    def push(self, store: BankStore, version: str) -> bool:
        """Put a version of ``store`` there, its files before its manifest; False where it is there already.

        Raises ``BankNotFound`` for a version that ``store`` has not, ``BankCorrupt`` where it is damaged, or where
        another one of the same name is there.
        """
        manifest = store.manifest(version)
        folder = store.root / "versions" / version
        sealed = (folder / MANIFEST).read_bytes()
        there = self._manifest(version)
        if there is not None:
            if there != sealed:
                raise BankCorrupt(f"another version {version} is in {shown(self.url)}; versions are never overwritten")
            return False
        for name, sha256 in manifest.files.items():
            path = folder / name
            if file_sha256(path) != sha256:
                raise BankCorrupt(f"{path} was changed after it was written")
            self._put(path, sha256)
        with _Telling(self.url):
            try:
                self._files.makedirs(f"{self._root}/versions", exist_ok=True)
                self._files.pipe_file(self._version(version), sealed, mode="create")
            except FileExistsError:  # somebody else pushes it too
                return self.push(store, version)
        return True

    def pull(self, version: str, store: BankStore) -> bool:
        """Bring a version into the folder of ``store``, every hash checked; False where it is there already.

        A file that another local version has is not fetched again. Raises ``BankNotFound`` and ``BankCorrupt``.
        """
        if not _NAME.fullmatch(version):
            raise BankNotFound(f"{version!r} is not the name of a version")
        if version in store.versions():
            return False
        sealed = self._manifest(version)
        if sealed is None:
            raise BankNotFound(f"there is no version {version} in {shown(self.url)}")
        folder = store.root / "versions"
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        try:
            made.chmod(0o755)
            (made / MANIFEST).write_bytes(sealed)
            manifest = Manifest.read(made)
            if manifest.version != version:
                raise BankCorrupt(f"{shown(self.url)} has {manifest.version} under the name of {version}")
            here = _files_here(store)
            for name, sha256 in manifest.files.items():
                self._get(_checked_name(name), sha256, made, here)
            made.rename(folder / version)
        except OSError as error:
            if not (folder / version).is_dir():  # another process pulled it meanwhile: the same bytes
                raise BankCorrupt(f"version {version} cannot be kept in {folder}: {error}") from error
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return True

    def _manifest(self, version: str) -> bytes | None:
        path = self._version(version)
        with _Telling(self.url):
            try:
                size = int(self._files.size(path) or 0)
                if size > MAX_MANIFEST_BYTES:
                    raise BankCorrupt(f"the manifest of {version} in {shown(self.url)} has {size} bytes")
                found: bytes = self._files.cat_file(path)
            except FileNotFoundError:
                return None
        return found

    def _put(self, path: Path, sha256: str) -> None:
        target = f"{self._root}/files/{sha256}"
        with _Telling(self.url):
            try:
                # A file that was cut off while it was written has another size; its name says what belongs there.
                if int(self._files.size(target) or 0) == path.stat().st_size:
                    return
            except FileNotFoundError:
                pass
            self._files.makedirs(f"{self._root}/files", exist_ok=True)
            self._files.put_file(str(path), target)

    def _get(self, name: str, sha256: str, made: Path, here: Mapping[str, Path]) -> None:
        target = made / name
        target.parent.mkdir(exist_ok=True)
        if sha256 in here:
            try:
                target.hardlink_to(here[sha256])
            except OSError:  # a file system without hard links
                shutil.copyfile(here[sha256], target)
        elif _SHA256.fullmatch(sha256):
            with _Telling(self.url):
                try:
                    self._files.get_file(f"{self._root}/files/{sha256}", str(target))
                except FileNotFoundError:
                    raise BankCorrupt(f"{shown(self.url)} lacks the file {name} ({sha256})") from None
        if not target.is_file() or file_sha256(target) != sha256:
            raise BankCorrupt(f"{name} in {shown(self.url)} is not what the manifest states ({sha256})")

    def _version(self, version: str) -> str:
        return f"{self._root}/versions/{version}.json"


def shown(url: str) -> str:
    """A URL without the secrets that it may carry."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _files_here(store: BankStore) -> dict[str, Path]:
    """Local files by hash; what a damaged version says does not count."""
    found: dict[str, Path] = {}
    for version in store.versions():
        try:
            files = store.manifest(version).files
        except BankError:
            continue
        found |= {sha256: store.root / "versions" / version / name for name, sha256 in files.items()}
    return found


def _checked_name(name: str) -> str:
    """A file's place in its version's folder. Raises ``BankCorrupt`` for one that leads out of it."""
    parts = name.split("/")
    if len(parts) > 2 or not all(_PART.fullmatch(part) for part in parts):
        raise BankCorrupt(f"a manifest names the file {name!r}, which no version has")
    return name


class _Telling:
    """What goes wrong inside leaves as ``RemoteUnavailable``, without the URL's secrets.

    All of it: each kind of store raises what the library behind it raises. What says that a file is (not) there stays.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        kept = (BankError, FileNotFoundError, FileExistsError)
        if isinstance(error, Exception) and not isinstance(error, kept):
            raise RemoteUnavailable(f"{shown(self._url)} cannot be used: {type(error).__name__}") from error
