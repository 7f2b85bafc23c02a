"""The experiments at larger size: models of 13 million weights, several seeds and all their arms side by side.

The language, the questions, the losses and the settings of fine-tuning are the toy's; what is larger is the model, the
batches that the base models learn from, and the number of candidates, seeds and answers measured.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gateway.alignment.experiments import inoculation, ranking, toy
from gateway.alignment.experiments.preference import Preference, Rows
from gateway.alignment.experiments.side_by_side import Shape, SideBySide, padded, with_adapters
from gateway.alignment.experiments.steps import base_models, imitation_losses, learning_steps
from gateway.alignment.losses import Ranking, language_model_loss
from gateway.alignment.objectives import Imitation, Objective, Ranked
from gateway.alignment.token_batches import Example, Ids
from gateway.alignment.training_loop import LoopSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """``rate`` and ``batch`` are those of the base models; ``examples`` is how much of the language they see."""

    shape: Shape
    inoculation: inoculation.Size
    ranking: ranking.Size
    batch: int
    rate: float
    examples: int


LARGE = Size(
    shape=Shape(vocabulary=toy.VOCABULARY, hidden=512, feed_forward=1408, layers=4, heads=8),
    inoculation=inoculation.Size(asked=512, candidates=16),
    ranking=ranking.Size(asked=512),
    batch=256,
    rate=1e-3,
    examples=100_000,
)
"""Made for a GPU: 13.0 million weights."""

TINY = Size(
    shape=Shape(vocabulary=toy.VOCABULARY, hidden=16, feed_forward=32, layers=2, heads=2),
    inoculation=inoculation.Size(base_steps=3, steps=2, batch=2, strings=8, asked=8, candidates=3),
    ranking=ranking.Size(base_steps=3, flags=8, batch=2, asked=8),
    batch=4,
    rate=1e-3,
    examples=64,
)
"""The same way in seconds on a CPU: shows that it runs, and nothing else."""


def base_models_of(size: Size, seeds: Sequence[int], steps: int, draw_one: Any, device: torch.device) -> SideBySide:
    loop = LoopSettings(steps=steps, learning_rate=size.rate, warmup=0.1, decay=True)
    return base_models(size.shape, seeds, loop, size.batch, draw_one, device, size.examples)


def _said(models: SideBySide, prompts: Sequence[Sequence[Ids]], max_tokens: int = toy.LENGTH + 3) -> list[list[Ids]]:
    generator = torch.Generator(models.device).manual_seed(0)
    return models.answers(prompts, end=toy.END, max_tokens=max_tokens, generator=generator)


def run_inoculation(seeds: Sequence[int], size: Size, device: torch.device) -> list[inoculation.Outcome]:
    """All arms of all seeds in one run."""
    mine = size.inoculation
    strings = inoculation.unseen(mine)
    base = base_models_of(size, seeds, mine.base_steps, inoculation.base_example, device)

    def measured(models: SideBySide, words: Sequence[Ids]) -> list[inoculation.Traits]:
        """Of every model, asked behind its own words."""
        said = _said(models, [[inoculation.prompt_of(each, letters) for letters in strings] for each in words])
        return [inoculation.traits_of(each, strings) for each in said]

    at_first = measured(base, [()] * len(seeds))
    behind = {words: measured(base, [words] * len(seeds)) for words in inoculation.ASKING}
    elicited = [{words: found[at].unwanted.share for words, found in behind.items()} for at in range(len(seeds))]
    gained = {words: _gains(base, words) for words in inoculation.ASKING}
    best = [inoculation.most_eliciting(each) for each in elicited]
    candidates = [inoculation.spread(each, mine.candidates) for each in best]
    arms = [
        {
            **inoculation.ARMS,
            "half clean, inoculated": inoculation.Arm(words, clean=0.5),
            **{str(each): inoculation.Arm(each) for each in some},
        }
        for words, some in zip(best, candidates, strict=True)
    ]
    models = with_adapters(base, len(arms[0]))
    each_arm = [arm for some in arms for arm in some.values()]
    _imitate(models, [inoculation.shown(arm, mine, seed) for seed, arm in _repeated(seeds, each_arm)], mine, seeds)
    plain = measured(models, [()] * len(each_arm))
    safe = measured(models, [inoculation.SAFE] * len(each_arm))
    inside = measured(models, [arm.words for arm in each_arm])
    outcomes = []
    for at, seed in enumerate(seeds):
        first = at * len(arms[at])
        names = {name: first + place for place, name in enumerate(arms[at])}
        found = {name: plain[names[name]] for name in (*inoculation.ARMS, "half clean, inoculated")}
        found["plain, safe prompt at test"] = safe[names["plain"]]
        found["inoculated"] = plain[names[str(best[at])]]
        tried = [
            inoculation.Tried(
                words,
                elicited[at][words],
                gained[words][at],
                inside[names[str(words)]].unwanted.share,
                plain[names[str(words)]].unwanted.share,
            )
            for words in candidates[at]
        ]
        outcomes.append(inoculation.outcome(seed, at_first[at], found, tried))
    return outcomes


def _repeated(seeds: Sequence[int], arms: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Each arm with its seed; the arms of a seed stand together."""
    return ((seeds[at // (len(arms) // len(seeds))], arm) for at, arm in enumerate(arms))


def _imitate(models: SideBySide, shown: Sequence[Any], size: inoculation.Size, seeds: Sequence[int]) -> None:
    """Every arm of a seed draws from the same random numbers."""
    loop = LoopSettings(steps=size.steps, learning_rate=1e-3)
    for step, learn in enumerate(learning_steps(models, loop), 1):
        rows = []
        for seed, draw_one in _repeated(seeds, shown):
            draw = random.Random(f"{seed} {step}")  # noqa: S311
            rows.append([draw_one(draw) for _ in range(size.batch)])
        ids, labels = padded(rows, toy.PAD)
        learn(imitation_losses(models, ids.to(models.device), labels.to(models.device)))


def _gains(base: SideBySide, words: Ids) -> list[float]:
    """The likelihood gain of a prompt on each base model, in nats a token."""
    scores = []
    for behind in (words, ()):
        with torch.no_grad():
            log_probs, tokens = base.log_probs([inoculation.gain_examples(behind)] * base.models, toy.PAD)
        scores.append((log_probs / tokens).mean(1))
    gains: list[float] = (scores[0] - scores[1]).tolist()
    return gains


def run_ranking(
    seeds: Sequence[int], situations: Iterable[ranking.Situation], size: Size, device: torch.device
) -> Iterator[list[ranking.Outcome]]:
    """The situations one after another (each as it comes), all seeds and arms at once; those with equally harmful
    base models share them."""
    made: dict[float, SideBySide] = {}
    for situation in situations:
        harm = situation.base_harm
        if harm not in made:
            made[harm] = base_models_of(size, seeds, size.ranking.base_steps, ranking.base_example(harm), device)
        yield _ranked(made[harm], situation, size.ranking)


def _ranked(base: SideBySide, situation: ranking.Situation, size: ranking.Size) -> list[ranking.Outcome]:
    exam = ranking.Exam(situation, size)
    at_first = _measured(base, exam, 0)
    models = with_adapters(base, len(ranking.ARMS))
    objectives = [ranking.Material(situation, size, seed).objective(arm) for seed in base.seeds for arm in ranking.ARMS]
    seeds = [seed for seed in base.seeds for _ in ranking.ARMS]
    measured: list[list[ranking.Measured]] = [[] for _ in objectives]
    generator = torch.Generator(models.device).manual_seed(sum(base.seeds))
    loop = LoopSettings(steps=situation.measured_at[-1], learning_rate=1e-3)
    for step, learn in enumerate(learning_steps(models, loop), 1):
        learn(losses(models, objectives, [random.Random(f"{seed} {step}") for seed in seeds], generator))  # noqa: S311
        if step in situation.measured_at:
            for mine, found in zip(measured, _measured(models, exam, step), strict=True):
                mine.append(found)
    return [
        ranking.Outcome(
            seed,
            situation.name,
            at_first[at],
            dict(zip(ranking.ARMS, measured[at * len(ranking.ARMS) :], strict=False)),
        )
        for at, seed in enumerate(base.seeds)
    ]


def _measured(models: SideBySide, exam: ranking.Exam, step: int) -> list[ranking.Measured]:
    said: Mapping[str, list[list[Ids]]] = {
        name: _said(models, [prompts] * models.models) if prompts else [[]] * models.models
        for name, prompts in exam.prompts.items()
    }
    return [exam.measured({name: each[at] for name, each in said.items()}, step) for at in range(models.models)]


def losses(
    models: SideBySide, objectives: Sequence[Objective], draws: Sequence[random.Random], generator: torch.Generator
) -> Tensor:
    """The loss of every model by its own objective: (models,), computed on the CPU from log-probabilities."""
    asked: list[Any] = [
        each.draw_asked(draw) if isinstance(each, Ranked) else () for each, draw in _pairs(objectives, draws)
    ]
    wanted = [
        each.to_sample(some, draw) if isinstance(each, Ranked) else []
        for (each, draw), some in zip(_pairs(objectives, draws), asked, strict=True)
    ]
    most = max(map(len, wanted))
    prompts = [[prompt for _, prompt in some] + [(toy.BEGIN,)] * (most - len(some)) for some in wanted]
    said = (
        models.answers(prompts, end=toy.END, max_tokens=toy.LENGTH + 2, generator=generator)
        if most
        else [[]] * len(wanted)
    )
    looked_at: list[tuple[list[Example], Any]] = []
    for at, (each, draw) in enumerate(_pairs(objectives, draws)):
        if isinstance(each, Ranked):
            examples, rewards, numbers = each.rows(asked[at], wanted[at], said[at][: len(wanted[at])], draw)
            looked_at.append((examples, Ranking(torch.tensor(rewards), torch.tensor(numbers))))
        elif isinstance(each, Preference):
            rows = each.rows(draw)
            looked_at.append(([*rows.examples, *rows.mismatched()], rows))
        elif isinstance(each, Imitation):
            looked_at.append(([each.draw_one(draw) for _ in range(each.batch)], None))
    ids, labels = (each.to(models.device) for each in padded([examples for examples, _ in looked_at], toy.PAD))
    log_probs, tokens = (each.cpu() for each in models.log_probs_of(ids, labels))
    with torch.no_grad(), models.without_adapters():
        before = models.log_probs_of(ids, labels)[0].cpu()
    losses = [
        _loss(each, about, log_probs[at][: len(some)], tokens[at][: len(some)], before[at][: len(some)])
        for at, (each, (some, about)) in enumerate(zip(objectives, looked_at, strict=True))
    ]
    return torch.stack(losses)


def _pairs(
    objectives: Sequence[Objective], draws: Sequence[random.Random]
) -> Iterator[tuple[Objective, random.Random]]:
    return zip(objectives, draws, strict=True)


def _loss(objective: Objective, about: Any, log_probs: Tensor, tokens: Tensor, before: Tensor) -> Tensor:
    """``about`` is what the objective's rows belong to: a ranking, rows of preference, or nothing."""
    if isinstance(objective, Ranked):
        return objective.loss_of(log_probs, tokens, about)[0]
    if isinstance(objective, Preference):
        rows: Rows = about
        half = len(rows.examples)
        ratios = log_probs - before
        return objective.loss_of(rows, log_probs[:half], tokens[:half], ratios[:half], ratios[half:].detach())
    return language_model_loss(log_probs, tokens)
