"""Building: from records to a bank. Encodes every record, fits the calibration, names the version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.additions import Progress, inputs_of, least_radius, vectors_of
from antiprompt_bank.bank import Bank
from antiprompt_bank.calibration import Calibration, Curve
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.fitting import (
    Exemplars,
    backgrounds,
    direction_of,
    fit_answer_curve,
    fit_request_curve,
    fit_trained_curve,
    radii,
)
from antiprompt_bank.hazards import HAZARDS
from antiprompt_bank.neighbours import NEIGHBOURS, SITUATIONS, Rows, Shelves, Situation, paired, shelf_of
from antiprompt_bank.records import Antiprompt, Side

_MOST_FITTED = 4000


def build_bank(
    records: Sequence[Antiprompt],
    encoder: Encoder,
    *,
    created_at: datetime | None = None,
    progress: Progress | None = None,
    harmless: Sequence[Antiprompt] = (),
) -> Bank:
    """A bank of these records, each id once (the first one counts).

    ``harmless`` are everyday texts that neither the bank nor the encoder's adapter has seen; they calibrate, and are no
    part of the bank. Without an adapter they are not needed: families left out do the same.

    Records in any state are encoded, so that a change of state needs no encoder; only those that are live at
    ``created_at`` (UTC, now by default) calibrate.
    """
    moment = (created_at or datetime.now(UTC)).astimezone(UTC)
    kept = list({record.id: record for record in reversed(records)}.values())[::-1]
    made = _material(kept, _families(kept), encoder, moment, progress)
    rows, vectors = made.rows, made.vectors
    on, harmful = shelf_of(kept, rows), np.array([record.harmful for record in kept], dtype=bool)[rows.record]
    unseen = _unseen(harmless, encoder, moment)
    if encoder.leaning:  # an adapter has learned to put what is unrelated apart: closeness is similarity as it is
        background = np.zeros(len(vectors))
    else:
        background = backgrounds(vectors, rows, on, made.families[rows.record], _hazards(kept)[rows.record], harmful)
    shelves = Shelves(kept, rows, vectors, background, made.deciding)
    curves = {situation: _fit(situation, made, shelves, encoder, unseen) for situation in SITUATIONS}
    version = _version(kept, vectors, encoder.id, moment)
    harmless_rows = _requests(unseen, encoder) if encoder.leaning else None
    least = np.array([least_radius(record) for record in kept])
    radius = radii(vectors, rows, on, harmful, background, harmless_rows, least)
    calibration = Calibration(version, encoder.id, curves, background, radius)
    return Bank(version=version, encoder=encoder, records=kept, rows=rows, vectors=vectors, calibration=calibration)


@dataclass(frozen=True, slots=True)
class _Material:
    """What a calibration is fitted on; ``families`` and ``deciding`` have the length of the records."""

    records: Sequence[Antiprompt]
    rows: Rows
    inputs: Sequence[tuple[int, ...]]
    vectors: NDArray[np.float32]
    families: NDArray[np.int64]
    deciding: NDArray[np.bool_]


def _material(
    records: Sequence[Antiprompt],
    families: NDArray[np.int64],
    encoder: Encoder,
    moment: datetime,
    progress: Progress | None = None,
) -> _Material:
    rows, inputs = inputs_of(records, encoder)
    vectors = vectors_of(inputs, encoder, progress=progress)
    deciding = np.array([record.live_at(moment) for record in records], dtype=bool)
    return _Material(records, rows, inputs, vectors, families, deciding)


def _unseen(harmless: Sequence[Antiprompt], encoder: Encoder, moment: datetime) -> _Material | None:
    if not harmless or not encoder.leaning:
        return None
    # Of no family in the bank.
    return _material(harmless, np.full(len(harmless), -1, dtype=np.int64), encoder, moment)


def _requests(unseen: _Material | None, encoder: Encoder) -> NDArray[np.float32]:
    if unseen is None:
        return np.zeros((0, encoder.dimensions), dtype=np.float32)
    return unseen.vectors[[unseen.records[at].side == "request" for at in unseen.rows.record.tolist()]]


def _fit(situation: Situation, made: _Material, shelves: Shelves, encoder: Encoder, unseen: _Material | None) -> Curve:
    """Score the exemplars of one situation against the bank without their own families, and fit a curve to that."""
    # So many more are looked up that enough are left when the family is taken away.
    largest = int(np.bincount(made.families[made.rows.record]).max(initial=0))
    known = _found(situation, made, made, shelves, encoder, NEIGHBOURS + largest)
    if known is None:
        return Curve()
    if encoder.leaning:
        harmless = None if unseen is None else _found(situation, unseen, made, shelves, encoder, NEIGHBOURS)
        return fit_trained_curve(known, harmless, _side(situation), _direction(situation, made))
    return fit_request_curve(known) if situation == "request" else fit_answer_curve(known)


def _found(
    situation: Situation, asked: _Material, made: _Material, shelves: Shelves, encoder: Encoder, count: int
) -> Exemplars | None:
    """What the bank has near the exemplars of one situation, their own families left out; None without exemplars."""
    alone, pair = _queries(situation, asked)
    if not len(alone):
        return None
    owner = asked.rows.record[alone].astype(np.int64)
    vectors = asked.vectors[alone]
    found = shelves.find(situation, vectors, paired(asked.vectors[pair], vectors), count=count)
    families = asked.families[owner]
    harmful, benign = (side.best(NEIGHBOURS, without=made.families[side.record] == families[:, None]) for side in found)
    leaning = encoder.leaning.get(_side(situation))
    return Exemplars(
        harmful,
        benign,
        vectors,
        families,
        is_harmful=np.array([asked.records[at].harmful for at in owner], dtype=bool),
        is_everyday=np.array([asked.records[at].hazard is None for at in owner], dtype=bool),
        leaning=None if leaning is None else leaning.of(vectors, [asked.inputs[at] for at in alone.tolist()]),
    )


def _queries(situation: Situation, made: _Material) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows that stand for a text of this situation, and in the same order those of its prompts."""
    wanted = _of_situation(situation, made)
    alone = np.flatnonzero(wanted & ~made.rows.pair)
    pair = np.flatnonzero(wanted & made.rows.pair) if situation == "response_with_prompt" else alone
    if len(alone) > _MOST_FITTED:
        some = np.sort(np.random.default_rng(0).choice(len(alone), _MOST_FITTED, replace=False))
        alone, pair = alone[some], pair[some]
    return alone, pair


