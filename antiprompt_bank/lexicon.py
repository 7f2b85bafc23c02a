"""Lexicon: the exemplars that decide, by their words; the lexical matcher (``shingles``) beside the vectors.

It needs no encoding: it finds a known antiprompt while the encoder is away, and at any offset of a long document.
"""

from __future__ import annotations

import string
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.places import Place
from antiprompt_bank.records import Antiprompt, Side, State
from antiprompt_bank.shingles import ShingleMatcher
from antiprompt_bank.views import View
from antiprompt_bank.windows import TokenSpans

_UNKNOWN_SIGN: Final = "\U00013000"
"""A hieroglyph. A tokeniser that has a token for what it does not know gives it that one."""

_MOST_COPIES: Final = 8

Tokenize = Callable[[str], TokenSpans]


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of an exemplar in a text; ``record`` is its position in the bank's records.

    ``containment`` in (0, 1] is 1 for a verbatim copy (see ``shingles.ShingleMatch``).
    """

    record: int
    containment: float
    place: Place


class Wordings:
    """The token ids of the records that can be looked for: tokenised once, kept while who decides changes.

    Harmful answers to a known prompt are left out, since the same words can be a fair answer to another one; so is
    what is not live. ``known`` are those of a bank of the same tokeniser, which are not tokenised again.
    """

    def __init__(self, records: Iterable[Antiprompt], tokenize: Tokenize, known: Wordings | None = None) -> None:
        if known is None:
            sign = tokenize(_UNKNOWN_SIGN).ids
            self.skipped = frozenset(tokenize(string.punctuation).ids)
            self.unknown = sign[0] if len(sign) == 1 else None
        else:
            self.skipped, self.unknown = known.skipped, known.unknown
        before: Mapping[str, Sequence[int]] = {} if known is None else known._ids
        self._ids: dict[str, Sequence[int]] = {
            record.id: before.get(record.id) or array("i", tokenize(record.text).ids)
            for record in records
            if record.state is State.LIVE and not (record.harmful and record.prompt is not None)
        }

    def of(self, record: Antiprompt) -> Sequence[int] | None:
        return self._ids.get(record.id)


class Lexicon:
    """Finds copies of the exemplars that decide. ``deciding`` ``(len(records),)`` says which ones do."""

    def __init__(self, records: Sequence[Antiprompt], deciding: NDArray[np.bool_], wordings: Wordings) -> None:
        self._skipped = wordings.skipped
        self._sides: dict[Side, tuple[ShingleMatcher, Sequence[int]]] = {}
        for side in get_args(Side):
            places = [at for at in np.flatnonzero(deciding).tolist() if records[at].side == side]
            said = {at: ids for at in places if (ids := wordings.of(records[at])) is not None}
            harmful = [at for at in said if records[at].harmful]
            if harmful:
                matcher = ShingleMatcher(
                    [said[at] for at in harmful],
                    benign=[ids for at, ids in said.items() if not records[at].harmful],
                    skipped=wordings.skipped,
                    unknown=wordings.unknown,
                )
                self._sides[side] = matcher, harmful

    def find(self, side: Side, readings: Iterable[tuple[View, TokenSpans]]) -> tuple[Copy, ...]:
        """The exemplars that the readings of one text hold, the raw one first; best first, each exemplar once."""
        if side not in self._sides:
            return ()
        matcher, records = self._sides[side]
        found: dict[int, Copy] = {}
        length = 0
        for view, spans in readings:
            length = length or len(view.text)
            for match in matcher.find(spans.ids):
                record = records[match.exemplar]
                if record not in found or match.containment > found[record].containment:
                    end = match.end  # and the full stop behind it, which the matcher passes over
                    while end < len(spans.ids) and spans.ids[end] in self._skipped:
                        end += 1
                    place = Place.of_tokens(view, spans, (match.start, end), length)
                    found[record] = Copy(record, match.containment, place)
        return tuple(sorted(found.values(), key=lambda copy: -copy.containment)[:_MOST_COPIES])
