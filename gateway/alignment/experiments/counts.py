"""Counts, and how two rows of numbers belong together.

Nothing here is the bank's: the experiments run wherever torch, transformers and peft are, a borrowed GPU for example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Final

import numpy as np
from numpy.typing import NDArray

_T: Final = (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""97.5 % points of Student's t with 2, 3, ... degrees of freedom; beyond the last, the last is used (a bit wide)."""


@dataclass(frozen=True, slots=True)
class Count:
    """``hits`` of ``of`` answers; ``share`` in [0, 1]."""

    hits: int
    of: int

    @property
    def share(self) -> float:
        return self.hits / self.of


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean over seeds (Student's t); None for fewer than three, which say next to nothing."""
    if len(values) < 3:
        return None
    half = _T[min(len(values) - 3, len(_T) - 1)] * stdev(values) / len(values) ** 0.5
    return mean(values) - half, mean(values) + half


def pearson(some: Sequence[float], others: Sequence[float]) -> float:
    """Linear correlation; 0 where one side does not vary: then there is nothing to be seen."""
    if len(set(some)) < 2 or len(set(others)) < 2:
        return 0.0
    return float(np.corrcoef(some, others)[0, 1])


def spearman(some: Sequence[float], others: Sequence[float]) -> float:
    """Correlation of ranks; equals share the mean of theirs. 0 where one side does not vary."""
    return pearson(list(_ranks(some)), list(_ranks(others)))


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    found, inverse, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    before = np.concatenate(([0], np.cumsum(counts)[:-1]))
    ranks: NDArray[np.float64] = (before + (counts - 1) / 2)[inverse]
    return ranks if len(found) else np.zeros(0)
