"""Evaluation: labelled Examples -> Report. Every method is measured on the same texts at the same kinds of threshold.

A headline threshold is set on the everyday sources that the fold leaves out; beside it stands the one that held-back
texts of the training side would have given, with the false positives that it really has: who runs a gateway has only
the second. (No F1 and no AUC, and always baselines: guards with
an AUC of 0.99 have found a fifth of the attacks at 1 % false positives.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.bank import Bank
from antiprompt_bank.baselines import baselines
from antiprompt_bank.building import build_bank
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.examples import Example, Fold, Folds, Role
from antiprompt_bank.measures import Rate, average_precision, threshold_at
from antiprompt_bank.methods import BankMethod, Method, RememberingEncoder, twin
from antiprompt_bank.probes import Probed, Probes, probe
from antiprompt_bank.protocol import HELD_BACK_PER_SOURCE, ROWS_PER_SOURCE, Split, split
from antiprompt_bank.records import Antiprompt, Side
from antiprompt_bank.report import (
    ALWAYS,
    BANK,
    CARRIED,
    CARRIED_STRICT,
    HEADLINE,
    STRICT,
    By,
    Cell,
    FoldReport,
    Histogram,
    MethodReport,
    Point,
    Report,
)

Tell = Callable[[str, int, int], None]
"""Told what is being done, and how many of how many are done."""

EncoderOf = Callable[[Split], tuple[Encoder, str | None]]
"""The encoder of a fold whose adapter saw no more than the fold's training side, or a note that says otherwise."""

FALSE_POSITIVES: Final[Mapping[str, Mapping[Side, float]]] = {
    HEADLINE: {"request": 0.01, "response": 0.02},
    STRICT: {"request": 0.001, "response": 0.002},
}
_CARRIED: Final = {HEADLINE: CARRIED, STRICT: CARRIED_STRICT}
RISKS: Final = (0.5, 0.9)

_LEAST_SLICE: Final = 10
"""Rows of a category that has a figure of its own."""

_BINS: Final = 40
_SIDES: Final[tuple[Side, ...]] = ("request", "response")


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured: ``rows`` of each left-out source, ``rows_per_source`` at most on the training side."""

    rows: int = 400
    rows_per_source: int = ROWS_PER_SOURCE
    held_back_per_source: int = HELD_BACK_PER_SOURCE
    seed: int = 0
    with_baselines: bool = True
    probes: Probes = field(default_factory=Probes)


@dataclass(frozen=True, slots=True)
class Material:
    """What is measured: ``left_out`` examples with each one's role, and those that were held back."""

    left_out: Sequence[Example]
    roles: Sequence[Role]
    held_back: Sequence[Example]
    held_roles: Sequence[Role]

    @classmethod
    def of(cls, parts: Split, folds: Folds, options: Options) -> Material:
        chosen = []
        for source, rows in parts.left_out.items():
            some = list(rows)
            Random(f"{options.seed} {source}").shuffle(some)  # noqa: S311  # a sample, not a secret
            chosen += some[: options.rows]
        roles = [_role_in(parts.fold, folds, example.source) for example in chosen]
        held_roles = [folds.roles[example.source] for example in parts.held_back]
        return cls(chosen, roles, parts.held_back, held_roles)


def leave_source_out(
    sources: Mapping[str, Sequence[Example]],
    folds: Folds,
    chosen: Sequence[Fold],
    *,
    seed_records: Sequence[Antiprompt],
    encoder_of: EncoderOf,
    frozen: Encoder,
    harmless: Sequence[Antiprompt] = (),
    options: Options | None = None,
    tell: Tell = lambda label, done, total: None,
) -> Report:
    """Measure each of the chosen folds with a bank of its own, built from the seed and the fold's training side.

    ``harmless`` texts calibrate the banks, as they do the one that ships (``build_bank``).
    """
    options = options or Options()
    reports = []
    remembering = _Remembering(frozen)
    for fold in chosen:
        parts = split(
            folds,
            fold,
            sources,
            seed_records,
            harmless=harmless,
            rows_per_source=options.rows_per_source,
            held_back_per_source=options.held_back_per_source,
            seed=options.seed,
            progress=partial(tell, f"{fold.name}: near copies"),
        )
        given, note = encoder_of(parts)
        encoder = remembering.of(given)
        told = partial(tell, f"{fold.name}: bank")
        bank = build_bank(parts.training, encoder, harmless=parts.harmless, progress=told)
        material = Material.of(parts, folds, options)
        notes = () if note is None else (note,)
        reports.append(_measured(bank, parts, material, remembering.frozen, options, tell, notes))
    return Report("leave-source-out", tuple(reports), options=_shown(options))


