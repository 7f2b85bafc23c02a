"""Leaning: what is read of a window's wording, and that it counts beside its vector."""

from __future__ import annotations

import numpy as np
import pytest

from antiprompt_bank.leaning import BUCKETS, Leaning, grams, lean, worded

WINDOWS = [[5, 6, 7, 6, 7], [], [5], [7, 6, 5]]


def shares(at: int) -> dict[int, float]:
    window, bucket, share = grams(WINDOWS)
    return dict(zip(bucket[window == at].tolist(), share[window == at].tolist(), strict=True))


def test_each_token_and_pair_counts_once_in_its_window() -> None:
    assert len(shares(0)) == 3 + 3  # 5 6 7, 5-6 6-7 7-6
    assert len(shares(1)) == 0
    assert len(shares(2)) == 1
    assert sum(share**2 for share in shares(0).values()) == pytest.approx(1)


def test_order_matters_and_windows_do_not_run_into_each_other() -> None:
    assert len(shares(0).keys() & shares(3).keys()) == 3 + 1  # the tokens, and 7-6
    assert shares(2).keys() < shares(3).keys()
    window, bucket, _ = grams([[1, 2], [3, 4]])
    assert len(bucket) == 6
    assert set(bucket[window == 1].tolist()) == set(grams([[3, 4]])[1].tolist())


def test_what_is_said_of_a_window_does_not_depend_on_the_others() -> None:
    wording = np.random.default_rng(0).normal(size=BUCKETS + 1).astype(np.float32)
    together = worded(WINDOWS, wording)
    alone = np.concatenate([worded([window], wording) for window in WINDOWS])
    np.testing.assert_allclose(together, alone)
    assert together[1] == pytest.approx(wording[-1])
    assert worded([], wording).shape == (0,)


def test_buckets_are_used_evenly() -> None:
    _, bucket, _ = grams([list(range(1000, 31_000))])
    assert len(set(bucket.tolist())) > 0.95 * BUCKETS * (1 - np.exp(-59_999 / BUCKETS))


def test_vector_and_wording_are_told_side_by_side() -> None:
    vectors = np.array([[1, 0], [0, 1]], dtype=np.float32)
    direction = np.array([2, -1, 0.5], dtype=np.float32)
    wording = np.zeros(BUCKETS + 1, dtype=np.float32)
    wording[grams([[9]])[1]] = 3
    ids = [[9], [10]]
    np.testing.assert_allclose(Leaning(direction).of(vectors, ids), np.column_stack([lean(vectors, direction), [0, 0]]))
    np.testing.assert_allclose(Leaning(direction, wording).of(vectors, ids), [[2.5, 3], [-0.5, 0]])
