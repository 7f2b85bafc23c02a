"""Reach: how near a new exemplar comes to what is known, and which texts it would take for a repetition of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.additions import added_backgrounds, added_radii, encoded, prompt_ids
from antiprompt_bank.bank import Bank, Prepared
from antiprompt_bank.neighbours import Rows, Shelf, paired, shelf_of, stored
from antiprompt_bank.records import Antiprompt, Side, State


@dataclass(frozen=True, slots=True)
class Seen:
    """One text as it was screened: ``windows`` ``(n, d)`` vectors, and ``prompt`` ``(d,)`` where it answers one."""

    side: Side
    windows: NDArray[np.float32]
    prompt: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Texts:
    """Screened texts, laid out so that a new exemplar is compared with all of them at once.

    ``alone`` ``(m, d)`` are all their windows, ``owner`` ``(m,)`` the text of each; ``prompts`` ``(m, d)`` what each
    answers, where ``has_prompt`` ``(m,)``; ``sides`` has one for each text.
    """

    sides: tuple[Side, ...]
    alone: NDArray[np.float32]
    prompts: NDArray[np.float32]
    has_prompt: NDArray[np.bool_]
    owner: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[Seen], dimensions: int) -> Texts:
        counts = [len(text.windows) for text in texts]
        total = sum(counts)
        alone, prompts = np.zeros((total, dimensions), np.float32), np.zeros((total, dimensions), np.float32)
        has_prompt = np.zeros(total, dtype=bool)
        first = 0
        for text, count in zip(texts, counts, strict=True):
            alone[first : first + count] = text.windows
            if text.prompt is not None:
                prompts[first : first + count] = text.prompt
                has_prompt[first : first + count] = True
            first += count
        return cls(tuple(t.side for t in texts), alone, prompts, has_prompt, np.repeat(np.arange(len(texts)), counts))

    def count(self, side: Side) -> int:
        return self.sides.count(side)

    def similarities(self, new: NewExemplar) -> NDArray[np.float64]:
        """``(texts,)`` the highest similarity of each text's windows to an exemplar; -1 for those of the other side."""
        found = np.full(len(self.sides), -1.0)
        if not len(self.owner):
            return found
        similarity = (self.alone @ new.alone.T).max(axis=1).astype(np.float64)
        if new.pairs is not None:
            pair = (paired(self.prompts, self.alone) @ new.pairs.T).max(axis=1)
            similarity = np.where(self.has_prompt, pair, similarity)
        np.maximum.at(found, self.owner, similarity)
        found[[side != new.record.side for side in self.sides]] = -1.0
        return found


@dataclass(frozen=True, slots=True)
class Nearest:
    """The closest exemplar of one label on the same shelf, and the cosine to it."""

    id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class NewExemplar:
    """An exemplar as it would stand in a bank. ``radius`` is the similarity from which a text repeats it.

    ``alone`` ``(n, d)`` are its windows, ``pairs`` ``(n, 2 d)`` the same with its prompt (None without one);
    ``same`` and ``other`` are the closest live exemplars of its own label and of the other one, where there is any.
    """

    record: Antiprompt
    radius: float
    alone: NDArray[np.float32]
    pairs: NDArray[np.float32] | None
    same: Nearest | None
    other: Nearest | None


def as_new(bank: Bank, records: Sequence[Antiprompt]) -> list[NewExemplar]:
    """Encode records, each id once, and see where each would stand, as ``Bank.with_records`` would put them there.

    One that the bank has already is asked as if it had not.
    """
    asked = {record.id for record in records}
    kept = [record for record in bank.records if record.id not in asked]
    rows, vectors = bank.rows, bank.vectors
    if len(kept) != len(bank.records):
        number = {record.id: at for at, record in enumerate(kept)}
        owner = [number.get(bank.records[at].id, -1) for at in bank.rows.record.tolist()]
        here = np.array(owner) >= 0
        rows, vectors = Rows(np.array(owner, dtype=np.int32)[here], rows.pair[here]), vectors[here]
    together, known = [*kept, *records], len(vectors)
    new_rows, new_vectors = encoded(records, bank.encoder, first=len(kept))
    rows = Rows(np.concatenate([rows.record, new_rows.record]), np.concatenate([rows.pair, new_rows.pair]))
    vectors = np.concatenate([vectors, new_vectors])
    trained = bool(bank.encoder.leaning)
    background = np.zeros(len(new_vectors))
    if not trained:
        background = added_backgrounds(together, rows, vectors, known)
    radius = added_radii(together, rows, vectors, background, known, first=len(kept), trained=trained)
    nearest = _Neighbourhood(together, rows, vectors, known)
    found = []
    for at, record in enumerate(records):
        mine = new_rows.record == len(kept) + at
        alone, prompts = new_vectors[mine & ~new_rows.pair], new_vectors[mine & new_rows.pair]
        found.append(
            NewExemplar(
                record,
                float(radius[at]),
                alone,
                paired(prompts, alone) if len(prompts) else None,
                nearest.to(known + np.flatnonzero(mine), record.harmful),
                nearest.to(known + np.flatnonzero(mine), not record.harmful),
            )
        )
    return found


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


class _Neighbourhood:
    """The live exemplars of a bank (the rows before ``known``), by shelf and label."""

    def __init__(self, records: Sequence[Antiprompt], rows: Rows, vectors: NDArray[np.float32], known: int) -> None:
        self._records, self._rows, self._vectors = records, rows, vectors
        self._shelves = np.array(shelf_of(records, rows))
        owner = rows.record[:known]
        live = np.array([record.state is State.LIVE for record in records], dtype=bool)[owner]
        harmful = np.array([record.harmful for record in records], dtype=bool)[owner]
        self._members: dict[tuple[Shelf, bool], tuple[NDArray[np.intp], NDArray[np.float32]]] = {}
        shelves: set[Shelf] = set(self._shelves[known:].tolist())
        for shelf in shelves - {"answer_of_pair"}:  # a pair is compared as a pair: its answer alone says little
            for label in (True, False):
                on = np.flatnonzero((self._shelves[:known] == shelf) & live & (harmful == label))
                if len(on):
                    self._members[shelf, label] = on, stored(shelf, on, vectors, rows)

    def to(self, these: NDArray[np.intp], harmful: bool) -> Nearest | None:
        """The exemplar of one label that comes nearest to any of these rows."""
        best = None
        for (shelf, label), (on, members) in self._members.items():
            mine = these[self._shelves[these] == shelf]
            if label != harmful or not len(mine):
                continue
            similarity = (stored(shelf, mine, self._vectors, self._rows) @ members.T).max(axis=0)
            at = int(similarity.argmax())
            if best is None or similarity[at] > best.similarity:
                best = Nearest(self._records[self._rows.record[on[at]]].id, float(similarity[at]))
        return best
