"""From text to token ids: the tokeniser of a model, and how its inputs are put together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from antiprompt_bank.windows import TokenSpans

_HALF_PAIR = re.compile("[\ud800-\udfff]")


class Tokeniser:
    """A model's ``tokenizer.json``, with the truncation and padding it carries switched off.

    The special tokens are read off the file's own template, so that BERT's ``[CLS] a [SEP]`` and RoBERTa's
    ``<s> a </s>`` are both built right. Safe to use from several threads.
    """

    def __init__(self, path: Path, max_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        probe = self._tokenizer.encode("a")
        special = [sequence is None for sequence in probe.sequence_ids]
        first = special.index(False)
        self._before = probe.ids[:first]
        self._after = probe.ids[special.index(True, first) :] if True in special[first:] else []
        self._max_tokens = max_tokens

    @property
    def room(self) -> int:
        """Tokens of text that fit into one input beside the special ones."""
        return self._max_tokens - len(self._before) - len(self._after)

    def tokenize(self, text: str) -> TokenSpans:
        """The whole text, however long, without special tokens. Half a surrogate pair reads as U+FFFD."""
        return self._tokenizer.encode(_HALF_PAIR.sub("\ufffd", text), add_special_tokens=False)

    def framed(self, ids: Sequence[int]) -> list[int]:
        """A text's ids between the special tokens. Raises ``ValueError`` when the model cannot read them all."""
        made = [*self._before, *ids, *self._after]
        if len(made) > self._max_tokens:
            raise ValueError(f"{len(made)} tokens, but the encoder reads {self._max_tokens}: cut into windows first")
        return made
