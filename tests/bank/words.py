"""An encoder for tests that ask what words do: the real tokeniser, and a vector for each token, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.leaning import Leaning
from antiprompt_bank.model_files import DEFAULT_MODEL, model_folder
from antiprompt_bank.tokens import Tokeniser
from antiprompt_bank.windows import TokenSpans


class WordEncoder:
    """Texts with the same words have the same vector, whatever their order. ``fails`` makes encoding fail."""

    id = "words@000000000000:sum"
    runtime = "numpy"
    dimensions = 64
    max_tokens = 256
    folder = Path()

    def __init__(self) -> None:
        self.leaning: Mapping[str, Leaning] = {}
        self.fails = False
        self._tokeniser = Tokeniser(model_folder(DEFAULT_MODEL) / "tokenizer.json", self.max_tokens)
        self._of_token = np.random.default_rng(0).normal(size=(32_000, self.dimensions)).astype(np.float32)

    def tokenize(self, text: str) -> TokenSpans:
        return self._tokeniser.tokenize(text)

    def encode(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        if self.fails:
            raise RuntimeError("the encoder is down")
        vectors = np.stack([self._of_token[list(each) or [0]].sum(axis=0) for each in ids])
        made: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return made
