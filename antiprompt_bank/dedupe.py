"""Duplicates in a bank: the same text again, near copies by their characters, near copies by their vectors.

Two exemplars are one only if label and side are the same, and their prompts too as far as they have any. A harmful and
a benign text are never merged, however near: twins are close on purpose. Where they are *equal*, one of them is wrong,
and a person has to say which; that is reported.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.neighbours import Rows
from antiprompt_bank.records import Antiprompt, State

NEAR_COPY: Final = 0.7
"""Share of five-character runs in common above which two texts are near copies (Jaccard index)."""

NEAR_VECTOR: Final = 0.97
"""Cosine above which the vectors of two texts say that they are one."""

_GRAM_LENGTH: Final = 5
_LEAST_ALIKE: Final = 0.3
"""Share of five-character runs that texts in other scripts than the Latin one must have in common too: an encoder that
does not know a script puts all of its texts in one place."""

_USUAL_BACKGROUND: Final = 0.1
_BLOCK: Final = 512
_RANK: Final = {State.LIVE: 0, State.SHADOW: 1, State.QUARANTINE: 2, State.RETIRED: 3}

Reason = Literal["same", "near_copy", "near_vector"]


@dataclass(frozen=True, slots=True)
class Dropped:
    """An exemplar that goes, the id of the one that stays for it, and why; ``likeness`` in [0, 1] is the reason's."""

    record: Antiprompt
    kept: str
    reason: Reason
    likeness: float


@dataclass(frozen=True, slots=True)
class Deduped:
    """What stays, in its order; what goes; the (harmful, benign) pairs whose texts are equal, of which both stay."""

    records: tuple[Antiprompt, ...]
    dropped: tuple[Dropped, ...]
    conflicts: tuple[tuple[Antiprompt, Antiprompt], ...]


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of the records, as a bank has them: ``vectors`` (n, d), and for each row what it stands for.

    ``background`` (n,) is how near unrelated texts come to each row anyway (``Calibration.background``).
    """

    rows: Rows
    vectors: NDArray[np.float32]
    background: NDArray[np.float64]


def dedupe(records: Sequence[Antiprompt], vectors: Vectors | None = None) -> Deduped:
    """Drop what is there already.

    Of two duplicates the one stays that decides more (live before shadow before quarantine), then the one that never
    expires, then the one with a desired response, then the older one. Each is compared with those that stay, not with
    those that went: no chain of small steps merges texts that are far apart. Retired exemplars neither go nor
    stand in for others, but of one id only one can stay. References to a twin that goes are turned to the one that
    stays.
    """
    order = sorted(range(len(records)), key=lambda at: (*_poverty(records[at]), at))
    gone = _copies(records, order)
    if vectors is not None:
        gone |= _near_vectors(records, [at for at in order if at not in gone], vectors)
    instead = {dropped.record.id: dropped.kept for dropped in gone.values() if dropped.reason != "same"}
    for at, dropped in gone.items():
        if dropped.kept in instead:  # it stood for this one, and then went itself
            gone[at] = replace(dropped, kept=instead[dropped.kept])
    return Deduped(
        tuple(_turned(record, instead) for at, record in enumerate(records) if at not in gone),
        tuple(gone[at] for at in sorted(gone)),
        tuple(conflicts(records)),
    )


def conflicts(records: Iterable[Antiprompt]) -> list[tuple[Antiprompt, Antiprompt]]:
    """The (harmful, benign) pairs of one side whose texts, and prompts, are equal once normalised."""
    found: dict[tuple[str, str, str], dict[bool, Antiprompt]] = {}
    for record in records:
        key = (record.side, _key(record.prompt or ""), _key(record.text))
        found.setdefault(key, {}).setdefault(record.harmful, record)
    return [(pair[True], pair[False]) for pair in found.values() if len(pair) == 2]


def normalised(text: str) -> str:
    """A text without case, punctuation, compatibility forms and runs of white space."""
    return " ".join(re.sub(r"[^\w\s]", " ", unicodedata.normalize("NFKC", text).casefold()).split())


def grams(text: str) -> set[str]:
    """The distinct runs of five characters of a normalised text (itself, if it is shorter)."""
    return {text[i : i + _GRAM_LENGTH] for i in range(max(1, len(text) - _GRAM_LENGTH + 1))}


class CopyIndex:
    """Texts, to be asked which of them are near copies of one.

    A text is found by its rarest runs only, just enough of them that two near copies must share some (prefix filtering,
    Chaudhuri et al. 2006; the longer the texts, the more, as Wang et al. 2012 do). Which runs are rare is learnt from
    ``texts``; none of them is in the index before ``add``.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._frequency = Counter(run for text in texts for run in grams(_key(text)))
        self._index: dict[str, list[int]] = defaultdict(list)
        self._runs: dict[int, set[str]] = {}

    def add(self, number: int, text: str) -> None:
        """Put a text into the index, under a number of the caller's."""
        runs = self._runs[number] = grams(_key(text))
        for run in self._rarest(runs):
            self._index[run].append(number)

    def of(self, text: str) -> Iterator[tuple[int, float]]:
        """The number of each text that this one is a near copy of, and how alike they are (Jaccard index)."""
        theirs = grams(_key(text))
        shared = Counter(number for run in self._rarest(theirs) for number in self._index.get(run, ()))
        for number in sorted(shared):
            mine = self._runs[number]
            if not NEAR_COPY * len(theirs) <= len(mine) <= len(theirs) / NEAR_COPY:
                continue
            if shared[number] >= min(_least_shared(len(mine)), _least_shared(len(theirs))):
                alike = likeness(mine, theirs)
                if alike > NEAR_COPY:
                    yield number, alike

    def _rarest(self, runs: set[str]) -> list[str]:
        ordered = sorted(runs, key=lambda run: (self._frequency[run], run))
        return ordered[: len(runs) - math.ceil(NEAR_COPY * len(runs)) + _least_shared(len(runs))]


