from __future__ import annotations

import sys

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


def test_without_torch_the_message_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BankError, match=r"antiprompt-gateway\[gpu\]"):
        TorchIndex(np.eye(2, dtype=np.float32), device="cpu")
