"""Drift: whether the risks of the last day are distributed as those of the days before it.

Measured by the population stability index (sum over bins of (p - q) ln(p / q)); by custom, from 0.1 on it is worth a
look and from 0.25 on the two are different populations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BINS: Final = 10
LEAST_CASES: Final = 50
"""Cases on either side below which nothing is said: a handful differs from any other handful."""

WORTH_A_LOOK: Final = 0.1
ALARM: Final = 0.25

_FLOOR: Final = 0.005
"""The least share of a bin: an empty one would make the index infinite."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Shares of cases by risk, in ``BINS`` bins from 0 to 1, lately and before; ``index`` is None with too few."""

    lately: tuple[float, ...]
    before: tuple[float, ...]
    cases_lately: int
    cases_before: int
    index: float | None

    @property
    def level(self) -> str:
        """unknown, steady, moving or alarm."""
        if self.index is None:
            return "unknown"
        if self.index >= ALARM:
            return "alarm"
        return "moving" if self.index >= WORTH_A_LOOK else "steady"


def drift_of(lately: Sequence[float], before: Sequence[float]) -> Drift:
    """Compare two sets of risks, each in [0, 1]."""
    new, old = _shares(lately), _shares(before)
    index = None
    if min(len(lately), len(before)) >= LEAST_CASES:
        pairs = [(max(p, _FLOOR), max(q, _FLOOR)) for p, q in zip(new, old, strict=True)]
        index = sum((p - q) * math.log(p / q) for p, q in pairs)
    return Drift(new, old, len(lately), len(before), index)


def _shares(risks: Sequence[float]) -> tuple[float, ...]:
    counts = [0] * BINS
    for risk in risks:
        counts[min(BINS - 1, max(0, int(risk * BINS)))] += 1
    return tuple(count / len(risks) if risks else 0.0 for count in counts)
