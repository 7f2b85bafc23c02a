"""What a score gains from what is found without vectors: copies of known antiprompts, and unreadable passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from antiprompt_bank.hazards import UNREADABLE
from antiprompt_bank.lexicon import Copy
from antiprompt_bank.places import Place
from antiprompt_bank.records import Antiprompt
from antiprompt_bank.scoring import Neighbour, Score

_LEAST_COPY_RISK: Final = 0.9
"""What the risk of a copy begins with; a verbatim one has 1. No benign exemplar clears it."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The largest passage of a text that nothing could read, with the score of ``blobs``."""

    score: float
    place: Place


def with_copies(score: Score, copies: Sequence[Copy], records: Sequence[Antiprompt]) -> Score:
    """A score with what copies of exemplars, best first, add: their hazards' risks, and their names before all others.

    The place of the first one is the score's, unless a window is riskier: the place belongs to the hazard named.
    """
    if not copies:
        return score
    risks = dict(score.risks)
    for copy in reversed(copies):
        hazard = records[copy.record].hazard or ""
        risks[hazard] = max(risks.get(hazard, 0.0), _risk_of(copy))
    named = {records[copy.record].id: _named(copy, records[copy.record], score.nearest) for copy in copies}
    nearest = (*named.values(), *(neighbour for neighbour in score.nearest if neighbour.id not in named))
    found = replace(score, risks=_ordered(risks), nearest=nearest)
    first = copies[0]
    if _risk_of(first) < score.risk:
        return found
    return _at(found, records[first.record].hazard, _risk_of(first), first.place)


def with_unreadable(score: Score, passage: Unreadable | None) -> Score:
    """A score with the risk of an unreadable passage: its hazard only where nothing else is riskier."""
    if passage is None:
        return score
    found = replace(score, risks=_ordered({**score.risks, UNREADABLE: passage.score}))
    return found if passage.score <= score.risk else _at(found, UNREADABLE, passage.score, passage.place)


def _at(score: Score, hazard: str | None, risk: float, place: Place) -> Score:
    return replace(
        score,
        hazard=hazard,
        risk=risk,
        view=place.view,
        start=place.start,
        end=place.end,
        token_start=place.token_start,
        token_end=place.token_end,
    )


def _risk_of(copy: Copy) -> float:
    return _LEAST_COPY_RISK + (1 - _LEAST_COPY_RISK) * copy.containment


def _named(copy: Copy, record: Antiprompt, nearest: Sequence[Neighbour]) -> Neighbour:
    """The exemplar as one of the nearest; with its similarity where it is among them."""
    similarity = next((neighbour.similarity for neighbour in nearest if neighbour.id == record.id), 0.0)
    return Neighbour(record.id, similarity, record.harmful, record.hazard, copy.containment, record.kind)


def _ordered(risks: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(risks.items(), key=lambda item: -item[1]))
