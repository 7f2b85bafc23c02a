"""Scoring: from neighbours to a risk for each hazard. Plain numpy.

Risk comes from two sources, and the larger counts:

* the calibrated curve over the nearest harmful and benign exemplars (``calibration``), for texts that resemble what
  the bank knows;
* the radius of a single exemplar, for texts that nearly repeat one: a confirmed antiprompt protects from the moment
  it is in the bank, however little one row moves a mean. A benign exemplar has the same right: what nearly repeats it
  passes, unless a harmful one is as near.

A text that is far from everything is unknown, not risky: risk fades to nothing where even the closest harmful
exemplar is farther than unrelated texts are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.calibration import Curve
from antiprompt_bank.neighbours import Neighbours
from antiprompt_bank.records import Antiprompt, Kind

REPETITION_RISK: Final = 0.95
"""The least risk of a text that nearly repeats a harmful exemplar."""

_CLEARED_RISK: Final = 0.05
"""The most risk of a text that nearly repeats a benign exemplar."""

_SENTENCE_RADIUS: Final = 0.95
"""The least radius for a sentence that was cut out of a text: what it meant there, its vector does not tell."""

_CLOSER: Final = 0.5
"""A repetition is at most this share as far from its exemplar as from the nearest one of the other label."""

_CLOSER_TO_CONFIRMED: Final = 0.8
"""The same for harm that people confirmed: what is somewhat nearer to it than to anything harmless is its like."""

_UNKNOWN: Final = -0.1
"""Closeness of the closest harmful exemplar up to which a text is unknown; from 0 on the curve counts in full."""

_HAZARD_WIDTH: Final = 0.07
"""How fast a harmful neighbour loses its say about the hazard: by e for each 0.07 of closeness below the best."""

_LEAST_RISK: Final = 0.001
_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An exemplar near a text; ``similarity`` is the cosine of their vectors, in [-1, 1].

    ``verbatim`` in (0, 1] is how much of the exemplar stands in the text word for word (the containment of
    ``shingles``), None where it was not found by its words; ``similarity`` is 0 where it was found by them alone.
    ``kind`` is the exemplar's.
    """

    id: str
    similarity: float
    harmful: bool
    hazard: str | None
    verbatim: float | None = None
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """What was found in one text.

    ``risk`` in [0, 1] is the largest of ``risks`` (by hazard, those of at least 0.001) and ``hazard`` its hazard.
    ``nearest`` holds the exemplars behind it, harmful and benign, best first, those found word for word before all.
    ``view`` names the reading of the text that was riskiest; ``start`` and ``end`` are characters of the raw text (all
    of it when ``view`` is not raw), ``token_start`` and ``token_end`` tokens of the view. ``windows`` counts what was
    screened.
    """

    risk: float
    hazard: str | None
    risks: Mapping[str, float]
    nearest: tuple[Neighbour, ...]
    view: str
    start: int
    end: int
    windows: int
    token_start: int = 0
    token_end: int = 0

    @classmethod
    def worst(cls, pieces: Sequence[Score]) -> Score:
        """One text's score from those of its pieces: the riskiest piece, with the highest risk of each hazard."""
        riskiest = max(pieces, key=lambda piece: piece.risk)
        risks: dict[str, float] = {}
        for piece in pieces:
            for hazard, risk in piece.risks.items():
                risks[hazard] = max(risk, risks.get(hazard, 0.0))
        return replace(riskiest, risks=risks, windows=sum(piece.windows for piece in pieces))


