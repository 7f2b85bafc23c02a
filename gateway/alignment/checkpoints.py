"""Checkpoints of a run: never half there, never a pickle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

_PREFIX: Final = "checkpoint-"
_WEIGHTS: Final = "state.safetensors"
_RECORD: Final = "run.json"
_MOMENTS: Final = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run after a step: ``tensors`` are the trained weights and the optimiser's moments by name.

    ``settings`` is the text of the run's settings: a checkpoint of other settings is no place to go on from.
    """

    step: int
    tensors: Mapping[str, torch.Tensor]
    settings: str
    history: Mapping[str, Any]

    @classmethod
    def of(cls, step: int, trained: Mapping[str, Any], optimiser: Any, settings: str, history: Any) -> Checkpoint:
        tensors = {f"weight {name}": weight.detach() for name, weight in trained.items()}
        for name, weight in trained.items():
            state = optimiser.state[weight]
            tensors |= {f"{moment} {name}": state[moment] for moment in _MOMENTS if moment in state}
        return cls(step, tensors, settings, asdict(history))

    def restore(self, trained: Mapping[str, Any], optimiser: Any, settings: str) -> int:
        """Put weights and optimiser where they stood; the step that was done.

        Raises ``ValueError`` for a checkpoint of another model or of other settings.
        """
        if self.settings != settings:
            raise ValueError("the checkpoint found is of a run with other settings; name another folder, or remove it")
        names = {key.removeprefix("weight ") for key in self.tensors if key.startswith("weight ")}
        if names != set(trained):
            raise ValueError("the checkpoint found is of another model; name another folder, or remove it")
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(self.tensors[f"weight {name}"])
                moments = {key: self.tensors[f"{key} {name}"] for key in _MOMENTS if f"{key} {name}" in self.tensors}
                if moments:
                    placed = {key: value.to(weight.device) for key, value in moments.items()}
                    optimiser.state[weight] = {"step": torch.tensor(float(self.step)), **placed}
        return self.step


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write it, then remove the older ones. A crash at any moment leaves the older or the newer one whole."""
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / "half-written"
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    save_file({name: each.contiguous().cpu() for name, each in checkpoint.tensors.items()}, half / _WEIGHTS)
    record = {"step": checkpoint.step, "settings": checkpoint.settings, "history": checkpoint.history}
    (half / _RECORD).write_bytes(json.dumps(record).encode())
    for path in (half / _WEIGHTS, half / _RECORD, half):
        _sync(path)
    half.rename(folder / f"{_PREFIX}{checkpoint.step}")
    _sync(folder)
    for step in _steps(folder):
        if step != checkpoint.step:
            shutil.rmtree(folder / f"{_PREFIX}{step}")


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a folder; None without one."""
    steps = _steps(folder)
    if not steps:
        return None
    found = folder / f"{_PREFIX}{max(steps)}"
    record = json.loads((found / _RECORD).read_bytes())
    return Checkpoint(record["step"], load_file(found / _WEIGHTS), record["settings"], record["history"])


def _steps(folder: Path) -> list[int]:
    names = (path.name.removeprefix(_PREFIX) for path in folder.glob(f"{_PREFIX}*"))
    return [int(name) for name in names if name.isdigit()]


def _sync(path: Path) -> None:
    """Have the disk hold a file or a folder's list of names."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
