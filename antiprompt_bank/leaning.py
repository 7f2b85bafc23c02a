"""Leaning: what an adapter's two linear classifiers say of a window, where no exemplar is near enough to say it.

One reads the window's vector, the other its wording: which tokens and pairs of neighbouring tokens stand in it, each
hashed to one of ``BUCKETS`` weights. A vector says what a text is about, wording how it is put ("how can i secretly"),
and each finds what the other misses: together they found 5 to 18 points more of unseen harmful questions than vectors
alone, at the same false positives (``RESULTS.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BUCKETS: Final = 1 << 17

_FIRST: Final = np.uint64(0x9E3779B97F4A7C15)
_PAIR: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_MIX: Final = np.uint64(0xBF58476D1CE4E5B9)
_HALF: Final = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Leaning:
    """Two classifiers of one side of the traffic, biases last.

    ``direction`` ``(d + 1,)`` is over vectors; ``wording`` ``(BUCKETS + 1,)`` over what stands in a window, None where
    there is none.
    """

    direction: NDArray[np.float32]
    wording: NDArray[np.float32] | None = None

    def of(self, vectors: NDArray[np.float32], ids: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """``(n, 2)`` what each classifier says of ``(n, d)`` vectors, whose windows have these token ids."""
        wording = np.zeros(len(vectors)) if self.wording is None else worded(ids, self.wording)
        return np.column_stack([lean(vectors, self.direction), wording])


def lean(vectors: NDArray[np.float32], direction: NDArray[np.float32]) -> NDArray[np.float64]:
    """``(n,)`` logits of harm that a linear classifier ``(d + 1,)``, bias last, gives ``(n, d)`` vectors."""
    said: NDArray[np.float64] = (vectors @ direction[:-1] + direction[-1]).astype(np.float64)
    return said


def worded(ids: Sequence[Sequence[int]], wording: NDArray[np.float32]) -> NDArray[np.float64]:
    """``(n,)`` what a classifier of wording says of windows."""
    window, bucket, share = grams(ids)
    said = np.bincount(window, wording[bucket] * share, len(ids)) + float(wording[-1])
    return said.astype(np.float64)


def grams(ids: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The tokens and pairs of neighbouring tokens of n windows, each once: ``(k,)`` its window, its bucket, its share.

    Shares are equal within a window, and their squares sum to 1.
    """
    sizes = [len(window) for window in ids]
    window = np.repeat(np.arange(len(ids)), sizes)
    token = np.fromiter((token for each in ids for token in each), np.uint64, len(window))
    within = window[1:] == window[:-1]
    single, pair = token * _FIRST, (token[:-1] * _FIRST + token[1:]) * _PAIR
    hashed = np.concatenate([single, pair[within]])
    hashed = (hashed ^ (hashed >> _HALF)) * _MIX
    bucket = ((hashed >> _HALF) % np.uint64(BUCKETS)).astype(np.int64)
    each = np.unique(np.concatenate([window, window[1:][within]]) * BUCKETS + bucket)
    window, bucket = each // BUCKETS, each % BUCKETS
    count = np.bincount(window, minlength=len(ids))
    return window, bucket, 1 / np.sqrt(count[window])
