"""The losses, on log-probabilities of whole answers.

The ranking loss is NEAT's (Qiao et al., arXiv 2410.12194), reconstructed in the form of RRHF (Yuan et al., arXiv
2304.05302) from the paper's abstract and its reviews, since its full text was not at hand: length-normalised scores
under the plain prompt, a hinge for each pair whose rewards differ, and a language-modelling term on the best answer.
RRHF is the case of margin 0 (and sums its pairs where this takes their mean).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gateway.alignment.token_batches import IGNORED, Batch, Example, batch_of


def answer_log_probs(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each row the summed log-probability of its answer's tokens, and how many those are.

    ``logits`` (n, length, vocabulary); ``labels`` (n, length), ``IGNORED`` outside the answers.
    """
    ahead, wanted = logits[:, :-1].float(), labels[:, 1:]
    counted = wanted != IGNORED
    found = torch.log_softmax(ahead, -1).gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (found * counted).sum(-1), counted.sum(-1)


def log_probs_of(model: torch.nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """``answer_log_probs`` of a model's answers."""
    logits = model(input_ids=batch.ids, attention_mask=batch.mask).logits
    return answer_log_probs(logits, batch.labels)


def language_model_loss(log_probs: Tensor, tokens: Tensor, of: Tensor | None = None) -> Tensor:
    """Mean negative log-probability of a token, over the answers where ``of`` is true (all without it).

    0 where that is none.
    """
    chosen = torch.ones_like(log_probs) if of is None else of.to(log_probs.dtype)
    return -(log_probs * chosen).sum() / (tokens * chosen).sum().clamp(min=1)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Answers side by side: the reward of each, and the number of the prompt it answers."""

    rewards: Tensor
    prompts: Tensor

    def best(self) -> Tensor:
        """True for the best answer of each prompt (the first of equals), unless even that is worth 0 or less."""
        best = torch.zeros_like(self.rewards, dtype=torch.bool)
        for prompt in self.prompts.unique():
            places = torch.nonzero(self.prompts == prompt).squeeze(-1)
            top = places[self.rewards[places].argmax()]
            best[top] = bool(self.rewards[top] > 0)
        return best


def ranking_loss(scores: Tensor, ranking: Ranking, margin: float) -> Tensor:
    """Mean over pairs with r_i > r_j of one prompt: max(0, s_j - s_i + margin (r_i - r_j) / 2); 0 without a pair."""
    gaps = ranking.rewards[:, None] - ranking.rewards[None, :]
    pairs = (gaps > 0) & (ranking.prompts[:, None] == ranking.prompts[None, :])
    hinges = functional.relu(scores[None, :] - scores[:, None] + margin * gaps / 2)
    return (hinges * pairs).sum() / pairs.sum().clamp(min=1)


def neat_loss(
    log_probs: Tensor, tokens: Tensor, ranking: Ranking, *, ranking_weight: float, margin: float, gamma: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """L = L_lm + ranking_weight * L_rank; the whole, and its two terms. Scores are log p(y) / |y| ** gamma."""
    scores = log_probs / tokens.clamp(min=1) ** gamma
    lm = language_model_loss(log_probs, tokens, ranking.best())
    rank = ranking_loss(scores, ranking, margin)
    return lm + ranking_weight * rank, lm, rank


def likelihood_gain(model: Any, plain: Sequence[Example], behind: Sequence[Example], pad: int, rows: int = 16) -> float:
    """Mean over the answers of (log p(answer | prompt, question) - log p(answer | question)) for each token, in nats.

    ``plain`` and ``behind`` are the same answers without and with the prompt, ``rows`` of them at a time.
    """
    model.eval()
    device = next(model.parameters()).device
    gains: list[float] = []
    for first in range(0, len(plain), rows):
        scores = []
        for some in (plain[first : first + rows], behind[first : first + rows]):
            with torch.no_grad():
                log_probs, tokens = log_probs_of(model, batch_of(some, pad).to(device))
            scores.append(log_probs / tokens)
        gains += (scores[1] - scores[0]).tolist()
    return sum(gains) / len(gains)
