"""The norm of a sum as one kernel: a third of the reading and writing that a sum and then a norm take."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

_ROWS = 4
"""Rows of one program: enough work for its four warps."""


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator]
def _add_norm(one, other, weight, bias, made, rows, width, eps, ROWS: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    there = (row < rows) & (column < width)
    at = row.to(tl.int64) * width + column
    total = tl.load(one + at, there, 0.0).to(tl.float32) + tl.load(other + at, there, 0.0).to(tl.float32)
    mean = tl.sum(total, 1)[:, None] / width
    apart = tl.where(there, total - mean, 0.0)
    spread = tl.sum(apart * apart, 1)[:, None] / width
    scale = tl.load(weight + column, column < width, 0.0).to(tl.float32)
    shift = tl.load(bias + column, column < width, 0.0).to(tl.float32)
    normed = apart / tl.sqrt(spread + eps) * scale + shift
    tl.store(made + at, normed.to(made.dtype.element_ty), there)


def add_norm(one: Any, other: Any, weight: Any, bias: Any, eps: float) -> Any:
    """The layer norm of ``one + other``, both ``(t, d)`` and contiguous, with sums in float32."""
    made = torch.empty_like(one)
    rows, width = one.shape
    grid = (triton.cdiv(rows, _ROWS),)
    _add_norm[grid](one, other, weight, bias, made, rows, width, eps, ROWS=_ROWS, WIDTH=triton.next_power_of_2(width))
    return made