@dataclass(frozen=True, slots=True)
class HazardTable:
    """Which hazard each record stands for, as numbers: ``of_record`` ``(len(records),)`` points into ``slugs``."""

    slugs: tuple[str, ...]
    of_record: NDArray[np.int64]

    @classmethod
    def of(cls, records: Sequence[Antiprompt]) -> HazardTable:
        slugs = tuple(sorted({record.hazard for record in records if record.harmful and record.hazard}))
        number = {slug: at for at, slug in enumerate(slugs)}
        return cls(slugs, np.array([number.get(record.hazard or "", -1) for record in records], dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Radii:
    """From where a text counts as a repetition of each record, all ``(len(records),)``.

    ``radius`` is the least similarity (the calibration's); ``closer`` how far from the record it may be, as a share of
    how far it is from the nearest one of the other label.
    """

    radius: NDArray[np.float64]
    closer: NDArray[np.float64]

    @classmethod
    def of(cls, records: Sequence[Antiprompt], radius: NDArray[np.float64]) -> Radii:
        closer = [_CLOSER_TO_CONFIRMED if record.confirmed else _CLOSER for record in records]
        return cls(radius, np.array(closer, dtype=np.float64))


def window_risks(
    harmful: Neighbours,
    benign: Neighbours,
    curve: Curve,
    hazards: HazardTable,
    vectors: NDArray[np.float32],
    leaning: NDArray[np.float64] | None,
    radii: Radii,
    is_sentence: NDArray[np.bool_] | None = None,
    length: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """``(n, len(hazards.slugs))`` risks of n windows, whose vectors alone are ``vectors`` ``(n, d)``.

    ``leaning`` ``(n, 2)`` is what the encoder says of each, None without an adapter; ``radii`` are the
    records'. Windows marked in ``is_sentence`` ``(n,)`` count as repetitions only: torn from its text a harmless
    sentence looks like anything, and of many one would always be risky. ``length`` ``(n,)`` is how many windows the
    text of each has.

    A window's whole risk goes to the hazard that its harmful neighbours name most; the others get theirs in
    proportion.
    """
    risk = _whole_risk(harmful, benign, curve, vectors, leaning, radii, is_sentence, length)
    share = _hazard_shares(harmful, hazards)
    return risk[:, None] * share


def nearest(
    harmful: Neighbours, benign: Neighbours, window: int, records: Sequence[Antiprompt]
) -> tuple[Neighbour, ...]:
    """The exemplars behind one window's risk: the best four harmful and the best four benign ones, best first."""
    found = []
    for side in (harmful, benign):
        for similarity, at in zip(side.similarity[window, :_SHOWN], side.record[window, :_SHOWN], strict=True):
            if at >= 0:
                record = records[at]
                found.append(Neighbour(record.id, float(similarity), record.harmful, record.hazard, kind=record.kind))
    return tuple(sorted(found, key=lambda neighbour: -neighbour.similarity))


def score_of(risks: NDArray[np.float64], slugs: Sequence[str]) -> tuple[float, str | None, dict[str, float]]:
    """Risk, hazard and risks by hazard of ``(h,)`` hazards' risks, smallest ones left out."""
    by_hazard = {slugs[at]: float(risks[at]) for at in np.argsort(-risks) if risks[at] >= _LEAST_RISK}
    hazard = next(iter(by_hazard), None)
    return (by_hazard[hazard] if hazard else 0.0), hazard, by_hazard


def _whole_risk(
    harmful: Neighbours,
    benign: Neighbours,
    curve: Curve,
    vectors: NDArray[np.float32],
    leaning: NDArray[np.float64] | None,
    radii: Radii,
    is_sentence: NDArray[np.bool_] | None,
    length: NDArray[np.int64] | None,
) -> NDArray[np.float64]:
    risk = curve.risk(harmful, benign, vectors, leaning, length)
    risk = risk * np.clip(1 - harmful.closeness[:, 0] / _UNKNOWN, 0.0, 1.0)
    if is_sentence is not None:
        risk = np.where(is_sentence, 0.0, risk)
    repeats, beyond = _repeats(harmful, benign, radii, is_sentence)
    risk = np.where(repeats, np.maximum(risk, REPETITION_RISK + (1 - REPETITION_RISK) * beyond), risk)
    return np.where(_repeats(benign, harmful, radii, is_sentence)[0], np.minimum(risk, _CLEARED_RISK), risk)


def _repeats(
    these: Neighbours, others: Neighbours, radii: Radii, is_sentence: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """``(n,)`` each: whether a window lies within the radius of one of these exemplars and much nearer to it than to
    any of the others; and how far inside, from 0 at the radius to 1 at the exemplar."""
    least = np.append(radii.radius, 2.0)[
        these.record
    ]  # record -1, where there is no neighbour, is the last: out of reach
    if is_sentence is not None:
        least = np.where(is_sentence[:, None], np.maximum(least, _SENTENCE_RADIUS), least)
    inside = np.where(these.similarity >= least, (these.similarity - least) / (1 - least), -1.0)
    other = others.similarity.max(axis=1, keepdims=True)
    share = np.append(radii.closer, 0.0)[these.record]
    closer = (these.similarity > other) & (1 - these.similarity <= share * (1 - other))
    repeats: NDArray[np.bool_] = ((inside >= 0) & closer).any(axis=1)
    return repeats, np.clip(inside.max(axis=1), 0.0, 1.0)


def _hazard_shares(harmful: Neighbours, hazards: HazardTable) -> NDArray[np.float64]:
    found = harmful.record >= 0
    weight = np.exp((harmful.closeness - harmful.closeness[:, :1]) / _HAZARD_WIDTH)
    window = np.broadcast_to(np.arange(len(found))[:, None], found.shape)
    shares = np.zeros((len(found), len(hazards.slugs)))
    np.add.at(shares, (window[found], hazards.of_record[harmful.record[found]]), weight[found])
    top = shares.max(axis=1, keepdims=True, initial=0.0)
    relative: NDArray[np.float64] = np.divide(shares, top, out=np.zeros_like(shares), where=top > 0)
    return relative
