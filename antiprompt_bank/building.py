"""Building: from records to a bank. Encodes every record, fits the calibration, names the version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.bank import WINDOW_TOKENS, Bank, prompt_ids
from antiprompt_bank.calibration import Calibration, Curve
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.fitting import Exemplars, backgrounds, fit_answer_curve, fit_request_curve
from antiprompt_bank.hazards import HAZARDS
from antiprompt_bank.neighbours import NEIGHBOURS, SITUATIONS, Rows, Shelves, Situation, paired, shelf_of
from antiprompt_bank.records import Antiprompt
from antiprompt_bank.views import View
from antiprompt_bank.windows import windows

Progress = Callable[[int, int], None]
"""Told how many of how many vectors are made."""

_BATCH = 64
_MOST_FITTED = 4000


def build_bank(
    records: Sequence[Antiprompt],
    encoder: Encoder,
    *,
    created_at: datetime | None = None,
    progress: Progress | None = None,
) -> Bank:
    """A bank of these records, each id once (the first one counts).

    Records in any state are encoded, so that a change of state needs no encoder; only those that are live at
    ``created_at`` (UTC, now by default) calibrate.
    """
    moment = (created_at or datetime.now(UTC)).astimezone(UTC)
    kept = list({record.id: record for record in reversed(records)}.values())[::-1]
    rows, vectors = _encode(kept, encoder, progress)
    made = _Material(
        kept, rows, vectors, _families(kept), np.array([record.live_at(moment) for record in kept], dtype=bool)
    )
    background = backgrounds(
        vectors,
        rows,
        shelf_of(kept, rows),
        made.families[rows.record],
        _hazards(kept)[rows.record],
        np.array([record.harmful for record in kept], dtype=bool)[rows.record],
    )
    shelves = Shelves(kept, rows, vectors, background, made.deciding)
    curves = {situation: _fit(situation, made, shelves) for situation in SITUATIONS}
    version = _version(kept, vectors, encoder.id, moment)
    calibration = Calibration(version, encoder.id, curves, background)
    return Bank(version=version, encoder=encoder, records=kept, rows=rows, vectors=vectors, calibration=calibration)


@dataclass(frozen=True, slots=True)
class _Material:
    """What a calibration is fitted on; ``families`` and ``deciding`` have the length of the records."""

    records: Sequence[Antiprompt]
    rows: Rows
    vectors: NDArray[np.float32]
    families: NDArray[np.int64]
    deciding: NDArray[np.bool_]


def _encode(
    records: Sequence[Antiprompt], encoder: Encoder, progress: Progress | None
) -> tuple[Rows, NDArray[np.float32]]:
    owner: list[int] = []
    is_pair: list[bool] = []
    inputs: list[tuple[int, ...]] = []
    for at, record in enumerate(records):
        cut = windows(View("raw", record.text), encoder.tokenize(record.text), window_tokens=WINDOW_TOKENS)
        owner += [at] * len(cut)
        is_pair += [False] * len(cut)
        inputs += [window.ids for window in cut]
        if record.prompt is not None:
            owner += [at] * len(cut)
            is_pair += [True] * len(cut)
            inputs += [prompt_ids(record.prompt, encoder) or ()] * len(cut)
    vectors = np.zeros((len(inputs), encoder.dimensions), dtype=np.float32)
    # By length, so that each batch is whole groups of equal length.
    order = sorted(range(len(inputs)), key=lambda row: len(inputs[row]))
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        vectors[batch] = encoder.encode([inputs[row] for row in batch])
        if progress is not None:
            progress(start + len(batch), len(order))
    return Rows(np.array(owner, dtype=np.int32), np.array(is_pair, dtype=bool)), vectors


def _fit(situation: Situation, made: _Material, shelves: Shelves) -> Curve:
    """Score the exemplars of one situation against the bank without their own families, and fit a curve to that."""
    alone, pair = _queries(situation, made)
    if not len(alone):
        return Curve()
    owner = made.rows.record[alone].astype(np.int64)
    # So many more are looked up that enough are left when the family is taken away.
    largest = int(np.bincount(made.families[made.rows.record]).max())
    pairs = paired(made.vectors[pair], made.vectors[alone])
    found = shelves.find(situation, made.vectors[alone], pairs, count=NEIGHBOURS + largest)
    harmful, benign = (
        side.best(NEIGHBOURS, without=made.families[side.record] == made.families[owner][:, None]) for side in found
    )
    known = Exemplars(
        harmful,
        benign,
        made.vectors[alone],
        made.families[owner],
        is_harmful=np.array([made.records[at].harmful for at in owner], dtype=bool),
        is_everyday=np.array([made.records[at].hazard is None for at in owner], dtype=bool),
    )
    return fit_request_curve(known) if situation == "request" else fit_answer_curve(known)


def _queries(situation: Situation, made: _Material) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows that stand for a text of this situation, and in the same order those of its prompts."""
    side = "request" if situation == "request" else "response"
    with_prompt = situation == "response_with_prompt"
    wanted = made.deciding & np.array(
        [record.side == side and (record.prompt is not None or not with_prompt) for record in made.records], dtype=bool
    )
    alone = np.flatnonzero(wanted[made.rows.record] & ~made.rows.pair)
    pair = np.flatnonzero(wanted[made.rows.record] & made.rows.pair) if with_prompt else alone
    if len(alone) > _MOST_FITTED:
        some = np.sort(np.random.default_rng(0).choice(len(alone), _MOST_FITTED, replace=False))
        alone, pair = alone[some], pair[some]
    return alone, pair


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
        if record.family is not None:
            parent[root(at)] = root(first_of_family.setdefault(record.family, at))
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
