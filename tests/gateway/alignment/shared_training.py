"""What each of several processes runs that train one model together: NEAT on the toy, two samples of answers a step."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from gateway.alignment.experiments import ranking, toy
from gateway.alignment.training_loop import LoopSettings, train
from tests.gateway.alignment.tiny import weights_hash

SETTINGS = LoopSettings(
    steps=6, learning_rate=1e-2, accumulate=2, evaluate_every=1, checkpoint_every=2, max_gradient_norm=0.1, seed=5
)
STOPS_AT = 4


def main(folder: Path) -> None:
    """Writes what this process saw to ``<rank>.json``; only one of them may be asked to evaluate."""
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index

    def evaluate(model: Any, step: int, before: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"by": rank, "stop": step == STOPS_AT}

    model = toy.with_adapter(toy.new_model(1), 2)
    objective = ranking.Material(ranking.T1, ranking.Size(flags=8, batch=2), 0).objective("neat")
    history = train(
        model, objective, SETTINGS, folder=folder / "checkpoints", evaluate=evaluate, accelerator=accelerator
    )
    seen = {
        "processes": accelerator.num_processes,
        "weights": weights_hash(model),
        "losses": [each["loss"] for each in history.losses],
        "measured": history.measured,
        "stopped_at": history.stopped_at,
    }
    (folder / f"{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
