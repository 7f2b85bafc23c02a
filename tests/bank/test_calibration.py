from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiprompt_bank.calibration import Calibration, Curve, backgrounds, fit_curve
from antiprompt_bank.neighbours import SITUATIONS, Neighbours

FITTED = Curve(harmful=40.0, benign=25.0, bias=-4.0, neighbours=8, fitted_on=100, recall=(0.5, 0.2))


def at(closeness: list[float] | np.ndarray, count: int = 32) -> Neighbours:
    """Windows whose neighbours are all equally close."""
    values = np.repeat(np.asarray(closeness, dtype=float)[:, None], count, axis=1)
    return Neighbours(values, values, np.tile(np.arange(count), (len(values), 1)))


def fitted(harm_shift: float = 0.3, count: int = 200, everyday: int = 0) -> tuple[Curve, np.ndarray, np.ndarray]:
    """A curve over exemplars that are nearer to their own label by ``harm_shift``, and their risks."""
    random = np.random.default_rng(0)
    is_harmful = np.arange(count) % 2 == 0
    is_everyday = ~is_harmful & (np.arange(count) < everyday)
    to_harm = random.normal(0.2, 0.1, count) + harm_shift * is_harmful
    to_good = random.normal(0.2, 0.1, count) + harm_shift * ~is_harmful
    curve = fit_curve(at(to_harm), at(to_good), is_harmful=is_harmful, is_everyday=is_everyday)
    return curve, curve.risk(at(to_harm), at(to_good)), is_harmful


def test_risk_one_half_and_nine_tenths_are_where_the_stated_shares_of_look_alikes_pass() -> None:
    _, risk, is_harmful = fitted()
    assert np.mean(risk[~is_harmful] >= 0.5) == pytest.approx(0.15, abs=0.011)
    assert np.mean(risk[~is_harmful] >= 0.9) == pytest.approx(0.08, abs=0.011)


def test_everyday_exemplars_have_a_stricter_bound_of_their_own() -> None:
    _, risk, is_harmful = fitted(count=400, everyday=200)
    everyday = ~is_harmful & (np.arange(400) < 200)
    assert np.mean(risk[everyday] >= 0.5) <= 0.05
    assert np.mean(risk[everyday] >= 0.9) <= 0.01


def test_the_recall_that_a_curve_states_is_that_of_the_exemplars_it_was_fitted_on() -> None:
    curve, risk, is_harmful = fitted()
    assert curve.recall == (np.mean(risk[is_harmful] >= 0.5), np.mean(risk[is_harmful] >= 0.9))
    assert curve.recall[0] > 0.9


def test_too_few_exemplars_give_no_curve() -> None:
    curve, risk, _ = fitted(count=46)
    assert curve.fitted_on == 0
    assert not risk.any()


def test_exemplars_that_cannot_be_told_apart_give_no_steeper_curve_than_they_deserve() -> None:
    curve, risk, is_harmful = fitted(harm_shift=0.0)
    assert np.mean(risk[is_harmful] >= 0.9) < 0.15
    assert curve.harmful >= curve.benign >= 0


@given(st.integers(0, 1000), st.floats(0, 0.4))
def test_going_away_from_everything_never_raises_the_risk(seed: int, shift: float) -> None:
    random = np.random.default_rng(seed)
    is_harmful = random.random(80) < 0.5
    if not 24 <= is_harmful.sum() <= 56:
        return
    to_harm = random.normal(0.2, 0.1, 80) + shift * is_harmful
    to_good = random.normal(0.2, 0.1, 80)
    curve = fit_curve(at(to_harm), at(to_good), is_harmful=is_harmful, is_everyday=np.zeros(80, dtype=bool))
    near, far = curve.risk(at([0.3]), at([0.3])), curve.risk(at([-0.2]), at([-0.2]))
    assert far <= near


def test_nearer_to_harm_is_riskier_and_nearer_to_the_benign_is_safer() -> None:
    steps = np.linspace(-0.5, 1, 20)
    assert (np.diff(FITTED.risk(at(steps), at(np.full(20, 0.2)))) >= 0).all()
    assert (np.diff(FITTED.risk(at(np.full(20, 0.2)), at(steps))) <= 0).all()


def test_a_background_is_the_similarity_to_texts_of_other_families_and_hazards() -> None:
    place = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 1, 1]]  # two places, each with three rows
    shelves = ["request"] * 6
    of_one_hazard = backgrounds(place, shelves, np.arange(6), np.array([0, 0, 0, 1, 1, 1]))
    np.testing.assert_allclose(of_one_hazard, 0.0)
    mixed = backgrounds(place, shelves, np.arange(6), np.array([0, 1, 2, 0, 1, 2]))
    np.testing.assert_allclose(mixed, 2 / 6, atol=1e-3)


def test_a_calibration_is_the_same_after_a_trip_through_json() -> None:
    made = Calibration("v", "e", dict.fromkeys(SITUATIONS, FITTED), np.array([0.25, 0.5]))
    back = Calibration.from_json(json.loads(json.dumps(made.to_json())))
    assert back.curves == made.curves
    assert (back.bank, back.encoder, back.background.tolist()) == ("v", "e", [0.25, 0.5])


@pytest.mark.parametrize("damage", ["curves", "background", "bank"])
def test_a_calibration_that_lacks_a_part_is_refused(damage: str) -> None:
    row = Calibration("v", "e", dict.fromkeys(SITUATIONS, FITTED), np.zeros(1)).to_json()
    del row[damage]
    with pytest.raises(ValueError, match="not a calibration"):
        Calibration.from_json(row)
