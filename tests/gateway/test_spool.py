import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import StateUnavailable
from gateway.spool import Spool, SpoolInUse


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "flags.spool", max_bytes=1 << 20)
    spool.open()
    yield spool
    spool.close()


def payloads(spool: Spool) -> list[bytes]:
    return [payload for _, payload in spool.read()[0]]


def reopened(spool: Spool) -> Spool:
    spool.close()
    spool.open()
    return spool


def test_what_was_appended_is_read_in_order_and_survives_a_new_start(spool: Spool) -> None:
    spool.append([b"one", b"two"])
    spool.append([b"three"])
    assert payloads(spool) == [b"one", b"two", b"three"]
    assert payloads(reopened(spool)) == [b"one", b"two", b"three"]
    assert len(spool) == 3


def test_reading_goes_on_where_it_stopped(spool: Spool) -> None:
    offsets = spool.append([b"one", b"two", b"three"])
    first, offset = spool.read(limit=2)
    assert [start for start, _ in first] == offsets[:2]
    assert offset == offsets[2]
    assert spool.read(offset, limit=2) == ([(offsets[2], b"three")], spool.size_bytes)


def test_records_longer_than_a_read_block_come_back_whole(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", max_bytes=1 << 24)
    spool.open()
    long = [b"a" * 1_500_000, b"b", b"c" * 2_200_000]
    spool.append(long)
    assert payloads(reopened(spool)) == long
    spool.close()


def test_a_record_torn_at_any_byte_is_cut_off_and_the_others_stay(spool: Spool) -> None:
    spool.append([b"one", b"two"])
    whole = spool.path.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in range(second, len(whole)):
        spool.path.write_bytes(whole[:cut])
        assert payloads(reopened(spool)) == [b"one"], cut
        assert spool.damaged == 0
        spool.append([b"new"])
        assert payloads(reopened(spool)) == [b"one", b"new"], cut


def test_a_damaged_record_in_the_middle_is_counted_and_passed_over(spool: Spool) -> None:
    spool.append([b"one", b"two", b"three"])
    spool.path.write_bytes(spool.path.read_bytes().replace(b"two", b"tXo"))
    assert payloads(reopened(spool)) == [b"one", b"three"]
    assert spool.damaged == 1
    assert len(spool) == 2


def test_a_spool_at_its_bound_refuses_the_whole_batch(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", max_bytes=60)
    spool.open()
    spool.append([b"x" * 10])
    with pytest.raises(StateUnavailable, match="spool is full"):
        spool.append([b"y", b"z" * 30])
    assert payloads(reopened(spool)) == [b"x" * 10]
    spool.close()


def test_a_full_disk_refuses_the_whole_batch_and_leaves_no_part_of_it(spool: Spool) -> None:
    spool.append([b"one"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (spool.size_bytes + 30, hard))  # the kernel writes 30 bytes, then fails
    try:
        with pytest.raises(StateUnavailable, match="spool cannot be written"):
            spool.append([b"two", b"three" * 100])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert payloads(reopened(spool)) == [b"one"]
    spool.append([b"four"])
    assert payloads(reopened(spool)) == [b"one", b"four"]


def test_what_the_disk_did_not_confirm_is_refused_and_taken_back(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.append([b"one"])

    def failing_fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk failed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_fsync)
        with pytest.raises(StateUnavailable, match="spool cannot be written"):
            spool.append([b"two"])
    assert payloads(reopened(spool)) == [b"one"]


def test_a_cleared_spool_is_empty_for_good(spool: Spool) -> None:
    spool.append([b"one"])
    spool.clear()
    assert payloads(reopened(spool)) == []
    assert len(spool) == 0


def test_a_rewrite_changes_every_record_on_the_disk(spool: Spool) -> None:
    spool.append([b"secret one", b"two"])
    spool.rewrite(lambda payload: payload.replace(b"secret ", b""))
    assert b"secret" not in spool.path.read_bytes()
    spool.append([b"three"])
    assert payloads(reopened(spool)) == [b"one", b"two", b"three"]


def test_two_processes_cannot_write_one_spool(spool: Spool) -> None:
    with pytest.raises(SpoolInUse, match="another gateway writes"):
        Spool(spool.path, max_bytes=100).open()
