from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from antiprompt_bank import Bank, BankStore
from gateway.cli import app
from tests.bank.conftest import bank_cache, encoder, exemplars, small_bank  # noqa: F401  # one small bank for all


@pytest.fixture
def shipped(small_bank: Bank, tmp_path: Path) -> Path:  # noqa: F811
    """A folder of versions as an image carries it."""
    store = BankStore(tmp_path / "image")
    store.publish(store.save(small_bank))
    return store.root


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BankStore:
    """The folder that gateways share, with nothing in it."""
    monkeypatch.setenv("ANTIPROMPT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ANTIPROMPT_BANK__PATH", str(tmp_path / "shared"))
    return BankStore(tmp_path / "shared")


def init(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bank", "init", "--json", *arguments])


def test_an_empty_folder_gets_the_version_and_a_second_time_changes_nothing(shipped: Path, shared: BankStore) -> None:
    version = BankStore(shipped).current()
    for _ in range(2):
        done = init("--from", str(shipped))
        assert done.exit_code == 0, done.output
        assert json.loads(done.output) == {"version": version, "published": version}
    assert shared.versions() == (version,)
    assert shared.load(device="cpu").records == BankStore(shipped).load(device="cpu").records


def test_what_is_published_stays_published(shipped: Path, shared: BankStore, small_bank: Bank) -> None:  # noqa: F811
    held = "20200101T000000000Z-0123456789ab"
    assert init("--from", str(shipped)).exit_code == 0
    (version,) = shared.versions()
    (shared.root / "versions" / version).rename(shared.root / "versions" / held)
    (shared.root / "CURRENT").write_text(held)
    done = init("--from", str(shipped))
    assert json.loads(done.output) == {"version": version, "published": held}


def test_a_damaged_bank_is_refused_and_nothing_is_put_there(shipped: Path, shared: BankStore) -> None:
    (records,) = shipped.glob("versions/*/records.jsonl")
    records.write_bytes(records.read_bytes() + b"\n")
    refused = init("--from", str(shipped))
    assert refused.exit_code == 1
    assert "sha256" in refused.output
    assert shared.versions() == ()


def test_without_a_folder_to_share_it_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPROMPT_DATA_DIR", str(tmp_path / "data"))
    refused = init()
    assert refused.exit_code == 1
    assert "ANTIPROMPT_BANK__PATH" in refused.output
