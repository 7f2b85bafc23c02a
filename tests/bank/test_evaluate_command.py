"""``antiprompt evaluate`` on sets made up for the test, with the real encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from antiprompt_bank import Antiprompt, Bank, BankStore
from antiprompt_bank.report import Report
from gateway.cli import app
from gateway.commands import evaluate
from tests.bank.labelled import write_sets


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    (tmp_path / "sets").mkdir()
    return write_sets(tmp_path / "sets")


@pytest.fixture(autouse=True)
def small(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bank_cache: Path, small_bank: Bank, exemplars: list[Antiprompt]
) -> None:
    """A bank of a handful of exemplars in force, and as the seed of the folds; the encoder is exported once."""
    store = BankStore(tmp_path / "banks")
    store.publish(store.save(small_bank))
    monkeypatch.setenv("ANTIPROMPT_BANK__PATH", str(store.root))
    monkeypatch.setenv("ANTIPROMPT_DATA_DIR", str(bank_cache / "data"))
    monkeypatch.setattr(evaluate, "seed_records", lambda: exemplars)
    monkeypatch.setattr(evaluate, "calibration_records", list)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "200"})


def test_a_fold_is_measured_and_written(sets: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    target = tmp_path / "report.json"
    done = run("--data", sets, "--folds", "second", "--rows", 8, "--quick", "--json", target)
    assert done.exit_code == 0, done.output
    written = json.loads(target.read_bytes())
    assert written["protocol"] == "leave-source-out"
    assert [fold["name"] for fold in written["folds"]] == ["second"]
    assert written["options"]["rows"] == 8
    assert "python" in written["versions"]
    assert written["marks"]
    report = Report.from_json(written)
    assert report.folds[0].measured["goals_b"] == 8
    assert "goals_b" in done.output
    assert "block-all" in done.output


def test_the_bank_in_force_is_measured_as_it_is(sets: Path, tmp_path: Path, small_bank: Bank) -> None:
    target = tmp_path / "report.json"
    done = run("--data", sets, "--protocol", "shipped", "--rows", 4, "--quick", "--no-baselines", "--json", target)
    assert done.exit_code == 0, done.output
    (fold,) = json.loads(target.read_bytes())["folds"]
    assert fold["bank"] == small_bank.version
    assert list(fold["methods"]) == ["bank"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--folds", "third"], "there is no fold 'third'"),
        (["--json", "/nowhere/at/all.json"], "there is no folder /nowhere/at"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(sets: Path, arguments: list[str], said: str) -> None:
    done = run("--data", sets, *arguments)
    assert done.exit_code == 1
    assert said in " ".join(done.output.split())


def test_a_missing_adapter_is_named(sets: Path, tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    done = run("--data", sets, "--adapters", tmp_path / "adapters")
    assert done.exit_code == 1
    assert "no adapter for first, second" in " ".join(done.output.split())
