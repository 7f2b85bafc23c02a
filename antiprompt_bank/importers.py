"""Importers: local files of public or own sets in, Antiprompts out, with where they come from and their licence.

A row goes through three hands: ``reading`` makes values of it, ``columns`` says which value is what, and here what was
given for the whole file is filled in. What a row says of itself counts first, then what was given, then what is known
of the set (``public_sets``).

Nothing that is read becomes live unless that is asked for. Rows about the sexual exploitation of children are refused,
by their category or their words, and only counted: neither they nor any part of them is kept or shown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from antiprompt_bank.columns import GAP, Columns, check_mapping
from antiprompt_bank.hazards import HAZARDS
from antiprompt_bank.public_sets import LICENCES, PUBLIC_SETS, about_children, hazard_of, recognised
from antiprompt_bank.reading import LAYOUTS, MAX_ROWS, Row, Unreadable, layout_of, rows
from antiprompt_bank.records import Antiprompt, Label, Side, State

FORMATS: Final = ("auto", "antiprompt", *LAYOUTS, *(known.name for known in PUBLIC_SETS))

_HARMFUL: Final = frozenset({"unsafe", "harmful", "toxic", "1", "1.0", "true", "yes"})
_BENIGN: Final = frozenset({"safe", "benign", "0", "0.0", "false", "no"})
_OWN: Final = frozenset(field.name for field in fields(Antiprompt))


@dataclass(frozen=True, slots=True)
class Given:
    """What is said for a whole file, used where its rows do not say it.

    ``hazard`` is for harmful rows whose category maps to none. ``state`` is every row's (None: the row's own, where it
    has one). ``columns`` names the column that holds a value (``{"text": "goal"}``).
    """

    label: Label | None = None
    side: Side | None = None
    hazard: str | None = None
    language: str | None = None
    licence: str | None = None
    source: str | None = None
    state: State | None = State.QUARANTINE
    columns: Mapping[str, str] = field(default_factory=dict)
    created_at: str | None = None

    def __post_init__(self) -> None:
        if self.hazard is not None and self.hazard not in HAZARDS:
            raise ValueError(f"there is no hazard {self.hazard!r}; there are {', '.join(HAZARDS)}")
        check_mapping(self.columns)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out, and why; never its text."""

    file: str
    line: int
    reason: str


@dataclass(slots=True)
class Report:
    """What became of a file's rows. ``notes`` says what was guessed, ``counts`` how often something was noteworthy."""

    format: str = ""
    read: int = 0
    taken: int = 0
    refused: int = 0
    bad: list[BadRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class _Refused(Exception):
    """A row that is never carried as text."""


def import_file(
    path: Path,
    given: Given | None = None,
    *,
    format: str = "auto",
    report: Report | None = None,
    strict: bool = False,
    max_rows: int = MAX_ROWS,
) -> Iterator[Antiprompt]:
    """The exemplars of a local file, in its order; ``report`` is filled on the way.

    Raises ``OSError``, and ``ValueError`` with file and line: for a file that is not of its format or passes a bound,
    and with ``strict`` for the first bad row (a refused one is not bad).
    """
    given, report = given or Given(), report if report is not None else Report()
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}, not one of {', '.join(FORMATS)}")
    reader: _Reader | None = None
    for row in rows(path, format if format in LAYOUTS else layout_of(path), max_rows=max_rows):
        report.read += 1
        try:
            if isinstance(row, Unreadable):
                raise ValueError(row.reason)
            if reader is None:
                reader = _reader(path, format, given, row, report)
            record = reader.record(row.values)
        except _Refused:
            report.refused += 1
        except (ValueError, TypeError) as error:
            report.bad.append(BadRow(str(path), row.line, str(error)))
            if strict:
                raise ValueError(f"{path}, line {row.line}: {error}") from error
        else:
            report.taken += 1
            yield record


