"""Search in FAISS: exact, exact behind a first pass over bits where a bank is large, and exact on a GPU."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.errors import BankError

CANDIDATES: Final = 1024
"""Rows that the first pass hands on, at least."""

_CANDIDATES_EACH: Final = 16
"""... and for each row that is asked for."""

_ROTATION_SEED: Final = 20261126
_GPU_SCRATCH_BYTES: Final = 256 * 2**20
_GPU_MOST_FOUND: Final = 2048
"""What FAISS finds at most for a query on a GPU."""


class FlatIndex:
    """Vectors ``(n, d)``, all compared with a query: 0.02 ms a query at 1,000 rows, 0.2 at 10,000, 5.5 at 100,000 (one
    thread). Raises ``BankError`` when FAISS is not installed."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._faiss = faiss_module()
        self._index = self._faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As ``Index.search``."""
        _one_thread(self._faiss)
        similarity, row = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), count)
        return similarity, row


class CoarseIndex:
    """Vectors ``(n, d)`` of one length, all compared with a query by one bit a dimension, and the best of them exactly.

    The bits are those of RaBitQ (Gao and Long, 2024, arXiv 2405.12497): signs after a random rotation, with what
    corrects the estimate of each row's inner product. Nothing is trained but the mean, so that a bank to which an
    exemplar was added is there at once, and no row lies in a cell that a query does not visit: what is lost is only
    what a thousand others seem to be nearer than. The rotation has a fixed seed: the same rows give the same answers.
    More than ``CANDIDATES / 16`` rows for a query are found among proportionally more.

    On the seed bank's 21,000 rows under the shipped adapter it found rows as near as the nearest 32, for each of 100
    queries; at 100,000 rows in clusters too, in a fifth of the time that all of them take.

    Raises ``BankError`` when FAISS is not installed.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._faiss = faiss_module()
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        width = vectors.shape[1]
        rotation = self._faiss.RandomRotationMatrix(width, width)
        rotation.init(_ROTATION_SEED)
        bits = self._faiss.IndexRaBitQFastScan(width, self._faiss.METRIC_INNER_PRODUCT)
        self._index = self._faiss.IndexRefineFlat(self._faiss.IndexPreTransform(rotation, bits))
        _one_thread(self._faiss)
        self._index.train(vectors)
        self._index.add(vectors)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As ``Index.search``, but of the rows that belong there about one in a thousand may be missing."""
        _one_thread(self._faiss)
        each = max(_CANDIDATES_EACH, CANDIDATES / count)
        chosen = self._faiss.IndexRefineSearchParameters(k_factor=float(each))
        similarity, row = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), count, params=chosen)
        return similarity, row


class FaissGpuIndex:
    """Vectors ``(n, d)`` in a GPU's memory, all compared with a query. At most 2,048 rows for a query.

    FAISS's scratch memory on a GPU is not made for several threads, so searches take turns.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        faiss = faiss_module()
        with _GPU_TURN:
            self._index = faiss.GpuIndexFlatIP(_gpu_resources(), vectors.shape[1])
            self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As ``Index.search``. Raises ``ValueError`` for a ``count`` above 2,048."""
        if count > _GPU_MOST_FOUND:
            raise ValueError(f"{count} rows for a query, but a GPU finds {_GPU_MOST_FOUND} at most")
        with _GPU_TURN:
            similarity, row = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), count)
        return similarity, row


def faiss_on_gpu() -> bool:
    """Whether this build of FAISS has code for a GPU, and sees one."""
    try:
        import faiss
    except ImportError:
        return False
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def faiss_module() -> Any:
    """FAISS. Raises ``BankError`` with what to install."""
    try:
        import faiss
    except ImportError as error:
        raise BankError("searching a bank needs FAISS: pip install 'antiprompt-gateway[cpu]' (or [gpu])") from error
    return faiss


_GPU_TURN: Final = threading.Lock()


@cache
def _gpu_resources() -> Any:
    # One for all indexes: each would hold scratch memory of its own, 1.5 GB unless told otherwise.
    resources = faiss_module().StandardGpuResources()
    resources.setTempMemory(_GPU_SCRATCH_BYTES)
    return resources


def _one_thread(faiss: Any) -> None:
    # OpenMP keeps its thread count per calling thread, so it is set at each search and not once: two threads on one
    # query ran up to 80 times slower than one on a busy machine.
    faiss.omp_set_num_threads(1)
