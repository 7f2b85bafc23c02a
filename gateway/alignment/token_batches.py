"""Examples as token ids, and batches of them as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

Ids = tuple[int, ...]

IGNORED: Final = -100
"""The label of a token that is not to be learned."""


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and its answer; only the answer is learned. The answer ends with the token that ends it."""

    prompt: Ids
    answer: Ids

    def cut(self, max_tokens: int) -> Example:
        """At most so many tokens: first the prompt loses its beginning, then the answer its end."""
        room = max(0, max_tokens - len(self.answer))
        return Example(self.prompt[max(0, len(self.prompt) - room) :], self.answer[:max_tokens])


@dataclass(frozen=True, slots=True)
class Batch:
    """``ids``, ``mask`` and ``labels``, each (n, length): padded on the right, labels ``IGNORED`` outside answers."""

    ids: Tensor
    mask: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> Batch:
        return Batch(self.ids.to(device), self.mask.to(device), self.labels.to(device))


def batch_of(examples: Sequence[Example], pad: int) -> Batch:
    """Raises ``ValueError`` for no examples."""
    length = max(len(each.prompt) + len(each.answer) for each in examples)
    shape = (len(examples), length)
    ids = torch.full(shape, pad)
    mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for at, each in enumerate(examples):
        whole = each.prompt + each.answer
        ids[at, : len(whole)] = torch.tensor(whole)
        mask[at, : len(whole)] = 1
        labels[at, len(each.prompt) : len(whole)] = torch.tensor(each.answer)
    return Batch(ids, mask, labels)
