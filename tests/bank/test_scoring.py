from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiprompt_bank import Antiprompt, Label
from antiprompt_bank.calibration import Curve
from antiprompt_bank.neighbours import FARTHEST, Neighbours
from antiprompt_bank.scoring import REPETITION_RISK, HazardTable, Radii, nearest, score_of, window_risks

CURVE = Curve(harmful=40.0, benign=25.0, bias=-4.0, neighbours=4, fitted_on=100)
UNFITTED = Curve()
NO_VECTORS = np.zeros((1, 4), dtype=np.float32)

RECORDS = [
    *(
        Antiprompt(text=f"harm {n}", label=Label.HARMFUL, side="request", hazard="hate" if n < 3 else "privacy")
        for n in range(6)
    ),
    *(Antiprompt(text=f"good {n}", label=Label.BENIGN, side="request", hazard="hate") for n in range(6)),
]
HAZARDS = HazardTable.of(RECORDS)
BACKGROUND = 0.3
RADIUS = 0.88  # in closeness
RADII = Radii.of(RECORDS, np.full(len(RECORDS), RADIUS * (1 - BACKGROUND) + BACKGROUND))


def found(closeness: list[float], *, benign: bool = False, background: float = BACKGROUND) -> Neighbours:
    """One window's neighbours of these closenesses; harmful records 0-5, benign ones 6-11."""
    padded = np.array([[*closeness, *[FARTHEST] * (6 - len(closeness))]])
    record = np.array([[at + 6 * benign if at < len(closeness) else -1 for at in range(6)]])
    return Neighbours(
        padded, np.where(record < 0, -1.0, padded * (1 - background) + background), record, np.array([FARTHEST])
    )


def risk_of(harmful: list[float], benign: list[float], curve: Curve = CURVE) -> float:
    near, far = found(harmful), found(benign, benign=True)
    return float(window_risks(near, far, curve, HAZARDS, NO_VECTORS, None, RADII).max(initial=0.0))


def test_each_exemplar_has_a_radius_of_its_own() -> None:
    near, far = found([0.7]), found([0.1], benign=True)
    wide = Radii(RADII.radius.copy(), RADII.closer)
    wide.radius[0] = 0.75  # similarity 0.79 is inside
    for radii, least, most in ((RADII, 0.0, 0.0), (wide, REPETITION_RISK, 1.0)):
        risk = float(window_risks(near, far, UNFITTED, HAZARDS, NO_VECTORS, None, radii).max(initial=0.0))
        assert least <= risk <= most


def test_a_leaning_to_harm_counts_where_nothing_is_near() -> None:
    leans = Curve(harmful=8.0, benign=8.0, bias=0.0, neighbours=4, leaning_weight=1.0, fitted_on=100)
    vectors = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    near = Neighbours(*(np.repeat(part, 2, axis=0) for part in _parts(found([0.2]))))
    far = Neighbours(*(np.repeat(part, 2, axis=0) for part in _parts(found([0.2], benign=True))))
    leaning = np.array([[5.0, 0.0], [-5.0, 0.0]])
    risks = window_risks(near, far, leans, HAZARDS, vectors, leaning, RADII).max(axis=1)
    assert risks[0] > 0.95
    assert risks[1] < 0.05


def _parts(neighbours: Neighbours) -> tuple[np.ndarray, ...]:
    return neighbours.closeness, neighbours.similarity, neighbours.record, neighbours.beyond


def test_what_repeats_a_harmful_exemplar_is_risky_even_without_a_curve() -> None:
    assert risk_of([1.0], [0.5], UNFITTED) == pytest.approx(1.0)
    assert REPETITION_RISK <= risk_of([RADIUS + 0.01], [0.2], UNFITTED) < 1.0


def test_what_is_only_like_a_harmful_exemplar_is_left_to_the_curve() -> None:
    assert risk_of([RADIUS - 0.01], [0.2], UNFITTED) == 0.0


def test_a_benign_exemplar_that_is_as_near_takes_the_repetition_away() -> None:
    assert risk_of([0.97], [0.97], UNFITTED) == 0.0
    assert risk_of([0.97], [0.96], UNFITTED) == 0.0


def test_what_repeats_a_benign_exemplar_passes_though_all_around_is_harm() -> None:
    assert risk_of([0.9] * 6, [0.2]) > 0.9
    assert risk_of([0.9] * 6, [1.0]) <= 0.05


def test_a_twin_of_nearly_the_same_vector_does_not_hide_the_exemplar_itself() -> None:
    assert risk_of([1.0], [0.985], UNFITTED) >= REPETITION_RISK
    assert risk_of([0.985], [1.0]) <= 0.05


@given(st.lists(st.floats(FARTHEST, -0.1), min_size=1, max_size=6), st.lists(st.floats(FARTHEST, 1.0), max_size=6))
def test_what_is_farther_from_harm_than_unrelated_texts_has_no_risk(harmful: list[float], benign: list[float]) -> None:
    always = Curve(harmful=40.0, benign=0.0, bias=40.0, neighbours=4, fitted_on=100)
    assert risk_of(sorted(harmful, reverse=True), sorted(benign, reverse=True), always) == 0.0


def test_a_bank_without_neighbours_finds_nothing() -> None:
    assert risk_of([], []) == 0.0


@given(st.lists(st.floats(FARTHEST, 1.0), min_size=1, max_size=6), st.lists(st.floats(FARTHEST, 1.0), max_size=6))
def test_risks_are_between_0_and_1_and_the_whole_risk_goes_to_one_hazard(
    harmful: list[float], benign: list[float]
) -> None:
    near, far = found(sorted(harmful, reverse=True)), found(sorted(benign, reverse=True), benign=True)
    risks = window_risks(near, far, CURVE, HAZARDS, NO_VECTORS, None, RADII)
    assert risks.shape == (1, 2)
    assert ((risks >= 0) & (risks <= 1)).all()


def test_the_hazard_is_the_one_that_most_of_the_closest_exemplars_name() -> None:
    near, far = found([0.6, 0.6, 0.6, 0.6, 0.2]), found([], benign=True)
    risks = window_risks(near, far, CURVE, HAZARDS, NO_VECTORS, None, RADII)[0]
    by_slug = dict(zip(HAZARDS.slugs, risks.tolist(), strict=True))
    assert by_slug["hate"] > by_slug["privacy"] > 0
    assert by_slug["privacy"] == pytest.approx(by_slug["hate"] / 3, rel=0.05)


def test_a_score_names_the_largest_risk_and_leaves_out_the_smallest() -> None:
    assert score_of(np.array([0.2, 0.7]), ("hate", "privacy")) == (0.7, "privacy", {"privacy": 0.7, "hate": 0.2})
    assert score_of(np.array([0.0005, 0.0]), ("hate", "privacy")) == (0.0, None, {})


def test_the_exemplars_behind_a_risk_are_named_best_first_harmful_and_benign() -> None:
    behind = nearest(found([0.6, 0.2]), found([0.4], benign=True), 0, RECORDS)
    assert [(neighbour.id, neighbour.harmful) for neighbour in behind] == [
        (RECORDS[0].id, True),
        (RECORDS[6].id, False),
        (RECORDS[1].id, True),
    ]
    assert behind[0].similarity == pytest.approx(0.6 * 0.7 + 0.3)
    assert behind[0].hazard == "hate"
