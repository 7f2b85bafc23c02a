"""How models that stand side by side learn: base models from nothing, then adapters, each model its own loss."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from gateway.alignment.experiments import toy
from gateway.alignment.experiments.side_by_side import Shape, SideBySide, new_models, padded
from gateway.alignment.token_batches import Example
from gateway.alignment.training_loop import LoopSettings, rate_at


def learning_steps(models: SideBySide, settings: LoopSettings) -> Iterator[Callable[[Tensor], None]]:
    """One callable for each step, to be called with the losses of all models, (models,): each model's gradient is
    clipped on its own and no model sees another's."""
    trained = models.trained
    fused = models.device.type == "cuda"
    rate, decay = settings.learning_rate, settings.weight_decay
    optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=decay, fused=fused)
    for step in range(1, settings.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, settings)

        def learn(losses: Tensor, step: int = step) -> None:
            losses.sum().backward()
            squares = sum(
                weight.grad.float().square().flatten(1).sum(1) for weight in trained if weight.grad is not None
            )
            norms = torch.as_tensor(squares).sqrt()
            if step % 50 == 1 and not bool(torch.isfinite(norms).all()):
                raise ValueError(f"a gradient of step {step} is no number: lower the learning rate")
            less = (settings.max_gradient_norm / (norms + 1e-6)).clamp(max=1)
            for weight in trained:
                if weight.grad is not None:
                    weight.grad.mul_(less.reshape(-1, *(1,) * (weight.dim() - 1)))
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        yield learn


def base_models(
    shape: Shape,
    seeds: Sequence[int],
    settings: LoopSettings,
    batch: int,
    draw_one: Callable[[random.Random], Example],
    device: torch.device,
    examples: int,
) -> SideBySide:
    """Models that learned from nothing what the examples do. So many examples are drawn once; each seed takes its own
    batches from them."""
    draw = random.Random("examples of the language")  # noqa: S311
    ids, labels = (each[0].to(device) for each in padded([[draw_one(draw) for _ in range(examples)]], toy.PAD))
    models = new_models(shape, seeds, device)
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    for learn in learning_steps(models, settings):
        picked = torch.stack([torch.randint(examples, (batch,), generator=draw) for draw in draws]).to(device)
        learn(imitation_losses(models, ids[picked], labels[picked]))
    return models


def imitation_losses(models: SideBySide, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-probability of an answer's token: (models,)."""
    log_probs, tokens = models.log_probs_of(ids, labels)
    return -log_probs.sum(1) / tokens.sum(1).clamp(min=1)
