"""The loop: steps, gradient accumulation, a learning rate that warms up and falls, checkpoints, early stopping.

A checkpoint is a folder that appears whole or not at all: trained weights and optimiser state as safetensors, the rest
as JSON. A run that was killed, with SIGKILL too, goes on from the newest and ends with the weights it would have had.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gateway.alignment.checkpoints import Checkpoint, newest, write_checkpoint
from gateway.alignment.objectives import Objective

Evaluate = Callable[[Any, int, Sequence[Mapping[str, Any]]], Mapping[str, Any]]
"""Given model, step and what was measured before, what is measured now. ``stop`` among it, if true, ends the run."""

Tell = Callable[[int, Mapping[str, float]], None]
"""Told the step that is done, and its losses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """``accumulate`` is how many losses make one step; ``warmup`` the share of steps in which the rate rises to
    ``learning_rate``, from which it falls to zero by half a cosine where ``decay``; ``0`` turns a period off."""

    steps: int
    learning_rate: float = 1e-4
    accumulate: int = 1
    warmup: float = 0.0
    decay: bool = False
    max_gradient_norm: float = 1.0
    weight_decay: float = 0.01
    evaluate_every: int = 0
    checkpoint_every: int = 0
    seed: int = 0


@dataclass(slots=True)
class History:
    """What happened: losses by step, and what was measured when. ``stopped_at`` is the step after which it ended."""

    losses: list[dict[str, float]] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)
    stopped_at: int = 0


def rate_at(step: int, settings: LoopSettings) -> float:
    """The learning rate of a step (1 is the first)."""
    warm = max(1, round(settings.warmup * settings.steps))
    if step <= warm:
        return settings.learning_rate * step / warm
    if not settings.decay:
        return settings.learning_rate
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, settings.steps - warm)))


def train(
    model: Any,
    objective: Objective,
    settings: LoopSettings,
    *,
    folder: Path | None = None,
    evaluate: Evaluate | None = None,
    tell: Tell | None = None,
    accelerator: Any = None,
) -> History:
    """Train the model's trainable weights in place; ``folder`` holds the checkpoints, without one there are none.

    ``accelerator`` (of ``accelerate``) shares each step among several GPUs: every process draws its own batches, the
    gradients are their mean, and the first process alone evaluates and writes checkpoints.
    Raises ``ValueError`` where the loss is no number any more, or a checkpoint is of other settings.
    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimiser = torch.optim.AdamW(trained.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    wrapped = model
    if accelerator is not None:
        wrapped, optimiser = accelerator.prepare(model, optimiser)
    history, step = History(), 0
    found = newest(folder) if folder is not None else None
    if found is not None:
        step = found.restore(trained, optimiser, repr(settings))
        history = History(**found.history)
    while step < settings.steps and not history.stopped_at:
        step += 1
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, settings)
        terms = _one_step(wrapped, objective, settings, step, accelerator)
        _clip_and_step(trained, optimiser, settings, accelerator)
        history.losses.append({"step": step, **terms})
        if tell is not None:
            tell(step, terms)
        if evaluate is not None and _due(step, settings.evaluate_every, settings.steps):
            measured = _measured(evaluate, model, step, history, accelerator)
            history.measured.append({"step": step, **measured})
            if measured.get("stop"):
                history.stopped_at = step
        if folder is not None and _due(step, settings.checkpoint_every, settings.steps) and _leads(accelerator):
            write_checkpoint(folder, Checkpoint.of(step, trained, optimiser, repr(settings), history))
    return history


def _one_step(
    model: Any, objective: Objective, settings: LoopSettings, step: int, accelerator: Any
) -> dict[str, float]:
    """Gradients of a whole step; the mean of its losses' terms."""
    sums: dict[str, float] = {}
    process = 0 if accelerator is None else accelerator.process_index
    for part in range(settings.accumulate):
        name = f"{settings.seed} {step} {part} {process}"
        draw = random.Random(name)  # noqa: S311
        torch.manual_seed(draw.randrange(2**62))  # dropout
        generator = torch.Generator().manual_seed(draw.randrange(2**62))
        loss, terms = objective.loss(model, draw, generator)
        if not math.isfinite(loss.item()):
            raise ValueError(f"the loss of step {step} is {loss.item()}: lower the learning rate")
        if accelerator is None:
            (loss / settings.accumulate).backward()
        else:
            accelerator.backward(loss / settings.accumulate)
        for key, value in {"loss": loss.item(), **terms}.items():
            sums[key] = sums.get(key, 0.0) + value / settings.accumulate
    return sums


def _measured(evaluate: Evaluate, model: Any, step: int, history: History, accelerator: Any) -> dict[str, Any]:
    """What the first process measured, in every process: all of them stop, or none does."""
    if accelerator is None:
        return dict(evaluate(model, step, history.measured))
    from accelerate.utils import broadcast_object_list

    shared = [dict(evaluate(model, step, history.measured)) if _leads(accelerator) else {}]
    found: dict[str, Any] = broadcast_object_list(shared)[0]
    return found


def _clip_and_step(trained: Mapping[str, Any], optimiser: Any, settings: LoopSettings, accelerator: Any) -> None:
    clip = torch.nn.utils.clip_grad_norm_ if accelerator is None else accelerator.clip_grad_norm_
    clip(list(trained.values()), settings.max_gradient_norm)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _due(step: int, every: int, steps: int) -> bool:
    return every > 0 and (step % every == 0 or step == steps)


def _leads(accelerator: Any) -> bool:
    return accelerator is None or bool(accelerator.is_main_process)
