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
        prompts = self.to_sample(asked, draw)
        found = answers(
            getattr(model, "module", model),  # alone: what shares a model among processes would wait for the others
            [prompt for _, prompt in prompts],
            end=self.end,
            max_tokens=self.settings.max_answer_tokens,
            generator=generator,
            temperature=self.settings.temperature,
        )
        examples, rewards, numbers = self.rows(asked, prompts, found, draw)
        device = _device(model)
        ranking = Ranking(torch.tensor(rewards, device=device), torch.tensor(numbers, device=device))
        model.train()
        log_probs, tokens = log_probs_of(model, batch_of(examples, self.pad).to(device))
        return self.loss_of(log_probs, tokens, ranking)

    def to_sample(self, asked: Sequence[Asked], draw: random.Random) -> list[tuple[int, Ids]]:
        """Which question (by number) is to be answered behind which prompt."""
        return [(at, draw.choice(choice)) for at, each in enumerate(asked) for choice in each.samplers]

    def rows(
        self,
        asked: Sequence[Asked],
        prompts: Sequence[tuple[int, Ids]],
        found: Sequence[Ids],
        draw: random.Random,
    ) -> tuple[list[Example], list[float], list[int]]:
        """Known answers, sampled ones (empty ones are dropped) and what is replayed: each with its reward, and the
        number of the question it answers. Everything is under the plain prompt."""
        rows = [(at, answer, reward) for at, each in enumerate(asked) for answer, reward in each.known]
        kept = [(at, answer) for (at, _), answer in zip(prompts, found, strict=True) if answer]
        rewards = self.reward([(asked[at], answer) for at, answer in kept])
        rows += [(at, answer, reward) for (at, answer), reward in zip(kept, rewards, strict=True)]
        examples = [Example(asked[at].prompt, (*answer, self.end)) for at, answer, _ in rows]
        replayed = list(self.replay(draw))
        return (
            [*examples, *replayed],
            [reward for *_, reward in rows] + [1.0] * len(replayed),
            [at for at, *_ in rows] + list(range(len(asked), len(asked) + len(replayed))),
        )

    def loss_of(self, log_probs: Tensor, tokens: Tensor, ranking: Ranking) -> tuple[Tensor, dict[str, float]]:
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


def _device(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device
