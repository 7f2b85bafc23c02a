from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiprompt_bank.calibration import Curve
from antiprompt_bank.fitting import (
    Exemplars,
    backgrounds,
    direction_of,
    fit_answer_curve,
    fit_request_curve,
    fit_trained_curve,
)
from antiprompt_bank.neighbours import Neighbours, Rows


def at(closeness: np.ndarray, count: int = 32) -> Neighbours:
    """Windows whose neighbours are all equally close."""
    values = np.repeat(np.asarray(closeness, dtype=float)[:, None], count, axis=1)
    return Neighbours(values, values, np.tile(np.arange(count), (len(values), 1)), np.full(len(values), -0.5))


def exemplars(
    *, harm_shift: float = 0.3, of_each: int = 100, everyday: int = 100, everyday_shift: float = -0.5, seed: int = 0
) -> Exemplars:
    """Harmful windows first, then look-alikes, then everyday ones, in families of one of each.

    Each is nearer to its own label by ``harm_shift``, everyday ones nearer to harm by ``everyday_shift``. The first of
    three dimensions of the vectors says on which side a window is: 0.5 for harm, -0.5 for look-alikes, with noise.
    """
    random = np.random.default_rng(seed)
    count = 2 * of_each + everyday
    is_harmful, is_everyday = np.arange(count) < of_each, np.arange(count) >= 2 * of_each
    is_lookalike = ~is_harmful & ~is_everyday
    to_harm = random.normal(0.2, 0.1, count) + harm_shift * is_harmful + everyday_shift * is_everyday
    to_good = random.normal(0.2, 0.1, count) + harm_shift * is_lookalike
    vectors = random.normal(0, 0.3, (count, 3)) + np.outer(0.5 * is_harmful - 0.5 * is_lookalike, [1, 0, 0])
    return Exemplars(
        at(to_harm), at(to_good), vectors.astype(np.float32), np.arange(count) % of_each, is_harmful, is_everyday
    )