def shipped(
    sources: Mapping[str, Sequence[Example]],
    folds: Folds,
    bank: Bank,
    *,
    frozen: Encoder,
    options: Options | None = None,
    tell: Tell = lambda label, done, total: None,
) -> Report:
    """Measure a bank as it is, on every source. Nothing is held back: no threshold is carried over but its risks'."""
    options = options or Options()
    fold = folds.whole("shipped")
    parts = Split(fold, bank.records, (), {name: tuple(rows) for name, rows in sources.items()}, {})
    remembering = _Remembering(frozen)
    same = twin(bank, remembering.of(bank.encoder))
    material = Material.of(parts, folds, options)
    report = _measured(same, parts, material, remembering.frozen, options, tell, ())
    return Report("shipped", (report,), options=_shown(options))


def measure(method: Method, material: Material, tell: Tell = lambda label, done, total: None) -> MethodReport:
    """One method's operating points and what each of them hits."""
    return _method_report(method, _scores(method, material, tell), material)


@dataclass(frozen=True, slots=True)
class _Scores:
    left_out: NDArray[np.float64]
    held_back: NDArray[np.float64]


def _measured(
    bank: Bank,
    parts: Split,
    material: Material,
    frozen: Encoder,
    options: Options,
    tell: Tell,
    notes: Sequence[str],
) -> FoldReport:
    name = parts.fold.name
    methods: list[Method] = [BankMethod(bank, name=BANK)]
    if options.with_baselines:
        told = partial(tell, f"{name}: baselines")
        methods += baselines(parts.training, frozen=frozen, encoder=bank.encoder, progress=told)
    scores = {method.name: _scores(method, material, partial(_under, tell, name)) for method in methods}
    found = {method.name: _method_report(method, scores[method.name], material) for method in methods}
    threshold = found[BANK].points[HEADLINE].thresholds.get("request") if HEADLINE in found[BANK].points else None
    probed = Probed()
    if threshold is not None:
        everyday = [row for source in parts.fold.of("everyday") for row in parts.left_out.get(source, ())]
        attacks = [row for source in parts.fold.of("harmful", "jailbreak") for row in parts.left_out.get(source, ())]
        probed = probe(bank, methods, everyday, attacks, threshold, options.probes, partial(_under, tell, name))
    return FoldReport(
        name=name,
        encoder=bank.encoder.id,
        bank=bank.version,
        records=len(bank.records),
        trained_on=dict(parts.trained_on),
        near_copies={source: count for source, count in parts.near_copies.items() if count},
        held_back=len(parts.held_back),
        measured=dict(Counter(example.source for example in material.left_out)),
        methods=found,
        notes=(*notes, *probed.notes),
        histogram=_histogram(scores[BANK].left_out, material),
        evasions=probed.evasions,
        growth=probed.growth,
        adapted=probed.adapted,
        everyday_compared=probed.everyday_compared,
        timings=probed.timings,
    )


def _scores(method: Method, material: Material, tell: Tell) -> _Scores:
    told = partial(tell, method.name)
    return _Scores(method.scores(material.left_out, told), method.scores(material.held_back))


def _method_report(method: Method, scores: _Scores, material: Material) -> MethodReport:
    thresholds = {ALWAYS: _fixed(method.fixed)} if method.fixed is not None else _thresholds(scores, material)
    if isinstance(method, BankMethod):
        thresholds |= {f"risk_{risk}": dict.fromkeys(_SIDES, (risk, "as calibrated")) for risk in RISKS}
    points = {
        name: Point(
            {side: threshold for side, (threshold, _) in sides.items()},
            {side: basis for side, (_, basis) in sides.items()},
            tuple(_cells(scores.left_out, sides, material)),
        )
        for name, sides in thresholds.items()
        if sides
    }
    never = np.array([role == "never" for role in material.roles], dtype=bool)
    harmful = np.array([example.harmful for example in material.left_out], dtype=bool)
    auprc = average_precision(scores.left_out[never], harmful[never]) if (never & harmful).any() else None
    return MethodReport(points, auprc)


_Thresholds = dict[Side, tuple[float, str]]
"""For each side the threshold and what it was set on."""


