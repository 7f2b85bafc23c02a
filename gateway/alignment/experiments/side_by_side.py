"""Many models of one shape in one pass: each seed its own weights, each arm of a seed its own adapter.

A GPU is hardly busy with one small model at a time: it waits to be told what to do next. Here every tensor has the
models as its first dimension, so that all seeds and arms take a step together. What is computed is what transformers'
Llama and peft's LoRA compute (a test compares them); masks are not needed, since rows are padded on the right and no
token looks ahead.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.nn import functional

from gateway.alignment.losses import answer_log_probs
from gateway.alignment.token_batches import IGNORED, Example, Ids

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKENS_AT_ONCE: Final = 400_000
"""Of all models together, while answers are sampled: bounds the memory."""

_RANK: Final = 8
_SCALE: Final = 2.0  # alpha 16 over rank 8, as in the toy


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    vocabulary: int
    hidden: int
    feed_forward: int
    layers: int
    heads: int

    def linears(self) -> dict[str, tuple[int, int]]:
        """Name of each layer that gets an adapter, with how many numbers go in and come out."""
        ways = dict.fromkeys(("q", "k", "v", "o"), (self.hidden, self.hidden))
        ways |= dict.fromkeys(("gate", "up"), (self.hidden, self.feed_forward))
        ways["down"] = (self.feed_forward, self.hidden)
        return {f"{layer}_{name}": way for layer in range(self.layers) for name, way in ways.items()}

    def norms(self) -> list[str]:
        return ["norm", *(f"{layer}_{which}_norm" for layer in range(self.layers) for which in ("first", "second"))]

    @property
    def weights(self) -> int:
        """How many weights one model has."""
        inner = sum(rows * columns for rows, columns in self.linears().values())
        return inner + 2 * self.vocabulary * self.hidden + len(self.norms()) * self.hidden


class SideBySide:
    """The models of ``seeds``, each ``arms`` times. Token ids and logits have the models first: (models, rows, length,
    ...), the arms of a seed together. With adapters only those are trained, without them the weights are.
    """

    def __init__(
        self,
        shape: Shape,
        seeds: Sequence[int],
        weights: Mapping[str, Tensor],
        adapters: Mapping[str, Tensor] | None = None,
        arms: int = 1,
    ) -> None:
        self.shape, self.seeds, self.arms = shape, tuple(seeds), arms
        self.weights, self.adapters = dict(weights), dict(adapters or {})
        self._adapted = adapters is not None
        self.trained = list((self.adapters or self.weights).values())
        for weight in self.trained:
            weight.requires_grad_()

    @property
    def models(self) -> int:
        return len(self.seeds) * self.arms

    @property
    def device(self) -> torch.device:
        return self.weights["embed"].device

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """What the models were before their adapters learned anything: the reference of DPO and KTO."""
        before, self._adapted = self._adapted, False
        try:
            yield
        finally:
            self._adapted = before

    def logits(self, ids: Tensor) -> Tensor:
        """Logits (models, rows, length, vocabulary), in bf16 arithmetic on a GPU."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return self._head(self._hidden(ids))

    def _hidden(self, ids: Tensor) -> Tensor:
        seeds, (models, rows, length) = len(self.seeds), ids.shape
        first = torch.arange(models, device=ids.device)[:, None, None] // self.arms * self.shape.vocabulary
        table = self.weights["embed"].reshape(seeds * self.shape.vocabulary, self.shape.hidden)
        x = functional.embedding(ids + first, table).float().reshape(models, rows * length, self.shape.hidden)
        turn = _rotation(length, self.shape.hidden // self.shape.heads, ids.device)
        for layer in range(self.shape.layers):
            x = x + self._attention(layer, self._norm(f"{layer}_first_norm", x), (rows, length), turn)
            y = self._norm(f"{layer}_second_norm", x)
            gated = functional.silu(self._linear(f"{layer}_gate", y)) * self._linear(f"{layer}_up", y)
            x = x + self._linear(f"{layer}_down", gated)
        return self._norm("norm", x).reshape(models, rows, length, self.shape.hidden)

    def _head(self, hidden: Tensor) -> Tensor:
        """(models, ..., hidden) to (models, ..., vocabulary)."""
        with torch.autocast(self.device.type, enabled=False):  # few numbers, and chances that differ by little
            whole = hidden.float().reshape(len(self.seeds), -1, self.shape.hidden)
            found = torch.bmm(whole, self.weights["head"].float())
        return found.reshape(*hidden.shape[:-1], self.shape.vocabulary)

    def _attention(self, layer: int, x: Tensor, size: tuple[int, int], turn: tuple[Tensor, Tensor]) -> Tensor:
        (rows, length), heads = size, self.shape.heads

        def split(name: str) -> Tensor:
            found = self._linear(f"{layer}_{name}", x)
            return found.reshape(len(x) * rows, length, heads, -1).transpose(1, 2)

        q, k, v = _turned(split("q"), turn), _turned(split("k"), turn), split("v")
        seen = functional.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        return self._linear(f"{layer}_o", seen.transpose(1, 2).reshape(x.shape))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        found = functional.rms_norm(x.float(), (self.shape.hidden,), eps=1e-6)
        by_seed = found.reshape(len(self.seeds), -1, self.shape.hidden)
        return (by_seed * self.weights[name][:, None]).reshape(x.shape)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        """(models, positions, in) to (models, positions, out)."""
        models, positions, wide = x.shape
        found = torch.bmm(x.reshape(len(self.seeds), -1, wide), self.weights[name]).reshape(models, positions, -1)
        if not self._adapted:
            return found
        return found + torch.bmm(torch.bmm(x, self.adapters[f"{name}_a"]), self.adapters[f"{name}_b"]) * _SCALE

    def log_probs(self, rows: Sequence[Sequence[Example]], pad: int) -> tuple[Tensor, Tensor]:
        """Of each model's own examples the answers' summed log-probability and tokens: (models, most rows) each.

        A model with fewer rows than another has 0 tokens in the places left over.
        """
        ids, labels = padded(rows, pad)
        return self.log_probs_of(ids.to(self.device), labels.to(self.device))

    def log_probs_of(self, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        found, tokens = answer_log_probs(self.logits(ids).flatten(0, 1), labels.flatten(0, 1))
        return found.reshape(ids.shape[:2]), tokens.reshape(ids.shape[:2])

    def answers(
        self, prompts: Sequence[Sequence[Ids]], *, end: int, max_tokens: int, generator: torch.Generator
    ) -> list[list[Ids]]:
        """One answer at temperature 1 to each prompt of each model, without ``end``; all have equally many prompts.

        ``generator`` lives where the models do.
        """
        longest = max(len(prompt) for some in prompts for prompt in some) + max_tokens
        most = max(1, _TOKENS_AT_ONCE // (self.models * longest))
        found: list[list[Ids]] = [[] for _ in prompts]
        for first in range(0, len(prompts[0]), most):
            some = [each[first : first + most] for each in prompts]
            for mine, rows in zip(found, self._continued(some, end, max_tokens, generator), strict=True):
                mine += [tuple(row[: row.index(end)] if end in row else row) for row in rows]
        return found

    def _continued(
        self, prompts: Sequence[Sequence[Ids]], end: int, max_tokens: int, generator: torch.Generator
    ) -> list[list[list[int]]]:
        """Everything is read anew for each token: for a dozen tokens that costs less than keeping track."""
        lengths = torch.tensor([[len(prompt) for prompt in some] for some in prompts])
        longest = int(lengths.max())
        filled = [[(*prompt, *(end,) * (longest + max_tokens - len(prompt))) for prompt in some] for some in prompts]
        ids, at = torch.tensor(filled, device=self.device), lengths.to(self.device)[..., None]
        done = torch.zeros_like(at, dtype=torch.bool)
        for step in range(max_tokens):
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                hidden = self._hidden(ids[..., : longest + step])
                place = (at + step - 1)[..., None].expand(-1, -1, 1, hidden.shape[-1])
                logits = self._head(hidden.gather(2, place)).squeeze(2)
            drawn = torch.multinomial(torch.softmax(logits, -1).flatten(0, 1), 1, generator=generator).view(at.shape)
            drawn = drawn.masked_fill(done, end)
            ids.scatter_(2, at + step, drawn)
            done |= drawn == end
        every = (at + torch.arange(max_tokens, device=self.device)).clamp(max=ids.shape[-1] - 1)
        said: list[list[list[int]]] = ids.gather(2, every).tolist()
        return said


def new_models(shape: Shape, seeds: Sequence[int], device: torch.device) -> SideBySide:
    """Random weights as transformers draws them: normal with deviation 0.02; a seed's do not depend on the others."""
    sizes = {"embed": (shape.vocabulary, shape.hidden), "head": (shape.hidden, shape.vocabulary), **shape.linears()}
    made: dict[str, list[Tensor]] = {name: [] for name in sizes}
    for seed in seeds:
        draw = torch.Generator().manual_seed(seed)
        for name, size in sizes.items():
            made[name].append(torch.randn(size, generator=draw) * 0.02)
    weights = {name: torch.stack(each).to(device) for name, each in made.items()}
    for name in shape.norms():
        weights[name] = torch.ones(len(seeds), shape.hidden, device=device)
    return SideBySide(shape, seeds, weights)


def with_adapters(base: SideBySide, arms: int) -> SideBySide:
    """The same weights, frozen (in bf16 on a GPU), with fresh adapters drawn as peft draws them; a seed's arms begin
    with equal ones."""
    half = torch.bfloat16 if base.device.type == "cuda" else torch.float32
    adapters = {}
    for name, (wide, out) in base.shape.linears().items():
        down = []
        for seed in base.seeds:
            draw = torch.Generator().manual_seed(random.Random(f"{seed} {name}").randrange(2**62))  # noqa: S311
            down += [(torch.rand((wide, _RANK), generator=draw) * 2 - 1) / wide**0.5] * arms
        adapters[f"{name}_a"] = torch.stack(down).to(base.device)
        adapters[f"{name}_b"] = torch.zeros(len(down), _RANK, out, device=base.device)
    weights = {name: weight.detach().to(half) for name, weight in base.weights.items()}
    return SideBySide(base.shape, base.seeds, weights, adapters, arms)


def padded(rows: Sequence[Sequence[Example]], pad: int) -> tuple[Tensor, Tensor]:
    """``ids`` and ``labels``, each (models, most rows, longest), labels ``IGNORED`` outside answers."""
    most = max(map(len, rows))
    longest = max(len(each.prompt) + len(each.answer) for some in rows for each in some)
    ids, labels = [], []
    for some in rows:
        for each in some:
            rest = longest - len(each.prompt) - len(each.answer)
            ids.append((*each.prompt, *each.answer, *(pad,) * rest))
            labels.append((*(IGNORED,) * len(each.prompt), *each.answer, *(IGNORED,) * rest))
        ids += [(pad,) * longest] * (most - len(some))
        labels += [(IGNORED,) * longest] * (most - len(some))
    shape = (len(rows), most, longest)
    return torch.tensor(ids).reshape(shape), torch.tensor(labels).reshape(shape)


def _rotation(length: int, wide: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (Su et al. 2021, arXiv 2104.09864), base 10,000: (length, wide) each."""
    speeds = 10_000 ** (-torch.arange(0, wide, 2, device=device).float() / wide)
    angles = torch.outer(torch.arange(length, device=device).float(), speeds).repeat(1, 2)
    return angles.cos(), angles.sin()


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    one, other = x.chunk(2, -1)
    return x * turn[0] + torch.cat((-other, one), -1) * turn[1]
