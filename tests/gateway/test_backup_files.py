"""A backup's folder is there whole or not at all, and no byte of it can change unnoticed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from gateway.backup_files import MANIFEST, BackupError, BackupReader, BackupWriter

LARGE = b"encoder" * 200_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A backup of two small files and one large one that is there twice."""
    (tmp_path / "large").write_bytes(LARGE)
    with BackupWriter(tmp_path / "backup") as writer:
        writer.write("state", iter([b"one\n", b"two\n"]))
        writer.write("empty", iter([]))
        writer.add("bank/v1/encoder", tmp_path / "large")
        writer.add("bank/v2/encoder", tmp_path / "large")
        writer.finish(keys=2)
    return tmp_path / "backup"


def test_what_was_written_is_read_again_and_equal_files_are_kept_once(folder: Path):
    reader = BackupReader(folder)
    reader.verify()
    assert reader.manifest.about == {"keys": 2}
    assert reader.read("state") == b"one\ntwo\n"
    assert reader.read("empty") == b""
    assert reader.names("bank/") == ["bank/v1/encoder", "bank/v2/encoder"]
    assert len(list((folder / "contents").iterdir())) == 3
    with reader.open("state") as lines:
        assert list(lines) == [b"one\n", b"two\n"]


def test_only_its_owner_can_read_it(folder: Path):
    for path in (folder, folder / "contents", *folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0 or path.name == MANIFEST, path
    assert folder.stat().st_mode & 0o777 == 0o700


def test_files_go_back_to_their_places_and_large_equal_ones_share_the_disk(folder: Path, tmp_path: Path):
    target = tmp_path / "machine"
    reader = BackupReader(folder)
    reader.put({name: target / name for name in reader.manifest.files})
    assert (target / "state").read_bytes() == b"one\ntwo\n"
    one, two = (target / "bank" / version / "encoder" for version in ("v1", "v2"))
    assert one.read_bytes() == two.read_bytes() == LARGE
    assert one.samefile(two)
    assert not any(path.name.startswith(".") for path in target.rglob("*"))


def test_a_file_is_replaced_in_one_step(folder: Path, tmp_path: Path):
    target = tmp_path / "machine" / "state"
    target.parent.mkdir()
    target.write_text("old")
    held = target.open("rb")
    BackupReader(folder).put({"state": target})
    with held:
        assert held.read() == b"old"  # whoever reads it goes on reading what it was
    assert target.read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("change", ["cut", "flip", "remove", "manifest", "about"])
def test_a_changed_byte_is_noticed_wherever_it_is(folder: Path, change: str):
    content = max((folder / "contents").iterdir(), key=lambda path: path.stat().st_size)
    manifest = folder / MANIFEST
    match change:
        case "cut":
            os.truncate(content, len(LARGE) - 1)
        case "flip":
            raw = bytearray(content.read_bytes())
            raw[12_345] ^= 1
            content.write_bytes(raw)
        case "remove":
            content.unlink()
        case "manifest":
            manifest.write_bytes(manifest.read_bytes().replace(b"v1/encoder", b"v3/encoder"))
        case "about":
            manifest.write_bytes(manifest.read_bytes().replace(b'"keys": 2', b'"keys": 3'))
    with pytest.raises(BackupError, match=r"hash|changed|missing"):
        BackupReader(folder).verify()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "bank/../../outside", "..\\outside"])
def test_a_manifest_that_names_a_place_outside_is_refused(tmp_path: Path, name: str):
    with BackupWriter(tmp_path / "backup") as writer:
        writer.write(name, iter([b"x"]))
        writer.finish()
    with pytest.raises(BackupError, match="outside"):
        BackupReader(tmp_path / "backup")


def test_a_backup_that_fails_leaves_nothing_behind(tmp_path: Path):
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"), BackupWriter(tmp_path / "backup") as writer:
        writer.write("state", broken())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_never_written_to(folder: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with BackupWriter(tmp_path / "empty") as writer:
        writer.finish()
    BackupReader(tmp_path / "empty").verify()
    for taken in (folder, tmp_path / "large"):
        with pytest.raises(BackupError, match="not empty"), BackupWriter(taken):
            pass


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff", b'{"format": 1, "sha256": "0", "files": 3, "about": {}}'])
def test_what_is_no_manifest_is_told(tmp_path: Path, raw: bytes):
    with pytest.raises(BackupError, match="no backup"):
        BackupReader(tmp_path)
    (tmp_path / MANIFEST).write_bytes(raw)
    with pytest.raises(BackupError, match="cannot be read"):
        BackupReader(tmp_path)


def test_a_later_format_is_refused_by_its_number(folder: Path):
    body = orjson.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(orjson.dumps({**body, "format": 2}))
    with pytest.raises(BackupError, match="format 2"):
        BackupReader(folder)
