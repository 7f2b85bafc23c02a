"""What a machine can do at best: the rate of a large matrix product, and of copying memory, on the device in use."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from antiprompt_bank.encoder import Encoder
from antiprompt_bank.model_files import EncoderCard, model_folder

_REPEATS = 5
_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """Operations (a multiplication and an addition are two) and bytes (read or written) a second.

    ``encoder_per_s`` is in the precision of the encoder, ``float32_per_s`` in that of the search.
    """

    encoder_per_s: float
    float32_per_s: float
    bytes_per_s: float

    def windows_per_s(self, encoder: Encoder, tokens: int) -> float:
        """Windows of so many tokens that the arithmetic of the encoder's layers allows."""
        return self.encoder_per_s / operations(encoder, tokens)

    def search_s(self, rows: int, dimensions: int, queries: int) -> float:
        """Seconds to compare ``queries`` at once with all rows: every row read once, or all the arithmetic."""
        read_s = rows * dimensions * _FLOAT32_BYTES / self.bytes_per_s
        return max(read_s, 2 * queries * rows * dimensions / self.float32_per_s)


def measure(device: str, precision: str) -> Limits:
    """``device`` is ``cpu`` (one thread) or ``cuda``; ``precision``, ``bf16`` or ``f32``, is the encoder's."""
    import torch

    size = 8192 if device == "cuda" else 1024
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rates = {}
        for name, kind in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            if name in ("f32", precision):
                matrix = torch.randn(size, size, device=device).to(kind)
                made = torch.empty_like(matrix)
                rates[name] = 2 * size**3 / _best_s(lambda: torch.matmul(matrix, matrix, out=made), device)  # noqa: B023  # called at once
        source = torch.ones(2**30 // 4 if device == "cuda" else 2**26, device=device)
        target = torch.empty_like(source)
        copied = 2 * source.numel() * _FLOAT32_BYTES / _best_s(lambda: target.copy_(source), device)
    finally:
        torch.set_num_threads(threads)
    return Limits(rates[precision], rates["f32"], copied)


def operations(encoder: Encoder, tokens: int) -> float:
    """Operations of the encoder's layers for one window of so many tokens, special ones among them.

    Of each layer: four square matrices, the two of the feed-forward part, and the attention's two products.
    """
    folder = model_folder(EncoderCard.read(encoder.folder).model)
    assert folder is not None
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    of_token = 2 * (4 * hidden**2 + 2 * hidden * inner) + 4 * tokens * hidden
    return float(layers * tokens * of_token)


def _best_s(work: Callable[[], object], device: str) -> float:
    import torch

    def synchronise() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    took_s = []
    for _ in range(_REPEATS + 1):  # the first one warms up
        synchronise()
        start_s = time.perf_counter()
        work()
        synchronise()
        took_s.append(time.perf_counter() - start_s)
    return min(took_s[1:])