def _reader(path: Path, format: str, given: Given, first: Row, report: Report) -> _Reader:
    """How this file's rows are read: by its format or, unless that is told, by its first row."""
    columns = {name.casefold(): value for name, value in first.values.items()}
    known = next((known for known in PUBLIC_SETS if known.name == format), None)
    if format == "auto" and not given.columns:
        known = recognised(frozenset(columns))
        if known is None and "label" not in columns and GAP in str(columns.get("text")):
            known = next(known for known in PUBLIC_SETS if known.name == "gptfuzzer")
    own = format == "antiprompt" or (
        format == "auto" and columns.get("label") in ("harmful", "benign") and set(columns) <= _OWN
    )
    reader = _Reader(path, given, report, own, Columns(known, given.columns))
    report.format = known.name if known else "antiprompt" if own else layout_of(path) if format == "auto" else format
    if not own and known is None:
        read = reader.columns.found(first.values).items()
        report.notes.append("columns: " + ", ".join(f"{name} is the {what}" for what, name in read))
    if known and known.name == "jailbreakbench" and given.label is None:
        report.notes.append(f"its rows are taken as {reader.assumed_label}, by the file's name")
    return reader


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    given: Given
    report: Report
    own: bool
    columns: Columns

    def record(self, values: Mapping[str, Any]) -> Antiprompt:
        """Raises ``ValueError`` for a bad row, ``_Refused`` for one that is never carried."""
        record = self._own_record(values) if self.own else self._record(values)
        if record.harmful and about_children(f"{record.prompt or ''} {record.text}"):
            raise _Refused
        return record

    @property
    def assumed_label(self) -> Label | None:
        """The label of a row that does not say its own."""
        known = self.columns.known
        if self.given.label is not None or known is None:
            return self.given.label
        # JailbreakBench publishes its harmless goals in the same columns; only the file's name tells.
        if known.name == "jailbreakbench" and "benign" in self.path.name.casefold():
            return Label.BENIGN
        return known.label

    def _own_record(self, values: Mapping[str, Any]) -> Antiprompt:
        if values.get("hazard") == "child_exploitation":
            raise _Refused
        row = {name: value for name, value in values.items() if value not in ("", None)}
        if isinstance(row.get("severity"), str):  # a CSV knows no numbers
            row["severity"] = int(row["severity"])
        for name in sorted(_OWN - {"severity"}):
            if not isinstance(row.get(name), str | None):
                raise ValueError(f"{name} is not a text")
        row["source"], row["licence"] = self._provenance(row.get("source"), row.get("licence"))
        row.setdefault("language", self.given.language or "en")
        row.setdefault("created_at", self.given.created_at)
        row["state"] = self.given.state or row.get("state", State.QUARANTINE)
        return Antiprompt.from_json(row)

    def _record(self, values: Mapping[str, Any]) -> Antiprompt:
        value = self.columns.values(values)
        text = value.get("text")
        if not isinstance(text, str) or not text.strip():
            raise ValueError("there is no text" if isinstance(text, str | None) else "the text is not a text")
        label, side = self._label(value), self._side(value)
        source, licence = self._provenance(value.get("source"), value.get("licence"))
        if value.get("soft"):
            self.report.counts["labels that their set calls weak (soft)"] += 1
        prompt = value.get("prompt") or None
        if prompt is not None and side == "request":
            self.report.counts["prompts of requests, which exemplars do not have"] += 1
            prompt = None
        language = str(value.get("language") or self.given.language or "en")
        return Antiprompt(
            text=text,
            label=label,
            side=side,
            hazard=self._hazard(value, label, source),
            language=re.split("[-_]", language)[0].lower(),
            prompt=prompt,
            state=self.given.state or State.QUARANTINE,
            source=source,
            licence=licence,
            family=None if value.get("group") in (None, "") else str(value["group"]),
            created_at=self.given.created_at,
        )

    def _label(self, value: Mapping[str, Any]) -> Label:
        said = "" if value.get("label") is None else str(value["label"]).strip().casefold()
        if said in _HARMFUL:
            return Label.HARMFUL
        if said in _BENIGN:
            return Label.BENIGN
        if said:
            raise ValueError(f"label is {said[:40]!r}, neither harmful (unsafe, 1) nor benign (safe, 0)")
        if self.assumed_label is None:
            raise ValueError("nothing says whether it is harmful or benign; give a label")
        return self.assumed_label

    def _side(self, value: Mapping[str, Any]) -> Side:
        known = self.columns.known
        side: Side | None = value.get("side") or self.given.side or (known and known.side) or "request"
        if side not in ("request", "response"):
            raise ValueError(f"side is {side!r}, not 'request' or 'response'")
        return side

    def _hazard(self, value: Mapping[str, Any], label: Label, source: str) -> str | None:
        category = str(value.get("hazard") or value.get("category") or "")
        found = hazard_of(category, source)
        if found is None and label is Label.HARMFUL:
            known = self.columns.known
            found = self.given.hazard or (known.hazard if known else None)
            if found is None:
                raise ValueError(
                    f"category {category[:60]!r} maps to no hazard; give one" if category else "give a hazard"
                )
        if found is not None and not HAZARDS[found].carries_text:
            raise _Refused
        return found

    def _provenance(self, source: object, licence: object) -> tuple[str, str]:
        known = self.columns.known
        name = str(source or self.given.source or (known.source if known else None) or self.path.name.split(".")[0])
        if source is None and name not in LICENCES and name.replace("-", "_").split("_")[0] in LICENCES:
            name = name.replace("-", "_").split("_")[0]  # catqa_english.json
        found = licence or self.given.licence or LICENCES.get(name)
        if not found:
            raise ValueError(f"nothing says under which licence {name!r} is; give one")
        return name, str(found)
