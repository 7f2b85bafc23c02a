"""Exact search in torch: a matrix product and the largest of each row, on any device that torch has."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.errors import BankError

_MOST_SCORES: Final = {"cuda": 2**27, "cpu": 2**22}
"""Similarities held at once, in float32: 512 MB of a GPU's memory, 16 MB of a CPU's."""

_MOST_QUERIES: Final = 4096
_GROUP: Final = 64
"""Columns of a group: the ``count`` best of all are in the ``count`` groups whose best are best."""

_STEP: Final = 8
"""Columns are padded to a multiple of this: rows that start at an odd address are read at half the speed."""


class TorchIndex:
    """Unit vectors ``(n, d)``, searched exactly in float32 on ``device`` (``cuda`` or ``cpu``).

    Blocks of rows one after another, so that memory stays bounded whatever the bank's size; the best of each block
    join those of the blocks before. Safe to call from several threads (torch queues the work).

    Raises ``BankError`` when torch is not installed.
    """

    def __init__(self, vectors: NDArray[np.float32], *, device: str) -> None:
        self._torch = _torch()
        self._device = device
        self._vectors = self._torch.from_numpy(_widened(vectors)).to(device)

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
        with self._torch.inference_mode():
            asked = self._torch.from_numpy(_widened(queries)).to(self._device)
            for start in range(0, len(queries), _MOST_QUERIES):
                some = slice(start, start + _MOST_QUERIES)
                best, at = self._nearest(asked[some], found)
                similarity[some, :found] = best.cpu().numpy()
                row[some, :found] = at.cpu().numpy()
        return similarity, row

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
        return best, place + first

    def _largest(self, scores: Any, count: int) -> tuple[Any, Any]:
        """``topk``, which on a GPU takes longer than the product before it: the groups first, then within the best."""
        groups = scores.shape[1] // _GROUP
        if groups < 2 * count:
            best, place = self._torch.topk(scores, count, dim=1)
            return best, place
        whole = groups * _GROUP
        tops = scores[:, :whole].unflatten(1, (groups, _GROUP)).amax(dim=2)
        chosen = self._torch.topk(tops, count, dim=1, sorted=False).indices
        within = self._torch.arange(_GROUP, device=scores.device)
        column = (chosen[:, :, None] * _GROUP + within).flatten(1)
        rest = self._torch.arange(whole, scores.shape[1], device=scores.device).expand(len(scores), -1)
        column = self._torch.cat([column, rest], dim=1)
        best, place = self._torch.topk(scores.gather(1, column), count, dim=1)
        return best, column.gather(1, place)


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
