"""The large size on models of a few thousand weights: every arm of every seed, side by side."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gateway.alignment.experiments import inoculation, large, ranking, toy
from gateway.alignment.experiments.__main__ import in_rounds, main
from gateway.alignment.experiments.results import add_outcome, begin_outcomes
from gateway.alignment.experiments.side_by_side import new_models, with_adapters
from gateway.alignment.objectives import Ranked
from gateway.alignment.token_batches import Example
from tests.gateway.alignment.test_side_by_side import SHAPE, alone, unlike

CPU = torch.device("cpu")


def test_every_arm_of_inoculation_is_measured_for_every_seed() -> None:
    found = large.run_inoculation([4, 5], large.TINY, CPU)
    assert [each.seed for each in found] == [4, 5]
    alone = inoculation.run(0, inoculation.Size(base_steps=1, steps=1, strings=8, asked=8, candidates=3))
    for each in found:
        assert set(each.arms) == set(alone.arms)
        assert len(each.tried) == len(each.left) == len(each.gained) == 3
        assert each.base.unwanted.of == 8
    assert found[0].gained != found[1].gained


@pytest.mark.parametrize("situation", [ranking.T1, ranking.T2, ranking.T3])
def test_every_arm_of_ranking_is_measured_for_every_seed(situation: ranking.Situation) -> None:
    short = replace(situation, measured_at=(1, 2))
    (found,) = large.run_ranking([4, 5], [short], large.TINY, CPU)
    assert [each.seed for each in found] == [4, 5]
    for outcome in found:
        assert tuple(outcome.arms) == ranking.ARMS
        for arm in outcome.arms.values():
            assert [each.step for each in arm] == [1, 2]
            assert (arm[0].uncorrected is None) == (situation.corrected_subjects == 8)


def test_models_learn_side_by_side_what_they_are_shown() -> None:
    """Two seeds that are to copy a letter: after some steps they do."""

    def copied(draw: random.Random) -> Example:
        letters = toy.draw_letters(draw)
        return Example((toy.BEGIN, *toy.lower(letters[:1])), (*toy.lower(letters[:1]), toy.END))

    size = replace(large.TINY, shape=SHAPE, batch=32, rate=1e-2)
    base = large.base_models_of(size, [0, 1], 200, copied, CPU)
    prompts = [[(toy.BEGIN, toy.FIRST_LOWER + at) for at in range(toy.LETTERS)]] * 2
    said = base.answers(prompts, end=toy.END, max_tokens=2, generator=torch.Generator().manual_seed(0))
    right = [sum(answer == prompt[1:] for answer, prompt in zip(said[at], prompts[at], strict=True)) for at in (0, 1)]
    assert min(right) >= 10


@pytest.mark.parametrize("arm", ranking.ARMS)
def test_the_loss_of_an_arm_is_the_one_it_has_alone(arm: str) -> None:
    """What is sampled differs from run to run of the random numbers, so the arms that sample are asked for no samples
    beside their known answers."""
    models = unlike(with_adapters(new_models(SHAPE, [3], CPU), 2))
    objective = ranking.Material(ranking.T1, ranking.Size(flags=8, batch=2), 0).objective(arm)
    if isinstance(objective, Ranked):
        asked = objective.draw_asked
        bare = replace(objective, draw_asked=lambda draw: [replace(each, samplers=()) for each in asked(draw)])
        objective = bare
    draws = [random.Random("a"), random.Random("b")]
    found = large.losses(models, [objective, objective], draws, torch.Generator().manual_seed(0))
    for at, name in enumerate("ab"):
        loss, _ = objective.loss(alone(models, at), random.Random(name), torch.Generator().manual_seed(0))
        assert found[at].item() == pytest.approx(loss.item(), abs=1e-4)


def seen(found: Iterable[inoculation.Outcome | ranking.Outcome]) -> list[str]:
    return [f"{getattr(each, 'situation', 'inoculation')}-{each.seed}" for each in found]


def test_nothing_is_begun_once_it_is_late() -> None:
    assert seen(in_rounds([0, 1], CPU, 1, lambda: True)) == []
    answers = iter([False, True, True])
    assert seen(in_rounds([0, 1], CPU, 1, lambda: next(answers))) == ["inoculation-0"]
    answers = iter([False, True, False, True])
    assert seen(in_rounds([0, 1, 2], CPU, 2, lambda: next(answers))) == [
        "inoculation-0",
        "inoculation-1",
        "inoculation-2",
    ]


def test_tables_are_made_of_what_a_run_left_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin_outcomes(tmp_path)
    for outcome in large.run_inoculation([7], large.TINY, CPU):
        add_outcome(tmp_path, outcome)
    assert main(["--size", "large", "--tables-only", "--to", str(tmp_path)]) == 1
    assert "Seeds 7." in capsys.readouterr().out


def test_it_needs_nothing_of_the_bank_nor_of_the_gateways_other_libraries() -> None:
    """A machine that is borrowed for its GPU has torch, numpy, safetensors and matplotlib, and no network."""
    program = (
        "import sys, gateway.alignment.experiments.__main__\n"
        "absent = {'antiprompt_bank', 'orjson', 'pydantic', 'redis', 'fastapi', 'structlog', 'scipy', 'peft'}\n"
        "print(sorted(absent & {name.partition('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
