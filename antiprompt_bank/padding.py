"""Padding: token ids of many texts as a few matrices of like lengths, without work in Python for each text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

_STEP: Final = 8
"""Tokens by which widths differ: tensor cores work in eights."""

_COARSE_FROM: Final = 96
_COARSE_STEP: Final = 32
"""Beyond ``_COARSE_FROM`` tokens texts are rare and widths coarser, so that there are few shapes."""

_LEAST_TOKENS: Final = 4096
"""Below this many tokens another pass through a model costs more than padding up to the next width."""


@dataclass(frozen=True, slots=True)
class Frame:
    """How a model wants its inputs: the special ``before`` and ``after`` a text's ids, and at most ``most_tokens`` in
    all."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    most_tokens: int


@dataclass(frozen=True, slots=True)
class Padded:
    """Some of the inputs side by side.

    ``places`` ``(m,)`` says which of the inputs, ``lengths`` ``(m,)`` how long each is with its special tokens;
    ``width`` is what they are padded to.
    """

    places: NDArray[np.int64]
    lengths: NDArray[np.int64]
    width: int


def lengths_of(inputs: Sequence[Sequence[int]], frame: Frame) -> NDArray[np.int64]:
    """``(n,)`` tokens of each input with its special ones. Raises ``ValueError`` when one is too long."""
    own = np.fromiter(map(len, inputs), dtype=np.int64, count=len(inputs))
    lengths: NDArray[np.int64] = own + len(frame.before) + len(frame.after)
    longest = int(lengths.max(initial=0))
    if longest > frame.most_tokens:
        raise ValueError(f"{longest} tokens, but the encoder reads {frame.most_tokens}: cut into windows first")
    return lengths


def padded(lengths: NDArray[np.int64], frame: Frame, *, most_tokens: int) -> Iterator[Padded]:
    """Every input once, shortest first, in groups of at most ``most_tokens`` tokens, padding among them.

    A group is of one width, unless it is so small that it goes along with the next wider one.
    """
    order = np.argsort(lengths, kind="stable")
    widths = np.minimum(_width(lengths[order]), frame.most_tokens)
    ends = [*(np.flatnonzero(np.diff(widths)) + 1).tolist(), len(order)]
    first = 0
    for end in ends:
        width = int(widths[end - 1]) if end else 0
        if (end - first) * width < _LEAST_TOKENS and end < len(order):
            continue
        most = max(1, most_tokens // max(1, width))
        for start in range(first, end, most):
            places = order[start : min(start + most, end)]
            yield Padded(places, lengths[places], width)
        first = end


def fill(ids: NDArray[np.int64], inputs: Sequence[Sequence[int]], group: Padded, frame: Frame) -> None:
    """Write a group's inputs into ``ids`` ``(m, width)``, between their special tokens; what is left is 0.

    Arrays are copied ten times as fast as lists.
    """
    before, after = len(frame.before), len(frame.after)
    own = group.lengths - before - after
    texts = [inputs[at] for at in group.places.tolist()]
    if all(isinstance(text, np.ndarray) for text in texts):
        flat = np.concatenate(texts) if texts else np.empty(0, dtype=np.int64)
    else:
        flat = np.fromiter(chain.from_iterable(texts), dtype=np.int64, count=int(own.sum()))
    column = np.arange(group.width) - before
    ids.fill(0)
    ids[(column >= 0) & (column < own[:, None])] = flat
    ids[:, :before] = frame.before
    if after:
        row = np.arange(len(own))[:, None]
        ids[row, (before + own)[:, None] + np.arange(after)] = frame.after


def _width(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    fine = -(-lengths // _STEP) * _STEP
    coarse = -(-lengths // _COARSE_STEP) * _COARSE_STEP
    return np.where(fine <= _COARSE_FROM, fine, coarse)
