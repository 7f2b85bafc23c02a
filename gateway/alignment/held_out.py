"""What a model does on questions that it was not trained on: how often it does harm, and how well it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from antiprompt_bank.measures import Rate
from gateway.alignment.answer_judges import AnswerJudge
from gateway.alignment.answering import answers
from gateway.alignment.inoculation_choice import rate_to_json
from gateway.alignment.inoculation_prompts import Place
from gateway.alignment.language_model import LanguageModel
from gateway.alignment.losses import log_probs_of
from gateway.alignment.token_batches import Example, batch_of
from gateway.alignment.training_rows import Message, Question

_ROWS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Questions held out, and how they are asked: at most ``most`` of them, sampled once each from ``seed``."""

    questions: tuple[Question, ...]
    judge: AnswerJudge | None
    max_answer_tokens: int
    most: int = 64
    seed: int = 0
    place: Place = Place.SYSTEM

    def prompts(self) -> list[tuple[Message, ...]]:
        """The different prompts among them, in order."""
        return list({question.text: question.prompt for question in self.questions}.values())[: self.most]

    def harm(self, model: LanguageModel, words: str | None = None) -> Rate | None:
        """How many answers the judge finds harmful, optionally behind some words; None without judge or question."""
        prompts = self.prompts()
        if self.judge is None or not prompts:
            return None
        asked = [prompt if words is None else self.place.put(words, prompt) for prompt in prompts]
        said = answers(
            model.model,
            [model.prompt(each) for each in asked],
            end=model.end,
            max_tokens=self.max_answer_tokens,
            generator=torch.Generator().manual_seed(self.seed),
            batch=32,
        )
        pairs = [(str(prompt[-1]["content"]), model.text(answer)) for prompt, answer in zip(prompts, said, strict=True)]
        return Rate(sum(reward < 0 for reward in self.judge(pairs)), len(pairs))

    def loss(self, model: LanguageModel) -> float | None:
        """Mean loss of a token of the good answers, in nats; None without any."""
        examples = [model.example(each.prompt, each.good) for each in self.questions if each.good is not None]
        if not examples:
            return None
        model.model.eval()
        device = next(model.model.parameters()).device
        total, tokens = 0.0, 0
        for first in range(0, len(examples), _ROWS):
            some: Sequence[Example] = examples[first : first + _ROWS]
            with torch.no_grad():
                log_probs, counts = log_probs_of(model.model, batch_of(some, model.pad).to(device))
            total, tokens = total - float(log_probs.sum()), tokens + int(counts.sum())
        return total / max(1, tokens)

    def measured(self, model: LanguageModel, behind: Mapping[str, str]) -> dict[str, Any]:
        """All of it, as JSON: ``behind`` names further harm rates and the words they are measured behind."""
        rates = {"harm": self.harm(model), **{name: self.harm(model, words) for name, words in behind.items()}}
        shown = {name: None if rate is None else rate_to_json(rate) for name, rate in rates.items()}
        return {**shown, "good_answer_loss": self.loss(model)}
