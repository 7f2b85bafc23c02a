from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiprompt_bank.errors import BankError
from antiprompt_bank.index_faiss import FlatIndex
from antiprompt_bank.index_torch import TorchIndex
from tests.vectors import Clusters, asked, ranked

pytest.importorskip("torch")


@pytest.mark.parametrize("most_scores", [1, 100, 2**22])
@pytest.mark.parametrize("count", [1, 32, 700])
def test_it_finds_what_faiss_finds(most_scores: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiprompt_bank.index_torch._MOST_SCORES", {"cpu": most_scores})
    monkeypatch.setattr("antiprompt_bank.index_torch._MOST_QUERIES", 7)
    clusters = Clusters(600, 48)
    stored, queries = ranked(clusters.vectors()), asked(clusters.others(20))
    similarity, row = TorchIndex(stored, device="cpu").search(queries, count)
    expected, expected_row = FlatIndex(stored).search(queries, count)
    np.testing.assert_allclose(similarity, expected, rtol=1e-5, atol=1e-5)
    # Rows nearer to each other than rounding come in any order: there are some where all 600 are asked for.
    apart = np.abs(np.diff(expected, axis=1, prepend=np.inf, append=-np.inf)).clip(max=1) > 1e-5
    assert (row == expected_row)[apart[:, :-1] & apart[:, 1:]].all()
    assert (np.sort(row, axis=1) == np.sort(expected_row, axis=1)).all()


@pytest.mark.parametrize("rows", [2 * 3 * 64, 2 * 3 * 64 + 1, 1000, 4096])
def test_of_many_rows_the_groups_that_hold_the_best_are_looked_through(rows: int) -> None:
    clusters = Clusters(rows, 32)
    stored, queries = clusters.vectors(), clusters.others(40)
    queries[0], queries[1] = stored[-1], stored[0]
    similarity, row = TorchIndex(stored, device="cpu").search(queries, 3)
    expected, expected_row = FlatIndex(stored).search(queries, 3)
    np.testing.assert_allclose(similarity, expected, rtol=1e-5, atol=1e-5)
    assert (row == expected_row).mean() > 0.99


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 4))
def test_any_number_of_rows_and_queries_has_its_shape(rows: int, queries: int, count: int) -> None:
    stored, questions = np.eye(9, dtype=np.float32)[:rows], np.eye(9, dtype=np.float32)[:queries]
    index = TorchIndex(stored.reshape(rows, 9), device="cpu")
    similarity, row = index.search(questions, count)
    assert len(index) == rows
    assert similarity.shape == row.shape == (queries, count)
    assert (similarity.dtype, row.dtype) == (np.float32, np.int64)
    assert ((row >= 0).sum(axis=1) == min(count, rows)).all()


class Played:
    """What a GPU records, on a CPU: the same work on the same memory, each time."""

    made = 0

    def __init__(self, torch: Any, width: int, work: Callable[[Any], tuple[Any, Any]], stream: object) -> None:
        assert stream is None
        type(self).made += 1
        self._asked, self._work = torch.zeros(1, width), work

    def played(self, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._asked.numpy()[0, : len(query)] = query
        best, at = self._work(self._asked)
        return best[0].numpy(), at[0].numpy()


def test_one_query_alone_is_recorded_once_and_finds_the_same() -> None:
    clusters = Clusters(1000, 33)
    stored, queries = clusters.vectors(), clusters.others(20)
    Played.made = 0
    recorded, plain = TorchIndex(stored, device="cpu", recorder=Played), TorchIndex(stored, device="cpu")
    for at in range(20):
        for count in (3, 8):
            found, expected = (index.search(queries[at : at + 1], count) for index in (recorded, plain))
            np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(found[1], expected[1])
    assert Played.made == 2
    recorded.search(queries, 5)
    assert Played.made == 2


def test_where_nothing_can_be_recorded_it_is_searched_all_the_same() -> None:
    def cannot(*_: object) -> Played:
        raise RuntimeError("no graphs here")

    stored = Clusters(100, 32).vectors()
    similarity, row = TorchIndex(stored, device="cpu", recorder=cannot).search(stored[7:8], 2)
    assert row[0, 0] == 7
    assert similarity[0, 0] == pytest.approx(1, abs=1e-5)


def test_without_torch_the_message_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BankError, match=r"antiprompt-gateway\[gpu\]"):
        TorchIndex(np.eye(2, dtype=np.float32), device="cpu")
