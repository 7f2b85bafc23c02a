"""The exemplars nearest to a text, each compared in the form in which it was stored.

How near is near differs by place: an English encoder puts all Hindi side by side (cosine 0.8 between unrelated texts),
and English questions 0.3 apart. So each stored vector carries its *background*, the similarity it has to unrelated
texts anyway, and neighbours are ranked by closeness: 0 at the background, 1 for the same vector. (The idea of local
scaling, as in CSLS, Conneau et al. 2017, arXiv 1710.04087, on the stored side only.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.index import Index, SearchDevice
from antiprompt_bank.records import Antiprompt

Situation = Literal["request", "response", "response_with_prompt"]
"""What is being judged: a request, an answer alone, or an answer whose prompt is known; each has its own curve."""

SITUATIONS: Final[tuple[Situation, ...]] = ("request", "response", "response_with_prompt")

NEIGHBOURS: Final = 32
"""Harmful and benign exemplars that are looked up for each window."""

FARTHEST: Final = -0.5
"""The least closeness: what is farther than that from an exemplar says no more about a text."""

_Form = Literal["alone", "pair"]
Shelf = Literal["request", "answer", "answer_of_pair", "pair"]
"""Rows that are searched together: requests; answers without a prompt; answers with one, alone and as pairs."""

_COMPARED: Final[dict[Situation, tuple[tuple[_Form, Shelf], ...]]] = {
    "request": (("alone", "request"),),
    "response": (("alone", "answer"), ("alone", "answer_of_pair")),
    # An exemplar that knows its prompt is only ever compared as a pair here: the same words can be a fair answer to
    # one question and a dangerous one to another.
    "response_with_prompt": (("pair", "pair"), ("alone", "answer")),
}


PROMPT_SHARE: Final = 0.3
"""How much the prompts' likeness counts when answers are compared as pairs. Telling harmful answers from their benign
twins, families left out, the seed bank has AUC 0.78 from 0.3 to 0.5; from 0.4 on safe answers to harmful prompts are
hit. One joint encoding of prompt and answer had 0.70, and costs an encoder pass for each new prompt."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What each row of a bank's vectors stands for: the record it belongs to, and whether it is its prompt's.

    A record longer than one window has several rows. A response with a prompt has a second row for each of them,
    behind them and in their order, that holds the prompt's vector: together they are compared as a pair. Both arrays
    have the length of the vectors.
    """

    record: NDArray[np.int32]
    pair: NDArray[np.bool_]

    @property
    def answer(self) -> NDArray[np.int64]:
        """For each row the row of the answer's own window: itself, or for a prompt's row the one it belongs to."""
        own = np.arange(len(self.record), dtype=np.int64)
        sizes = np.bincount(self.record[self.pair], minlength=int(self.record.max(initial=0)) + 1)
        return np.where(self.pair, own - sizes[self.record], own)


def paired(prompts: NDArray[np.float32], answers: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(n, 2 d)`` unit vectors of pairs: their inner products mix the cosines of prompts and of answers."""
    return np.hstack([prompts * np.float32(PROMPT_SHARE**0.5), answers * np.float32((1 - PROMPT_SHARE) ** 0.5)])


