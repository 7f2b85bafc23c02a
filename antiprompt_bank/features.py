"""What the frozen encoder says of each window, kept between trainings and evaluations: it never changes and costs the
most; what an adapter makes of it costs next to nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.adapter import BLOCKS, LAYERS, MAXIMA, Adapter
from antiprompt_bank.encoder import Device, Encoder, export_encoder, open_encoder
from antiprompt_bank.leaning import Leaning
from antiprompt_bank.model_files import DEFAULT_MODEL, EncoderCard, encoder_id
from antiprompt_bank.windows import TokenSpans

_BATCH: Final = 64
_KEY_BYTES: Final = 16


class FeatureCache:
    """Features by token ids, in memory and, after ``save``, in a folder: ``keys.npy`` ``(n, 16)`` uint8 and
    ``features.npy`` ``(n, f)`` float16 for each encoder, 6 kB a window. What is damaged there is made again.

    ``encoder`` is one that was exported with features.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.encoder = encoder
        self._folder = folder / hashlib.sha256(encoder.id.encode()).hexdigest()[:12]
        self._known, stored = _read(self._folder, encoder.dimensions)
        self._parts = [stored]
        self._saved = len(self._known)

    def of(
        self, inputs: Sequence[Sequence[int]], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float16]:
        """``(n, f)`` features of token ids."""
        keys = [_key(ids) for ids in inputs]
        missing = {key: ids for key, ids in zip(keys, inputs, strict=True) if key not in self._known}
        if missing:
            # By length, so that each batch is whole groups of equal length.
            order = sorted(missing, key=lambda key: len(missing[key]))
            made = np.empty((len(order), self.encoder.dimensions), dtype=np.float16)
            for start in range(0, len(order), _BATCH):
                some = [missing[key] for key in order[start : start + _BATCH]]
                made[start : start + _BATCH] = self.encoder.encode(some)
                if progress is not None:
                    progress(start + len(some), len(order))
            self._known |= {key: len(self._known) + at for at, key in enumerate(order)}
            self._parts.append(made)
        return self._rows([self._known[key] for key in keys])

    def save(self) -> None:
        """Write what was added, in one step."""
        if self._saved == len(self._known):
            return
        self._parts = [np.concatenate(self._parts)]
        _write(self._folder, list(self._known), self._parts[0])
        self._saved = len(self._known)

    def _rows(self, numbers: Sequence[int]) -> NDArray[np.float16]:
        ends = np.cumsum([len(part) for part in self._parts])
        wanted = np.array(numbers, dtype=np.int64)
        found = np.empty((len(wanted), self.encoder.dimensions), dtype=np.float16)
        part = np.searchsorted(ends, wanted, side="right")
        for at in np.unique(part):
            on = part == at
            found[on] = self._parts[at][wanted[on] - (ends[at] - len(self._parts[at]))]
        return found


def open_features(folder: Path, *, model: str = DEFAULT_MODEL, device: Device = "auto") -> FeatureCache:
    """The features kept in a folder, and the model that makes further ones; exported there the first time.

    Raises ``EncoderUnavailable`` when torch or the model is missing.
    """
    read = "".join(str(number) for number in (LAYERS, *MAXIMA))  # what another release reads is another export
    exported = export_encoder(folder / f"features-{Path(model).name}-{read}", model, features=True)
    return FeatureCache(folder / "features", open_encoder(exported, device=device, threads=2))


class AdaptedEncoder:
    """An encoder with an adapter, over features that are kept: for measuring many adapters on the same texts.

    Agrees with the exported encoder of the same adapter up to the rounding of features to float16. Without an adapter
    it is the model itself, whose vector (a mean over the last layer, as all-MiniLM-L6-v2 has it) is one of the blocks.
    """

    def __init__(self, cache: FeatureCache, adapter: Adapter | None = None) -> None:
        base = cache.encoder
        card = EncoderCard.read(base.folder)
        self.id = encoder_id(card.model, card.weights_sha256, "mean", None if adapter is None else adapter.sha256)
        self.runtime = f"{base.runtime}-features"
        self.dimensions = base.dimensions // BLOCKS if adapter is None else adapter.card.dimensions
        self.max_tokens = base.max_tokens
        self.folder = base.folder if adapter is None else adapter.folder
        self.leaning: Mapping[str, Leaning] = {} if adapter is None else adapter.leaning
        self._cache = cache
        matrices = {} if adapter is None else adapter.matrices
        self._matrices = {name: array.astype(np.float32) for name, array in matrices.items()}

    def tokenize(self, text: str) -> TokenSpans:
        """The whole text as token ids without special tokens, with character offsets."""
        return self._cache.encoder.tokenize(text)

    def encode(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """``(n, dimensions)`` unit vectors of token ids. Raises ``ValueError`` when one is longer than the model."""
        read = self._cache.of(ids).astype(np.float32)
        if not self._matrices:
            return _unit(read[:, self.dimensions * (LAYERS - 1) : self.dimensions * LAYERS])
        from scipy.special import erf

        hidden = read @ self._matrices["first.weight"].T
        hidden += self._matrices["first.bias"]
        hidden *= 0.5 * (1 + erf(hidden / np.sqrt(2, dtype=np.float32)))  # GELU
        return _unit(hidden @ self._matrices["second.weight"].T + self._matrices["second.bias"])


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _key(ids: Sequence[int]) -> bytes:
    return hashlib.sha256(np.array(ids, dtype=np.int64).tobytes()).digest()[:_KEY_BYTES]


def _read(folder: Path, width: int) -> tuple[dict[bytes, int], NDArray[np.float16]]:
    nothing: NDArray[np.float16] = np.empty((0, width), dtype=np.float16)
    try:
        keys = np.load(folder / "keys.npy", allow_pickle=False)
        features = np.load(folder / "features.npy", allow_pickle=False)
    except (OSError, ValueError):
        return {}, nothing
    if features.shape != (len(keys), width) or keys.shape[1:] != (_KEY_BYTES,):
        return {}, nothing
    return {key.tobytes(): at for at, key in enumerate(keys)}, features


def _write(folder: Path, keys: Sequence[bytes], features: NDArray[np.float16]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, _KEY_BYTES)
    # Keys last: with other features than theirs, their number tells.
    for name, array in (("features.npy", features), ("keys.npy", table)):
        made = folder / f".{name}-{os.getpid()}"
        with made.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        made.replace(folder / name)
