"""DPO and KTO on token ids, as arms of the toy; ``align train`` runs TRL's own."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from gateway.alignment.losses import log_probs_of
from gateway.alignment.objectives import Asked
from gateway.alignment.token_batches import Example, batch_of


@dataclass(frozen=True, slots=True)
class Rows:
    """Examples with their rewards and the number of the prompt that each answers; ``replayed`` are good and known."""

    examples: list[Example]
    rewards: Tensor
    prompts: Tensor
    replayed: Tensor

    def mismatched(self) -> list[Example]:
        """Each prompt with the next one's answer."""
        turned = [*self.examples[1:], self.examples[0]]
        return [Example(mine.prompt, other.answer) for mine, other in zip(self.examples, turned, strict=True)]


@dataclass(frozen=True, slots=True)
class Preference:
    """Known answers of some prompts, good or bad by the sign of their reward; the reference is the model without its
    adapter. DPO: Rafailov et al. 2023 (arXiv 2305.18290), with half of the plain loss on what is replayed, else it
    forgets. KTO: Ethayarajh et al. 2024 (arXiv 2402.01306), its reference point from answers to other prompts.
    """

    kind: Literal["dpo", "kto"]
    draw_asked: Callable[[random.Random], Sequence[Asked]]
    replay: Callable[[random.Random], Sequence[Example]]
    pad: int
    end: int
    beta: float = 0.5

    def rows(self, draw: random.Random) -> Rows:
        asked = self.draw_asked(draw)
        rows = [
            (Example(each.prompt, (*answer, self.end)), reward, at)
            for at, each in enumerate(asked)
            for answer, reward in each.known
        ]
        rows += [(each, 1.0, len(asked) + at) for at, each in enumerate(self.replay(draw))]
        prompts = torch.tensor([prompt for *_, prompt in rows])
        rewards = torch.tensor([reward for _, reward, _ in rows])
        return Rows([example for example, *_ in rows], rewards, prompts, prompts >= len(asked))

    def loss(self, model: Any, draw: random.Random, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        model.train()
        rows = self.rows(draw)
        log_probs, tokens, ratios = self._ratios(model, rows.examples)
        drift = ratios
        if self.kind == "kto":
            with torch.no_grad():
                _, _, drift = self._ratios(model, rows.mismatched())
        loss = self.loss_of(rows, log_probs, tokens, ratios, drift)
        return loss, {self.kind: loss.item()}

    def loss_of(self, rows: Rows, log_probs: Tensor, tokens: Tensor, ratios: Tensor, drift: Tensor) -> Tensor:
        """``ratios`` are log-probabilities less the reference's, ``drift`` the same of the mismatched rows."""
        return self._dpo(rows, log_probs, tokens, ratios) if self.kind == "dpo" else self._kto(rows, ratios, drift)

    def _ratios(self, model: Any, examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
        batch = batch_of(examples, self.pad)
        log_probs, tokens = log_probs_of(model, batch)
        with torch.no_grad(), model.disable_adapter():
            before, _ = log_probs_of(model, batch)
        return log_probs, tokens, log_probs - before

    def _dpo(self, rows: Rows, log_probs: Tensor, tokens: Tensor, ratios: Tensor) -> Tensor:
        rewards, prompts = rows.rewards, rows.prompts
        pairs = (rewards[:, None] > rewards[None, :]) & (prompts[:, None] == prompts[None, :])
        gains = functional.logsigmoid(self.beta * (ratios[:, None] - ratios[None, :]))
        kept = (log_probs * rows.replayed).sum() / (tokens * rows.replayed).sum().clamp(min=1)
        return -(gains * pairs).sum() / pairs.sum().clamp(min=1) - 0.5 * kept

    def _kto(self, rows: Rows, ratios: Tensor, drift: Tensor) -> Tensor:
        reference = drift.mean().clamp(min=0)
        good = rows.rewards > 0
        worth = torch.sigmoid(self.beta * torch.where(good, ratios - reference, reference - ratios))
        balance = max(1.0, int((~good).sum()) / max(1, int(good.sum())))
        weights = torch.where(good, torch.full_like(worth, balance), torch.ones_like(worth))
        return (weights * (1 - worth)).mean()