def stored(shelf: Shelf, on: NDArray[np.intp], vectors: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
    """The vectors of rows ``on`` as they are compared on their shelf."""
    return paired(vectors[on], vectors[rows.answer[on]]) if shelf == "pair" else vectors[on]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """For each window its nearest exemplars, closest first, each record once.

    All are ``(n, k)``: ``closeness`` in [-0.5, 1], ``similarity`` (cosine), ``record`` (positions in the bank's
    records). Where there are fewer than k, ``record`` is -1, ``similarity`` -1 and ``closeness`` that of ``beyond``.

    ``beyond`` ``(n,)`` is as close as any exemplar that is not among them may be; -0.5 where there is none. A long
    exemplar has many windows: where several of them crowd out others, those are not as far away as nothing is.
    """

    closeness: NDArray[np.float64]
    similarity: NDArray[np.float64]
    record: NDArray[np.int64]
    beyond: NDArray[np.float64]

    def best(self, count: int, *, without: NDArray[np.bool_] | None = None) -> Neighbours:
        """The ``count`` closest, each record once, those marked in ``without`` ``(n, k)`` left out."""
        record = self.record if without is None else np.where(without, -1, self.record)
        order = np.argsort(np.where(record < 0, np.inf, -self.closeness), axis=1, kind="stable")
        record, closeness, similarity = (
            np.take_along_axis(part, order, axis=1) for part in (record, self.closeness, self.similarity)
        )
        twice = _again(record)
        if twice.any():
            return Neighbours(closeness, similarity, record, self.beyond).best(count, without=twice)
        missing = record < 0
        beyond = self.beyond
        if record.shape[1] > count:
            beyond = np.where(missing[:, count], beyond, closeness[:, count])
        return Neighbours(
            _exactly(count, np.where(missing, self.beyond[:, None], closeness), self.beyond),
            _exactly(count, np.where(missing, -1.0, similarity), np.full(len(record), -1.0)),
            _exactly(count, record, np.full(len(record), -1)),
            beyond,
        )


class Shelves:
    """The rows that decide, sorted by what they are compared with, harmful and benign apart.

    ``vectors`` is ``(n, d)``; ``background`` ``(n,)``; ``deciding`` ``(len(records),)`` says which records take part;
    ``device`` is where they are searched.
    """

    def __init__(
        self,
        records: Sequence[Antiprompt],
        rows: Rows,
        vectors: NDArray[np.float32],
        background: NDArray[np.float64],
        deciding: NDArray[np.bool_],
        *,
        device: SearchDevice = "cpu",
    ) -> None:
        places: dict[tuple[Shelf, bool], list[int]] = {}
        for row, shelf in enumerate(shelf_of(records, rows)):
            at = int(rows.record[row])
            if deciding[at]:
                places.setdefault((shelf, records[at].harmful), []).append(row)
        self._shelves = {
            (shelf, label): _Ranked(
                stored(shelf, np.array(on), vectors, rows), background[on], rows.record[on].astype(np.int64), device
            )
            for (shelf, label), on in places.items()
        }

    def find(
        self,
        situation: Situation,
        alone: NDArray[np.float32],
        pair: NDArray[np.float32] | None = None,
        *,
        count: int = NEIGHBOURS,
    ) -> tuple[Neighbours, Neighbours]:
        """The harmful and the benign neighbours of ``(m, d)`` windows.

        ``pair``, ``(m, 2 d)`` of ``paired``, goes with ``response_with_prompt``.
        """
        vectors = {"alone": alone, "pair": alone if pair is None else pair}
        harmful, benign = (
            _joined([self._search(shelf, label, vectors[form], count) for form, shelf in _COMPARED[situation]]).best(
                count
            )
            for label in (True, False)
        )
        return harmful, benign

    def _search(self, shelf: Shelf, harmful: bool, queries: NDArray[np.float32], count: int) -> Neighbours:
        if (shelf, harmful) in self._shelves:
            return self._shelves[shelf, harmful].search(queries, count)
        shape = (len(queries), 0)
        nothing = np.full(len(queries), FARTHEST)
        return Neighbours(np.empty(shape), np.empty(shape), np.empty(shape, dtype=np.int64), nothing)


class _Ranked:
    """Rows ranked by closeness, which is linear in the similarity: ``(s - b) / (1 - b) = s * a - b * a``.

    So one more dimension (``-b * a``, against a constant 1 in the query) lets an inner product be the closeness.
    """

    def __init__(
        self,
        vectors: NDArray[np.float32],
        background: NDArray[np.float64],
        record: NDArray[np.int64],
        device: SearchDevice,
    ) -> None:
        scale = 1 / (1 - background)
        ranked = np.column_stack([vectors * scale[:, None], -background * scale]).astype(np.float32)
        self._index = Index(ranked, device=device)
        self._background = background
        self._record = record

    def search(self, queries: NDArray[np.float32], count: int) -> Neighbours:
        ones = np.ones((len(queries), 1), dtype=np.float32)
        found, row = self._index.search(np.column_stack([queries, ones]), min(count, len(self._index)))
        closeness = found.astype(np.float64)
        background = self._background[row]
        similarity = np.clip(closeness * (1 - background) + background, -1.0, 1.0)
        closeness = np.clip(closeness, FARTHEST, 1.0)
        beyond = closeness[:, -1] if count < len(self._index) else np.full(len(queries), FARTHEST)
        return Neighbours(closeness, similarity, self._record[row], beyond)


def shelf_of(records: Sequence[Antiprompt], rows: Rows) -> list[Shelf]:
    """The shelf of each row."""
    return [_shelf(records[at], pair) for at, pair in zip(rows.record.tolist(), rows.pair.tolist(), strict=True)]


def _shelf(record: Antiprompt, pair: bool) -> Shelf:
    if record.side == "request":
        return "request"
    if pair:
        return "pair"
    return "answer" if record.prompt is None else "answer_of_pair"


def _joined(parts: Sequence[Neighbours]) -> Neighbours:
    return Neighbours(
        np.concatenate([part.closeness for part in parts], axis=1),
        np.concatenate([part.similarity for part in parts], axis=1),
        np.concatenate([part.record for part in parts], axis=1),
        np.max([part.beyond for part in parts], axis=0),
    )


def _exactly(count: int, part: NDArray[Any], missing: NDArray[Any]) -> NDArray[Any]:
    short = count - part.shape[1]
    return np.hstack([part, np.repeat(missing[:, None], short, axis=1)]) if short > 0 else part[:, :count]


def _again(record: NDArray[np.int64]) -> NDArray[np.bool_]:
    """``(n, k)`` whether a record stands in its row before."""
    order = np.argsort(record, axis=1, kind="stable")
    ordered = np.take_along_axis(record, order, axis=1)
    again = np.zeros(record.shape, dtype=bool)
    np.put_along_axis(again, order[:, 1:], (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0), axis=1)
    return again
