from __future__ import annotations

import numpy as np
import pytest

from antiprompt_bank.index_faiss import CoarseIndex, FaissGpuIndex, FlatIndex, faiss_on_gpu
from tests.vectors import Clusters

ROWS = 24_000


@pytest.fixture(scope="module")
def clusters() -> Clusters:
    return Clusters(ROWS)


@pytest.fixture(scope="module")
def stored(clusters: Clusters) -> np.ndarray:
    return clusters.vectors()


@pytest.fixture(scope="module")
def queries(clusters: Clusters) -> np.ndarray:
    return clusters.others(100)


@pytest.fixture(scope="module")
def coarse(stored: np.ndarray) -> CoarseIndex:
    return CoarseIndex(stored)


def recall(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.mean([np.isin(mine, theirs).mean() for mine, theirs in zip(expected, found, strict=True)]))


@pytest.mark.parametrize("count", [1, 8, 32, 100])
def test_the_first_pass_loses_almost_nothing(
    coarse: CoarseIndex, stored: np.ndarray, queries: np.ndarray, count: int
) -> None:
    expected, expected_row = FlatIndex(stored).search(queries, count)
    similarity, row = coarse.search(queries, count)
    assert recall(row, expected_row) >= 0.99
    exact = np.einsum("nd,nkd->nk", queries, stored[row])
    np.testing.assert_allclose(similarity, exact, rtol=1e-5, atol=1e-5)
    assert (np.diff(similarity, axis=1) <= 0).all()
    # Nothing is lost far from the border: what came in its place is nearly as near.
    assert (expected - similarity).max() < 0.05


def test_a_copy_of_what_is_stored_is_found_before_all_else(coarse: CoarseIndex, stored: np.ndarray) -> None:
    copies = np.arange(0, ROWS, 200)
    _, row = coarse.search(stored[copies], 1)
    assert row[:, 0].tolist() == copies.tolist()


def test_an_answer_depends_on_nothing_but_vectors_and_query(
    coarse: CoarseIndex, stored: np.ndarray, queries: np.ndarray
) -> None:
    together, row = coarse.search(queries[:40], 32)
    again, again_row = CoarseIndex(stored).search(queries[:40], 32)
    assert (row == again_row).all()
    assert (together == again).all()
    for at in range(40):
        alone, alone_row = coarse.search(queries[at : at + 1], 32)
        assert (alone_row[0] == row[at]).all()
        np.testing.assert_allclose(alone[0], together[at], rtol=1e-6, atol=1e-6)


def test_fewer_rows_than_asked_for_are_followed_by_none() -> None:
    stored = Clusters(40).vectors()
    _, row = CoarseIndex(stored).search(stored[:3], 50)
    assert np.sort(row[:, :40], axis=1).tolist() == [list(range(40))] * 3
    assert (row[:, 40:] == -1).all()


@pytest.mark.skipif(not faiss_on_gpu(), reason="this FAISS has no GPU to search on")
def test_a_gpu_finds_the_same_rows(stored: np.ndarray, queries: np.ndarray) -> None:
    similarity, row = FaissGpuIndex(stored).search(queries, 32)
    expected, expected_row = FlatIndex(stored).search(queries, 32)
    assert (row == expected_row).mean() > 0.999
    np.testing.assert_allclose(similarity, expected, rtol=1e-4, atol=1e-4)
