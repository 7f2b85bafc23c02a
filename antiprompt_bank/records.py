"""Antiprompt: one exemplar of the bank, harmful or benign, and the id its content gives it."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Literal

from antiprompt_bank.hazards import HAZARDS

Side = Literal["request", "response"]
"""Which way a text travels: towards the model, or from it."""


class Label(StrEnum):
    """What an exemplar stands for."""

    HARMFUL = "harmful"
    BENIGN = "benign"


class Kind(StrEnum):
    """How an antiprompt leads a model astray; a field of its own, apart from the hazard."""

    MISLEADING = "misleading"
    ADVERSARIAL = "adversarial"
    AMBIGUOUS = "ambiguous"


class State(StrEnum):
    """Where an exemplar stands in its life; only live ones decide, shadow ones are recorded."""

    QUARANTINE = "quarantine"
    SHADOW = "shadow"
    LIVE = "live"
    RETIRED = "retired"


REVIEWED: Final = "review"
"""The ``source`` of exemplars that come from flags which people have decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Antiprompt:
    """One exemplar.

    ``text`` is the request or the response it stands for. A response exemplar may carry the ``prompt`` it answers:
    it is then compared as a pair. ``hazard`` is a slug of ``HAZARDS``; a benign exemplar may name the hazard it is
    the harmless look-alike of. ``severity`` runs from 1 (mild) to 4 (grave). ``desired_response`` is what a model
    should have answered. ``twin`` is the id of the exemplar with the same words and the other label.
    ``source`` and ``licence`` are its provenance; ``created_at`` and ``expires_at`` are UTC, ISO 8601.

    Raises ``ValueError`` with the field named when a value is out of its range.
    """

    text: str
    label: Label
    side: Side
    hazard: str | None = None
    kind: Kind | None = None
    severity: int = 2
    language: str = "en"
    prompt: str | None = None
    desired_response: str | None = None
    state: State = State.LIVE
    source: str = "seed"
    licence: str = "Apache-2.0"
    twin: str | None = None
    family: str | None = None
    created_at: str | None = None
    expires_at: str | None = None
    id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", Label(self.label))
        object.__setattr__(self, "state", State(self.state))
        if self.kind is not None:
            object.__setattr__(self, "kind", Kind(self.kind))
        if not self.text.strip():
            raise ValueError("text is empty")
        if self.side not in ("request", "response"):
            raise ValueError(f"side is {self.side!r}, not 'request' or 'response'")
        if self.side == "request" and self.prompt is not None:
            raise ValueError("prompt belongs to response exemplars only")
        self._check_hazard()
        if not 1 <= self.severity <= 4:
            raise ValueError(f"severity is {self.severity}, not 1 to 4")
        for name in ("created_at", "expires_at"):
            value = getattr(self, name)
            if value is not None and datetime.fromisoformat(value).tzinfo is None:
                raise ValueError(f"{name} is {value!r}, which names no time zone")
        object.__setattr__(self, "id", content_id(self.text, self.label, self.side, self.prompt))

    def _check_hazard(self) -> None:
        if self.hazard is None:
            if self.label is Label.HARMFUL:
                raise ValueError("a harmful exemplar needs a hazard")
            return
        known = HAZARDS.get(self.hazard)
        if known is None:
            raise ValueError(f"hazard is {self.hazard!r}, not one of {', '.join(HAZARDS)}")
        if not known.carries_text:
            raise ValueError(f"exemplars of {self.hazard} are never carried as text")

    @property
    def harmful(self) -> bool:
        return self.label is Label.HARMFUL

    @property
    def confirmed(self) -> bool:
        """Whether people confirmed this harm in what they saw, so that it must protect by itself, and widely."""
        return self.harmful and self.source == REVIEWED

    def live_at(self, moment: datetime) -> bool:
        """Whether this exemplar takes part in decisions at ``moment`` (an aware datetime)."""
        if self.state is not State.LIVE:
            return False
        return self.expires_at is None or datetime.fromisoformat(self.expires_at) > moment.astimezone(UTC)

    def to_json(self) -> dict[str, Any]:
        """The fields that are set, as plain JSON values; ``from_json`` reads them back."""
        return {name: str(v) if isinstance(v, StrEnum) else v for name, v in asdict(self).items() if v is not None}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Antiprompt:
        """Read one row. Raises ``ValueError`` for an unknown or missing field, or an id that the content denies."""
        unknown = set(row) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
        for name in ("text", "label", "side"):
            if not isinstance(row.get(name), str):
                raise ValueError(f"{name} is missing or not a text")
        record = cls(**row)
        if row.get("id", record.id) != record.id:
            raise ValueError(f"id is {row['id']!r}, but the content's is {record.id!r}")
        return record


def content_id(text: str, label: Label, side: Side, prompt: str | None = None) -> str:
    """The id that a text, its label, side and prompt give an exemplar: ``ap_`` and 24 hexadecimal digits.

    Case, compatibility forms and runs of white space do not change it, so that the same antiprompt reported twice
    is one row.
    """
    parts = (side, str(label), _folded(prompt or ""), _folded(text))
    return "ap_" + hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:24]


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
