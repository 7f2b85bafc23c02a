"""Index: the stored vectors with the largest inner product, found by what suits their number and the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.index_faiss import CoarseIndex, FaissGpuIndex, FlatIndex, faiss_on_gpu
from antiprompt_bank.index_torch import TorchIndex

SearchDevice = Literal["cpu", "cuda"]
Kind = Literal["flat", "coarse", "faiss-gpu", "torch"]
"""What searches: one of the classes of ``index_faiss`` and ``index_torch``."""

EXACT_ROWS: Final = 20_000
"""Up to this many rows a CPU compares all of them exactly: below 1 ms a query. Beyond it a first pass may choose."""

_EQUAL: Final = 1.01
"""By how much the longest of vectors of equal length may be longer than the shortest."""


class _Search(Protocol):
    def __len__(self) -> int: ...

    def search(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...


class Index:
    """Vectors, searched by inner product. ``vectors`` is ``(n, d)`` float32.

    On a CPU exactly while they are few (``FlatIndex``), because a decision must not depend on how a graph happened to
    be built and because that is fast enough; from ``EXACT_ROWS`` on through ``CoarseIndex``, which compares all rows
    too, but roughly first. Only where all vectors have one length, though: on the seed bank's vectors, scaled by their
    backgrounds (see ``neighbours``), no first pass kept what matters. Cells (IVF) that hold a quarter of the rows had
    92-95 % of the nearest 32, RaBitQ's bits with 2,048 candidates 98.8 %, and the nearest row of all was lost for one
    query in a hundred. So these are compared exactly at any number: 5.5 ms a query at 100,000 rows.

    On a GPU (``cuda``) always exactly: in FAISS where its build has code for one, in torch otherwise. The same vectors
    give the same answers, whatever else is asked in the same call. Safe to call from several threads.

    Raises ``BankError`` when FAISS, or torch for a GPU, is not installed.
    """

    def __init__(self, vectors: NDArray[np.float32], *, device: SearchDevice = "cpu") -> None:
        self.kind = kind_for(vectors, device, faiss_gpu=device == "cuda" and faiss_on_gpu())
        self._search = _opened(self.kind, vectors, device)

    def __len__(self) -> int:
        return len(self._search)

    def search(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The ``count`` rows nearest to each of ``(m, d)`` queries: similarities and row numbers, each ``(m, count)``.

        Best first. Where there are fewer rows, the rest has row -1. Releases the interpreter lock.
        """
        return self._search.search(queries, count)


def kind_for(vectors: NDArray[np.float32], device: SearchDevice, *, faiss_gpu: bool) -> Kind:
    """What searches these vectors on a device; ``faiss_gpu`` says whether FAISS can use the GPU."""
    if device == "cuda":
        return "faiss-gpu" if faiss_gpu else "torch"
    if len(vectors) <= EXACT_ROWS:
        return "flat"
    lengths = np.linalg.norm(vectors, axis=1)
    return "coarse" if lengths.max() <= _EQUAL * lengths.min() else "flat"


def device_beside(runtime: str) -> SearchDevice:
    """Where the vectors of an encoder with this ``runtime`` are searched: where it runs itself."""
    return "cuda" if runtime.startswith("torch-cuda") else "cpu"


def _opened(kind: Kind, vectors: NDArray[np.float32], device: SearchDevice) -> _Search:
    if kind == "torch":
        return TorchIndex(vectors, device=device)
    kinds: dict[str, Callable[[NDArray[np.float32]], _Search]] = {
        "flat": FlatIndex,
        "coarse": CoarseIndex,
        "faiss-gpu": FaissGpuIndex,
    }
    return kinds[kind](vectors)
