from __future__ import annotations

import json

import numpy as np
import pytest

from antiprompt_bank.calibration import MOST_WINDOWS, Calibration, Curve
from antiprompt_bank.neighbours import SITUATIONS, Neighbours

FITTED = Curve(harmful=40.0, benign=15.0, bias=-4.0, neighbours=8, fitted_on=100, recall=(0.5, 0.2))
WITH_STANCE = Curve(harmful=40.0, benign=15.0, bias=-4.0, stance=(8.0, 0.0), stance_bias=-1.0, fitted_on=100)
NO_VECTORS = np.zeros((20, 2), dtype=np.float32)


def at(closeness: list[float] | np.ndarray, count: int = 32) -> Neighbours:
    """Windows whose neighbours are all equally close."""
    values = np.repeat(np.asarray(closeness, dtype=float)[:, None], count, axis=1)
    return Neighbours(values, values, np.tile(np.arange(count), (len(values), 1)), np.full(len(values), -0.5))


def test_many_windows_lower_the_risk_of_each_up_to_a_number_of_them() -> None:
    curve = Curve(harmful=10.0, benign=10.0, bias=0.0, length_weight=0.5, fitted_on=100)
    near, far = at([0.5] * 4), at([0.3] * 4)
    length = np.array([1, 2, MOST_WINDOWS, 1000])
    risk = curve.risk(near, far, NO_VECTORS[:4], None, length)
    logit = np.log(risk / (1 - risk))
    np.testing.assert_allclose(logit, 2.0 - 0.5 * np.log([1, 2, MOST_WINDOWS, MOST_WINDOWS]))
    np.testing.assert_allclose(curve.risk(near, far, NO_VECTORS[:4], None)[0], risk[0])


def test_nearer_to_harm_is_riskier_and_nearer_to_the_benign_is_safer() -> None:
    steps, still = np.linspace(-0.5, 1, 20), np.full(20, 0.2)
    assert (np.diff(FITTED.risk(at(steps), at(still), NO_VECTORS, None)) >= 0).all()
    assert (np.diff(FITTED.risk(at(still), at(steps), NO_VECTORS, None)) <= 0).all()


def test_an_answer_must_both_be_near_harm_and_take_its_side() -> None:
    complies, refuses = np.array([[1, 0]], dtype=np.float32), np.array([[-1, 0]], dtype=np.float32)
    near, far = at([0.5]), at([-0.2])
    assert WITH_STANCE.risk(near, far, complies, None)[0] > 0.9
    assert WITH_STANCE.risk(near, far, refuses, None)[0] < 0.1
    assert WITH_STANCE.risk(far, far, complies, None)[0] < 0.1


def test_without_a_fit_there_is_no_risk() -> None:
    assert Curve().risk(at([1.0]), at([0.0]), NO_VECTORS[:1], None).tolist() == [0.0]


def test_a_calibration_is_the_same_after_a_trip_through_json() -> None:
    curves = {**dict.fromkeys(SITUATIONS, FITTED), "response": WITH_STANCE}
    made = Calibration("v", "e", curves, np.array([0.25, 0.5]), np.array([0.9]))
    back = Calibration.from_json(json.loads(json.dumps(made.to_json())))
    assert back.curves == made.curves
    assert (back.bank, back.encoder, back.background.tolist()) == ("v", "e", [0.25, 0.5])
    assert back.radius.tolist() == [0.9]


@pytest.mark.parametrize("damage", ["curves", "background", "radius", "bank"])
def test_a_calibration_that_lacks_a_part_is_refused(damage: str) -> None:
    row = Calibration("v", "e", dict.fromkeys(SITUATIONS, FITTED), np.zeros(1), np.zeros(1)).to_json()
    del row[damage]
    with pytest.raises(ValueError, match="not a calibration"):
        Calibration.from_json(row)
