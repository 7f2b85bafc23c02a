"""A fit keeps its promise over many draws, keeps the order of risks, and says when it can promise nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from antiprompt_bank import BankCorrupt, BankNotFound, Score
from antiprompt_bank.conformal import (
    LEAST,
    MOST,
    Anchors,
    Fit,
    anchors_of,
    bound,
    needed,
    pooled_threshold,
    rate,
    read_fit,
    save_fit,
    threshold_for,
)
from antiprompt_bank.seeding import calibration_records, seed_records

Risks = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Risks]

ANCHORS = Anchors(medium=0.6, high=0.8, n_own=1000, n_shipped=0, promise=True, high_promise=True)
FIT = Fit("bank-1", "encoder-1", 0.01, "2026-11-25T12:00:00+00:00", {"request": ANCHORS}, {"mine.jsonl": "ab" * 32})


def sigmoids(rng: np.random.Generator, n: int, shift: float = 0.0) -> Risks:
    """What a detector gives harmless texts: mostly low, with a tail."""
    return 1 / (1 + np.exp(-(rng.normal(-3, 1.2, n) + shift)))


def steps(rng: np.random.Generator, n: int) -> Risks:
    """A few risks that many texts share, none at all for most."""
    return rng.choice([0.0, 0.2, 0.4, 0.6, 0.8], n, p=[0.9, 0.06, 0.025, 0.01, 0.005])


def zeros(rng: np.random.Generator, n: int) -> Risks:
    return np.zeros(n)


# ---- The promise.


@pytest.mark.parametrize("draw", [sigmoids, steps, zeros])
@pytest.mark.parametrize(("n", "alpha"), [(99, 0.01), (150, 0.01), (400, 0.01), (19, 0.05), (250, 0.05)])
def test_over_many_draws_the_next_harmless_text_passes_as_rarely_as_promised(draw: Draw, n: int, alpha: float) -> None:
    rng = np.random.default_rng(n)
    of_all = np.sort(draw(rng, 200_000))
    found = []
    for _ in range(1000):
        threshold = threshold_for(draw(rng, n), alpha)
        assert threshold is not None
        found.append(1 - np.searchsorted(of_all, threshold) / len(of_all))
    error = np.std(found) / math.sqrt(len(found))
    assert np.mean(found) <= alpha + 3 * error + 1e-4
    if draw is sigmoids:  # and not by giving up: without ties, most of alpha is used
        assert np.mean(found) >= alpha - 1 / (n + 1) - 3 * error - 1e-4


@given(st.integers(0, 2**32), st.integers(99, 400), st.sampled_from([1, 2, 3, 16]))
def test_the_threshold_is_the_smallest_that_keeps_the_bound(seed: int, n: int, digits: int) -> None:
    risks = np.random.default_rng(seed).random(n).round(digits)  # few digits: many ties
    threshold = threshold_for(risks, 0.01)
    assert threshold is not None
    assert bound(risks, threshold) <= 0.01 + 1e-12
    assert bound(risks, threshold - 2.5e-6) > 0.01
    assert not np.any(np.abs(risks - threshold) < 4e-7)  # so that they stay apart when they are mapped


def test_texts_of_equal_risk_pass_together_or_not_at_all() -> None:
    risks = np.array([0.1] * 180 + [0.7] * 20)
    threshold = threshold_for(risks, 0.01)
    assert threshold == pytest.approx(0.7, abs=2e-6)
    assert rate(risks, threshold) == 0
    assert threshold_for(risks, 0.15) == pytest.approx(0.1, abs=2e-6)


@pytest.mark.parametrize(("alpha", "texts"), [(0.01, 99), (0.001, 999), (0.05, 19), (0.3, 3), (0.015, 66)])
def test_how_many_texts_a_promise_takes(alpha: float, texts: int) -> None:
    assert needed(alpha) == texts
    assert threshold_for(np.zeros(texts), alpha) is not None
    assert threshold_for(np.zeros(texts - 1), alpha) is None


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, math.nan])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha is"):
        needed(alpha)


# ---- Few texts.


def test_twenty_own_texts_help_where_own_traffic_looks_riskier() -> None:
    rng = np.random.default_rng(1)
    shipped = sigmoids(rng, 1000)
    of_all = np.sort(sigmoids(rng, 200_000, shift=1.5))

    def passing(threshold: float) -> float:
        return 1 - float(np.searchsorted(of_all, threshold)) / len(of_all)

    unfitted = passing(pooled_threshold(np.array([]), shipped, 0.01))
    fitted = np.mean([passing(pooled_threshold(sigmoids(rng, 20, shift=1.5), shipped, 0.01)) for _ in range(500)])
    assert unfitted > 0.1
    assert fitted < unfitted / 2


def test_twenty_own_texts_do_no_harm_where_own_traffic_is_like_the_shipped_set() -> None:
    rng = np.random.default_rng(2)
    shipped, of_all = sigmoids(rng, 1000), np.sort(sigmoids(rng, 200_000))
    thresholds = [pooled_threshold(sigmoids(rng, 20), shipped, 0.01) for _ in range(500)]
    passing = 1 - np.searchsorted(of_all, thresholds) / len(of_all)
    assert 0.006 <= np.mean(passing) <= 0.014


def test_pooling_goes_over_into_the_promised_threshold() -> None:
    rng = np.random.default_rng(3)
    own, shipped = sigmoids(rng, 99), sigmoids(rng, 1000)
    assert pooled_threshold(own, shipped, 0.01) == threshold_for(own, 0.01)
    nothing = np.array([])
    assert rate(shipped, pooled_threshold(nothing, shipped, 0.01)) == pytest.approx(0.01)
    assert pooled_threshold(nothing, nothing, 0.01) == pytest.approx(0.5, abs=1e-6)
    assert pooled_threshold(np.array([0.7]), nothing, 0.01) == pytest.approx(0.7, abs=2e-6)


def test_too_few_texts_are_said_and_counted() -> None:
    rng = np.random.default_rng(4)
    shipped = sigmoids(rng, 300)
    few, enough, many = (anchors_of(sigmoids(rng, n), shipped, 0.01) for n in (98, 99, 999))
    assert (few.promise, few.high_promise, few.n_own, few.n_shipped) == (False, False, 98, 300)
    assert (enough.promise, enough.high_promise, enough.n_own, enough.n_shipped) == (True, False, 99, 0)
    assert (many.promise, many.high_promise) == (True, True)


# ---- Anchors.


def test_the_anchors_keep_their_bound_as_risks_that_policies_read() -> None:
    rng = np.random.default_rng(5)
    risks = sigmoids(rng, 1200, shift=2)
    anchors = anchors_of(risks, (), 0.01)
    fitted = np.array([anchors.risk(risk) for risk in risks])
    assert rate(fitted, 0.5) == rate(risks, anchors.medium) > 0
    assert bound(fitted, 0.5) <= 0.01
    assert bound(fitted, 0.9) <= 0.001
    assert anchors.risk(anchors.medium) == 0.5
    assert anchors.risk(anchors.high) == 0.9


def test_without_a_promise_for_it_high_keeps_its_distance() -> None:
    anchors = anchors_of([0.3] * 200, (), 0.01)
    assert anchors.medium == pytest.approx(0.3, abs=2e-6)
    assert math.log(anchors.high / (1 - anchors.high)) - math.log(0.3 / 0.7) == pytest.approx(math.log(9), abs=1e-4)


@pytest.mark.parametrize("risk", [0.95, 0.97, 1.0])
def test_what_repeats_an_exemplar_stays_within_reach_whatever_is_fitted(risk: float) -> None:
    anchors = anchors_of([risk] * 1000, (), 0.01)
    assert not anchors.promise
    assert not anchors.high_promise
    assert anchors.high <= MOST
    for raw in (0.95, 0.97, 1.0):
        assert anchors.risk(raw) == raw


def test_what_is_cleared_stays_clear_when_a_fit_makes_stricter() -> None:
    anchors = anchors_of([0.0] * 2000, (), 0.01)
    assert anchors.medium == LEAST
    assert anchors.promise
    assert anchors.risk(0.05) < 0.5
    assert anchors.risk(0.0) == 0


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
    st.integers(1, 400),
    st.sampled_from([0.001, 0.01, 0.05, 0.3]),
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
)
def test_no_fit_changes_the_order_of_risks(own: list[float], times: int, alpha: float, raw: list[float]) -> None:
    anchors = anchors_of(own * times, own, alpha)
    ordered = sorted([*raw, anchors.medium, anchors.high, 0.95, 0.9499999])
    fitted = [anchors.risk(risk) for risk in ordered]
    assert all(0 <= risk <= 1 for risk in fitted)
    assert all(before <= after for before, after in pairwise(fitted))
    for before, after, risk, larger in zip(ordered, ordered[1:], fitted, fitted[1:], strict=False):
        assert risk < larger or after - before < 1e-9
    assert all(risk >= 0.95 for risk, before in zip(fitted, ordered, strict=True) if before >= 0.95)


def test_what_is_no_number_stays_none_so_that_policy_takes_it_for_a_risk() -> None:
    assert math.isnan(ANCHORS.risk(math.nan))


def test_bad_material_is_refused() -> None:
    for own in ([], [0.2, 1.5], [math.nan]):
        with pytest.raises(ValueError, match=r"no text|not in"):
            anchors_of(own, (), 0.01)
    with pytest.raises(ValueError, match="anchors are"):
        Anchors(0.8, 0.6, 1, 0, promise=False, high_promise=False)


# ---- Fits.


def test_a_fit_moves_all_hazards_of_a_side_alike_and_leaves_the_other_side_alone() -> None:
    score = Score(0.7, "hate", {"hate": 0.7, "privacy": 0.3}, (), "raw", 0, 4, 1)
    fitted = FIT.applied(score, "request")
    assert fitted.hazard == "hate"
    assert fitted.risk == fitted.risks["hate"] == ANCHORS.risk(0.7)
    assert fitted.risks["privacy"] == ANCHORS.risk(0.3)
    assert FIT.applied(score, "response") is score


def test_a_fit_belongs_to_one_version_and_one_encoder() -> None:
    assert FIT.belongs_to("bank-1", "encoder-1")
    assert not FIT.belongs_to("bank-2", "encoder-1")
    assert not FIT.belongs_to("bank-1", "encoder-1+adapter")


def test_a_fit_is_the_same_after_a_trip_over_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "new" / "calibration.json"
    save_fit(FIT, path)
    assert read_fit(path) == FIT
    save_fit(replace(FIT, bank="bank-2"), path)
    assert read_fit(path).bank == "bank-2"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_fit_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "calibration.json"
    save_fit(FIT, path)

    def full(handle: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_fit(replace(FIT, bank="bank-2"), path)
    assert read_fit(path) == FIT
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"alpha": 2},
        {"alpha": "0.01"},
        {"sides": {"both": {}}},
        {"sides": {"request": {"medium": 0.5}}},
        {"sides": {"request": {**FIT.to_json()["sides"]["request"], "medium": 0.99}}},
        {"sides": {"request": {**FIT.to_json()["sides"]["request"], "medium": "0.5"}}},
        {"sides": 3},
    ],
)
def test_a_file_that_holds_no_fit_is_refused_by_its_name(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({**FIT.to_json(), **change}), "utf-8")
    with pytest.raises(BankCorrupt, match=r"calibration\.json is not a calibration"):
        read_fit(path)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    with pytest.raises(BankNotFound, match="antiprompt calibrate"):
        read_fit(path)
    for content in ("", "[]", "3", '{"format": 1}', "\x00"):
        path.write_text(content, "utf-8")
        with pytest.raises(BankCorrupt):
            read_fit(path)


# ---- What ships.


def test_the_calibration_set_is_harmless_has_both_sides_and_is_in_no_bank() -> None:
    found = calibration_records()
    assert {record.side for record in found} == {"request", "response"}
    assert not any(record.harmful for record in found)
    assert not {record.id for record in found} & {record.id for record in seed_records()}
