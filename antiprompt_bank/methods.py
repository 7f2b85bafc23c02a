"""Methods: what gives each text a number, the bank among them, so that all are measured alike."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.bank import Bank, Prepared
from antiprompt_bank.encoder import Around, Encoder
from antiprompt_bank.records import Side

Progress = Callable[[int, int], None]
"""Told how many of how many texts are done."""

_BATCH: Final = 32


class Text(Protocol):
    """What a method may know of an ``Example``."""

    @property
    def text(self) -> str: ...
    @property
    def prompt(self) -> str | None: ...
    @property
    def side(self) -> Side: ...


class Method(Protocol):
    """A detector. ``fixed`` is its only threshold, where no other makes sense (block-all), otherwise None.

    ``encoder`` is what makes its vectors, if it has any.
    """

    name: str
    fixed: float | None
    encoder: Encoder | None

    def scores(self, texts: Sequence[Text], progress: Progress | None = None) -> NDArray[np.float64]:
        """``(n,)``, the higher the more harmful; comparable within one side only."""


class BankMethod:
    """A bank's risk. Without ``views`` only the raw text is read: to know what the views are worth."""

    fixed: float | None = None

    def __init__(self, bank: Bank, *, name: str = "bank", views: bool = True) -> None:
        self.name = name
        self.bank = bank
        self.encoder: Encoder | None = bank.encoder
        self._views = views

    def scores(self, texts: Sequence[Text], progress: Progress | None = None) -> NDArray[np.float64]:
        risks = np.zeros(len(texts))
        for start in range(0, len(texts), _BATCH):
            batch = [self._prepared(text) for text in texts[start : start + _BATCH]]
            risks[start : start + len(batch)] = [score.risk for score in self.bank.score_prepared(batch)]
            if progress is not None:
                progress(start + len(batch), len(texts))
        return risks

    def _prepared(self, text: Text) -> Prepared:
        prepared = self.bank.prepare(text.text, side=text.side, prompt=_prompt(text))
        if self._views:
            return prepared
        return replace(
            prepared,
            cut=tuple(window for window in prepared.cut if window.view == "raw"),
            copies=tuple(copy for copy in prepared.copies if copy.place.view == "raw"),
        )


class RememberingEncoder(Around):
    """An encoder that encodes each input once: banks of several sizes and folds share most of their texts.

    Keeps every vector (about 1.6 kB each), so it is for measuring, not for serving. While ``remembers`` is off it
    encodes everything anew.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.inner = encoder
        self.remembers = True
        self._vectors: dict[bytes, NDArray[np.float32]] = {}

    def encode(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        if not self.remembers:
            return self.inner.encode(ids)
        keys = [blake2b(array("l", item).tobytes(), digest_size=16).digest() for item in ids]
        missing = {key: item for key, item in zip(keys, ids, strict=True) if key not in self._vectors}
        if missing:
            made = self.inner.encode(list(missing.values()))
            self._vectors.update(zip(missing, (vector.copy() for vector in made), strict=True))
        if not keys:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        return np.stack([self._vectors[key] for key in keys])


def twin(bank: Bank, encoder: Encoder) -> Bank:
    """The same bank with another encoder object of the same id; it has seen no text yet."""
    return Bank(
        version=bank.version,
        encoder=encoder,
        records=bank.records,
        rows=bank.rows,
        vectors=bank.vectors,
        calibration=bank.calibration,
    )


def _prompt(text: Text) -> str | None:
    return text.prompt if text.side == "response" else None
