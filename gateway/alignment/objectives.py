"""What one step of training looks at: examples to imitate, or answers to rank.

Everything is drawn from the step's own random numbers, so a run that was killed draws the same again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gateway.alignment.answering import answers
from gateway.alignment.losses import Ranking, language_model_loss, log_probs_of, neat_loss
from gateway.alignment.token_batches import Example, Ids, batch_of


class Objective(Protocol):
    """Something to learn."""

    def loss(self, model: Any, draw: random.Random, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one step, with its terms for the record. ``model`` is in any mode and left in training mode."""


@dataclass(frozen=True, slots=True)
class Imitation:
    """Supervised fine-tuning: the loss of the answers' tokens. ``draw_one`` gives an example."""

    draw_one: Callable[[random.Random], Example]
    batch: int
    pad: int

    def loss(self, model: Any, draw: random.Random, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        model.train()
        batch = batch_of([self.draw_one(draw) for _ in range(self.batch)], self.pad)
        log_probs, tokens = log_probs_of(model, batch.to(_device(model)))
        loss = language_model_loss(log_probs, tokens)
        return loss, {"lm": loss.item()}


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt whose answers are ranked.

    ``prompt`` is the plain one, under which everything is scored; the others only bring forth samples: each of
    ``samplers`` is a choice of prompts of which one is drawn. ``known`` are answers with their rewards. ``about`` is
    what the reward function wants to know.
    """

    prompt: Ids
    samplers: tuple[tuple[Ids, ...], ...]
    known: tuple[tuple[Ids, float], ...]
    about: Any = None


Reward = Callable[[Sequence[tuple[Asked, Ids]]], Sequence[float]]
"""What answers are worth, in [-1, 1]: above 0 good enough to imitate. An answer comes without its end token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingSettings:
    """``ranking_weight`` is the paper's lambda (0: imitate the best-scored answer only), ``margin`` that of the hinge.

    0.1 to 1 is the range in which nothing else suffered; 10, or a margin of 3, cost harmless answers.
    """

    ranking_weight: float = 1.0
    margin: float = 1.0
    gamma: float = 1.0
    max_answer_tokens: int = 64
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """NEAT: known answers and fresh samples of each prompt, ranked by reward; ``replay`` keeps what is good already."""

    draw_asked: Callable[[random.Random], Sequence[Asked]]
    replay: Callable[[random.Random], Sequence[Example]]
    reward: Reward
    settings: RankingSettings
    pad: int
    end: int

    def loss(self, model: Any, draw: random.Random, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        asked = self.draw_asked(draw)
        candidates = [
            (at, (*answer, self.end), reward) for at, each in enumerate(asked) for answer, reward in each.known
        ]
        candidates += self._sampled(model, asked, draw, generator)
        examples = [Example(asked[at].prompt, answer) for at, answer, _ in candidates]
        replayed = list(self.replay(draw))
        device = _device(model)
        ranking = Ranking(
            torch.tensor([reward for *_, reward in candidates] + [1.0] * len(replayed), device=device),
            torch.tensor(
                [at for at, *_ in candidates] + list(range(len(asked), len(asked) + len(replayed))), device=device
            ),
        )
        model.train()
        log_probs, tokens = log_probs_of(model, batch_of([*examples, *replayed], self.pad).to(device))
        chosen = self.settings
        loss, lm, rank = neat_loss(
            log_probs,
            tokens,
            ranking,
            ranking_weight=chosen.ranking_weight,
            margin=chosen.margin,
            gamma=chosen.gamma,
        )
        return loss, {"lm": lm.item(), "rank": rank.item()}

    def _sampled(
        self, model: Any, asked: Sequence[Asked], draw: random.Random, generator: torch.Generator
    ) -> list[tuple[int, Ids, float]]:
        """Fresh answers under the sampling prompts; empty ones are dropped."""
        prompts = [(at, draw.choice(choice)) for at, each in enumerate(asked) for choice in each.samplers]
        found = answers(
            model,
            [prompt for _, prompt in prompts],
            end=self.end,
            max_tokens=self.settings.max_answer_tokens,
            generator=generator,
            temperature=self.settings.temperature,
        )
        kept = [(at, answer) for (at, _), answer in zip(prompts, found, strict=True) if answer]
        rewards = self.reward([(asked[at], answer) for at, answer in kept])
        return [(at, (*answer, self.end), reward) for (at, answer), reward in zip(kept, rewards, strict=True)]


def _device(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device
