"""The arithmetic of a LoRA merge.

``W + (alpha / r) * B @ A`` with ``W [out, in]``, ``B [out, r]``, ``A [r, in]``, rounded where PEFT
rounds on a CPU, so that the result is MindSpeed-LLM's bit for bit:

- bf16: ``bf16(W + bf16(bf16(B @ A) * scale))``, the product accumulated in fp32;
- fp16: ``fp16(W + fp16(fp32(B @ A) * scale))``;
- fp32: no rounding between.

``--merge-precision fp32`` rounds once instead, at the end, whatever the dtype: nearer to what was trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qwen3_ops.native.checkpoint.dtypes import element_type
from qwen3_ops.native.checkpoint.flags import MergePrecision
from qwen3_ops.native.checkpoint.tensor_spec import Bits, as_bits, as_tensor

_BLOCK_ELEMENTS = 1 << 18  # of the product; small enough for a processor's cache


@dataclass(kw_only=True)
class Changes:
    """How many elements a tensor has, and how many of them the merge changed so far."""

    elements: int
    changed: int = 0


class Merge:
    """``W + scale * B @ A`` of one tensor, some rows at a time, and what that changes.

    Args:
        a: ``[r, in]``, b: ``[out, r]``, of the dtype that ``W [out, in]`` has and the result too.
    """

    def __init__(self, a: Tensor, b: Tensor, *, scale: float, precision: MergePrecision) -> None:
        self._a, self._b, self._scale, self._precision, self._dtype = a.float(), b.float(), scale, precision, element_type(b.dtype)
        self._scale_is_exact = scale >= 1 and math.frexp(scale)[0] == 0.5  # a power of two: to multiply by it rounds nothing
        self._block = max(1, _BLOCK_ELEMENTS // max(1, a.shape[1]))  # rows
        self._product = torch.empty(self._block, a.shape[1])
        self._delta = torch.empty(self._block, a.shape[1], dtype=b.dtype)
        self._result = torch.empty(0, a.shape[1], dtype=b.dtype)
        self.changes = Changes(elements=len(b) * a.shape[1])

    def __call__(self, first: int, weight: Bits) -> Bits:
        """The merged rows from ``first`` on; valid until the next call."""
        if len(self._result) < len(weight):
            self._result = self._result.new_empty(weight.shape)
        old, new = as_tensor(weight, self._dtype), self._result[: len(weight)]
        for start in range(0, len(weight), self._block):
            rows = slice(start, start + self._block)
            self._merge(first + start, old[rows], new[rows])
        bits = as_bits(new)
        self.changes.changed += _count_changed(weight, bits)
        return bits

    def _merge(self, first: int, weight: Tensor, result: Tensor) -> None:
        count = len(weight)
        product, delta = self._product[:count], self._delta[:count]
        torch.mm(self._b[first : first + count], self._a, out=product)
        if self._precision == "fp32":
            result.copy_(product.mul_(self._scale).add_(weight))
        elif weight.dtype == torch.bfloat16:
            delta.copy_(product)
            if not self._scale_is_exact:
                delta.mul_(self._scale)
            torch.add(weight, delta, alpha=self._scale if self._scale_is_exact else 1, out=result)
        else:
            torch.add(weight, delta.copy_(product.mul_(self._scale)), out=result)


def _count_changed(before: Bits, after: Bits) -> int:
    """Elements whose value differs; a zero that lost its sign does not."""
    changed = int(np.count_nonzero(before != after))
    sign = before.dtype.type(1 << (8 * before.itemsize - 1))
    if changed and int(before.view(f"<i{before.itemsize}").min(initial=0)) == -int(sign):
        changed -= int(np.count_nonzero((before == sign) & (after == 0)))
    return changed


def merge(weight: Tensor, a: Tensor, b: Tensor, *, scale: float, precision: MergePrecision) -> tuple[Tensor, Changes]:
    """`Merge` of a whole ``weight [out, in]``."""
    whole = Merge(a, b, scale=scale, precision=precision)
    merged = as_tensor(whole(0, as_bits(weight)), element_type(weight.dtype))
    return merged, whole.changes
