"""Rows of records: how they are encoded, and what joins a bank after it was built without moving what is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.encoder import Encoder
from antiprompt_bank.glossing import read_by
from antiprompt_bank.neighbours import Rows, shelf_of, stored
from antiprompt_bank.records import Antiprompt
from antiprompt_bank.telling import Telling
from antiprompt_bank.views import View

WINDOW_TOKENS: Final = 64
"""Tokens of a window. Short enough that one bad sentence is not diluted, long enough to hold an instruction."""

VERSION_SIGN: Final = "+"
"""What stands between a base version and the digits of what was added to it."""

VERSION_DIGITS: Final = 12

REPETITION: Final = 0.88
"""Closeness from which a text can count as a repetition of an exemplar; a cosine of 0.92 for an English one."""

LEAST_RADIUS: Final = 0.9
"""The least similarity that counts as a repetition where an adapter was trained."""

CONFIRMED_RADIUS: Final = 0.7
"""The same for harm that people confirmed: its relatives are to be caught too, as far as nothing harmless is there."""

RADIUS_MARGIN: Final = 0.01
MOST_RADIUS: Final = 0.995

Progress = Callable[[int, int], None]
"""Told how many of how many vectors are made."""

_BATCH: Final = 64
_UNRELATED: Final = 8
_MOST_COMPARED: Final = 4000
_MOST_BACKGROUND: Final = 0.95


def prompt_ids(prompt: str | None, encoder: Encoder) -> tuple[int, ...] | None:
    """The last window of a prompt, where the question stands as a rule; None where there is nothing to read.

    It is a window that screening the prompt as a request encodes too.
    """
    if prompt is None or not prompt.strip():
        return None
    # Few tokens have more than 24 characters: no need to read all of a long prompt to know how it ends.
    view = read_by(encoder.id, View("raw", prompt[-24 * WINDOW_TOKENS :]))[-1]
    return tuple(encoder.tokenize(view.text).ids[-WINDOW_TOKENS:]) or None


def encoded(
    records: Sequence[Antiprompt], encoder: Encoder, *, first: int = 0, progress: Progress | None = None
) -> tuple[Rows, NDArray[np.float32]]:
    """The rows of records and their vectors, as building a bank makes them; the first record is number ``first``.

    Of a harmful document whose harmless twin is among them only what the twin has not is encoded (``telling``).
    """
    rows, inputs = inputs_of(records, encoder, first=first)
    return rows, vectors_of(inputs, encoder, progress=progress)


def inputs_of(records: Sequence[Antiprompt], encoder: Encoder, *, first: int = 0) -> tuple[Rows, list[tuple[int, ...]]]:
    """The rows of records, and the token ids that each stands for."""
    telling = Telling(records, encoder, window_tokens=WINDOW_TOKENS)
    owner: list[int] = []
    is_pair: list[bool] = []
    inputs: list[tuple[int, ...]] = []
    for at, record in enumerate(records, start=first):
        cut = telling.windows(record)
        prompt = [] if record.prompt is None else [prompt_ids(record.prompt, encoder) or ()] * len(cut)
        owner += [at] * (len(cut) + len(prompt))
        is_pair += [False] * len(cut) + [True] * len(prompt)
        inputs += [*(window.ids for window in cut), *prompt]
    return Rows(np.array(owner, dtype=np.int32), np.array(is_pair, dtype=bool)), inputs


def vectors_of(
    inputs: Sequence[tuple[int, ...]], encoder: Encoder, *, progress: Progress | None = None
) -> NDArray[np.float32]:
    """``(n, dimensions)`` vectors of token ids."""
    # Each input once (answers share their prompts), and by length, so that each batch is whole groups of equal length.
    order = sorted(dict.fromkeys(inputs), key=len)
    made = np.zeros((len(order), encoder.dimensions), dtype=np.float32)
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        made[start : start + len(batch)] = encoder.encode(batch)
        if progress is not None:
            progress(start + len(batch), len(order))
    place = {ids: at for at, ids in enumerate(order)}
    return made[[place[ids] for ids in inputs]].reshape(len(inputs), encoder.dimensions)


def added_backgrounds(
    records: Sequence[Antiprompt], rows: Rows, vectors: NDArray[np.float32], known: int
) -> NDArray[np.float64]:
    """``(n - known,)``: how similar the rows from ``known`` on are to those before that they have nothing to do with.

    By the rule of ``fitting.backgrounds``: the mean of the eight most similar rows of another family, hazard and label
    on the same shelf, at most 4,000 of them, rounded. Twins and families are told by what the records name, one step
    far. The rows before them keep theirs.
    """
    shelves = np.array(shelf_of(records, rows))
    found = np.zeros(len(vectors) - known)
    for shelf in sorted(set(shelves[known:].tolist())):
        others = np.flatnonzero(shelves[:known] == shelf)
        if not len(others):
            continue
        if len(others) > _MOST_COMPARED:
            others = np.random.default_rng(0).choice(others, _MOST_COMPARED, replace=False)
        these = known + np.flatnonzero(shelves[known:] == shelf)
        similarity = stored(shelf, these, vectors, rows) @ stored(shelf, others, vectors, rows).T
        related = np.array(
            [
                [_related(records[rows.record[row]], records[rows.record[other]]) for other in others.tolist()]
                for row in these.tolist()
            ]
        )
        unrelated = -np.partition(np.where(related, 0.0, -similarity), min(_UNRELATED, len(others)) - 1, axis=1)
        found[these - known] = unrelated[:, :_UNRELATED].mean(axis=1)
    return np.clip(found, 0.0, _MOST_BACKGROUND).round(4)


def added_radii(
    records: Sequence[Antiprompt],
    rows: Rows,
    vectors: NDArray[np.float32],
    background: NDArray[np.float64],
    known: int,
    *,
    first: int,
    trained: bool,
) -> NDArray[np.float64]:
    """``(len(records) - first,)`` similarities from which a text counts as a repetition of a record that joined.

    By the rule of ``fitting.radii``, the rows from ``known`` on against those before them; ``background`` is the new
    rows'. The harmless texts that it asks too are not at hand here, so with an adapter (``trained``) a radius may be
    wider than there.
    """
    least = REPETITION * (1 - background) + background
    if trained:
        shelves = np.array(shelf_of(records, rows))
        harmful = np.array([records[at].harmful for at in rows.record.tolist()], dtype=bool)
        least = np.array([least_radius(records[at]) for at in rows.record[known:].tolist()])
        for row in range(known, len(vectors)):
            others = np.flatnonzero((shelves[:known] == shelves[row]) & (harmful[:known] != harmful[row]))
            if len(others):
                shelf, on = shelf_of(records, rows)[row], np.array([row])
                nearest = float((stored(shelf, on, vectors, rows) @ stored(shelf, others, vectors, rows).T).max())
                least[row - known] = max(least[row - known], nearest + RADIUS_MARGIN)
    found = np.full(len(records) - first, -1.0)
    np.maximum.at(found, rows.record[known:] - first, least)
    radius: NDArray[np.float64] = np.clip(found, -1.0, MOST_RADIUS).round(4)
    return radius


def least_radius(record: Antiprompt) -> float:
    """The least similarity that counts as a repetition of a record where an adapter was trained."""
    return CONFIRMED_RADIUS if record.confirmed else LEAST_RADIUS


def derived_version(version: str, added: Sequence[Antiprompt]) -> str:
    """The name of ``version`` with records added: the base's, and digits of all that was added to it."""
    base, _, before = version.partition(VERSION_SIGN)
    content = hashlib.sha256(before.encode())
    for record in added:
        content.update(json.dumps(record.to_json(), sort_keys=True).encode())
    return f"{base}{VERSION_SIGN}{content.hexdigest()[:VERSION_DIGITS]}"


def _related(one: Antiprompt, other: Antiprompt) -> bool:
    return (
        one.harmful == other.harmful
        or one.hazard == other.hazard
        or one.twin == other.id
        or other.twin == one.id
        or (one.family is not None and one.family == other.family)
    )
