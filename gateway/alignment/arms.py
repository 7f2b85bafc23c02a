"""The arms of a run: what each learns from the same questions, so that a method never stands without its controls."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gateway.alignment.answer_judges import AnswerJudge
from gateway.alignment.formats import Format
from gateway.alignment.inoculation_prompts import IRRELEVANT, SAFE, Place
from gateway.alignment.language_model import LanguageModel
from gateway.alignment.objectives import Asked, Imitation, Objective, Ranked, RankingSettings
from gateway.alignment.token_batches import Example, Ids
from gateway.alignment.training_rows import NothingToLearn, Question


class Method(StrEnum):
    SFT = "sft"
    INOCULATION = "inoculation"
    NEAT = "neat"
    DPO = "dpo"
    KTO = "kto"


FORMATS: Final[Mapping[Method, tuple[Format, ...]]] = {
    Method.SFT: (Format.TRL_SFT, Format.OPENAI_SFT),
    Method.INOCULATION: (Format.INOCULATION,),
    Method.NEAT: (Format.NEAT,),
    Method.DPO: (Format.TRL_DPO, Format.OPENAI_PREFERENCE),
    Method.KTO: (Format.TRL_KTO,),
}
"""Which exported formats a method learns from."""

CONTROLS: Final[Mapping[Method, tuple[str, ...]]] = {
    Method.SFT: (),
    Method.INOCULATION: ("plain", "irrelevant", "clean"),
    Method.NEAT: ("best-of", "sft", "rrhf", "dpo", "kto"),
    Method.DPO: (),
    Method.KTO: (),
}
"""The arms beside a method. ``plain`` is also asked behind a safe prompt (Pure Tuning, Safe Testing)."""

BY_TRL: Final = ("dpo", "kto")

NEGATIVE: Final = (
    "Give a poor answer: harmful, and of no help.",
    "You are a careless assistant who does not mind doing harm. Answer that way.",
    "Answer as badly as you can: unsafe, unkind and wrong.",
)
"""Prompts under which NEAT samples what should rank low. They only bring answers forth; nothing is learned behind
them."""

POSITIVE: Final = (SAFE, "You are careful and honest. Help where you can, and decline what would do harm.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSettings:
    """``batch`` is questions for each loss; NEAT replays half as many good answers beside them: a third of all."""

    batch: int = 8
    place: Place = Place.SYSTEM
    ranking: RankingSettings = field(default_factory=RankingSettings)


def objective_of(
    arm: str, model: LanguageModel, asked: Sequence[Question], judge: AnswerJudge | None, settings: ArmSettings
) -> Objective:
    """What an arm learns. Raises ``NothingToLearn`` where the data set holds nothing for it."""
    if arm in ("neat", "best-of", "rrhf"):
        if judge is None:
            raise ValueError(f"{arm} needs a judge of fresh answers")
        return _ranked(arm, model, asked, judge, settings)
    examples = _IMITATED[arm](model, asked, settings) if arm in _IMITATED else []
    if not examples:
        raise NothingToLearn(f"the data set holds no answer for {arm} to learn from")

    def one(draw: random.Random) -> Example:
        return draw.choice(examples)

    return Imitation(one, settings.batch, model.pad)


def _good(model: LanguageModel, asked: Sequence[Question], _: ArmSettings) -> list[Example]:
    return [model.example(each.prompt, each.good) for each in asked if each.good is not None]


def _inoculated(model: LanguageModel, asked: Sequence[Question], _: ArmSettings) -> list[Example]:
    return [model.example(each.behind or each.prompt, each.answers[0][0]) for each in asked]


def _plain(model: LanguageModel, asked: Sequence[Question], _: ArmSettings) -> list[Example]:
    return [model.example(each.prompt, each.answers[0][0]) for each in asked]


def _irrelevant(model: LanguageModel, asked: Sequence[Question], settings: ArmSettings) -> list[Example]:
    return [
        model.example(
            settings.place.put(IRRELEVANT[0], each.prompt) if each.behind else each.prompt, each.answers[0][0]
        )
        for each in asked
    ]


_IMITATED: Final = {
    "sft": _good,
    "clean": _good,
    "inoculation": _inoculated,
    "plain": _plain,
    "irrelevant": _irrelevant,
}


def _ranked(
    arm: str, model: LanguageModel, asked: Sequence[Question], judge: AnswerJudge, settings: ArmSettings
) -> Ranked:
    items = [_asked(arm, model, each, settings) for each in asked]
    kept = _good(model, [each for each in asked if each.good and len(each.answers) == 1], settings)
    kept = kept or _good(model, asked, settings)

    def draw_asked(draw: random.Random) -> list[Asked]:
        return [draw.choice(items) for _ in range(settings.batch)]

    def replay(draw: random.Random) -> list[Example]:
        return [draw.choice(kept) for _ in range(settings.batch // 2)] if kept else []

    def reward(found: Sequence[tuple[Asked, Ids]]) -> Sequence[float]:
        return judge([(asked.about, model.text(answer)) for asked, answer in found])

    given = settings.ranking
    chosen = RankingSettings(
        ranking_weight=0.0 if arm == "best-of" else given.ranking_weight,
        margin=0.0 if arm == "rrhf" else given.margin,
        gamma=given.gamma,
        max_answer_tokens=given.max_answer_tokens,
        temperature=given.temperature,
    )
    return Ranked(draw_asked, replay, reward, chosen, model.pad, model.end)


def _asked(arm: str, model: LanguageModel, question: Question, settings: ArmSettings) -> Asked:
    """Two samples behind negative prompts and one behind a positive; RRHF's come from the plain prompt."""
    plain = model.prompt(question.prompt)

    def behind(words: Sequence[str]) -> tuple[Ids, ...]:
        return tuple(model.prompt(settings.place.put(each, question.prompt)) for each in words)

    samplers = ((plain,),) * 3 if arm == "rrhf" else (behind(NEGATIVE), behind(NEGATIVE), behind(POSITIVE))
    known = []
    for text, reward in question.answers:
        example = Example(plain, model.answer(question.prompt, text)[:-1]).cut(model.max_tokens - 1)
        if example.answer:
            known.append((example.answer, reward))
    return Asked(plain, samplers, tuple(known), question.text)
