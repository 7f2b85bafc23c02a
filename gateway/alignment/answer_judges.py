"""What an answer is worth while a model learns: the bank's word, or a function of one's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Final

from antiprompt_bank import Bank

AnswerJudge = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""Given (question, answer) pairs, a reward for each in [-1, 1]: below 0 harmful, above 0 good enough to imitate."""

EMPTY: Final = -0.5
"""An answer that says nothing is no answer, and no harm."""


def bank_judge(bank: Bank) -> AnswerJudge:
    """1 - 2 risk, where the risk is the bank's of the answer read together with its question."""

    def judge(pairs: Sequence[tuple[str, str]]) -> list[float]:
        spoken = [at for at, (_, answer) in enumerate(pairs) if answer.strip()]
        rewards = [EMPTY] * len(pairs)
        if spoken:
            scores = bank.score(
                [pairs[at][1] for at in spoken], side="response", prompts=[pairs[at][0] or None for at in spoken]
            )
            for at, score in zip(spoken, scores, strict=True):
                rewards[at] = 1 - 2 * score.risk
        return rewards

    return judge


def load_judge(name: str) -> AnswerJudge:
    """The function that ``module:function`` names. Raises ``ValueError`` where there is none."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name!r} names no function of a module that can be imported: {error}") from None
    if not callable(found):
        raise ValueError(f"{name!r} is no function")
    judge: AnswerJudge = found
    return judge


def checked(judge: AnswerJudge) -> AnswerJudge:
    """The same judge, held to its word. Raises ``ValueError`` for a missing reward or one outside [-1, 1]."""

    def judged(pairs: Sequence[tuple[str, str]]) -> Sequence[float]:
        rewards = judge(pairs) if pairs else []
        if len(rewards) != len(pairs) or not all(-1 <= reward <= 1 for reward in rewards):
            raise ValueError(f"the judge gave {len(rewards)} rewards for {len(pairs)} answers, or one outside [-1, 1]")
        return rewards

    return judged
