"""Matrix products of bf16 and fp16 numbers on processors that have no units for them.

torch takes up to ten times as long for such a product as for one in fp32 there (AVX2), unless one side has a few rows only. Operands made
wide, sums in fp32 and one rounding at the end are what such units compute, too.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 1 << 13  # rows and columns that are wide at once: a vocabulary's weights have 151,936

_FEW = 8  # rows up to which making the other side wide costs more than it saves


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T of [..., H] and [rows, H]."""
    return cast(Tensor, _Linear.apply(x, weight)) if _is_slow(x, rows=x.numel() // x.shape[-1]) else F.linear(x, weight)  # type: ignore[no-untyped-call]


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right of two matrices, rounded once."""
    if not _is_slow(left, rows=len(left)):
        return left @ right
    total = torch.zeros(left.shape[0], right.shape[1], dtype=torch.float32)
    for at in range(0, right.shape[0], _BLOCK):
        rows = slice(at, at + _BLOCK)
        wide = left[:, rows].float()
        for start in range(0, right.shape[1], _BLOCK):
            columns = slice(start, start + _BLOCK)
            total[:, columns].addmm_(wide, right[rows, columns].float())
    return total.to(left.dtype)


def attention(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, causal: bool) -> Tensor:
    """Scaled dot-product attention of [b, h, s, d] and [b, g, t, d].

    Args:
        mask: bool, True where a key is seen.
    """
    narrow, grouped = query.dtype, query.shape[1] != key.shape[1]
    if _is_slow(query, rows=query.shape[2]) and torch.is_grad_enabled():  # it is the gradients that are slow
        query, key, value = query.float(), key.float(), value.float()
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=grouped)
    return mixed.to(narrow)


class _Linear(torch.autograd.Function):
    """Keeps its narrow operands only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x.flatten(0, -2), weight.T).view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        slope = outer[0].flatten(0, -2)
        x_grad = product(slope, weight).view(x.shape) if ctx.needs_input_grad[0] else None
        return x_grad, product(slope.T, x.flatten(0, -2)) if ctx.needs_input_grad[1] else None


def _is_slow(operand: Tensor, *, rows: int) -> bool:
    return rows > _FEW and operand.device.type == "cpu" and operand.dtype in (torch.bfloat16, torch.float16) and not _has_units()


@cache
def _has_units() -> bool:
    """AVX-512 alone is enough for torch's own way to be as fast."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")
