"""Exact search in torch: a matrix product and the largest of each row, on any device that torch has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.errors import BankError

_MOST_SCORES: Final = {"cuda": 2**28, "cpu": 2**22}
"""Similarities held at once, in float32: 1 GB of a GPU's memory, 16 MB of a CPU's."""

_MOST_QUERIES: Final = 4096
_GROUPS: Final = (16, 32, 64, 128, 256)
"""Columns of a group, the most where rows are many: the ``count`` best of all are in the ``count`` groups whose best
are best."""

_WARM_UPS: Final = 2
_STEP: Final = 8
"""Columns are padded to a multiple of this: rows that start at an odd address are read at half the speed."""


class TorchIndex:
    """Unit vectors ``(n, d)``, searched exactly in float32 on ``device`` (``cuda`` or ``cpu``).

    Blocks of rows one after another, so that memory stays bounded whatever the bank's size; the best of each block
    join those of the blocks before. Safe to call from several threads: on a GPU what they ask is queued on a stream of
    its own, ahead of an encoder's long passes. There the search for one window alone, the most common, is recorded by
    ``recorder`` the first time and then done again as a whole: Python takes longer to queue its dozen kernels than the
    GPU to run them.

    Raises ``BankError`` when torch is not installed.
    """

    def __init__(self, vectors: NDArray[np.float32], *, device: str, recorder: Recorder | None = None) -> None:
        self._torch = _torch()
        self._device = device
        self._vectors = self._torch.from_numpy(_widened(vectors)).to(device)
        self._stream = self._torch.cuda.Stream(priority=-1) if device == "cuda" else None
        self._recorder = recorder or (RecordedSearch if device == "cuda" else None)
        self._recorded: dict[int, Recorded | None] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._vectors.shape[0])

    def search(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The ``count`` rows nearest to each of ``(m, d)`` queries: similarities and row numbers, each ``(m, count)``.

        Best first. Where there are fewer rows, the rest has row -1.
        """
        similarity = np.full((len(queries), count), np.finfo(np.float32).min, dtype=np.float32)
        row = np.full((len(queries), count), -1, dtype=np.int64)
        found = min(count, len(self))
        if not found:
            return similarity, row
        if len(queries) == 1 and self._recorder is not None and self._lock.acquire(blocking=False):
            try:
                alone = self._alone(found)
                if alone is not None:
                    similarity[0, :found], row[0, :found] = alone.played(queries[0])
                    return similarity, row
            finally:
                self._lock.release()
        with self._torch.inference_mode(), self._queue():
            asked = self._asked(queries)
            for start in range(0, len(queries), _MOST_QUERIES):
                some = slice(start, start + _MOST_QUERIES)
                best, at = self._arrived(*self._nearest(asked[some], found))
                similarity[some, :found] = best
                row[some, :found] = at
        return similarity, row

    def _alone(self, count: int) -> Recorded | None:
        if count not in self._recorded and self._recorder is not None:
            width = int(self._vectors.shape[1])
            try:
                self._recorded[count] = self._recorder(
                    self._torch, width, lambda asked: self._nearest(asked, count), self._stream
                )
            except RuntimeError:  # queued kernel by kernel, then
                self._recorded[count] = None
        return self._recorded[count]

    def _queue(self) -> AbstractContextManager[Any]:
        if self._stream is None:
            return nullcontext()
        queue: AbstractContextManager[Any] = self._torch.cuda.stream(self._stream)
        return queue

    def _asked(self, queries: NDArray[np.float32]) -> Any:
        if self._stream is None:
            return self._torch.from_numpy(_widened(queries))
        width = self._vectors.shape[1]
        # Torch's allocator of pinned memory takes a buffer back when the copy from it is done, not before.
        held = self._torch.empty(len(queries), width, dtype=self._torch.float32, pin_memory=True)
        filled = held.numpy()
        filled[:, : queries.shape[1]] = queries
        filled[:, queries.shape[1] :] = 0
        return held.to(self._device, non_blocking=True)

    def _arrived(self, best: Any, at: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self._stream is None:
            return best.numpy(), at.numpy()
        held = []
        for made in (best, at):
            back = self._torch.empty(made.shape, dtype=made.dtype, pin_memory=True)
            held.append(back.copy_(made, non_blocking=True))
        done = self._torch.cuda.Event()
        done.record()
        done.synchronize()  # what other threads have queued behind it is not waited for
        return held[0].numpy(), held[1].numpy()

    def _nearest(self, asked: Any, count: int) -> tuple[Any, Any]:
        step = max(count, _MOST_SCORES[self._device] // len(asked))
        best, at = self._nearest_of(asked, 0, step, count)
        for first in range(step, len(self), step):
            more, there = self._nearest_of(asked, first, step, count)
            together = self._torch.cat([best, more], dim=1)
            best, place = self._torch.topk(together, count, dim=1)
            at = self._torch.cat([at, there], dim=1).gather(1, place)
        return best, at

    def _nearest_of(self, asked: Any, first: int, step: int, count: int) -> tuple[Any, Any]:
        # Torch multiplies float32 in full precision unless told otherwise, and nobody here tells it.
        block = self._vectors[first : first + step]
        best, place = self._largest(asked @ block.T, min(count, len(block)))
        return best, place + first if first else place

    def _largest(self, scores: Any, count: int) -> tuple[Any, Any]:
        """``topk``, which on a GPU takes longer than the product before it: the groups first, then within the best."""
        torch, columns = self._torch, scores.shape[1]
        group = _group(columns, count)
        groups = columns // group
        if groups < 2 * count:
            best, place = torch.topk(scores, count, dim=1)
            return best, place
        whole = groups * group
        tops = scores[:, :whole].unflatten(1, (groups, group)).amax(dim=2)
        chosen = torch.topk(tops, count, dim=1, sorted=False).indices
        within = torch.arange(group, device=scores.device)
        column = torch.add(within, chosen[:, :, None], alpha=group).flatten(1)
        if whole < columns:
            rest = torch.arange(whole, columns, device=scores.device).expand(len(scores), -1)
            column = torch.cat([column, rest], dim=1)
        best, place = torch.topk(scores.gather(1, column), count, dim=1)
        return best, column.gather(1, place)


class Recorded(Protocol):
    """The search for one query, ready to be done again at once. For one thread at a time."""

    def played(self, query: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """``(count,)`` similarities and rows nearest to a ``(d,)`` query, best first."""


Recorder = Callable[[Any, int, Callable[[Any], tuple[Any, Any]], Any], Recorded]
"""Torch, the width of a stored row, the search on a tensor ``(1, width)``, the stream."""


class RecordedSearch:
    """A CUDA graph, copies from and to the CPU included."""

    def __init__(self, torch: Any, width: int, work: Callable[[Any], tuple[Any, Any]], stream: Any) -> None:
        self._torch = torch
        self._stream = stream
        self._held = torch.zeros(1, width, dtype=torch.float32, pin_memory=True)
        self._query = self._held.numpy()[0]
        self._graph = torch.cuda.CUDAGraph()
        self._done = torch.cuda.Event()
        asked = torch.zeros(1, width, dtype=torch.float32, device="cuda")
        with torch.inference_mode():
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    best, at = work(asked)
            stream.synchronize()
            self._best, self._at = (torch.empty(made.shape, dtype=made.dtype, pin_memory=True) for made in (best, at))
            # Other threads may use the GPU meanwhile: a bank is loaded while another one serves.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                asked.copy_(self._held, non_blocking=True)
                best, at = work(asked)
                self._best.copy_(best, non_blocking=True)
                self._at.copy_(at, non_blocking=True)

    def played(self, query: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self._query[: len(query)] = query
        with self._torch.cuda.stream(self._stream):
            self._graph.replay()
            self._done.record()
        self._done.synchronize()
        return self._best.numpy()[0], self._at.numpy()[0]


def _group(columns: int, count: int) -> int:
    """Columns of a group: as many groups as there are columns in the ``count`` best of them, or nearly so."""
    even = (columns / count) ** 0.5
    return min(_GROUPS, key=lambda size: max(size / even, even / size))


def _widened(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    made = np.zeros((len(vectors), -(-vectors.shape[1] // _STEP) * _STEP), dtype=np.float32)
    made[:, : vectors.shape[1]] = vectors
    return made


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise BankError("searching on a GPU needs torch: pip install 'antiprompt-gateway[gpu]'") from error
    return torch
