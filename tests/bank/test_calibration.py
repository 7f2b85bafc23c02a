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


def fitted(
    harm_shift: float = 0.3, of_each: int = 100, everyday: int = 100, everyday_shift: float = -0.5
) -> tuple[Curve, np.ndarray, np.ndarray, np.ndarray]:
    """A curve, and the risks of the harmful exemplars, the look-alikes and the everyday ones it was fitted on.

    Exemplars are nearer to their own label by ``harm_shift``; everyday ones nearer to harm by ``everyday_shift``.
    """
    random = np.random.default_rng(0)
    count = 2 * of_each + everyday
    is_harmful, is_everyday = np.arange(count) < of_each, np.arange(count) >= 2 * of_each
    to_harm = random.normal(0.2, 0.1, count) + harm_shift * is_harmful + everyday_shift * is_everyday
    to_good = random.normal(0.2, 0.1, count) + harm_shift * (~is_harmful & ~is_everyday)
    curve = fit_curve(at(to_harm), at(to_good), is_harmful=is_harmful, is_everyday=is_everyday)
    risk = curve.risk(at(to_harm), at(to_good))
    return curve, risk[is_harmful], risk[~is_harmful & ~is_everyday], risk[is_everyday]


def test_risk_one_half_and_nine_tenths_are_where_the_stated_shares_of_look_alikes_pass() -> None:
    _, _, lookalikes, everyday = fitted()
    assert np.mean(lookalikes >= 0.5) == pytest.approx(0.15, abs=0.011)
    assert np.mean(lookalikes >= 0.9) == pytest.approx(0.08, abs=0.011)
    assert np.mean(everyday >= 0.5) <= 0.05


def test_everyday_exemplars_have_a_stricter_bound_of_their_own() -> None:
    _, _, lookalikes, everyday = fitted(everyday_shift=0.0)
    assert np.mean(everyday >= 0.5) == pytest.approx(0.05, abs=0.011)
    assert np.mean(everyday >= 0.9) == pytest.approx(0.01, abs=0.011)
    assert np.mean(lookalikes >= 0.5) < 0.15


def test_the_recall_that_a_curve_states_is_that_of_the_exemplars_it_was_fitted_on() -> None:
    curve, harmful, _, _ = fitted()
    assert curve.recall == (np.mean(harmful >= 0.5), np.mean(harmful >= 0.9))
    assert curve.recall[0] > 0.9


@pytest.mark.parametrize("few", [{"of_each": 23}, {"everyday": 23}])
def test_too_few_exemplars_of_a_kind_give_no_curve(few: dict[str, int]) -> None:
    curve, harmful, _, _ = fitted(**few)
    assert curve.fitted_on == 0
    assert not harmful.any()


def test_exemplars_that_cannot_be_told_apart_give_no_recall_that_chance_would_not() -> None:
    curve, harmful, _, _ = fitted(harm_shift=0.0)
    assert np.mean(harmful >= 0.9) < 0.2
    assert curve.harmful >= curve.benign >= 0


@given(st.integers(0, 1000), st.floats(0, 0.4))
def test_going_away_from_everything_never_raises_the_risk(seed: int, shift: float) -> None:
    random = np.random.default_rng(seed)
    is_harmful, is_everyday = np.arange(90) < 30, np.arange(90) >= 60
    to_harm = random.normal(0.2, 0.1, 90) + shift * is_harmful
    to_good = random.normal(0.2, 0.1, 90)
    curve = fit_curve(at(to_harm), at(to_good), is_harmful=is_harmful, is_everyday=is_everyday)
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
