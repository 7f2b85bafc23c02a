"""Look-alikes: flags whose texts are nearly the same, so that one decision can stand for all of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from gateway.flag_records import Flag

LIKENESS: Final = 0.5
"""Share of runs of five characters in common (Jaccard index) from which on two texts are look-alikes."""

_GRAM: Final = 5
_MOST_CHARACTERS: Final = 4000


def look_alikes(one: Flag, others: Sequence[Flag]) -> list[Flag]:
    """``one`` and those of ``others`` on the same side whose text is like its own, the likest first.

    A flag whose text was erased is like nothing else.
    """
    grams = _grams(one.text)
    found = []
    for other in others:
        if other.id != one.id and other.side == one.side:
            likeness = _likeness(grams, _grams(other.text))
            if likeness >= LIKENESS:
                found.append((likeness, other))
    return [one, *(flag for _, flag in sorted(found, key=lambda pair: -pair[0]))]


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one and other else 0.0


def _grams(text: str | None) -> frozenset[str]:
    folded = " ".join(unicodedata.normalize("NFKC", (text or "")[:_MOST_CHARACTERS]).casefold().split())
    if not folded:
        return frozenset()
    return frozenset(folded[at : at + _GRAM] for at in range(max(1, len(folded) - _GRAM + 1)))
