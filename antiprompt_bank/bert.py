"""BERT over packed tokens: the texts one behind the other, each attending to itself only, nothing padded.

What transformers computes with a padded matrix and a mask, in a third of the kernels: one product for queries, keys and
values, attention over texts of any length, the sum and its norm in one pass. For inference on a GPU in bf16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from antiprompt_bank.adapter import LAYERS

Attention = Callable[[Any, Any, Any, Any, int], Any]
"""Queries, keys and values ``(t, heads, d)``, bounds ``(n + 1,)``, longest text: ``(t, heads, d)``."""


def packable(model: Any) -> bool:
    """Whether ``PackedBert`` computes what this transformers model does."""
    config = model.config
    return (
        type(model).__name__ == "BertModel"
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", None) in (None, "absolute")
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "add_cross_attention", False)
    )


class PackedBert:
    """A BERT model's layers. ``model`` is of transformers, and ``packable``; ``kind`` the layers' type.

    ``attention`` and ``add_norm`` are what the device has: see ``attention_in_torch`` and ``add_norm_in_torch``.
    """

    def __init__(self, torch: Any, model: Any, kind: Any, *, attention: Attention, add_norm: Any) -> None:
        self._torch = torch
        self._attention = attention
        self._add_norm = add_norm
        config = model.config
        self._heads = config.num_attention_heads
        self._eps = config.layer_norm_eps
        found = model.state_dict()
        self._words = found["embeddings.word_embeddings.weight"].to(kind)
        places = found["embeddings.position_embeddings.weight"] + found["embeddings.token_type_embeddings.weight"][0]
        self._places = places.to(kind)
        self._norm = _pair(found, "embeddings.LayerNorm", kind)
        self._layers = [_Layer(torch, found, f"encoder.layer.{at}.", kind) for at in range(config.num_hidden_layers)]

    def states(self, ids: Any, bounds: Any, longest: int, *, count: int = LAYERS) -> list[Any]:
        """The last ``count`` layers' vectors of all tokens, each ``(t, d)``, the last one last.

        ``ids`` ``(t,)`` and ``bounds`` ``(n + 1,)`` are those of ``pack``, int32, on the model's device. Tokens behind
        the last bound belong to no text and come out as anything.
        """
        torch = self._torch
        functional = torch.nn.functional
        at = torch.arange(len(ids), device=ids.device, dtype=torch.int32)
        text = torch.searchsorted(bounds, at, right=True, out_int32=True) - 1
        place = (at - bounds[text]).clamp(max=len(self._places) - 1)
        state = self._add_norm(
            functional.embedding(ids, self._words), functional.embedding(place, self._places), *self._norm, self._eps
        )
        kept = []
        for number, layer in enumerate(self._layers):
            turned = functional.linear(state, *layer.turn).view(len(ids), 3, self._heads, -1)
            query, key, value = turned.unbind(1)
            seen = self._attention(query, key, value, bounds, longest).flatten(1)
            state = self._add_norm(functional.linear(seen, *layer.out), state, *layer.norm, self._eps)
            inner = layer.widened(state)
            state = self._add_norm(functional.linear(inner, *layer.narrow), state, *layer.last_norm, self._eps)
            if number >= len(self._layers) - count:
                kept.append(state)
        return kept


class _Layer:
    def __init__(self, torch: Any, found: Mapping[str, Any], name: str, kind: Any) -> None:
        self._torch = torch
        own = [_pair(found, f"{name}attention.self.{part}", kind) for part in ("query", "key", "value")]
        self.turn = tuple(torch.cat(parts) for parts in zip(*own, strict=True))
        self.out = _pair(found, f"{name}attention.output.dense", kind)
        self.norm = _pair(found, f"{name}attention.output.LayerNorm", kind)
        self.wide = _pair(found, f"{name}intermediate.dense", kind)
        self.narrow = _pair(found, f"{name}output.dense", kind)
        self.last_norm = _pair(found, f"{name}output.LayerNorm", kind)

    def widened(self, state: Any) -> Any:
        weight, bias = self.wide
        if state.is_cuda:
            # The GELU goes along with the product; by tanh, which is off by less than bf16 rounds.
            return self._torch._addmm_activation(bias, state, weight.T, use_gelu=True)
        return self._torch.nn.functional.gelu(self._torch.nn.functional.linear(state, weight, bias))


def pooled(torch: Any, state: Any, bounds: Any, mode: str) -> Any:
    """``(n, d)`` float32: the ``mean`` or the ``max`` over each text's tokens; 0 for an empty one."""
    at = torch.arange(len(state), device=state.device, dtype=bounds.dtype)
    # The last bag is what lies behind the last text.
    return torch.nn.functional.embedding_bag(at, state.float(), bounds, mode=mode)[:-1]


def attention_in_torch(torch: Any) -> Attention:
    """Attention for any device: padded, with a mask."""

    def attend(query: Any, key: Any, value: Any, bounds: Any, longest: int) -> Any:
        column = torch.arange(longest, device=bounds.device)
        there = column < bounds.diff()[:, None]
        at = torch.where(there, bounds[:-1, None] + column, 0)
        wide = [part[at].transpose(1, 2) for part in (query, key, value)]
        mask = torch.where(there, 0.0, float("-inf")).to(query.dtype)[:, None, None]
        seen = torch.nn.functional.scaled_dot_product_attention(*wide, attn_mask=mask).transpose(1, 2)
        made = torch.zeros_like(query)
        made[at[there]] = seen[there]
        return made

    return attend


def attention_on_gpu(torch: Any) -> Attention | None:
    """Flash attention over texts of different lengths; None where this torch has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None

    def attend(query: Any, key: Any, value: Any, bounds: Any, longest: int) -> Any:
        return varlen_attn(query, key, value, bounds, bounds, longest, longest)

    return attend


def add_norm_in_torch(torch: Any) -> Any:
    """The norm of a sum, for any device."""

    def add_norm(one: Any, other: Any, weight: Any, bias: Any, eps: float) -> Any:
        return torch.nn.functional.layer_norm(one + other, weight.shape, weight, bias, eps)

    return add_norm


def _pair(found: Mapping[str, Any], name: str, kind: Any) -> tuple[Any, Any]:
    return found[f"{name}.weight"].to(kind).contiguous(), found[f"{name}.bias"].to(kind)
