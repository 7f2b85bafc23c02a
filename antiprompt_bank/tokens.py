"""From text to token ids: the tokeniser of a model, and how its inputs are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from antiprompt_bank.windows import TokenSpans

PROMPT_TOKENS: Final = 48
"""Tokens of the prompt that go into a pair, counted from its end: the question stands there as a rule, and mean
pooling must not let a long prompt drown the 64 tokens of the answer that are being judged."""


@dataclass(frozen=True, slots=True)
class TokenInput:
    """One input of an encoder, special tokens in place; ``types`` tells the first text (0) from the second (1)."""

    ids: tuple[int, ...]
    types: tuple[int, ...]


class Tokeniser:
    """A model's ``tokenizer.json``, with the truncation and padding it carries switched off.

    The special tokens are read off the file's own template, so that BERT's ``[CLS] a [SEP] b [SEP]`` and RoBERTa's
    ``<s> a </s></s> b </s>`` are both built right. Safe to use from several threads.
    """

    def __init__(self, path: Path, max_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._single = _Template(self._tokenizer, pair=False)
        self._pair = _Template(self._tokenizer, pair=True)
        self._max_tokens = max_tokens

    @property
    def room(self) -> int:
        """Tokens of text that fit into one input beside the special ones."""
        return self._max_tokens - self._single.specials

    def tokenize(self, text: str) -> TokenSpans:
        """The whole text, however long, without special tokens."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def single(self, ids: Sequence[int]) -> TokenInput:
        """One text as an input. Raises ``ValueError`` when it is longer than the model reads."""
        return self._fitting(self._single.fill(ids, ()))

    def pair(self, prompt: Sequence[int], answer: Sequence[int]) -> TokenInput:
        """The end of a prompt (``PROMPT_TOKENS`` of it) and an answer as one input.

        Raises ``ValueError`` when they are longer than the model reads.
        """
        return self._fitting(self._pair.fill(prompt[-PROMPT_TOKENS:], answer))

    def _fitting(self, made: TokenInput) -> TokenInput:
        if len(made.ids) > self._max_tokens:
            raise ValueError(
                f"{len(made.ids)} tokens, but the encoder reads {self._max_tokens}: cut into windows first"
            )
        return made


class _Template:
    """The special tokens before, between and after the texts of an input, with their token types."""

    def __init__(self, tokenizer: Tokenizer, *, pair: bool) -> None:
        probe = tokenizer.encode("a", "a") if pair else tokenizer.encode("a")
        parts: list[tuple[list[int], list[int]]] = [([], [])]
        text_types: list[int] = []
        for token, kind, sequence in zip(probe.ids, probe.type_ids, probe.sequence_ids, strict=True):
            if sequence is None:
                parts[-1][0].append(token)
                parts[-1][1].append(kind)
            elif sequence == len(text_types):
                text_types.append(kind)
                parts.append(([], []))
        self._parts = [(tuple(ids), tuple(types)) for ids, types in parts]
        self._text_types = text_types
        self.specials = sum(len(ids) for ids, _ in self._parts)

    def fill(self, first: Sequence[int], second: Sequence[int]) -> TokenInput:
        ids, types = self._parts[0]
        for text, kind, (part_ids, part_types) in zip((first, second), self._text_types, self._parts[1:], strict=False):
            ids += (*text, *part_ids)
            types += (kind,) * len(text) + part_types
        return TokenInput(ids, types)
