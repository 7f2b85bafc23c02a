"""Measures: thresholds at a share of false positives, rates with their intervals, average precision. Plain numpy.

A text is hit when its score is *above* the threshold: what lies on it is not, so that ties never break a bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_Z: Final = 1.959963984540054
"""The normal distribution's 97.5 % point: two-sided intervals of 95 %."""


@dataclass(frozen=True, slots=True)
class Rate:
    """``hits`` of ``of`` texts; ``share`` in [0, 1], with the Wilson 95 % interval from ``low`` to ``high``.

    (E. B. Wilson 1927; unlike the normal interval it holds for few texts and for shares near 0 and 1.) Of no texts at
    all the share is NaN and the interval everything.
    """

    hits: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.of:
            raise ValueError(f"{self.hits} hits of {self.of} texts")

    @classmethod
    def above(cls, threshold: float, scores: NDArray[np.float64]) -> Rate:
        return cls(int((scores > threshold).sum()), len(scores))

    @property
    def share(self) -> float:
        return self.hits / self.of if self.of else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        if not self.of:
            return 0.0, 1.0
        share, n, square = self.share, self.of, _Z * _Z
        centre = (share + square / (2 * n)) / (1 + square / n)
        half = _Z / (1 + square / n) * (share * (1 - share) / n + square / (4 * n * n)) ** 0.5
        return max(0.0, centre - half), min(1.0, centre + half)

    def to_json(self) -> dict[str, Any]:
        low, high = self.interval
        share = round(self.share, 4) if self.of else None
        return {"hits": self.hits, "of": self.of, "share": share, "low": round(low, 4), "high": round(high, 4)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Rate:
        return cls(row["hits"], row["of"])


def threshold_at(rate: float, benign: NDArray[np.float64]) -> float:
    """The lowest threshold above which at most the share ``rate`` of these benign scores lies.

    Of few texts that is their highest score, and nothing can be said of a share as low as ``rate``: a bound of 1 %
    takes at least 100. Raises ``ValueError`` without scores, or if ``rate`` is not in [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate is {rate}, not in [0, 1)")
    if not len(benign):
        raise ValueError("a threshold needs benign scores")
    # 1e-9: 0.01 * 300 is 3.0000000000000004 or 2.9999999999999996, by luck.
    allowed = int(np.floor(rate * len(benign) + 1e-9))
    return float(np.sort(benign)[::-1][allowed])


def average_precision(scores: NDArray[np.float64], harmful: NDArray[np.bool_]) -> float:
    """The area under the precision-recall curve as a step function (AUPRC); texts of one score count together.

    NaN where nothing is harmful.
    """
    if not harmful.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_score = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    found = np.cumsum(harmful[order])[last_of_score]
    precision = found / (last_of_score + 1)
    return float((precision * np.diff(found, prepend=0)).sum() / harmful.sum())
