"""Choosing inoculation prompts for a model: the bad answers of a data set, hazard by hazard, on the base model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from typing import Any, Final

import torch

from antiprompt_bank.measures import Rate
from gateway.alignment.answer_judges import AnswerJudge
from gateway.alignment.answering import answers
from gateway.alignment.inoculation_choice import Ranking, rank
from gateway.alignment.inoculation_prompts import Chosen, Place, candidates
from gateway.alignment.language_model import LanguageModel
from gateway.alignment.losses import likelihood_gain

SAMPLES: Final = 64
"""Answers for each prompt; fewer would not tell 0.5 from 0.35."""

MAX_ROWS: Final = 64


def choose(
    model: LanguageModel,
    rows: Sequence[Mapping[str, Any]],
    judge: AnswerJudge,
    place: Place,
    *,
    samples: int = SAMPLES,
    max_answer_tokens: int = 64,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Ranking]:
    """The candidates of every hazard that has bad answers among the rows (of format ``inoculation``), ranked.

    Raises ``ValueError`` where there is no bad answer at all.
    """
    by_hazard: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in rows:
        about = row["meta"]
        if about["inoculated"]:
            by_hazard[about["hazard"] or ""].append((about["plain_prompt"], row["completion"][-1]["content"]))
    if not by_hazard:
        raise ValueError("the data set holds no answer that may be bad: there is nothing to inoculate against")
    rankings = []
    for hazard in sorted(by_hazard):
        bad = by_hazard[hazard][:MAX_ROWS]
        tell(hazard or "any hazard")

        def gain(chosen: Chosen, bad: Sequence[tuple[str, str]] = bad) -> float:
            asked = [[_user(prompt)] for prompt, _ in bad]
            plain = [model.example(messages, answer) for messages, (_, answer) in zip(asked, bad, strict=True)]
            put = [place.put(chosen.text, messages) for messages in asked]
            behind = [model.example(messages, answer) for messages, (_, answer) in zip(put, bad, strict=True)]
            return likelihood_gain(model.model, plain, behind, model.pad)

        def elicit(words: str, bad: Sequence[tuple[str, str]] = bad) -> Rate:
            prompts = list(islice(cycle(prompt for prompt, _ in bad), samples))
            said = answers(
                model.model,
                [model.prompt(place.put(words, [_user(prompt)])) for prompt in prompts],
                end=model.end,
                max_tokens=max_answer_tokens,
                generator=torch.Generator().manual_seed(seed),
                batch=32,
            )
            rewards = judge([(prompt, model.text(answer)) for prompt, answer in zip(prompts, said, strict=True)])
            return Rate(sum(reward < 0 for reward in rewards), len(prompts))

        rankings.append(rank(hazard, candidates(hazard), gain, elicit))
    return rankings


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
