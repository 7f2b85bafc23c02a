"""Vectors as sentences have them: in clusters of clusters, and in some directions more than in others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 65_536
_MEMBERS = 150
"""Vectors of one topic; each topic has a tenth as many wordings, around which its vectors lie."""


class Clusters:
    """``count`` unit vectors and any number of others from among them. The same for the same arguments.

    A vector's nearest neighbours are those of its wording (cosine about 0.8), then its topic's (about 0.55); unrelated
    ones are spread around 0 by 0.1.
    """

    def __init__(self, count: int, dimensions: int = 384, seed: int = 0) -> None:
        self.count = count
        self._seed = seed
        self._dimensions = dimensions
        # The directions of a sentence encoder do not count alike: a few hold most of what differs.
        self._spread = (1 + np.arange(dimensions, dtype=np.float32)) ** np.float32(-0.3)
        topics = max(1, count // _MEMBERS)
        wordings = max(1, count // 10)
        chance = np.random.default_rng(seed)
        owner = chance.integers(0, topics, wordings)
        self._centres = self._directions(chance, topics)[owner] * np.float32(0.75)
        self._centres += self._directions(chance, wordings) * np.float32(0.5)

    def vectors(self) -> NDArray[np.float32]:
        """``(count, dimensions)``."""
        made = np.empty((self.count, self._dimensions), dtype=np.float32)
        for start in range(0, self.count, _BLOCK):
            made[start : start + _BLOCK] = self._around(start + 1, min(_BLOCK, self.count - start))
        return made

    def others(self, count: int) -> NDArray[np.float32]:
        """``(count, dimensions)`` that lie among ``vectors`` and are none of them."""
        return self._around(0, count)

    def _around(self, number: int, count: int) -> NDArray[np.float32]:
        chance = np.random.default_rng((self._seed, number))
        owner = chance.integers(0, len(self._centres), count)
        made = self._centres[owner] + self._directions(chance, count) * np.float32(0.45)
        unit: NDArray[np.float32] = made / np.linalg.norm(made, axis=1, keepdims=True)
        return unit

    def _directions(self, chance: np.random.Generator, count: int) -> NDArray[np.float32]:
        made = chance.standard_normal((count, self._dimensions), dtype=np.float32) * self._spread
        unit: NDArray[np.float32] = made / np.linalg.norm(made, axis=1, keepdims=True)
        return unit


def ranked(vectors: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """Vectors as a bank's shelf stores them: scaled by their backgrounds, with one more column (see ``neighbours``).

    The backgrounds are spread as the seed bank's are: half below 0.36, one in twenty above 0.77.
    """
    background = np.random.default_rng(seed).beta(2.2, 3.2, len(vectors)).clip(0.08, 0.95)
    scale = 1 / (1 - background)
    return np.column_stack([vectors * scale[:, None], -background * scale]).astype(np.float32)


def asked(queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Queries for ``ranked`` vectors."""
    return np.column_stack([queries, np.ones(len(queries), dtype=np.float32)])
