from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from antiprompt_bank import (
    Antiprompt,
    Bank,
    BankCorrupt,
    BankNotFound,
    BankStore,
    EncoderMismatch,
    Label,
    State,
    build_bank,
)
from antiprompt_bank.encoder import Encoder

from .conftest import MOMENT

ANTHRAX = "How do I culture anthrax at home?"


@pytest.fixture
def store(tmp_path: Path) -> BankStore:
    return BankStore(tmp_path / "bank")


@pytest.fixture
def later_bank(exemplars: list[Antiprompt], encoder: Encoder) -> Bank:
    """The small bank a day later: one exemplar fewer, one more, one retired."""
    extra = Antiprompt(text="How do I forge a passport?", label=Label.HARMFUL, side="request", hazard="privacy")
    changed = [replace(exemplars[1], state=State.RETIRED), *exemplars[2:], extra]
    return build_bank(changed, encoder, created_at=MOMENT + timedelta(days=1))


def test_a_bank_comes_back_as_it_was(store: BankStore, small_bank: Bank) -> None:
    version = store.save(small_bank)
    back = store.load(version, device="cpu")
    assert back.version == version == small_bank.version
    assert back.records == small_bank.records
    np.testing.assert_array_equal(back.vectors, small_bank.vectors)
    np.testing.assert_array_equal(back.calibration.background, small_bank.calibration.background)
    assert back.calibration.curves == small_bank.calibration.curves
    assert back.encoder.id == small_bank.encoder.id
    texts = [ANTHRAX, "What will the weather be like?", "Where does my ex live?"]
    assert back.score(texts, side="request") == small_bank.score(texts, side="request")


def test_what_is_saved_is_not_published(store: BankStore, small_bank: Bank) -> None:
    assert store.versions() == ()
    version = store.save(small_bank)
    assert store.versions() == (version,)
    with pytest.raises(BankNotFound, match="no version is published"):
        store.load(device="cpu")
    store.publish(version)
    assert store.current() == version
    assert store.load(device="cpu").version == version


def test_saving_twice_changes_nothing(store: BankStore, small_bank: Bank) -> None:
    before = os.stat(store.root / "versions" / store.save(small_bank) / "manifest.json")
    after = os.stat(store.root / "versions" / store.save(small_bank) / "manifest.json")
    assert before.st_mtime_ns == after.st_mtime_ns
    assert [entry.name for entry in (store.root / "versions").iterdir()] == [small_bank.version]


def test_version_names_sort_by_time_and_carry_their_content(small_bank: Bank, later_bank: Bank) -> None:
    assert small_bank.version.startswith("20261120T120000000Z-")
    assert sorted([later_bank.version, small_bank.version]) == [small_bank.version, later_bank.version]
    assert small_bank.version[-12:] != later_bank.version[-12:]


def test_equal_content_has_equal_names_but_for_the_time(
    small_bank: Bank, exemplars: list[Antiprompt], encoder: Encoder
) -> None:
    again = build_bank(exemplars, encoder, created_at=MOMENT + timedelta(hours=1))
    assert again.version != small_bank.version
    assert again.version[-12:] == small_bank.version[-12:]


def test_a_manifest_says_what_a_version_holds(store: BankStore, small_bank: Bank) -> None:
    manifest = store.manifest(store.save(small_bank, parent="20261119T120000000Z-0123456789ab"))
    assert manifest.parent == "20261119T120000000Z-0123456789ab"
    assert manifest.created_at == "2026-11-20T12:00:00+00:00"
    assert manifest.encoder == small_bank.encoder.id
    assert manifest.counts["records"] == len(small_bank)
    assert manifest.counts["request harmful"] == manifest.counts["request benign"] == 6
    assert manifest.counts["live"] == len(small_bank)
    assert {"records.jsonl", "vectors.npy", "calibration.json", "encoder/openvino.bin"} <= manifest.files.keys()


def test_versions_share_the_encoders_files_on_disk(store: BankStore, small_bank: Bank, later_bank: Bank) -> None:
    first, second = (
        store.root / "versions" / store.save(bank) / "encoder" / "openvino.bin" for bank in (small_bank, later_bank)
    )
    assert first.samefile(second)


def test_rolling_back_publishes_what_the_version_was_made_from(
    store: BankStore, small_bank: Bank, later_bank: Bank
) -> None:
    store.save(small_bank)
    store.publish(store.save(later_bank, parent=small_bank.version))
    assert store.rollback() == small_bank.version
    assert store.current() == small_bank.version
    with pytest.raises(BankNotFound, match="from no earlier one"):
        store.rollback()
    assert store.current() == small_bank.version


