"""A fit is used for the bank and the encoder that it was made for, and what a stale one does is a setting."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from antiprompt_bank import Bank, BankCorrupt, BankNotFound, Prepared, Score
from antiprompt_bank.conformal import Anchors, Fit, save_fit
from gateway.calibration import CalibrationInForce, CalibrationStale, calibration_for
from gateway.policy import Action, Mode, Policy, Strictness
from gateway.screening import Screener, Subject
from gateway.settings import BankSettings, ScreeningSettings, Settings
from gateway.telemetry import Metrics
from tests.gateway.scores import finding, score

ANCHORS = Anchors(medium=0.8, high=0.9, n_own=99, n_shipped=0, promise=True, high_promise=False)
FIT = Fit("bank-1", "encoder-1", 0.01, "2026-11-25T12:00:00+00:00", {"request": ANCHORS}, {})


@dataclass
class FakeBank:
    """A bank that finds the same in every text."""

    version: str = "bank-1"
    found: Score = field(default_factory=lambda: score({"hate": 0.8, "privacy": 0.3}))
    encoder: Any = field(default_factory=lambda: SimpleNamespace(id="encoder-1", runtime="numpy"))
    records: tuple[()] = ()
    base_version: str = ""

    def __post_init__(self) -> None:
        self.base_version = self.base_version or self.version

    def prepare(self, text: str, *, side: Any, prompt: str | None = None, scope: str = "") -> Prepared:
        return Prepared(side, len(text), (), (1,))

    def score_prepared(self, prepared: list[Prepared]) -> list[Score]:
        return [self.found for _ in prepared]


def bank(**fields: Any) -> Bank:
    return cast(Bank, FakeBank(**fields))


def settings(data_dir: Path, **chosen: Any) -> Settings:
    return Settings(data_dir=data_dir, bank=BankSettings(**chosen))


def test_without_a_fit_the_banks_own_calibration_is_in_force(tmp_path: Path) -> None:
    found = calibration_for(settings(tmp_path), bank())
    assert found == CalibrationInForce("shipped")
    assert found.applied(score({"hate": 0.8}), "request").risk == 0.8


def test_a_fit_of_this_bank_and_encoder_is_applied(tmp_path: Path) -> None:
    save_fit(FIT, tmp_path / "calibration.json")
    found = calibration_for(settings(tmp_path), bank())
    assert (found.status, found.stale, found.in_shadow) == ("fitted", False, False)
    fitted = found.applied(score({"hate": 0.8, "privacy": 0.3}), "request")
    assert fitted.risk == fitted.risks["hate"] == 0.5
    assert fitted.risks["privacy"] < 0.3
    assert found.applied(score({"hate": 0.8}), "response").risk == 0.8


@pytest.mark.parametrize(
    "other", [{"version": "bank-2"}, {"encoder": SimpleNamespace(id="encoder-1+adapter", runtime="numpy")}]
)
def test_a_fit_of_another_bank_or_encoder_is_never_used(tmp_path: Path, other: dict[str, Any]) -> None:
    save_fit(FIT, tmp_path / "mine.json")
    for choice, status in (("shadow", "stale_in_shadow"), ("shipped", "stale_shipped")):
        chosen = settings(tmp_path, calibration_file=tmp_path / "mine.json", on_stale_calibration=choice)
        found = calibration_for(chosen, bank(**other))
        assert (found.status, found.stale, found.fit) == (status, True, None)
        assert found.in_shadow is (choice == "shadow")
        assert "bank-1" in (found.reason or "")
    refusing = settings(tmp_path, calibration_file=tmp_path / "mine.json", on_stale_calibration="refuse")
    with pytest.raises(CalibrationStale, match="run `antiprompt calibrate` again"):
        calibration_for(refusing, bank(**other))


def test_a_bank_with_entries_added_since_keeps_the_fit_of_its_base(tmp_path: Path) -> None:
    save_fit(FIT, tmp_path / "calibration.json")
    derived = FakeBank(version="bank-1+3", base_version="bank-1")
    assert calibration_for(settings(tmp_path), cast(Bank, derived)).status == "fitted"


def test_a_fit_that_is_named_must_be_there_and_be_one(tmp_path: Path) -> None:
    named = settings(tmp_path, calibration_file=tmp_path / "mine.json")
    with pytest.raises(BankNotFound, match=r"mine\.json"):
        calibration_for(named, bank())
    (tmp_path / "mine.json").write_text("{", "utf-8")
    with pytest.raises(BankCorrupt, match=r"mine\.json"):
        calibration_for(named, bank())


# ---- Without reliance on risks.


def test_a_policy_that_only_records_decides_as_one_in_shadow() -> None:
    rules = 'rules: [{name: block, hazard: "*", side: any, risk_at_least: 0.9, action: block}]'
    plain, shadow = Policy.from_yaml(rules), Policy.from_yaml(f"mode: shadow\n{rules}")
    found = [finding(hate=0.95)]
    assert plain.decide(found).action is Action.BLOCK
    assert plain.recording().decide(found) == shadow.decide(found)
    assert [hit.rule for hit in plain.recording().decide(found).shadow] == ["block"]
    assert (plain.recording().mode, plain.recording().version) == (Mode.SHADOW, plain.version)
    assert plain.strengthened(Strictness.STRICT).recording().decide(found).action is Action.BLOCK


# ---- In the screener.


async def screened(screener: Screener, *texts: str) -> list[float]:
    found = await screener.screen([Subject(text, "request") for text in texts], tenant="t")
    return [each.risk for each in found]


async def test_scores_leave_the_screener_fitted_and_each_swap_looks_anew(tmp_path: Path) -> None:
    metrics, chosen = Metrics(), settings(tmp_path)
    screener = Screener(ScreeningSettings(), metrics, calibration_for=lambda bank: calibration_for(chosen, bank))
    screener.start()
    try:
        screener.swap(bank())
        assert await screened(screener, "a", "b") == [0.8, 0.8]
        save_fit(FIT, tmp_path / "calibration.json")
        screener.swap(bank())
        assert await screened(screener, "a", "b") == [0.5, 0.5]  # not those that were remembered
        assert metrics.registry.get_sample_value("antiprompt_calibration_stale") == 0
        screener.swap(bank(version="bank-2"))
        assert screener.calibration.in_shadow
        assert await screened(screener, "a") == [0.8]
        assert metrics.registry.get_sample_value("antiprompt_calibration_stale") == 1
    finally:
        await screener.close()


async def test_a_swap_that_is_refused_leaves_the_bank_before_it(tmp_path: Path) -> None:
    save_fit(FIT, tmp_path / "calibration.json")
    metrics, chosen = Metrics(), settings(tmp_path, on_stale_calibration="refuse")
    screener = Screener(ScreeningSettings(), metrics, calibration_for=lambda bank: calibration_for(chosen, bank))
    screener.start()
    try:
        screener.swap(bank())
        with pytest.raises(CalibrationStale):
            screener.swap(bank(version="bank-2"))
        assert screener.in_force.version == "bank-1"
        assert await screened(screener, "a") == [0.5]
        save_fit(replace(FIT, bank="bank-2"), tmp_path / "calibration.json")
        screener.swap(bank(version="bank-2"))
        assert screener.in_force.version == "bank-2"
    finally:
        await screener.close()
