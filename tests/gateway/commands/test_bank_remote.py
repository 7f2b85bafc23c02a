from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from antiprompt_bank import BankStore
from gateway.cli import app
from tests.gateway.banks import Folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """The folder of one gateway, and an object store beside it."""
    made = Folder(tmp_path)
    monkeypatch.setenv("ANTIPROMPT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ANTIPROMPT_BANK__PATH", str(made.store.root))
    monkeypatch.setenv("ANTIPROMPT_BANK__REMOTE", f"file://{tmp_path}/remote")
    return made


def bank(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bank", *arguments])


def test_a_version_is_pushed_listed_and_pulled_elsewhere(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(bank("remote", "--json").output) == []
    assert json.loads(bank("push", "--json").output) == {"version": folder.first, "changed": True}
    assert "there already" in bank("push", folder.first).output
    assert json.loads(bank("remote", "--json").output) == [{"version": folder.first, "here": True}]
    monkeypatch.setenv("ANTIPROMPT_BANK__PATH", str(tmp_path / "elsewhere"))
    assert json.loads(bank("remote", "--json").output) == [{"version": folder.first, "here": False}]
    assert bank("pull", folder.first).output == f"{folder.first}\n"
    assert BankStore(tmp_path / "elsewhere").manifest(folder.first).version == folder.first


def test_what_is_not_there_and_a_store_that_is_not_set_are_said(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "here already" in bank("pull", folder.first).output
    missing = bank("pull", "20200101T000000000Z-0123456789ab")
    assert missing.exit_code == 1
    assert "there is no version" in missing.output
    monkeypatch.delenv("ANTIPROMPT_BANK__REMOTE")
    unset = bank("push")
    assert unset.exit_code == 1
    assert "ANTIPROMPT_BANK__REMOTE" in unset.output
