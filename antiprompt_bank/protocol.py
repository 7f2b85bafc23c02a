"""Leave-source-out: what a fold may learn from, what it holds back, and what it is measured on.

A fold's sources are on neither side of its training; near copies of their rows (five-character runs, Jaccard index
above 0.7) leave the training side too, the seed's among them. Everyday rows that are held back belong to sources that
are trained on, but no row of them is: they carry a threshold over to the fold's own sources.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from antiprompt_bank.dedupe import CopyIndex
from antiprompt_bank.examples import Example, Fold, Folds, Role
from antiprompt_bank.hazards import HAZARDS
from antiprompt_bank.records import Antiprompt, Label

ROWS_PER_SOURCE: Final = 1300
HELD_BACK_PER_SOURCE: Final = 100

_DEFAULT_HAZARDS: Final[Mapping[Role, str]] = {"jailbreak": "jailbreak"}
_DEFAULT_HAZARD: Final = "non_violent_crimes"

_PERSONAS: Final = frozenset({"persona", "roleplay"})
"""Categories of look-alike sources that resemble no hazard: as everyday as chat, if longer."""

_AROUND: Final = 80
"""Characters of a document that are kept on each side of what was planted in it."""

_LEAST_TRAINED: Final = 0.75
"""Of a source at least this share is trained on before rows are held back."""


@dataclass(frozen=True, slots=True)
class Split:
    """One fold's parts: records to learn from (of the seed and of public rows), held-back rows, left-out rows.

    ``near_copies`` counts by source the rows that were dropped because a left-out row is nearly the same.
    ``harmless`` are everyday texts that calibrate and are learnt from by nobody; ``guessed`` the ids of
    training records whose hazard their set does not tell.
    """

    fold: Fold
    training: tuple[Antiprompt, ...]
    held_back: tuple[Example, ...]
    left_out: Mapping[str, tuple[Example, ...]]
    near_copies: Mapping[str, int]
    harmless: tuple[Antiprompt, ...] = ()
    guessed: frozenset[str] = frozenset()

    @property
    def trained_on(self) -> Mapping[str, int]:
        """How many records of each source are on the training side."""
        return Counter(record.source for record in self.training)


def split(
    folds: Folds,
    fold: Fold,
    sources: Mapping[str, Sequence[Example]],
    seed_records: Sequence[Antiprompt] = (),
    *,
    harmless: Sequence[Antiprompt] = (),
    rows_per_source: int = ROWS_PER_SOURCE,
    held_back_per_source: int = HELD_BACK_PER_SOURCE,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Split:
    """The parts of one fold; ``rows_per_source`` caps the training side, ``seed`` chooses the rows."""
    out = fold.left_out | {source for source, role in folds.roles.items() if role == "never"}
    left_out = {source: tuple(rows) for source, rows in sources.items() if source in out}
    copies = _Copies(example.text for rows in left_out.values() for example in rows)
    training = [record for record in seed_records if not copies.has(record.text, record.source)]
    unseen = tuple(record for record in harmless if not copies.has(record.text, record.source))
    held_back: list[Example] = []
    guessed: set[str] = set()
    inside = [source for source in sources if source not in out]
    for done, source in enumerate(inside, start=1):
        role = folds.roles[source]
        rows = list(sources[source])
        Random(f"{seed} {source}").shuffle(rows)  # noqa: S311  # a sample, not a secret
        held = _held(role, len(rows), held_back_per_source)
        held_back += rows[:held]
        new = (example for example in rows[held:] if not copies.has(example.text, source))
        taken = list(_records(new, role, rows_per_source))
        training += [record for _, record in taken]
        guessed |= {record.id for example, record in taken if example.hazard is None and role not in _DEFAULT_HAZARDS}
        if progress is not None:
            progress(done, len(inside))
    return Split(fold, tuple(training), tuple(held_back), left_out, dict(copies.found), unseen, frozenset(guessed))


def as_antiprompt(example: Example, role: Role) -> Antiprompt | None:
    """A public row as an exemplar; None where its hazard is never carried as text."""
    hazard = example.hazard or _DEFAULT_HAZARDS.get(role, _DEFAULT_HAZARD)
    if example.harmful and not HAZARDS[hazard].carries_text:
        return None
    alike = role == "response" or (role == "lookalike" and example.category not in _PERSONAS)
    return Antiprompt(
        text=_passage(example),
        label=Label.HARMFUL if example.harmful else Label.BENIGN,
        side=example.side,
        hazard=hazard if example.harmful or (alike and HAZARDS[hazard].carries_text) else None,
        language=example.language,
        prompt=example.prompt,
        source=example.source,
        licence="see the set",
        family=_family(example),
    )


def _passage(example: Example) -> str:
    """The text, or of a harmful document the part that is harmful and a little of what stands around it."""
    at = example.text.find(example.payload) if example.payload and example.harmful else -1
    if at < 0 or example.payload is None:
        return example.text
    return example.text[max(0, at - _AROUND) : at + len(example.payload) + _AROUND]


class _Copies:
    """The texts that are left out, to be asked for near copies of a text."""

    def __init__(self, texts: Iterator[str]) -> None:
        known = list(dict.fromkeys(texts))
        self._index = CopyIndex(known)
        for number, text in enumerate(known):
            self._index.add(number, text)
        self.found: Counter[str] = Counter()

    def has(self, text: str, source: str) -> bool:
        copied = next(self._index.of(text), None) is not None
        self.found[source] += copied
        return copied


def _held(role: Role, rows: int, most: int) -> int:
    return min(most, round((1 - _LEAST_TRAINED) * rows)) if role in ("everyday", "response_safe") else 0


def _records(examples: Iterator[Example], role: Role, most: int) -> Iterator[tuple[Example, Antiprompt]]:
    taken = 0
    for example in examples:
        if taken == most:
            return
        record = as_antiprompt(example, role)
        if record is not None:
            taken += 1
            yield example, record


def _family(example: Example) -> str | None:
    """What is left out together when a calibration is fitted: groups, and the answers to one question."""
    if example.group is not None:
        return example.group
    if example.prompt is None:
        return None
    return f"{example.source}:{hashlib.sha256(example.prompt.encode()).hexdigest()[:12]}"
