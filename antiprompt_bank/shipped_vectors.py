"""Shipped vectors: what the seed's windows become with the encoder that ships, so that no first start computes them.

    seed/vectors.safetensors    key (n,) uint64: a hash of a window's token ids; vector (n, d) int8; scale (n,) float32
                                of each; and in its metadata the id of the encoder that made them

On two slow cores encoding the seed takes four minutes, reading this file a second. Eight bits move a similarity by less
than 0.002, as bf16 does. Windows that are not in it, of an exemplar that was changed, are encoded as ever; with another
encoder all are. ``python -m antiprompt_bank.seeding`` writes it anew (``make seed-vectors``).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.encoder import Around, Encoder
from antiprompt_bank.errors import BankCorrupt

VECTORS: Final = Path(__file__).parent / "seed" / "vectors.safetensors"
LEAST_COSINE: Final = 0.999
"""How near what is shipped must be to what the encoder makes here."""

_TRIED_OF: Final = 128
"""One window of so many is encoded all the same, to see whether the others may be taken."""
_Known = tuple[dict[int, int], NDArray[np.int8], NDArray[np.float32]]
_LOGGER: Final = logging.getLogger(__name__)


class Shipped(Around):
    """The encoder, with the vectors in ``file`` for what it knows. An ``Encoder`` for building a bank.

    Knows nothing where there is no such file or another encoder made it, and forgets what it knows as soon as one
    window of those that are tried comes out otherwise here. Raises ``BankCorrupt`` when the file cannot be read.
    """

    def __init__(self, encoder: Encoder, file: Path = VECTORS) -> None:
        super().__init__(encoder)
        self._row, self._vectors, self._scale = _read(file, encoder)

    def __len__(self) -> int:
        return len(self._row)

    def encode(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """``(n, dimensions)`` unit vectors: those that are known, and what the encoder makes of the others."""
        keys = [key_of(window) for window in ids]
        if self._row:
            tried = [at for at, key in enumerate(keys) if key in self._row and key % _TRIED_OF == 0]
            if tried and not self._agrees([ids[at] for at in tried], [keys[at] for at in tried]):
                _LOGGER.warning("the vectors that ship are not those of %s here: all are made anew", self.runtime)
                self._row = {}
        made = np.zeros((len(ids), self.dimensions), dtype=np.float32)
        known = [at for at, key in enumerate(keys) if key in self._row]
        new = [at for at, key in enumerate(keys) if key not in self._row]
        if known:
            made[known] = self._known([keys[at] for at in known])
        if new:
            made[new] = self._encoder.encode([ids[at] for at in new])
        return made

    def _agrees(self, ids: Sequence[Sequence[int]], keys: Sequence[int]) -> bool:
        return bool((self._encoder.encode(ids) * self._known(keys)).sum(axis=1).min() >= LEAST_COSINE)

    def _known(self, keys: Sequence[int]) -> NDArray[np.float32]:
        rows = [self._row[key] for key in keys]
        vectors: NDArray[np.float32] = self._vectors[rows] * self._scale[rows, None]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


class Recording(Around):
    """The encoder, which keeps what it makes for ``write``. An ``Encoder`` for building a bank once."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self._made: dict[int, NDArray[np.float32]] = {}

    def encode(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """As the encoder does."""
        vectors = self._encoder.encode(ids)
        self._made.update((key_of(window), vector) for window, vector in zip(ids, vectors, strict=True))
        return vectors

    def write(self, file: Path) -> int:
        """Write what was made, in an order that does not depend on that of the calls; says how many windows."""
        from safetensors.numpy import save_file

        keys = np.array(sorted(self._made), dtype=np.uint64)
        vectors = np.array([self._made[int(key)] for key in keys], dtype=np.float32).reshape(-1, self.dimensions)
        scale = np.maximum(np.abs(vectors).max(axis=1, initial=0.0), 1e-9) / 127
        small = np.rint(vectors / scale[:, None]).astype(np.int8)
        save_file({"key": keys, "vector": small, "scale": scale.astype(np.float32)}, file, {"encoder": self.id})
        return len(keys)


def key_of(ids: Sequence[int]) -> int:
    """64 bits that name a window's token ids. (Who may write exemplars needs no collision to mislead a bank.)"""
    content = np.asarray(ids, dtype="<i4").tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _read(file: Path, encoder: Encoder) -> _Known:
    from safetensors import SafetensorError, safe_open

    none: _Known = {}, np.zeros((0, encoder.dimensions), dtype=np.int8), np.zeros(0, dtype=np.float32)
    if not file.is_file():
        return none
    try:
        with safe_open(file, "np") as stored:
            if (stored.metadata() or {}).get("encoder") != encoder.id:
                return none
            keys, vectors, scale = (stored.get_tensor(name) for name in ("key", "vector", "scale"))
    except (SafetensorError, OSError, ValueError) as error:
        raise BankCorrupt(f"{file} cannot be read: {error}") from error
    if keys.shape != scale.shape or vectors.shape != (len(keys), encoder.dimensions) or vectors.dtype != np.int8:
        raise BankCorrupt(f"{file} does not hold vectors of {encoder.dimensions} dimensions")
    return {key: row for row, key in enumerate(keys.tolist())}, vectors, scale
