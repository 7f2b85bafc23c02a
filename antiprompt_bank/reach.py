"""Reach: how near a new exemplar comes to what is known, and which texts it would take for a repetition of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.additions import added_backgrounds, added_radii, encoded, prompt_ids
from antiprompt_bank.bank import Bank, Prepared
from antiprompt_bank.neighbours import Rows, Shelf, paired, shelf_of, stored
from antiprompt_bank.records import Antiprompt, Side, State

_BLOCK: Final = 4096


@dataclass(frozen=True, slots=True)
class Seen:
    """One text as it was screened: ``windows`` ``(n, d)`` vectors, and ``prompt`` ``(d,)`` where it answers one."""

    side: Side
    windows: NDArray[np.float32]
    prompt: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Nearest:
    """The closest exemplar of one label on the same shelf, and the cosine to it."""

    id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class NewExemplar:
    """An exemplar as it would stand in a bank. ``radius`` is the similarity from which a text repeats it.

    ``alone`` ``(n, d)`` are its windows, ``pairs`` ``(n, 2 d)`` the same with its prompt (None without one);
    ``nearest`` has the closest live exemplar of the same label and of the other one, where there is any.
    """

    record: Antiprompt
    radius: float
    alone: NDArray[np.float32]
    pairs: NDArray[np.float32] | None
    same: Nearest | None
    other: Nearest | None

    def similarities(self, texts: Sequence[Seen]) -> NDArray[np.float64]:
        """``(texts,)`` the highest similarity of each text's windows; -1 for those of the other side."""
        return np.array([self._similarity(text) for text in texts], dtype=np.float64)

    def _similarity(self, text: Seen) -> float:
        if text.side != self.record.side or not len(text.windows):
            return -1.0
        if self.pairs is None or text.prompt is None:
            return float((text.windows @ self.alone.T).max())
        prompts = np.broadcast_to(text.prompt, text.windows.shape)
        return float((paired(prompts, text.windows) @ self.pairs.T).max())


def as_new(bank: Bank, record: Antiprompt) -> NewExemplar:
    """Encode a record and see where it would stand, as ``Bank.with_records`` would put it there."""
    kept = [other for other in bank.records if other.id != record.id]
    if len(kept) != len(bank.records):  # it has it already: asked as if it had not
        here = np.array([bank.records[at].id != record.id for at in bank.rows.record.tolist()], dtype=bool)
        number = {other.id: at for at, other in enumerate(kept)}
        owner = [number[bank.records[at].id] for at in bank.rows.record[here].tolist()]
        rows, vectors = Rows(np.array(owner, dtype=np.int32), bank.rows.pair[here]), bank.vectors[here]
    else:
        rows, vectors = bank.rows, bank.vectors
    together, known = [*kept, record], len(vectors)
    new_rows, new_vectors = encoded([record], bank.encoder, first=len(kept))
    rows = Rows(np.concatenate([rows.record, new_rows.record]), np.concatenate([rows.pair, new_rows.pair]))
    vectors = np.concatenate([vectors, new_vectors])
    trained = bool(bank.encoder.leaning)
    background = np.zeros(len(new_vectors))
    if not trained:
        background = added_backgrounds(together, rows, vectors, known)
    (radius,) = added_radii(together, rows, vectors, background, known, first=len(kept), trained=trained).tolist()
    pair = new_rows.pair
    return NewExemplar(
        record,
        radius,
        new_vectors[~pair],
        paired(new_vectors[pair], new_vectors[~pair]) if pair.any() else None,
        _nearest(together, rows, vectors, known, record.harmful),
        _nearest(together, rows, vectors, known, not record.harmful),
    )


def seen(bank: Bank, prepared: Prepared, *, most: int) -> Seen:
    """A text's vectors as scoring it has just made them: of whole windows first, ``most`` at most."""
    whole = [window for window in prepared.cut if not window.is_sentence] or list(prepared.cut)
    vectors = bank.vectors_of(prepared.scope, [window.ids for window in whole[:most]])
    prompt = None
    if prepared.prompt_ids is not None:
        prompt = bank.vectors_of(prepared.scope, [prepared.prompt_ids])[0]
    return Seen(prepared.side, vectors, prompt)


def harmless_seen(records: Sequence[Antiprompt], bank: Bank) -> list[Seen]:
    """Records as texts that were screened, each by its first window: what a calibration set looks like to a bank."""
    ids = [tuple(bank.encoder.tokenize(record.text).ids[:64]) for record in records]
    prompts = [prompt_ids(record.prompt, bank.encoder) for record in records]
    made = dict.fromkeys([*ids, *(each for each in prompts if each is not None)])
    order = sorted(made, key=len)
    vectors: dict[tuple[int, ...], NDArray[np.float32]] = {}
    for first in range(0, len(order), 64):
        batch = order[first : first + 64]
        vectors.update(zip(batch, bank.encoder.encode(batch), strict=True))
    return [
        Seen(record.side, vectors[own][None, :], None if prompt is None else vectors[prompt])
        for record, own, prompt in zip(records, ids, prompts, strict=True)
    ]


def _nearest(
    records: Sequence[Antiprompt], rows: Rows, vectors: NDArray[np.float32], known: int, harmful: bool
) -> Nearest | None:
    """The exemplar nearest to the rows from ``known`` on, among live ones of one label on the same shelf."""
    shelves = np.array(shelf_of(records, rows))
    fits = np.array([record.harmful == harmful and record.state is State.LIVE for record in records], dtype=bool)
    best = None
    # A pair is compared as a pair: what its answer is alike to alone says little.
    new = [shelf for shelf in dict.fromkeys(shelves[known:].tolist()) if shelf != "answer_of_pair"]
    for shelf in new:
        others = np.flatnonzero((shelves[:known] == shelf) & fits[rows.record[:known]])
        these = known + np.flatnonzero(shelves[known:] == shelf)
        for similarity, at in _highest(shelf, these, others, vectors, rows):
            if best is None or similarity > best.similarity:
                best = Nearest(records[rows.record[at]].id, similarity)
    return best


def _highest(
    shelf: Shelf, these: NDArray[np.intp], others: NDArray[np.intp], vectors: NDArray[np.float32], rows: Rows
) -> Iterator[tuple[float, int]]:
    """The highest similarity in each block of the other rows, and the row it belongs to."""
    asked = stored(shelf, these, vectors, rows)
    for start in range(0, len(others), _BLOCK):
        block = others[start : start + _BLOCK]
        similarity = (asked @ stored(shelf, block, vectors, rows).T).max(axis=0)
        yield float(similarity.max()), int(block[similarity.argmax()])
