"""Models of a few thousand weights, and what a killed training process runs."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gateway.alignment.experiments import toy
from gateway.alignment.objectives import Imitation
from gateway.alignment.token_batches import Example
from gateway.alignment.training_loop import LoopSettings, train

torch.set_num_threads(1)

SETTINGS = LoopSettings(steps=12, learning_rate=1e-3, accumulate=2, checkpoint_every=3, warmup=0.2, decay=True, seed=5)


def draw_one(draw: random.Random) -> Example:
    letters = toy.draw_letters(draw)
    return Example((toy.BEGIN, *toy.lower(letters)), (*toy.upper(letters), toy.END))


def objective() -> Imitation:
    return Imitation(draw_one, batch=4, pad=toy.PAD)


def weights_hash(model: Any) -> str:
    """Of all trained weights, bit by bit."""
    trained = [weight.detach().numpy().tobytes() for weight in model.parameters() if weight.requires_grad]
    return hashlib.sha256(b"".join(trained)).hexdigest()


def shouting(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """A judge of text: what is shouted (or says HURT) is harmful, silence is nothing, the rest is good."""
    return [-0.5 if not said.strip() else -1.0 if "HURT" in said or said.isupper() else 1.0 for _, said in pairs]


def main(folder: Path) -> None:
    """Train, saying each step on standard output."""

    def tell(step: int, _: object) -> None:
        print(step, flush=True)

    train(toy.with_adapter(toy.new_model(1), 2), objective(), SETTINGS, folder=folder, tell=tell)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
