"""Curves: at each threshold, how many of the flags above it people confirmed, and how many confirmed ones it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.flag_records import Flag

STEPS: Final = 50


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """At ``threshold``: ``precision`` (None where no flag is above it) and ``recall`` among the reviewed flags."""

    threshold: float
    precision: float | None
    recall: float


@dataclass(frozen=True, slots=True)
class ReviewCurve:
    """Precision and recall over thresholds from 0 to 1, from ``confirmed`` and ``dismissed`` flags that have a risk."""

    points: tuple[CurvePoint, ...]
    confirmed: int
    dismissed: int


def review_curve(confirmed: Sequence[Flag], dismissed: Sequence[Flag], hazard: str | None) -> ReviewCurve | None:
    """The curve of one hazard (None: all); None where nothing was confirmed. Only what was flagged counts: what no
    rule flagged was never looked at, so the recall is that among flags."""
    good = sorted(_risks(confirmed, hazard))
    bad = sorted(_risks(dismissed, hazard))
    if not good:
        return None
    points = []
    for step in range(STEPS + 1):
        threshold = step / STEPS
        hits = sum(risk >= threshold for risk in good)
        false_hits = sum(risk >= threshold for risk in bad)
        precision = hits / (hits + false_hits) if hits + false_hits else None
        points.append(CurvePoint(threshold, precision, hits / len(good)))
    return ReviewCurve(tuple(points), len(good), len(bad))


def _risks(flags: Sequence[Flag], hazard: str | None) -> list[float]:
    return [flag.risk for flag in flags if flag.risk is not None and hazard in (None, flag.hazard)]
