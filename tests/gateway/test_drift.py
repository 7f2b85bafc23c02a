from __future__ import annotations

import pytest

from gateway.drift import BINS, drift_of

LOW = [0.05] * 80 + [0.55] * 20
HIGH = [0.05] * 20 + [0.95] * 80


def test_what_did_not_move_is_steady() -> None:
    drift = drift_of(LOW, LOW * 3)
    assert drift.index == pytest.approx(0)
    assert drift.level == "steady"
    assert (drift.cases_lately, drift.cases_before) == (100, 300)


def test_what_moved_raises_the_alarm() -> None:
    drift = drift_of(HIGH, LOW)
    assert drift.level == "alarm"
    assert drift.index == pytest.approx(drift_of(LOW, HIGH).index)


def test_a_handful_says_nothing() -> None:
    assert drift_of(HIGH[:49], LOW).level == "unknown"
    assert drift_of([], []).index is None


def test_shares_sum_to_one_and_one_has_its_place() -> None:
    drift = drift_of([0.0, 0.1, 0.99, 1.0] * 20, LOW)
    assert len(drift.lately) == BINS
    assert sum(drift.lately) == pytest.approx(1)
    assert drift.lately[-1] == pytest.approx(0.5)