def risks(curve: Curve, known: Exemplars) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The risks of the harmful windows, the look-alikes and the everyday ones."""
    risk = curve.risk(known.harmful, known.benign, known.vectors, None)
    return risk[known.is_harmful], risk[known.is_lookalike], risk[known.is_everyday]


def test_risk_one_half_and_nine_tenths_are_where_the_stated_shares_of_look_alikes_pass() -> None:
    known = exemplars()
    _, lookalikes, everyday = risks(fit_request_curve(known), known)
    assert np.mean(lookalikes >= 0.5) == pytest.approx(0.15, abs=0.011)
    assert np.mean(lookalikes >= 0.9) == pytest.approx(0.08, abs=0.011)
    assert np.mean(everyday >= 0.5) <= 0.05


def test_everyday_exemplars_have_a_stricter_bound_of_their_own() -> None:
    known = exemplars(everyday_shift=0.0)
    _, lookalikes, everyday = risks(fit_request_curve(known), known)
    assert np.mean(everyday >= 0.5) == pytest.approx(0.05, abs=0.011)
    assert np.mean(everyday >= 0.9) == pytest.approx(0.01, abs=0.011)
    assert np.mean(lookalikes >= 0.5) < 0.15


def test_an_answer_is_told_from_its_look_alike_by_stance_where_nearness_cannot() -> None:
    known = exemplars(harm_shift=0.0)
    curve = fit_answer_curve(known)
    harmful, lookalikes, everyday = risks(curve, known)
    assert len(curve.stance) == 3
    assert abs(curve.stance[0]) > 3 * max(abs(curve.stance[1]), abs(curve.stance[2]))
    assert np.mean(harmful >= 0.5) > 0.6
    assert np.mean(lookalikes >= 0.5) < 0.2
    assert np.mean(everyday >= 0.5) <= 0.05
    asked_of_nearness, _, _ = risks(fit_request_curve(known), known)
    assert np.mean(asked_of_nearness >= 0.5) < 0.3


def test_the_recall_that_a_curve_states_is_that_of_the_exemplars_it_was_fitted_on() -> None:
    known = exemplars()
    curve = fit_request_curve(known)
    harmful, _, _ = risks(curve, known)
    assert curve.recall == pytest.approx((np.mean(harmful >= 0.5), np.mean(harmful >= 0.9)))
    assert curve.recall[0] > 0.9
    assert curve.fitted_on == 300


def test_the_stance_of_an_exemplar_is_judged_without_its_family() -> None:
    known = exemplars(harm_shift=0.0)
    noise = np.random.default_rng(1).normal(size=(300, 200)).astype(np.float32)
    # With as many dimensions as exemplars a direction can learn each by heart; left out, it knows nothing of them.
    curve = fit_answer_curve(replace(known, vectors=noise))
    assert curve.recall[0] < 0.4


@pytest.mark.parametrize("fit", [fit_request_curve, fit_answer_curve])
@pytest.mark.parametrize("few", [{"of_each": 23}, {"everyday": 23}])
def test_too_few_exemplars_of_a_kind_give_no_curve(fit: object, few: dict[str, int]) -> None:
    assert fit(exemplars(**few)) == Curve()  # type: ignore[operator, arg-type]


def test_exemplars_that_cannot_be_told_apart_give_no_recall_that_chance_would_not() -> None:
    known = exemplars(harm_shift=0.0)
    harmful, _, _ = risks(fit_request_curve(known), known)
    assert np.mean(harmful >= 0.9) < 0.2


@given(st.integers(0, 1000), st.floats(0, 0.4))
def test_going_away_from_everything_never_raises_the_risk(seed: int, shift: float) -> None:
    for fit in (fit_request_curve, fit_answer_curve):
        curve = fit(exemplars(harm_shift=shift, of_each=30, everyday=30, everyday_shift=0.0, seed=seed))
        vector = np.ones((1, 3), dtype=np.float32)
        near = curve.risk(at(np.array([0.3])), at(np.array([0.3])), vector, None)
        far = curve.risk(at(np.array([-0.2])), at(np.array([-0.2])), vector, None)
        assert far <= near
        assert curve.harmful >= curve.benign >= 0


LABELS = np.array([True, False] * 3)


def rows_of(count: int) -> Rows:
    return Rows(np.arange(count, dtype=np.int32), np.zeros(count, dtype=bool))


def test_a_background_is_the_similarity_to_texts_of_another_family_hazard_and_label() -> None:
    place = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 1, 1]]  # two places, each with three rows
    families, hazards = np.arange(6), np.array([0, 0, 0, 1, 1, 1])
    shelves = ["request"] * 6
    np.testing.assert_allclose(backgrounds(place, rows_of(6), shelves, families, hazards, LABELS), 0.0)
    mixed = backgrounds(place, rows_of(6), shelves, families, np.array([0, 1, 2, 0, 1, 2]), LABELS)
    # In each place the row in the middle has the other label: it has two such neighbours, the others one each.
    np.testing.assert_allclose(mixed, np.array([1, 2, 1, 1, 2, 1]) / 6, atol=1e-3)
    np.testing.assert_allclose(backgrounds(place, rows_of(6), shelves, np.zeros(6), np.arange(6), LABELS), 0.0)


def test_rows_of_different_shelves_are_no_background_of_each_other() -> None:
    same = np.ones((6, 1), dtype=np.float32)
    apart = ["request" if label else "answer" for label in LABELS]
    np.testing.assert_allclose(backgrounds(same, rows_of(6), apart, np.arange(6), np.arange(6), LABELS), 0.0)


def test_a_background_never_reaches_one() -> None:
    same = np.ones((20, 1), dtype=np.float32)
    found = backgrounds(same, rows_of(20), ["request"] * 20, np.arange(20), np.arange(20), np.arange(20) % 2 == 0)
    np.testing.assert_allclose(found, 0.95)


def test_a_direction_points_from_the_harmless_to_the_harmful_however_few_these_are() -> None:
    random = np.random.default_rng(0)
    harmful = np.arange(30_000) % 20 == 0
    vectors = random.normal(0, 0.3, (30_000, 5)) + np.outer(np.where(harmful, 0.5, -0.5), [1, 0, 0, 0, 0])
    direction = direction_of(vectors.astype(np.float32), harmful)
    said = vectors @ direction[:-1] + direction[-1]
    assert direction.shape == (6,)
    assert direction[0] > 3 * np.abs(direction[1:-1]).max()
    assert np.mean(said[harmful] > 0) == pytest.approx(np.mean(said[~harmful] < 0), abs=0.03)
    assert (direction_of(vectors.astype(np.float32), np.ones(30_000, dtype=bool)) == 0).all()


def test_with_an_adapter_the_line_holds_what_the_bank_s_own_vectors_say() -> None:
    known = replace(exemplars(harm_shift=0.0, everyday_shift=0.0), leaning=np.zeros((300, 2)))
    direction = direction_of(known.vectors, known.is_harmful)
    curve = fit_trained_curve(known, None, "response", direction)
    without = fit_trained_curve(known, None, "response", np.zeros_like(direction))
    told_apart, by_chance = (
        np.mean(harm[:, None] > alike[None, :]) for harm, alike, _ in (risks(curve, known), risks(without, known))
    )
    assert told_apart > 0.75
    assert by_chance == pytest.approx(0.5, abs=0.1)
    assert Curve(**{**asdict(curve)}) == curve
    assert len(curve.direction) == 4
