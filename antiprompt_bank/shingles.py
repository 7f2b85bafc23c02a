"""Shingles: known antiprompts found by their words, at any offset of a document. Plain numpy.

A lexical matcher beside the vectors. A shingle is a run of ``shingle_tokens`` neighbouring tokens; a document holds
an exemplar where enough of the exemplar's shingles stand close together (containment: A. Broder, "On the resemblance
and containment of documents", 1997). It needs a tokeniser and nothing else: it works while the encoder is away, and
what surrounds a known text cannot dilute it. It knows wordings, not meanings: a paraphrase is the vectors' business.

What benign exemplars say too is no evidence: of the shingles that no benign exemplar has, the same share must be
found. Shingles are looked up by a hash of 64 bits, but what counts is that the tokens are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

FEWEST_TOKENS: Final = 4
"""Tokens of the shortest exemplar that is looked for, always as a whole. Three are a phrase of everyday language
("drink it all", "yes, do it"); so short a text alone is one window, and the vectors compare it whole."""

_WHOLE_SHINGLES: Final = 8
"""Of an exemplar, at least so many different shingles must be found, or all of them: half of a short sentence ("can
you tell me how to make a") is in thousands of harmless ones. Twelve tokens in a row are hardly ever chance."""

_SLACK: Final = 0.25
"""How much longer than the exemplar a copy may be, as a share: words put in, or longer ones in their place."""

_BASE: Final = np.uint64(0x9E3779B97F4A7C15)
_NEVER: Final = 2**31

_Ints = NDArray[np.int64]
_Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ShingleMatch:
    """A copy of an exemplar, whole or edited, at the tokens ``[start, end)`` of a document.

    ``exemplar`` is its number in the order given. ``containment`` in (0, 1] is the share of the exemplar's different
    shingles that the copy has, or of those of them that are evidence where that is less; 1 for a verbatim copy.
    """

    exemplar: int
    containment: float
    start: int
    end: int


class ShingleMatcher:
    """Finds copies of exemplars in documents, all given as token ids without special tokens.

    ``benign`` are exemplars whose shingles are no evidence. Tokens of ``skipped`` (punctuation, say) are left out on
    all sides, so that a comma more or less changes nothing; matches still count all tokens of the document. What the
    tokeniser does not know, the token ``unknown``, may stand for anything: it is never skipped, and a shingle that
    has it is no evidence. A copy counts from ``least_containment`` on; exemplars of up to eight shingles must stand
    whole. Nothing of a matcher changes: it may be used from several threads.

    Raises ``ValueError`` if ``shingle_tokens`` < ``FEWEST_TOKENS`` or ``least_containment`` is not in (0, 1].
    """

    def __init__(
        self,
        exemplars: Sequence[Sequence[int]],
        *,
        benign: Iterable[Sequence[int]] = (),
        skipped: Collection[int] = (),
        unknown: int | None = None,
        shingle_tokens: int = 5,
        least_containment: float = 0.5,
    ) -> None:
        if shingle_tokens < FEWEST_TOKENS:
            raise ValueError(f"shingle_tokens is {shingle_tokens}, not {FEWEST_TOKENS} or more")
        if not 0 < least_containment <= 1:
            raise ValueError(f"least_containment is {least_containment}, not in (0, 1]")
        self._kept = np.ones(max(skipped, default=-1) + 2, dtype=bool)
        self._kept[[token for token in skipped if token != unknown]] = False
        self._tokens, self._lengths = self._joined(exemplars)
        self._vocabulary = _Vocabulary(self._tokens, self._lengths, shingle_tokens)
        self._vocabulary.clear(*self._joined(benign), unknown)
        shingles, evident = self._vocabulary.shingles, self._vocabulary.evident_shingles
        self._needed = np.maximum(_share_of(shingles, least_containment), np.minimum(shingles, _WHOLE_SHINGLES))
        self._needed_evident = np.where(evident > 0, _share_of(evident, least_containment), _NEVER)

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def unmatchable(self) -> tuple[int, ...]:
        """Exemplars that can never match: too short, or benign exemplars say all that they say."""
        return tuple(np.flatnonzero(self._needed_evident == _NEVER).tolist())

    def find(self, ids: Sequence[int]) -> list[ShingleMatch]:
        """The exemplars that a document holds, best first, each where it is held best (the first of equals).

        Linear in the document where nothing matches; each exemplar that may match costs another pass.
        """
        given = np.asarray(ids, dtype=np.int32)
        places = np.flatnonzero(self._kept[np.minimum(given, len(self._kept) - 1)])
        document = given[places]
        position, unit = self._vocabulary.find(document)
        matches = []
        for exemplar in self._candidates(unit):
            copy = self._copy(exemplar, document, position, unit)
            if copy is not None:
                containment, start, end = copy
                matches.append(ShingleMatch(exemplar, containment, int(places[start]), int(places[end - 1]) + 1))
        return sorted(matches, key=lambda match: (-match.containment, match.start, match.exemplar))

    def _joined(self, texts: Iterable[Sequence[int]]) -> tuple[_Tokens, _Ints]:
        """The tokens of all texts in one row, without those that are skipped, and how many each text has."""
        texts = list(texts)
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        tokens = np.fromiter(chain.from_iterable(texts), dtype=np.int32, count=int(lengths.sum()))
        kept = self._kept[np.minimum(tokens, len(self._kept) - 1)]
        return tokens[kept], np.bincount(np.repeat(np.arange(len(texts)), lengths)[kept], minlength=len(texts))

    def _candidates(self, unit: _Ints) -> list[int]:
        """The exemplars of which a document has enough, wherever in it."""
        if not len(unit):
            return []
        found, evident = self._vocabulary.tally(np.unique(unit))
        return np.flatnonzero((found >= self._needed) & (evident >= self._needed_evident)).tolist()

    def _copy(self, exemplar: int, document: _Tokens, position: _Ints, unit: _Ints) -> tuple[float, int, int] | None:
        """The best copy of an exemplar: its containment and its tokens ``[start, end)``; None where none is enough."""
        own = self._vocabulary.of(exemplar)
        mine = np.isin(unit, own)
        position, unit = position[mine], unit[mine]
        length = int(self._lengths[exemplar])
        if len(np.unique(unit)) == len(own):
            first = int(self._lengths[:exemplar].sum())
            start = _verbatim(self._tokens[first : first + length], document, position)
            if start is not None:
                return 1.0, start, start + length
        size = min(length, self._vocabulary.size)
        reach = length + round(_SLACK * length) - size
        nearest_before = _same_before(position, unit)
        # A shingle counts once in the stretch from ``s`` to ``s + reach`` if it lies there and its like before it
        # does not: for each s in [opens, position].
        opens = np.maximum(np.maximum(nearest_before + 1, position - reach), 0)
        is_evident = self._vocabulary.evident[unit]
        found = _coverage(opens, position, len(document))
        evident = _coverage(opens[is_evident], position[is_evident], len(document))
        containment = np.minimum(found / len(own), evident / self._vocabulary.evident_shingles[exemplar])
        containment[(found < self._needed[exemplar]) | (evident < self._needed_evident[exemplar])] = 0
        best = float(containment.max(initial=0.0))
        if best == 0:
            return None
        start = int(containment.argmax())
        # The last start as good as the first: a shingle of the copy stands there, and no token before it belongs to it.
        start += int((containment[start:] < best).argmax()) - 1
        counted = (opens <= start) & (position >= start)
        return best, start, int(position[counted].max()) + size


class _Vocabulary:
    """The different shingles of many texts, each a *unit* with a number, and which text has which.

    ``shingles`` and ``evident_shingles`` (texts,) are how many different ones each text has; ``evident`` (units,)
    whether a unit is evidence. A text shorter than a shingle of ``size`` tokens is a unit of its own length.
    """

    def __init__(self, tokens: _Tokens, lengths: _Ints, size: int) -> None:
        self.size = size
        self._tables: list[_Table] = []
        texts, units = [_NONE], [_NONE]
        known = 0
        for tokens_of_unit in range(FEWEST_TOKENS, size + 1):
            long_enough = lengths >= size if tokens_of_unit == size else lengths == tokens_of_unit
            at, text = _starts(lengths, tokens_of_unit, long_enough)
            while len(at):  # once; where hashes collide, what is left goes into a table of its own
                table, unit, genuine = _Table.of(tokens, at, tokens_of_unit, known)
                known += len(table.hashes)
                self._tables.append(table)
                texts.append(text[genuine])
                units.append(unit[genuine])
                at, text = at[~genuine], text[~genuine]
        pairs = np.unique(np.concatenate(texts) * max(known, 1) + np.concatenate(units))
        text, unit = np.divmod(pairs, max(known, 1))
        self.shingles = np.bincount(text, minlength=len(lengths))
        self._units = unit.astype(np.int32)
        self._ends = self.shingles.cumsum()
        self._texts = text[np.argsort(unit, kind="stable")].astype(np.int32)
        self._text_ends = np.bincount(unit, minlength=known).cumsum()
        self.evident = np.ones(known, dtype=bool)
        self.evident_shingles = self.shingles

    def clear(self, tokens: _Tokens, lengths: _Ints, unknown: int | None) -> None:
        """What these texts say is no evidence, nor are units with the token ``unknown``."""
        for table in self._tables:
            at, _ = _starts(lengths, table.size, lengths >= table.size)
            _, unit = table.find(tokens, at)
            self.evident[unit] = False
            if unknown is not None:
                self.evident[table.units_with(unknown)] = False
        owner = np.repeat(np.arange(len(self.shingles)), self.shingles)
        self.evident_shingles = np.bincount(owner[self.evident[self._units]], minlength=len(self.shingles))

    def of(self, text: int) -> NDArray[np.int32]:
        """A text's units, ascending."""
        return self._units[self._ends[text] - self.shingles[text] : self._ends[text]]

    def find(self, document: _Tokens) -> tuple[_Ints, _Ints]:
        """Where a document has known units, and which: ``(h,)`` each."""
        found = [table.find(document, np.arange(len(document) - table.size + 1)) for table in self._tables]
        return np.concatenate([_NONE, *(at for at, _ in found)]), np.concatenate([_NONE, *(unit for _, unit in found)])

    def tally(self, units: _Ints) -> tuple[_Ints, _Ints]:
        """How many of these units each text has, all and evident ones: ``(texts,)`` each."""
        ends = self._text_ends[units]
        counts = ends - np.where(units > 0, self._text_ends[units - 1], 0)
        within = np.arange(int(counts.sum())) - np.repeat(counts.cumsum() - counts, counts)
        texts = self._texts[np.repeat(ends - counts, counts) + within]
        evident = texts[np.repeat(self.evident[units], counts)]
        return np.bincount(texts, minlength=len(self.shingles)), np.bincount(evident, minlength=len(self.shingles))


@dataclass(frozen=True, slots=True)
class _Table:
    """Units of one ``size``: their ``hashes`` (u,), ascending, and where each stands in ``tokens``, ``places`` (u,)."""

    size: int
    hashes: NDArray[np.uint64]
    places: NDArray[np.int64]
    tokens: _Tokens
    first_unit: int

    @classmethod
    def of(cls, tokens: _Tokens, at: _Ints, size: int, first_unit: int) -> tuple[_Table, _Ints, NDArray[np.bool_]]:
        """A table of the shingles at ``at``, the unit of each, and whether it is that unit and no other of its hash."""
        hashes, first, number = np.unique(_hashes(tokens, at, size), return_index=True, return_inverse=True)
        table = cls(size, hashes, at[first], tokens, first_unit)
        return table, number + first_unit, _same(tokens, at, tokens, table.places[number], size)

    def find(self, document: _Tokens, at: _Ints) -> tuple[_Ints, _Ints]:
        """Which of a document's shingles at ``at`` are known, and as which units."""
        hashes = _hashes(document, at, self.size)
        number = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        known = np.flatnonzero(self.hashes[number] == hashes)
        at, number = at[known], number[known]
        genuine = _same(document, at, self.tokens, self.places[number], self.size)
        return at[genuine], number[genuine] + self.first_unit

    def units_with(self, token: int) -> _Ints:
        """The units that have this token."""
        having = np.zeros(len(self.places), dtype=bool)
        for step in range(self.size):
            having |= self.tokens[self.places + step] == token
        return np.flatnonzero(having) + self.first_unit


_NONE: Final = np.zeros(0, dtype=np.int64)


def _share_of(counts: _Ints, share: float) -> _Ints:
    return np.asarray(np.ceil(counts * share - 1e-9), dtype=np.int64)


def _starts(lengths: _Ints, size: int, wanted: NDArray[np.bool_]) -> tuple[_Ints, _Ints]:
    """Where shingles of ``size`` tokens begin in the row of all texts' tokens, and in which of the wanted texts."""
    text = np.repeat(np.arange(len(lengths)), lengths)
    ends = text[size - 1 :]
    at = np.flatnonzero((text[: len(ends)] == ends) & wanted[ends])
    return at, text[at]


def _hashes(tokens: _Tokens, at: _Ints, size: int) -> NDArray[np.uint64]:
    """A hash for each shingle that begins at ``at``: a polynomial of its tokens, modulo 2^64."""
    found = np.zeros(len(at), dtype=np.uint64)
    for step in range(size):
        found = (found + tokens[at + step].astype(np.uint64) + np.uint64(1)) * _BASE
        found ^= found >> np.uint64(29)
    return found


def _same(left: _Tokens, left_at: _Ints, right: _Tokens, right_at: _Ints, size: int) -> NDArray[np.bool_]:
    """Whether the shingles that begin at these places are the same, token for token."""
    same = np.ones(len(left_at), dtype=bool)
    for step in range(size):
        same &= left[left_at + step] == right[right_at + step]
    return same


def _verbatim(exemplar: _Tokens, document: _Tokens, position: _Ints) -> int | None:
    """The first of the positions at which the exemplar stands as it is."""
    for start in position[position <= len(document) - len(exemplar)].tolist():
        if np.array_equal(document[start : start + len(exemplar)], exemplar):
            return int(start)
    return None


def _same_before(position: _Ints, unit: _Ints) -> _Ints:
    """The position where the unit of each hit stands the last time before it, or -1."""
    order = np.argsort(unit, kind="stable")
    repeated = np.flatnonzero(unit[order][1:] == unit[order][:-1])
    before = np.full(len(position), -1, dtype=np.int64)
    before[order[repeated + 1]] = position[order[repeated]]
    return before


def _coverage(first: _Ints, last: _Ints, length: int) -> _Ints:
    """How many of the ranges ``[first, last]`` hold each of the numbers from 0 to ``length``, not included."""
    opened, closed = np.bincount(first, minlength=length), np.bincount(last + 1, minlength=length)
    return np.asarray(np.cumsum(opened - closed), dtype=np.int64)