def _direction(situation: Situation, made: _Material) -> NDArray[np.float32]:
    on = np.flatnonzero(_of_situation(situation, made) & ~made.rows.pair)
    harmful = np.array([record.harmful for record in made.records], dtype=bool)[made.rows.record[on]]
    return direction_of(made.vectors[on], harmful)


def _of_situation(situation: Situation, made: _Material) -> NDArray[np.bool_]:
    """``(rows,)`` which rows belong to records that decide and stand for a text of this situation."""
    side, with_prompt = _side(situation), situation == "response_with_prompt"
    records = [record.side == side and (record.prompt is not None or not with_prompt) for record in made.records]
    wanted: NDArray[np.bool_] = (made.deciding & np.array(records, dtype=bool))[made.rows.record]
    return wanted


def _side(situation: Situation) -> Side:
    return "request" if situation == "request" else "response"


def family_of(record: Antiprompt) -> str | None:
    """The family whose texts are wordings of one thing. The seed's everyday families are mere topics: none."""
    return None if record.hazard is None and record.source == "seed" else record.family


def _families(records: Sequence[Antiprompt]) -> NDArray[np.int64]:
    """A number for each record, the same for those that must be left out together: twins, and families."""
    parent = list(range(len(records)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    by_id = {record.id: at for at, record in enumerate(records)}
    first_of_family: dict[str, int] = {}
    for at, record in enumerate(records):
        if record.twin in by_id:
            parent[root(at)] = root(by_id[record.twin])
        family = family_of(record)
        if family is not None:
            parent[root(at)] = root(first_of_family.setdefault(family, at))
    return np.array([root(at) for at in range(len(records))], dtype=np.int64)


def _hazards(records: Sequence[Antiprompt]) -> NDArray[np.int64]:
    number = {slug: at for at, slug in enumerate(HAZARDS, start=1)}
    return np.array([0 if record.hazard is None else number[record.hazard] for record in records], dtype=np.int64)


def _version(records: Sequence[Antiprompt], vectors: NDArray[np.float32], encoder_id: str, moment: datetime) -> str:
    content = hashlib.sha256(encoder_id.encode())
    for record in records:
        content.update(json.dumps(record.to_json(), sort_keys=True).encode())
    content.update(vectors.tobytes())
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}Z-{content.hexdigest()[:12]}"
