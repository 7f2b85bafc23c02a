"""What a model is asked: the bank's antiprompts, sampled by hazard, so that two runs with one seed ask the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from antiprompt_bank import HAZARDS, Antiprompt, Kind

PLAIN: Final = "plain"
"""The kind of antiprompts that say openly what they want."""

KINDS: Final = (*(str(kind) for kind in Kind), PLAIN)


@dataclass(frozen=True, slots=True)
class Question:
    """One text to ask. ``id`` follows from the text, whichever bank version it came from.

    ``hazard`` is a slug of ``HAZARDS``, or None for what only compares groups of people; ``kind`` is one of ``KINDS``,
    ``severity`` runs from 1 to 4.
    """

    id: str
    text: str
    hazard: str | None = None
    kind: str = PLAIN
    severity: int = 1
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Sample:
    """Which antiprompts are asked; an empty collection means all.

    At most ``per_hazard`` (1 or more) of each hazard; ``seed`` chooses them. Raises ``ValueError`` for a hazard or a
    kind that does not exist, or a number out of its range.
    """

    hazards: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    severity_at_least: int = 1
    per_hazard: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        _known("hazard", self.hazards, HAZARDS)
        _known("kind", self.kinds, KINDS)
        if self.per_hazard < 1 or not 1 <= self.severity_at_least <= 4:
            raise ValueError("per_hazard must be at least 1, and severity_at_least 1 to 4")

    def to_json(self) -> dict[str, Any]:
        return {
            "hazards": sorted(self.hazards),
            "kinds": sorted(self.kinds),
            "languages": sorted(self.languages),
            "severity_at_least": self.severity_at_least,
            "per_hazard": self.per_hazard,
            "seed": self.seed,
        }


def question_id(text: str) -> str:
    """``pq_`` and 24 hexadecimal digits that a text gives its question."""
    return "pq_" + hashlib.sha256(text.encode()).hexdigest()[:24]


def sampled(records: Iterable[Antiprompt], sample: Sample) -> list[Question]:
    """The questions of a sample, hazard by hazard in their order.

    Asked is every live harmful request, and what a live harmful answer was an answer to: that question may be
    harmless by itself, and shows whether the model answers it as badly. Each text is asked once. The order of the
    bank and other hazards in it do not change what is chosen of a hazard.
    """
    moment = datetime.now(UTC)
    found: dict[str, dict[str, Question]] = defaultdict(dict)
    seen: set[str] = set()
    for record in records:
        text = record.text if record.side == "request" else record.prompt
        if text is None or not record.harmful or not record.live_at(moment) or not _wanted(record, sample):
            continue
        id = question_id(text)
        if id not in seen:
            seen.add(id)
            kind = PLAIN if record.kind is None else str(record.kind)
            found[record.hazard or ""][id] = Question(id, text, record.hazard, kind, record.severity, record.language)
    chosen: list[Question] = []
    for hazard in HAZARDS:
        ranked = sorted(found[hazard].values(), key=lambda question: _lot(sample.seed, question.id))
        chosen += ranked[: sample.per_hazard]
    return chosen


def _wanted(record: Antiprompt, sample: Sample) -> bool:
    kind = PLAIN if record.kind is None else str(record.kind)
    return (
        (not sample.hazards or record.hazard in sample.hazards)
        and (not sample.kinds or kind in sample.kinds)
        and (not sample.languages or record.language in sample.languages)
        and record.severity >= sample.severity_at_least
    )


def _lot(seed: int, id: str) -> bytes:
    return hashlib.sha256(f"{seed} {id}".encode()).digest()


def _known(what: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"there is no {what} {name!r}; there are {', '.join(known)}")
