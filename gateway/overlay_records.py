"""What joins the bank between two versions: entries with a life of their own, and how they are laid down in Redis."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from antiprompt_bank.records import Antiprompt, State


@dataclass(frozen=True, slots=True, kw_only=True)
class BankEntry:
    """One exemplar that a person added to the bank, or whose state a person changed, since a version was built.

    ``record`` holds state and expiry. ``by`` is who asked for it, ``second`` who made it live where its influence is
    wide; ``awaits_second`` while nobody has. ``disabled_until`` (UTC seconds since 1970; 0: not at all) keeps a live
    entry out of decisions until then. ``canary`` in (0, 1] is the share of gateways on which it decides; the others
    keep it in shadow. ``flag_id`` and ``review_id`` say what it comes from, ``changed_at`` (UTC seconds) when it was
    changed last, and ``why`` what the influence report said, in words without text.

    ``edits`` marks a change to an exemplar that came with a version: it is laid over the versions that hold the
    exemplar, and adds it to no other. So a roll-back undoes what the newer version brought, edits of it included;
    what people added or decided about exemplars of both versions stays, until they undo it.
    """

    record: Antiprompt
    by: str
    flag_id: str | None = None
    review_id: str | None = None
    second: str | None = None
    awaits_second: bool = False
    disabled_until: float = 0.0
    canary: float = 1.0
    changed_at: float = 0.0
    why: str = ""
    edits: bool = False

    @property
    def id(self) -> str:
        """The exemplar's id, which its content gives it."""
        return self.record.id

    def record_at(self, moment_s: float, replica: str) -> Antiprompt:
        """The exemplar as it takes part on a gateway at a moment: only in shadow while disabled or out of a canary."""
        if self.record.state is not State.LIVE:
            return self.record
        if self.disabled_until > moment_s or _share(self.id, replica) >= self.canary:
            return replace(self.record, state=State.SHADOW)
        return self.record

    def to_json(self) -> str:
        return orjson.dumps(
            {
                "record": self.record.to_json(),
                "by": self.by,
                "flag_id": self.flag_id,
                "review_id": self.review_id,
                "second": self.second,
                "awaits_second": self.awaits_second,
                "disabled_until": self.disabled_until,
                "canary": self.canary,
                "changed_at": self.changed_at,
                "why": self.why,
                "edits": self.edits,
            }
        ).decode()

    @classmethod
    def from_json(cls, line: str) -> BankEntry:
        """Raises ``ValueError`` for what is no entry."""
        values: dict[str, Any] = orjson.loads(line)
        return cls(**{**values, "record": Antiprompt.from_json(values["record"])})


@dataclass(frozen=True, slots=True)
class Replica:
    """What one gateway says of itself: the version it decides with, how far it has followed, when it last said so.

    ``bank`` is the version in force with its overlay, ``base`` the published one below it, ``position`` the id of the
    last change it has applied ("0-0": none), ``seen_at`` UTC seconds. ``problem`` says what keeps it from newer ones.
    """

    name: str
    bank: str
    base: str
    position: str
    seen_at: float
    problem: str | None = None

    def to_json(self) -> str:
        return orjson.dumps(self).decode()

    @classmethod
    def from_json(cls, line: str) -> Replica:
        values: Mapping[str, Any] = orjson.loads(line)
        return cls(**values)


def _share(entry_id: str, replica: str) -> float:
    """A number in [0, 1) that a gateway and an entry have together, for ever the same."""
    digest = hashlib.sha256(f"{replica} {entry_id}".encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32
