"""The exemplars nearest to a text, each compared in the form in which it was stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.index import Index
from antiprompt_bank.records import Antiprompt

Situation = Literal["request", "response", "response_with_prompt"]
"""What is being judged: a request, an answer alone, or an answer whose prompt is known; each has its own curve."""

SITUATIONS: Final[tuple[Situation, ...]] = ("request", "response", "response_with_prompt")

NEIGHBOURS: Final = 16
"""Harmful and benign exemplars that are looked up for each window."""

_Form = Literal["alone", "pair"]
_Shelf = Literal["request", "answer", "answer_of_pair", "pair"]

_COMPARED: Final[dict[Situation, tuple[tuple[_Form, _Shelf], ...]]] = {
    "request": (("alone", "request"),),
    "response": (("alone", "answer"), ("alone", "answer_of_pair")),
    # An exemplar that knows its prompt is only ever compared as a pair here: the same words can be a fair answer to
    # one question and a dangerous one to another.
    "response_with_prompt": (("pair", "pair"), ("alone", "answer")),
}


@dataclass(frozen=True, slots=True)
class Rows:
    """What each row of a bank's vectors stands for: the record it belongs to, and whether its prompt is in it.

    A record longer than one window has several rows; a response with a prompt has each of them twice, alone and as a
    pair. Both arrays have the length of the vectors.
    """

    record: NDArray[np.int32]
    pair: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """For each window its nearest exemplars, best first, each record once.

    ``similarity`` is ``(n, k)`` float64, ``record`` ``(n, k)`` with positions in the bank's records. Where there are
    fewer, ``record`` is -1 and ``similarity`` -1.
    """

    similarity: NDArray[np.float64]
    record: NDArray[np.int64]

    def best(self, count: int, *, without: NDArray[np.bool_] | None = None) -> Neighbours:
        """The ``count`` best, each record once, those marked in ``without`` ``(n, k)`` left out."""
        record = self.record if without is None else np.where(without, -1, self.record)
        order = np.argsort(np.where(record < 0, np.inf, -self.similarity), axis=1, kind="stable")
        record = np.take_along_axis(record, order, axis=1)
        similarity = np.take_along_axis(self.similarity, order, axis=1)
        if _repeats(record):
            twice = np.tril(record[:, :, None] == record[:, None, :], k=-1).any(axis=2) & (record >= 0)
            return Neighbours(similarity, np.where(twice, -1, record)).best(count)
        record, similarity = record[:, :count], similarity[:, :count]
        return Neighbours(np.where(record < 0, -1.0, similarity), record)


class Shelves:
    """The rows that decide, sorted by what they are compared with, harmful and benign apart.

    ``vectors`` is ``(n, d)``; ``deciding`` ``(len(records),)`` says which records take part.
    """

    def __init__(
        self, records: Sequence[Antiprompt], rows: Rows, vectors: NDArray[np.float32], deciding: NDArray[np.bool_]
    ) -> None:
        self._shelves: dict[tuple[_Shelf, bool], tuple[Index, NDArray[np.int64]]] = {}
        places: dict[tuple[_Shelf, bool], list[int]] = {}
        for row, (at, pair) in enumerate(zip(rows.record.tolist(), rows.pair.tolist(), strict=True)):
            if deciding[at]:
                places.setdefault((_shelf(records[at], pair), records[at].harmful), []).append(row)
        for key, on_shelf in places.items():
            self._shelves[key] = Index(vectors[on_shelf]), rows.record[on_shelf].astype(np.int64)

    def find(
        self,
        situation: Situation,
        alone: NDArray[np.float32],
        pair: NDArray[np.float32] | None = None,
        *,
        count: int = NEIGHBOURS,
    ) -> tuple[Neighbours, Neighbours]:
        """The harmful and the benign neighbours of ``(m, d)`` windows; ``pair`` goes with ``response_with_prompt``."""
        vectors = {"alone": alone, "pair": pair if pair is not None else alone}
        found: list[Neighbours] = []
        for harmful in (True, False):
            parts = [self._search(shelf, harmful, vectors[form], count) for form, shelf in _COMPARED[situation]]
            merged = Neighbours(
                np.concatenate([part.similarity for part in parts], axis=1),
                np.concatenate([part.record for part in parts], axis=1),
            )
            found.append(merged.best(count))
        return found[0], found[1]

    def _search(self, shelf: _Shelf, harmful: bool, queries: NDArray[np.float32], count: int) -> Neighbours:
        if (shelf, harmful) not in self._shelves:
            shape = (len(queries), count)
            return Neighbours(np.full(shape, -1.0), np.full(shape, -1, dtype=np.int64))
        index, record = self._shelves[shelf, harmful]
        similarity, row = index.search(queries, count)
        return Neighbours(np.where(row < 0, -1.0, similarity.astype(np.float64)), np.where(row < 0, -1, record[row]))


def _repeats(record: NDArray[np.int64]) -> bool:
    ordered = np.sort(record, axis=1)
    return bool(np.any((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)))


def _shelf(record: Antiprompt, pair: bool) -> _Shelf:
    if record.side == "request":
        return "request"
    if pair:
        return "pair"
    return "answer" if record.prompt is None else "answer_of_pair"
