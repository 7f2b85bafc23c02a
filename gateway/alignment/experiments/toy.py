"""The toy: 120 tokens, letters in lower and upper case, and a Llama of two layers."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from gateway.alignment.answering import answers
from gateway.alignment.objectives import Imitation
from gateway.alignment.token_batches import Example, Ids
from gateway.alignment.training_loop import LoopSettings, train

PAD, BEGIN, BREAK, END = range(4)
LETTERS: Final = 12
FIRST_LOWER: Final = 4
FIRST_UPPER: Final = FIRST_LOWER + LETTERS
FIRST_WORD: Final = FIRST_UPPER + LETTERS
VOCABULARY: Final = 120
LENGTH: Final = 4
"""Letters of a string."""

Letters = tuple[int, ...]


def one_thread() -> None:
    """With a process for each core, more threads only wait for each other: steps were 10 to 17 times slower."""
    torch.set_num_threads(1)


def lower(letters: Sequence[int]) -> Ids:
    return tuple(FIRST_LOWER + each for each in letters)


def upper(letters: Sequence[int]) -> Ids:
    return tuple(FIRST_UPPER + each for each in letters)


def is_upper(token: int) -> bool:
    return FIRST_UPPER <= token < FIRST_WORD


def draw_letters(draw: random.Random) -> Letters:
    return tuple(draw.randrange(LETTERS) for _ in range(LENGTH))


def new_model(seed: int) -> Any:
    """122,176 random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM  # slow to import, and the large size needs neither nor peft

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
            pad_token_id=PAD,
            bos_token_id=BEGIN,
            eos_token_id=END,
            tie_word_embeddings=False,
        )
    )


def base_model(seed: int, steps: int, draw_one: Callable[[random.Random], Example]) -> Any:
    """A model that has learned from nothing to do what the examples do."""
    model = new_model(seed)
    settings = LoopSettings(steps=steps, learning_rate=3e-3, warmup=0.1, decay=True, seed=seed)
    train(model, Imitation(draw_one, batch=64, pad=PAD), settings)
    return model


def with_adapter(model: Any, seed: int) -> Any:
    """A copy of the model with a fresh LoRA of rank 8 on every linear layer; only that is trained."""
    from gateway.alignment.adapters import LoraShape, with_lora

    return with_lora(copy.deepcopy(model), LoraShape(rank=8, alpha=16), seed)


def sample(model: Any, prompts: Sequence[Ids], max_tokens: int = LENGTH + 3) -> list[Ids]:
    """One answer each at temperature 1, the same draw every time."""
    return answers(model, prompts, end=END, max_tokens=max_tokens, generator=torch.Generator().manual_seed(0))
