"""What is written down about the policy: which is in force, who did what to it, and break-glass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import orjson

from gateway.redis_client import Field

FILE: Final = "file"
"""Source and author of what came from the policy file; no person may use the name."""

_MAX_WORDS: Final = 1000


class Event(StrEnum):
    """What can happen to the policy."""

    FILE = "file"  # the file became the policy in force
    PUBLISH = "publish"
    ROLLBACK = "rollback"
    BREAK_GLASS = "break_glass"
    RESTORE = "restore"  # break-glass was ended before its time

    @property
    def puts_in_force(self) -> bool:
        """Whether a version came into force by it."""
        return self in (Event.FILE, Event.PUBLISH, Event.ROLLBACK)


@dataclass(frozen=True, slots=True)
class InForce:
    """The version in force, and how it came to be. ``source`` is ``file`` or ``published``."""

    version: str
    source: str
    author: str
    note: str

    def to_json(self) -> str:
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def from_json(cls, text: str) -> InForce:
        """Raises ``ValueError`` for what is no such record."""
        return cls(**_texts(text, "version", "source", "author", "note"))


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """Everything is in shadow until ``until`` (UTC)."""

    author: str
    reason: str
    until: datetime

    def to_json(self) -> str:
        """Without ``until``, which is the key's own lifetime."""
        return orjson.dumps({"author": self.author, "reason": self.reason}).decode()

    @classmethod
    def from_json(cls, text: str, until: datetime) -> BreakGlass:
        """Raises ``ValueError`` for what is no such record."""
        return cls(**_texts(text, "author", "reason"), until=until)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done. ``version`` is the policy's after it, or during it; ``minutes`` is for break-glass."""

    at: datetime
    event: Event
    version: str
    author: str
    note: str
    minutes: float | None = None

    @classmethod
    def from_stream(cls, id: str, row: Mapping[str, str]) -> AuditEntry:
        # The id's time is by Redis' own clock, one for all gateways.
        at = datetime.fromtimestamp(int(id.partition("-")[0]) / 1000, UTC)
        minutes = float(row["minutes"]) if "minutes" in row else None
        return cls(at, Event(row["event"]), row["version"], row["author"], row["note"], minutes)


def audit_row(event: Event, version: str, author: str, note: str, minutes: float | None = None) -> dict[Field, Field]:
    """An entry of the history's stream; Redis gives it its time."""
    row: dict[Field, Field] = {"event": event, "version": version, "author": author, "note": note}
    return row if minutes is None else row | {"minutes": minutes}


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """What is in force on this gateway, and why. ``problem`` says what keeps it from what Redis holds."""

    version: str
    source: str
    author: str
    note: str
    locked: bool
    break_glass: BreakGlass | None
    problem: str | None


def check_words(author: str, why: str) -> None:
    """Whoever changes a policy says who they are and why. Raises ``ValueError``."""
    for name, words in (("the author", author), ("the reason", why)):
        if not words.strip() or len(words) > _MAX_WORDS:
            raise ValueError(f"{name} must be given, in at most {_MAX_WORDS} characters")
    if author == FILE:
        raise ValueError(f"the author cannot be {FILE!r}, which stands for the policy file; name a person")


def _texts(text: str, *names: str) -> dict[str, Any]:
    values = orjson.loads(text)
    if not isinstance(values, dict) or not all(isinstance(values.get(name), str) for name in names):
        raise ValueError(f"it does not hold {', '.join(names)}")
    return {name: values[name] for name in names}
