"""Thresholds, rates with their intervals, average precision: on numbers that can be checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiprompt_bank.measures import Rate, average_precision, threshold_at


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        # Newcombe 1998, table I, method 3 (Wilson's score interval without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_intervals_are_the_published_ones(hits: int, of: int, low: float, high: float) -> None:
    found = Rate(hits, of).interval
    assert found == pytest.approx((low, high), abs=6e-5)


def test_of_no_texts_nothing_is_known() -> None:
    assert math.isnan(Rate(0, 0).share)
    assert Rate(0, 0).interval == (0.0, 1.0)
    assert Rate(0, 0).to_json()["share"] is None


@pytest.mark.parametrize(("hits", "of"), [(3, 2), (-1, 2)])
def test_more_hits_than_texts_are_refused(hits: int, of: int) -> None:
    with pytest.raises(ValueError, match=f"{hits} hits of {of} texts"):
        Rate(hits, of)


def test_a_rate_comes_back_from_json() -> None:
    assert Rate.from_json(Rate(3, 7).to_json()) == Rate(3, 7)


@given(st.integers(0, 500), st.integers(1, 500))
def test_an_interval_holds_its_share(hits: int, of: int) -> None:
    rate = Rate(min(hits, of), of)
    low, high = rate.interval
    assert 0 <= low <= rate.share + 1e-12
    assert rate.share - 1e-12 <= high <= 1


def test_one_per_cent_of_three_hundred_lets_three_pass() -> None:
    benign = np.arange(300) / 300
    threshold = threshold_at(0.01, benign)
    assert threshold == 296 / 300
    assert Rate.above(threshold, benign) == Rate(3, 300)
    assert Rate.above(threshold, np.array([0.9, 0.99, 1.0])) == Rate(2, 3)


def test_of_few_texts_none_passes() -> None:
    assert threshold_at(0.01, np.array([0.2, 0.7, 0.1])) == 0.7


def test_ties_at_the_threshold_are_not_hit() -> None:
    benign = np.array([0.0] * 97 + [0.8] * 3)
    threshold = threshold_at(0.01, benign)
    assert threshold == 0.8
    assert Rate.above(threshold, benign) == Rate(0, 100)
    assert threshold_at(0.03, benign) == 0.0
    assert Rate.above(0.0, benign) == Rate(3, 100)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.floats(0, 0.5))
def test_no_threshold_passes_its_rate_and_a_lower_one_would(scores: list[int], rate: float) -> None:
    benign = np.array(scores, dtype=np.float64)
    threshold = threshold_at(rate, benign)
    assert Rate.above(threshold, benign).hits <= rate * len(benign) + 1e-9
    assert Rate.above(threshold - 0.5, benign).hits > rate * len(benign) - 1e-6


def test_a_threshold_takes_benign_scores_and_a_rate() -> None:
    with pytest.raises(ValueError, match="needs benign scores"):
        threshold_at(0.01, np.array([]))
    with pytest.raises(ValueError, match="rate is 1"):
        threshold_at(1, np.array([0.5]))


def test_average_precision_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert average_precision(scores, np.array([True, False, True, False])) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores, np.array([True, True, False, False])) == 1.0
    assert math.isnan(average_precision(scores, np.zeros(4, dtype=bool)))


def test_texts_of_one_score_count_together_in_whatever_order() -> None:
    harmful = np.array([True, False, False, False])
    assert average_precision(np.ones(4), harmful) == 0.25
    assert average_precision(np.ones(4), harmful[::-1]) == 0.25


def test_average_precision_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    chance = np.random.default_rng(0)
    scores, harmful = chance.integers(0, 9, 200).astype(np.float64), chance.random(200) < 0.3
    assert average_precision(scores, harmful) == pytest.approx(metrics.average_precision_score(harmful, scores))
