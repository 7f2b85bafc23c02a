"""What a person decides about a flag: verdicts, reviews, comments, the audit log; and how they are laid down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, Literal

import orjson

UNDO_S: Final = 600
"""How long a decision can be taken back."""

LEASE_S: Final = 600
"""How long a claimed flag is kept for one person."""

MAX_FLAGS: Final = 500
"""Flags that one verdict may decide."""

MAX_WORDS: Final = 4000
"""Characters of a comment."""

QueueOrder = Literal["priority", "newest"]
"""``priority``: by risk, exposure and uncertainty, highest first; ``newest``: by time of creation."""


class Decision(StrEnum):
    """What a moderator says of a flag. ``escalate`` leaves it to a lead."""

    CONFIRM = "confirm"
    DISMISS = "dismiss"
    ESCALATE = "escalate"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFilter:
    """Which flags are asked for; what is None does not matter. ``max_age_s`` in seconds since the flag was filed."""

    hazard: str | None = None
    source: str | None = None
    tenant: str | None = None
    language: str | None = None
    max_age_s: float | None = None

    @property
    def asks(self) -> bool:
        """Whether it asks for anything."""
        return self != QueueFilter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A decision about flags, as it is asked for: one flag, or several look-alikes with one decision.

    ``hazard`` and ``severity`` (1 mild to 4 grave) go with a confirmation; the hazard may be left out where the flag
    names one. ``corrected_answer`` (what should have been answered) and ``benign_twin`` (a harmless text in the same
    words) become benign exemplars beside the confirmed one.
    """

    flag_ids: tuple[str, ...]
    moderator: str
    decision: Decision
    role: str = "moderator"
    hazard: str | None = None
    severity: int = 2
    corrected_answer: str | None = None
    benign_twin: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A verdict that was carried out. Holds no text of the flags, only what the moderator wrote.

    ``at`` and ``undone_at`` are UTC seconds since 1970 (``undone_at`` 0: it stands). ``entry_ids`` are the exemplars
    that it put into the bank; ``awaits_second`` says that another person must make them live. ``notes`` say, in words
    without text, what did not become an exemplar and why. ``waited_s`` is how long each flag had waited, ``sources``
    who had flagged it, ``hazards`` what it was flagged as, all in the order of ``flag_ids``.
    """

    id: str
    flag_ids: tuple[str, ...]
    moderator: str
    role: str
    decision: Decision
    at: float
    hazard: str | None = None
    severity: int = 2
    corrected_answer: str | None = None
    benign_twin: str | None = None
    comment: str | None = None
    entry_ids: tuple[str, ...] = ()
    awaits_second: bool = False
    notes: tuple[str, ...] = ()
    waited_s: tuple[float, ...] = ()
    sources: tuple[str, ...] = ()
    hazards: tuple[str | None, ...] = ()
    undone_by: str | None = None
    undone_at: float = 0.0

    @property
    def undo_until(self) -> float:
        """Until when (UTC seconds) it can be taken back."""
        return self.at + UNDO_S

    @property
    def stands(self) -> bool:
        return self.undone_by is None

    def to_json(self) -> str:
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> Review:
        """What Redis holds: the review, and apart from it who undid it and when."""
        values: dict[str, Any] = orjson.loads(row["review"])
        for name in ("flag_ids", "entry_ids", "notes", "waited_s", "sources", "hazards"):
            values[name] = tuple(values[name])
        values["decision"] = Decision(values["decision"])
        if "undone_by" in row:
            values |= {"undone_by": row["undone_by"], "undone_at": float(row["undone_at"])}
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Comment:
    """What somebody wrote beside a flag; ``at`` is UTC in seconds since 1970."""

    at: float
    moderator: str
    text: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that a person did, without text. ``subject`` is the flag, review, entry or version it was done to."""

    id: str
    at: float
    actor: str
    action: str
    subject: str
    note: str = ""

    @classmethod
    def from_stream(cls, id: str, row: Mapping[str, str]) -> AuditEntry:
        at = int(id.partition("-")[0]) / 1000  # by Redis' own clock, one for all gateways
        return cls(id, at, row["actor"], row["action"], row["subject"], row.get("note", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """How the work goes, over the newest reviews that stand (at most ``reviews`` of them).

    ``by_state`` counts flags; ``filed`` and ``decided`` those of the last day. ``review_s_median`` is how long a flag
    waited for its review; ``agreement`` the share of flags decided more than once on which all agreed (None without
    any); ``false_hits`` has for each hazard the share of policy's flags that were dismissed, ``flags_by_hazard`` how
    many those are.
    """

    by_state: Mapping[str, int]
    filed: int
    decided: int
    reviews: int
    review_s_median: float | None
    agreement: float | None
    false_hits: Mapping[str, float]
    flags_by_hazard: Mapping[str, int]
    by_moderator: Mapping[str, int]
