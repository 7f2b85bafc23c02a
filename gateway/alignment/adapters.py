"""LoRA adapters: a few weights beside a frozen model's linear layers (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final

import torch
from peft import LoraConfig, get_peft_model

_LINEAR: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class LoraShape:
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0


def with_lora(model: Any, shape: LoraShape, seed: int) -> Any:
    """The model with a fresh adapter on all of its linear layers; only that is trained. ``model`` itself changes."""
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    targets: Any = [name for name in _LINEAR if name in names] or "all-linear"
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        task_type="CAUSAL_LM",
        target_modules=targets,
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks by an old name
        return get_peft_model(model, config)