def _fixed(threshold: float) -> _Thresholds:
    return dict.fromkeys(_SIDES, (threshold, "fixed"))


def _thresholds(scores: _Scores, material: Material) -> dict[str, _Thresholds]:
    out_safe: dict[Side, NDArray[np.bool_]] = {
        "request": _benign(material.left_out, material.roles, "everyday"),
        "response": _benign(material.left_out, material.roles, "response_safe"),
    }
    held_safe: dict[Side, NDArray[np.bool_]] = {
        "request": _benign(material.held_back, material.held_roles, "everyday"),
        "response": _benign(material.held_back, material.held_roles, "response_safe"),
    }
    found: dict[str, _Thresholds] = {}
    for point, rates in FALSE_POSITIVES.items():
        for side, rate in rates.items():
            own, held = scores.left_out[out_safe[side]], scores.held_back[held_safe[side]]
            if len(held):
                threshold = threshold_at(rate, held)
                found.setdefault(_CARRIED[point], {})[side] = (threshold, f"{len(held)} held-back texts")
            if len(own):
                found.setdefault(point, {})[side] = (threshold_at(rate, own), f"{len(own)} left-out texts")
            elif len(held) and side == "response":  # this fold leaves no safe responses out
                found.setdefault(point, {})[side] = (threshold_at(rate, held), f"{len(held)} held-back texts")
    return found


def _benign(examples: Sequence[Example], roles: Sequence[Role], role: Role) -> NDArray[np.bool_]:
    return np.array(
        [its == role and not example.harmful for example, its in zip(examples, roles, strict=True)], dtype=bool
    )


def _cells(scores: NDArray[np.float64], thresholds: _Thresholds, material: Material) -> Iterator[Cell]:
    slices: dict[tuple[Role, By, str, bool], list[bool]] = {}
    for score, example, role in zip(scores.tolist(), material.left_out, material.roles, strict=True):
        if example.side not in thresholds:
            continue
        hit = score > thresholds[example.side][0]
        for by, name in _names(example, role):
            slices.setdefault((role, by, name, example.harmful), []).append(hit)
    for (role, by, name, harmful), hits in sorted(slices.items()):
        if by != "category" or len(hits) >= _LEAST_SLICE:
            yield Cell(role, by, name, harmful, Rate(sum(hits), len(hits)))


def _names(example: Example, role: Role) -> Iterator[tuple[By, str]]:
    yield "role", role
    yield "source", example.source
    yield "side", example.side
    yield "language", example.language
    if example.harmful:
        yield "hazard", example.hazard or "unmapped"
        yield "category", f"{example.source}: {example.category}"


def _role_in(fold: Fold, folds: Folds, source: str) -> Role:
    """A source may have one role in one fold and another elsewhere; the fold's own counts."""
    return next((role for role, names in fold.sources.items() if source in names), folds.roles[source])


def _histogram(scores: NDArray[np.float64], material: Material) -> Histogram:
    def bins(roles: frozenset[Role], harmful: bool) -> tuple[int, ...]:
        chosen = [
            example.harmful == harmful and role in roles and example.side == "request"
            for example, role in zip(material.left_out, material.roles, strict=True)
        ]
        counts, _ = np.histogram(scores[np.array(chosen, dtype=bool)], bins=_BINS, range=(0.0, 1.0))
        return tuple(int(count) for count in counts)

    return Histogram(
        harmful=bins(frozenset({"harmful", "jailbreak"}), True),
        lookalike=bins(frozenset({"lookalike"}), False),
        everyday=bins(frozenset({"everyday"}), False),
    )


class _Remembering:
    """Encoders that keep what they encoded; where a fold's is the frozen one, both are one."""

    def __init__(self, frozen: Encoder) -> None:
        self.frozen = RememberingEncoder(frozen)
        self._last = self.frozen

    def of(self, encoder: Encoder) -> RememberingEncoder:
        for known in (self.frozen, self._last):
            if known.id == encoder.id:
                return known
        self._last = RememberingEncoder(encoder)  # the last fold's vectors are let go
        return self._last


def _under(tell: Tell, fold: str, label: str, done: int, total: int) -> None:
    tell(f"{fold}: {label}", done, total)


def _shown(options: Options) -> dict[str, Any]:
    return {
        "rows": options.rows,
        "rows_per_source": options.rows_per_source,
        "held_back_per_source": options.held_back_per_source,
        "seed": options.seed,
        "probes": options.probes.to_json(),
    }
