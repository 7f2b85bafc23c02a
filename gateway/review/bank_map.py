"""A picture of the bank in two dimensions: hazards in colour, open flags on top. Drawn here, as SVG, without a text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from antiprompt_bank import Bank
from gateway.errors import ScreeningUnavailable
from gateway.flag_records import Flag
from gateway.review.guard import Visit

WIDTH: Final = 960
HEIGHT: Final = 600
MOST_POINTS: Final = 2000
MOST_FLAGS: Final = 24
_MARGIN: Final = 24
_MOST_TOKENS: Final = 64

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Point:
    """One exemplar or flag in the picture, in its own units."""

    x: float
    y: float
    id: str
    hazard: str | None
    harmful: bool


@dataclass(frozen=True, slots=True)
class Projection:
    """Principal components: the plane through the vectors that shows most of how they differ (K. Pearson, 1901)."""

    centre: Vectors
    axes: Vectors

    @classmethod
    def of(cls, vectors: Vectors) -> Projection:
        """``vectors`` is ``(n, d)``; the two axes are ``(2, d)``, each with its largest part positive."""
        centre = vectors.mean(axis=0) if len(vectors) else np.zeros(vectors.shape[1], dtype=np.float32)
        moved = (vectors - centre).astype(np.float64)
        _, directions = np.linalg.eigh(moved.T @ moved)
        axes = directions[:, ::-1][:, :2].T
        # The sign of an axis is arbitrary; fixed, the picture does not turn over when an exemplar joins.
        signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])
        return cls(centre, (axes * signs[:, None]).astype(np.float32))

    def flat(self, vectors: Vectors) -> NDArray[np.float32]:
        """``(n, 2)``."""
        places: NDArray[np.float32] = ((vectors - self.centre) @ self.axes.T).astype(np.float32)
        return places


async def show_map(visit: Visit) -> Response:
    """The picture of the bank in force."""
    bank = visit.parts.screener.bank
    if bank is None:
        raise ScreeningUnavailable("the gateway is still loading its bank; try again", retry_after_s=2)
    found = await visit.parts.reviews.queue(limit=MOST_FLAGS)
    flags = [flag for flag in found.flags if flag.text]
    exemplars, marks = await asyncio.to_thread(draw, bank, flags)
    hazards = dict.fromkeys(point.hazard for point in exemplars if point.harmful and point.hazard)
    return visit.page(
        "map.html",
        tab="bank",
        exemplars=exemplars,
        marks=marks,
        legend=sorted(hazards),
        width=WIDTH,
        height=HEIGHT,
        version=bank.version,
        shown=len(exemplars),
        total=len(bank.records),
    )


def draw(bank: Bank, flags: Sequence[Flag]) -> tuple[list[Point], list[Point]]:
    """Exemplars and flags, placed within the picture. Takes a moment: the flags are encoded."""
    if not len(bank.vectors):
        return [], []
    firsts = _first_rows(bank)
    if len(firsts) > MOST_POINTS:  # evenly through the bank, the same each time
        firsts = firsts[np.linspace(0, len(firsts) - 1, MOST_POINTS).astype(np.int64)]
    vectors = bank.vectors[firsts]
    projection = Projection.of(vectors)
    places = projection.flat(vectors)
    tokens = [list(bank.encoder.tokenize(flag.text or "").ids)[:_MOST_TOKENS] for flag in flags]
    above = projection.flat(bank.encoder.encode(tokens)) if tokens else np.zeros((0, 2), dtype=np.float32)
    scaled = _fitted(np.concatenate([places, above]))
    exemplars = []
    for row, (x, y) in zip(firsts, scaled[: len(places)], strict=True):
        record = bank.records[int(bank.rows.record[row])]
        exemplars.append(Point(float(x), float(y), record.id, record.hazard, record.harmful))
    marks = [
        Point(float(x), float(y), flag.id, flag.hazard, True)
        for flag, (x, y) in zip(flags, scaled[len(places) :], strict=True)
    ]
    return exemplars, marks


def _first_rows(bank: Bank) -> NDArray[np.int64]:
    """The first row of each record, its text's start."""
    _, firsts = np.unique(bank.rows.record, return_index=True)
    return firsts.astype(np.int64)


def _fitted(places: NDArray[np.float32]) -> NDArray[np.float64]:
    """Stretched to the picture, one scale for each axis; outliers stand at its edge."""
    low, high = np.percentile(places, 1, axis=0), np.percentile(places, 99, axis=0)
    share = (places - low) / np.maximum(high - low, 1e-6)
    room = np.array([WIDTH - 2 * _MARGIN, HEIGHT - 2 * _MARGIN])
    clipped: NDArray[np.float64] = np.clip(share, 0, 1) * room + _MARGIN
    return clipped.round(1)