def _least_shared(runs: int) -> int:
    """How many of their rarest runs two near copies share at least, if one has so many runs."""
    return 1 + runs // 20


def likeness(one: set[str], other: set[str]) -> float:
    """The share of runs that two texts have in common (Jaccard index)."""
    both = len(one & other)
    return both / (len(one) + len(other) - both)


def near_copies(ours: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs (ours, others) that are equal once normalised, or share more than 0.7 of their five-character runs.

    Other texts of twice our longest are not copies and are passed over.
    """
    mine = list(ours)
    index, most_chars = CopyIndex(mine), 2 * max(map(len, mine), default=0)
    for at, text in enumerate(mine):
        index.add(at, text)
    return [(mine[at], text) for text in others if len(text) <= most_chars for at, _ in index.of(text)]


def _key(text: str) -> str:
    # What has no letters at all (emoji, say) is compared as it stands.
    return normalised(text) or text


def _copies(records: Sequence[Antiprompt], order: Iterable[int]) -> dict[int, Dropped]:
    """The same again, and near copies of what comes before them in ``order``."""
    index = CopyIndex(record.text for record in records)
    kept: dict[str, int] = {}
    gone: dict[int, Dropped] = {}
    for at in order:
        record = records[at]
        if record.id in kept:
            gone[at] = Dropped(record, record.id, "same", 1.0)
            continue
        near = [
            (alike, other)
            for other, alike in index.of(record.text)
            if _comparable(record, records[other])
            and likeness(grams(_key(record.prompt or "")), grams(_key(records[other].prompt or ""))) > NEAR_COPY
        ]
        if near:
            alike, other = max(near, key=lambda pair: pair[0])
            gone[at] = Dropped(record, records[other].id, "near_copy", alike)
        else:
            kept[record.id] = at
            index.add(at, record.text)
    return gone


def _near_vectors(records: Sequence[Antiprompt], order: Sequence[int], made: Vectors) -> dict[int, Dropped]:
    """Those all of whose windows, and prompts, have vectors near to those of one before them in ``order``."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, at in enumerate(made.rows.record.tolist()):
        rows_of[at].append(row)
    groups: dict[tuple[str, bool, int], list[int]] = defaultdict(list)
    for at in order:
        groups[records[at].side, records[at].harmful, len(rows_of[at])].append(at)
    gone: dict[int, Dropped] = {}
    for (_, _, size), members in groups.items():
        if not size:
            continue
        rows = np.array([rows_of[at] for at in members])
        for one, other, alike in _near_pairs(made, rows):
            at, before = members[one], members[other]
            if at in gone or before in gone or not _comparable(records[at], records[before]):
                continue
            if _maybe_one(records[at].text, records[before].text):
                gone[at] = Dropped(records[at], records[before].id, "near_vector", alike)
    return gone


def _maybe_one(one: str, other: str) -> bool:
    latin = all(2 * len(re.findall("[A-Za-z]", text)) >= len(re.findall(r"[^\W\d_]", text)) for text in (one, other))
    return latin or likeness(grams(_key(one)), grams(_key(other))) >= _LEAST_ALIKE


def _near_pairs(made: Vectors, rows: NDArray[np.int64]) -> Iterator[tuple[int, int, float]]:
    """Of members with ``rows`` (members, rows of each): one, another before it, and their least near rows' cosine."""
    # 0.97 is meant for texts that the encoder knows how to spread; where all are close, nearer is asked for.
    crowding = (1 - made.background[rows].max(axis=1)) / (1 - _USUAL_BACKGROUND)
    asked = 1 - (1 - NEAR_VECTOR) * np.minimum(crowding, 1.0)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        end = start + len(block)
        alike = np.min(
            [made.vectors[block[:, at]] @ made.vectors[rows[:end, at]].T for at in range(rows.shape[1])], axis=0
        )
        for one, other in np.argwhere(alike > np.maximum(asked[start:end, None], asked[None, :end])):
            if other < start + one:
                yield start + int(one), int(other), float(min(alike[one, other], 1.0))


def _comparable(one: Antiprompt, other: Antiprompt) -> bool:
    return (
        (one.label, one.side, one.prompt is None) == (other.label, other.side, other.prompt is None)
        and one.id != other.id
        and State.RETIRED not in (one.state, other.state)
    )


def _poverty(record: Antiprompt) -> tuple[int, bool, bool, float]:
    """What the worth of an exemplar sorts by, the one to keep first."""
    made = math.inf if record.created_at is None else datetime.fromisoformat(record.created_at).timestamp()
    return _RANK[record.state], record.expires_at is not None, record.desired_response is None, made


def _turned(record: Antiprompt, instead: dict[str, str]) -> Antiprompt:
    twin = instead.get(record.twin or "", record.twin)
    return record if twin == record.twin else replace(record, twin=twin)
