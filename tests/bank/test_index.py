from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiprompt_bank.errors import BankError
from antiprompt_bank.index import EXACT_ROWS, Index, device_beside, kind_for
from tests.vectors import ranked


def unit(seed: int, count: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 24)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 40), st.integers(1, 12))
def test_the_rows_found_are_exactly_the_nearest_ones(seed: int, rows: int, queries: int, count: int) -> None:
    stored, asked = unit(seed, rows), unit(seed + 1, queries)
    similarity, row = Index(stored).search(asked, count)
    every = asked @ stored.T
    expected = -np.sort(-every, axis=1)[:, :count]
    within = min(count, rows)
    np.testing.assert_allclose(similarity[:, :within], expected, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(every, row[:, :within], axis=1), expected, atol=1e-5)
    assert (row[:, within:] == -1).all()


def test_all_rows_are_compared_exactly_while_they_are_few_and_always_on_a_gpu() -> None:
    few, many = unit(0, EXACT_ROWS), unit(1, EXACT_ROWS + 1)
    assert Index(few).kind == "flat"
    index = Index(many)
    assert (index.kind, len(index)) == ("coarse", len(many))
    for vectors in (few, many):
        assert kind_for(vectors, "cuda", faiss_gpu=True) == "faiss-gpu"
        assert kind_for(vectors, "cuda", faiss_gpu=False) == "torch"


def test_vectors_of_different_lengths_are_compared_exactly_however_many_they_are() -> None:
    assert kind_for(ranked(unit(0, EXACT_ROWS + 1)), "cpu", faiss_gpu=False) == "flat"


def test_vectors_are_searched_where_they_are_made() -> None:
    assert device_beside("torch-cuda-bf16") == device_beside("torch-cuda-features") == "cuda"
    assert device_beside("torch-cpu") == device_beside("openvino-bf16") == "cpu"


def test_without_faiss_the_message_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(BankError, match=r"antiprompt-gateway\[cpu\]"):
        Index(unit(0, 2))
