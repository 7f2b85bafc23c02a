"""What a language model may learn from: flags as people decided them, one row each, as JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import orjson

from antiprompt_bank import HAZARDS

LICENCE: Final = "proprietary"
"""What users wrote belongs to them."""


class Standing(StrEnum):
    """How sure it is that an answer is bad. ``clean`` is traffic that nobody flagged and somebody vouches for."""

    CONFIRMED = "confirmed"
    PENDING = "pending"
    DISMISSED = "dismissed"
    CLEAN = "clean"

    @property
    def may_be_bad(self) -> bool:
        return self in (Standing.CONFIRMED, Standing.PENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """One flag, or one exchange that nobody flagged.

    ``prompt`` is what the model was asked, ``answer`` what it said (None where the request itself was flagged),
    ``corrected`` what a moderator says it should have said. ``severity`` runs from 1 to 4. ``role`` is the
    reviewer's, never a name. ``licence`` is that of the texts. Raises ``ValueError`` naming the field.
    """

    flag_id: str
    standing: Standing
    prompt: str
    answer: str | None = None
    corrected: str | None = None
    hazard: str | None = None
    severity: int = 2
    language: str = "en"
    review_id: str | None = None
    role: str | None = None
    bank_version: str | None = None
    licence: str = LICENCE

    def __post_init__(self) -> None:
        object.__setattr__(self, "standing", Standing(self.standing))
        if not self.flag_id or not self.prompt.strip():
            raise ValueError("flag_id and prompt must not be empty")
        if self.hazard is not None and self.hazard not in HAZARDS:
            raise ValueError(f"hazard is {self.hazard!r}, not one of {', '.join(HAZARDS)}")
        if self.standing is Standing.CONFIRMED and self.hazard is None:
            raise ValueError("a confirmed flag needs a hazard")
        if self.corrected is not None and self.standing is not Standing.CONFIRMED:
            raise ValueError("a corrected answer belongs to a confirmed flag")

    @property
    def bad_answer(self) -> str | None:
        """The answer, where a person confirmed that it is bad."""
        return self.answer if self.standing is Standing.CONFIRMED else None

    @property
    def good_answers(self) -> tuple[str, ...]:
        """Answers that a person stands behind: a correction, a false alarm, traffic vouched for."""
        if self.standing is Standing.CONFIRMED:
            return () if self.corrected is None else (self.corrected,)
        plain = self.standing is not Standing.PENDING and self.answer is not None
        return (self.answer,) if plain and self.answer is not None else ()

    def to_json(self) -> dict[str, Any]:
        """The fields that are set; ``from_json`` reads them back."""
        return {
            name: str(value) if isinstance(value, StrEnum) else value
            for name, value in asdict(self).items()
            if value is not None
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Reviewed:
        """Raises ``ValueError`` for an unknown, missing or ill-typed field."""
        texts = {field.name for field in fields(cls)} - {"severity"}
        for name, value in row.items():
            if name != "severity" and name not in texts:
                raise ValueError(f"unknown field {name!r}")
            if not isinstance(value, int if name == "severity" else str):
                raise ValueError(f"{name} has the wrong type")
        missing = {"flag_id", "standing", "prompt"} - row.keys()
        if missing:
            raise ValueError(f"{sorted(missing)[0]} is missing")
        return cls(**row)


def read_reviewed(path: Path) -> list[Reviewed]:
    """Read a file of JSON lines. Raises ``ValueError`` naming the line that cannot be read."""
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not a JSON object")
            rows.append(Reviewed.from_json(row))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    half = path.with_name(path.name + ".part")
    with half.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    half.replace(path)
