"""Report: what an evaluation found, as plain values that go to JSON and come back the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

from antiprompt_bank.examples import Role
from antiprompt_bank.measures import Rate
from antiprompt_bank.records import Side

By = Literal["role", "source", "hazard", "category", "side", "language"]

HEADLINE: Final = "fpr_1"
STRICT: Final = "fpr_01"
CARRIED: Final = "carried_1"
CARRIED_STRICT: Final = "carried_01"
ALWAYS: Final = "always"
"""Names of operating points: the threshold set on a fold's left-out everyday sources at 1 % (responses: 2 %) and 0.1 %
(0.2 %) false positives, the same set on held-back rows of the training side, and the only one of a method that has no
other. A bank has ``risk_0.5`` and ``risk_0.9`` too."""

BANK: Final = "bank"


@dataclass(frozen=True, slots=True)
class Cell:
    """How many texts of one slice are hit: the harmful (recall) or the benign ones (false positives) of a role.

    ``by`` says what the slice is cut by, ``name`` which slice it is.
    """

    role: Role
    by: By
    name: str
    harmful: bool
    rate: Rate

    def to_json(self) -> dict[str, Any]:
        named = {"role": self.role, "by": self.by, "name": self.name, "harmful": self.harmful}
        return named | self.rate.to_json()

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Cell:
        return cls(row["role"], row["by"], row["name"], row["harmful"], Rate.from_json(row))


@dataclass(frozen=True, slots=True)
class Point:
    """An operating point: for each side the threshold (a score above it is a hit), what it was set on, what it hits."""

    thresholds: Mapping[Side, float]
    basis: Mapping[Side, str]
    cells: tuple[Cell, ...]

    def find(self, by: By, *, role: Role | None = None, harmful: bool | None = None) -> Iterator[Cell]:
        for cell in self.cells:
            if cell.by == by and role in (None, cell.role) and harmful in (None, cell.harmful):
                yield cell

    def to_json(self) -> dict[str, Any]:
        cells = [cell.to_json() for cell in self.cells]
        return {"thresholds": dict(self.thresholds), "basis": dict(self.basis), "cells": cells}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Point:
        return cls(row["thresholds"], row["basis"], tuple(Cell.from_json(cell) for cell in row["cells"]))


@dataclass(frozen=True, slots=True)
class MethodReport:
    """One method on one fold. ``auprc`` is on the sources with the role ``never``, None where there are none."""

    points: Mapping[str, Point]
    auprc: float | None

    @property
    def headline(self) -> Point | None:
        return self.points.get(HEADLINE) or self.points.get(ALWAYS)

    def to_json(self) -> dict[str, Any]:
        return {"auprc": self.auprc, "points": {name: point.to_json() for name, point in self.points.items()}}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> MethodReport:
        return cls({name: Point.from_json(point) for name, point in row["points"].items()}, row["auprc"])


@dataclass(frozen=True, slots=True)
class EvasionCost:
    """Recall on the same texts: plain, disguised, and disguised without the views that undo it."""

    technique: str
    hackett: bool
    plain: Rate
    with_views: Rate
    without_views: Rate

    @property
    def cost(self) -> float:
        """What the technique costs, in points of recall (0 to 100); less than 0 where it helps to be found."""
        return 100 * (self.plain.share - self.with_views.share)

    @property
    def cost_without_views(self) -> float:
        return 100 * (self.plain.share - self.without_views.share)


@dataclass(frozen=True, slots=True)
class Growth:
    """Recall at 1 % false positives of ``size`` exemplars by one way of scoring (``series``)."""

    series: str
    size: int
    recall: Rate


@dataclass(frozen=True, slots=True)
class Adapted:
    """One family of an unseen attack, after one of its members was added at an unchanged threshold.

    Of the other members so many were caught before and after; ``new_hits`` are among the everyday texts.
    """

    source: str
    relatives: int
    caught_before: int
    caught_after: int
    new_hits: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds for one text of the fold, alone (median, 95th percentile) and in batches (mean)."""

    method: str
    texts: int
    median_ms: float
    p95_ms: float
    batched_ms: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many texts of each kind have a score in each of the bins, equally wide, from 0 to 1."""

    harmful: tuple[int, ...]
    lookalike: tuple[int, ...]
    everyday: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FoldReport:
    """All of one fold. ``trained_on``, ``near_copies`` and ``measured`` count rows by source."""

    name: str
    encoder: str
    bank: str
    records: int
    trained_on: Mapping[str, int]
    near_copies: Mapping[str, int]
    held_back: int
    measured: Mapping[str, int]
    methods: Mapping[str, MethodReport]
    notes: tuple[str, ...] = ()
    histogram: Histogram | None = None
    evasions: tuple[EvasionCost, ...] = ()
    growth: tuple[Growth, ...] = ()
    adapted: tuple[Adapted, ...] = ()
    everyday_compared: int = 0
    timings: tuple[Timing, ...] = ()

    def to_json(self) -> dict[str, Any]:
        row = {item.name: getattr(self, item.name) for item in fields(self)}
        row["methods"] = {name: method.to_json() for name, method in self.methods.items()}
        row["histogram"] = None if self.histogram is None else asdict(self.histogram)
        row["evasions"] = [
            _plain(item) | {"cost": round(item.cost, 2), "cost_without_views": round(item.cost_without_views, 2)}
            for item in self.evasions
        ]
        for name in ("growth", "adapted", "timings"):
            row[name] = [_plain(item) for item in getattr(self, name)]
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> FoldReport:
        histogram = row["histogram"]
        return cls(
            **{
                **row,
                "notes": tuple(row["notes"]),
                "methods": {name: MethodReport.from_json(method) for name, method in row["methods"].items()},
                "histogram": histogram and Histogram(**{kind: tuple(bins) for kind, bins in histogram.items()}),
                "evasions": tuple(_read(EvasionCost, item) for item in row["evasions"]),
                "growth": tuple(_read(Growth, item) for item in row["growth"]),
                "adapted": tuple(_read(Adapted, item) for item in row["adapted"]),
                "timings": tuple(_read(Timing, item) for item in row["timings"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation: its protocol, what it was run with (``versions``, ``options``), and its folds."""

    protocol: str
    folds: tuple[FoldReport, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that were measured, the bank first."""
        return tuple(dict.fromkeys(name for fold in self.folds for name in fold.methods))

    def headlines(self, method: str, by: By = "source") -> Iterator[tuple[FoldReport, Cell]]:
        """Every fold's slices of one method at the headline threshold."""
        for fold in self.folds:
            point = fold.methods[method].headline if method in fold.methods else None
            if point is not None:
                for cell in point.find(by):
                    yield fold, cell

    def to_json(self) -> dict[str, Any]:
        return {
            "protocol": self.protocol,
            "versions": dict(self.versions),
            "options": dict(self.options),
            "folds": [fold.to_json() for fold in self.folds],
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Report:
        """Raises ``ValueError`` when the row is not a report of this form."""
        try:
            folds = tuple(FoldReport.from_json(fold) for fold in row["folds"])
            return cls(row["protocol"], folds, row["versions"], row["options"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a report: {error!r}") from error


def mean_share(rates: Sequence[Rate]) -> float | None:
    """The mean of the shares of those that have texts; None where none has."""
    shares = [rate.share for rate in rates if rate.of]
    return sum(shares) / len(shares) if shares else None


def _plain(item: Any) -> dict[str, Any]:
    values = ((part.name, getattr(item, part.name)) for part in fields(item))
    return {name: value.to_json() if isinstance(value, Rate) else value for name, value in values}


def _read(kind: Any, row: Mapping[str, Any]) -> Any:
    known = {item.name for item in fields(kind)}
    return kind(
        **{
            name: Rate.from_json(value) if isinstance(value, Mapping) else value
            for name, value in row.items()
            if name in known
        }
    )