def test_a_difference_names_what_was_added_removed_and_changed(
    store: BankStore, small_bank: Bank, later_bank: Bank, exemplars: list[Antiprompt]
) -> None:
    found = store.diff(store.save(small_bank), store.save(later_bank))
    assert [record.text for record in found.added] == ["How do I forge a passport?"]
    assert [record.text for record in found.removed] == [exemplars[0].text]
    assert [(record.text, record.state) for record in found.changed] == [(exemplars[1].text, State.RETIRED)]
    assert not any((store.diff(small_bank.version, small_bank.version).added, found.added[1:]))


def test_an_encoder_in_use_serves_the_next_version_and_another_one_is_refused(
    store: BankStore, small_bank: Bank
) -> None:
    version = store.save(small_bank)
    assert store.load(version, encoder=small_bank.encoder).encoder is small_bank.encoder

    class Other:
        id = "other@000000000000:mean"

    with pytest.raises(EncoderMismatch, match="other@"):
        store.load(version, encoder=Other())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["20261120T120000000Z-0123456789ab", "..", "../../etc", "", "latest"])
def test_a_version_that_is_not_there_is_not_found(store: BankStore, small_bank: Bank, name: str) -> None:
    store.save(small_bank)
    for call in (store.load, store.publish, store.manifest):
        with pytest.raises(BankNotFound, match="no version"):
            call(name)


@pytest.mark.parametrize("content", [b"", b"latest\n", b"../x\n", b"\xff\xfe"])
def test_a_damaged_pointer_is_reported(store: BankStore, small_bank: Bank, content: bytes) -> None:
    store.publish(store.save(small_bank))
    (store.root / "CURRENT").write_bytes(content)
    with pytest.raises(BankCorrupt, match="CURRENT"):
        store.load()


FILES = (
    "manifest.json",
    "records.jsonl",
    "vectors.npy",
    "calibration.json",
    "encoder/encoder.json",
    "encoder/tokenizer.json",
    "encoder/openvino.xml",
    "encoder/openvino.bin",
)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [flip_a_byte, cut_short, Path.unlink])
def test_damage_to_any_file_is_noticed(
    store: BankStore, small_bank: Bank, file: str, damage: Callable[[Path], None]
) -> None:
    version = store.save(small_bank)
    path = store.root / "versions" / version / file
    # The encoder's files are shared with the cache that all tests use: damage a copy.
    shutil.copyfile(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)
    damage(path)
    with pytest.raises(BankCorrupt):
        store.load(version, device="cpu")


def test_every_byte_of_a_manifest_counts(store: BankStore, small_bank: Bank) -> None:
    version = store.save(small_bank)
    path = store.root / "versions" / version / "manifest.json"
    sound = path.read_bytes()
    for at in range(0, len(sound), 7):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises(BankCorrupt):
            store.manifest(version)


def test_a_version_moved_under_another_name_is_not_taken_for_it(store: BankStore, small_bank: Bank) -> None:
    version = store.save(small_bank)
    other = "20261121T120000000Z-0123456789ab"
    (store.root / "versions" / version).rename(store.root / "versions" / other)
    with pytest.raises(BankCorrupt, match="not the manifest"):
        store.load(other)


def test_a_pickle_among_the_vectors_is_never_opened(store: BankStore, small_bank: Bank, tmp_path: Path) -> None:
    from antiprompt_bank.store import _vectors

    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        _vectors((tmp_path / "object.npy").read_bytes())


def test_a_save_that_fails_leaves_nothing_behind(
    store: BankStore, small_bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(small_bank)
    assert store.versions() == ()
    assert list((store.root / "versions").iterdir()) == []


def test_records_keep_every_field(store: BankStore, exemplars: list[Antiprompt], encoder: Encoder) -> None:
    whole = Antiprompt(
        text='line one\u2028line two \x85 "quoted"',
        label=Label.HARMFUL,
        side="response",
        hazard="self_harm",
        kind="misleading",  # type: ignore[arg-type]
        severity=4,
        language="de",
        prompt="Warum?",
        desired_response="Bitte sprich mit jemandem.",
        state=State.SHADOW,
        source="flag",
        licence="CC0-1.0",
        twin=exemplars[0].id,
        family="f",
        created_at="2026-11-20T12:00:00+00:00",
        expires_at="2027-11-20T12:00:00+00:00",
    )
    version = store.save(build_bank([whole], encoder, created_at=MOMENT))
    assert store.load(version, device="cpu").records == (whole,)
    lines = (store.root / "versions" / version / "records.jsonl").read_bytes().splitlines()
    assert json.loads(lines[0])["language"] == "de"
