"""What a case and an exchange are, and how they are laid down."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from antiprompt_bank.records import Side


def new_case_id() -> str:
    """An id nobody can guess: ``case_`` and 24 hexadecimal digits."""
    return "case_" + secrets.token_hex(12)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFinding:
    """What was found in one text, without the text.

    ``index`` is the text's position among those screened, ``start`` and ``end`` the riskiest window in its
    characters, ``token_start`` and ``token_end`` the same in tokens of the ``view`` (0 in older cases), ``exemplars``
    the ids of the bank's exemplars behind it, those found word for word first.
    """

    side: Side
    role: str
    index: int
    risk: float
    hazard: str | None = None
    risks: Mapping[str, float] = field(default_factory=dict)
    view: str = "raw"
    start: int = 0
    end: int = 0
    token_start: int = 0
    token_end: int = 0
    exemplars: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What was decided about one request and its reply, and why. Holds no text; ``trace_id`` names its trace, if any.

    ``created_at`` is UTC in seconds since 1970. ``side`` says on which side the action was taken. ``end_user`` is
    the digest of ``RedisClient.end_user_digest``. ``shadow`` names what shadow rules would have done, ``unreadable``
    the kinds of parts that went by unscreened, ``unscreened`` the cause where policy let pass what could not be
    screened. ``standing`` is what strikes had led to for the end user (None: nothing). ``exemplar`` is the id
    of the bank's exemplar behind the decision, unless it was to allow. ``timings_ms`` has the
    milliseconds of each step.
    """

    id: str
    created_at: float
    tenant: str
    surface: str
    action: str
    key_id: str | None = None
    end_user: str | None = None
    model: str | None = None
    rule: str | None = None
    enforced: bool = True
    hazard: str | None = None
    risk: float = 0.0
    side: Side | None = None
    policy_version: str | None = None
    bank_version: str | None = None
    shadow: tuple[str, ...] = ()
    findings: tuple[CaseFinding, ...] = ()
    unreadable: tuple[str, ...] = ()
    unscreened: str | None = None
    standing: str | None = None
    exemplar: str | None = None
    upstream_status: int | None = None
    completion_id: str | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    trace_id: str | None = None

    @property
    def stopped(self) -> Side | None:
        """On which side something was kept from its reader; None where nothing was."""
        return self.side if self.action in ("block", "rewrite") else None

    def to_json(self) -> bytes:
        return orjson.dumps(self, default=dict)  # of any Mapping

    @classmethod
    def from_json(cls, line: str | bytes) -> Case:
        values: dict[str, Any] = orjson.loads(line)
        for name in ("shadow", "unreadable"):
            values[name] = tuple(values[name])
        values["findings"] = tuple(_finding(finding) for finding in values["findings"])
        return cls(**values)


def _finding(values: dict[str, Any]) -> CaseFinding:
    return CaseFinding(**{**values, "exemplars": tuple(values["exemplars"])})


@dataclass(frozen=True, slots=True)
class Exchange:
    """The text of one exchange: each request text with its role, in reading order, and the reply's texts by choice."""

    request: tuple[tuple[str, str], ...]
    reply: tuple[str, ...] = ()

    @property
    def prompt(self) -> str | None:
        """What the reply answers: the last text of the user, or None."""
        return next((text for role, text in reversed(self.request) if role == "user"), None)

    def acted_on(self, case: Case) -> str | None:
        """The text of the request for which ``case`` decided as it did; what the user said last where none is named."""
        named = [each for each in case.findings if each.side == "request" and each.hazard == case.hazard]
        worst = max(named, key=lambda each: each.risk, default=None)
        if case.side != "request" or worst is None or worst.index >= len(self.request):
            return self.prompt
        return self.request[worst.index][1]

    @property
    def characters(self) -> int:
        return sum(len(text) for _, text in self.request) + sum(map(len, self.reply))

    def to_json(self) -> bytes:
        try:
            return orjson.dumps(self)
        except TypeError:  # half a surrogate pair, as a stream cut in two may leave one
            return orjson.dumps(
                Exchange(tuple((r, _whole(t)) for r, t in self.request), tuple(map(_whole, self.reply)))
            )

    @classmethod
    def from_json(cls, line: str | bytes) -> Exchange:
        values = orjson.loads(line)
        return cls(tuple((role, text) for role, text in values["request"]), tuple(values["reply"]))


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
