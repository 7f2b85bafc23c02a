import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gateway.alignment.experiments import toy
from gateway.alignment.training_loop import LoopSettings, rate_at, train
from tests.gateway.alignment.tiny import SETTINGS, objective, weights_hash


def fresh() -> Any:
    return toy.with_adapter(toy.new_model(1), 2)


def test_it_learns_and_only_the_adapter_changes() -> None:
    model = fresh()
    base = {name: each.clone() for name, each in model.named_parameters() if not each.requires_grad}
    history = train(model, objective(), replace(SETTINGS, steps=60, learning_rate=1e-2, decay=False))
    first, last = history.losses[0]["loss"], history.losses[-1]["loss"]
    assert last < first - 0.3
    assert [each["step"] for each in history.losses] == list(range(1, 61))
    assert all(torch.equal(each, base[name]) for name, each in model.named_parameters() if name in base)


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = fresh()
    history = train(whole, objective(), SETTINGS)
    command = [sys.executable, "-m", "tests.gateway.alignment.tiny", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 8:  # between two checkpoints
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    steps = []
    model = fresh()
    resumed = train(model, objective(), SETTINGS, folder=tmp_path, tell=lambda step, _: steps.append(step))
    assert steps[0] > 1
    assert resumed.losses == history.losses
    assert weights_hash(model) == weights_hash(whole)


def test_what_a_crash_left_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "half-written").mkdir()
    (tmp_path / "half-written" / "run.json").write_text("{")
    model = fresh()
    train(model, objective(), SETTINGS, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-12"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(fresh(), objective(), SETTINGS, folder=tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        train(fresh(), objective(), replace(SETTINGS, seed=6), folder=tmp_path)
    model = toy.new_model(1)
    with pytest.raises(ValueError, match="another model"):
        train(model, objective(), SETTINGS, folder=tmp_path)


def test_accumulation_is_the_mean_of_its_parts() -> None:
    class Constant:
        def __init__(self) -> None:
            self.factors = [1.0, 3.0]

        def loss(self, model: Any, draw: random.Random, generator: torch.Generator) -> Any:
            loss = model.weight.sum() * self.factors.pop(0)
            return loss, {"part": loss.item()}

    model = torch.nn.Linear(1, 1, bias=False)
    value = model.weight.item()
    gradients: list[float] = []
    model.weight.register_hook(lambda gradient: gradients.append(gradient.item()))
    history = train(model, Constant(), LoopSettings(steps=1, learning_rate=0.1, accumulate=2))
    assert gradients == [0.5, 1.5]
    assert history.losses[0]["loss"] == history.losses[0]["part"] == pytest.approx(2 * value)


def test_it_stops_where_it_is_told_to_and_stays_stopped(tmp_path: Path) -> None:
    settings = replace(SETTINGS, evaluate_every=3)

    def evaluate(model: Any, step: int, before: Any) -> dict[str, Any]:
        return {"seen": len(before), "stop": step >= 6}

    history = train(fresh(), objective(), settings, folder=tmp_path, evaluate=evaluate)
    assert history.stopped_at == 6
    assert history.measured == [{"step": 3, "seen": 0, "stop": False}, {"step": 6, "seen": 1, "stop": True}]
    again = train(fresh(), objective(), settings, folder=tmp_path, evaluate=evaluate)
    assert again == history


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    class Broken:
        def loss(self, model: Any, draw: random.Random, generator: torch.Generator) -> Any:
            return model.weight.sum() * float("nan"), {}

    with pytest.raises(ValueError, match="lower the learning rate"):
        train(torch.nn.Linear(1, 1), Broken(), LoopSettings(steps=1))


def test_the_rate_rises_and_falls() -> None:
    settings = LoopSettings(steps=100, learning_rate=1.0, warmup=0.1, decay=True)
    assert [rate_at(step, settings) for step in (1, 5, 10)] == [0.1, 0.5, 1.0]
    assert rate_at(55, settings) == pytest.approx(0.5)
    assert rate_at(100, settings) == pytest.approx(0.0)
    assert rate_at(100, replace(settings, decay=False)) == 1.0
