"""Cross-entropy of the output layer without its logits in memory.

The logits of a long vocabulary outweigh everything else in a step ([s, 151936] in fp32).
They are made in slices of rows, only for positions that count, and their gradient is taken
while a slice is at hand.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from qwen3_ops.native.data.turns import IGNORE_INDEX
from qwen3_ops.native.products import product

_SLICE_ELEMENTS = 1 << 25  # logits at hand at once: 128 MiB in fp32
_BLOCK = 1 << 13  # rows of the output layer


def token_losses_mean(hidden: Tensor, weight: Tensor, labels: Tensor, *, gradient_scale: float = 1.0) -> Tensor:
    """Mean cross-entropy over the positions whose label is not ``IGNORE_INDEX``.

    Args:
        hidden: [b, s, H] normalised last hidden states.
        weight: [V, H] of the output layer.
        labels: int64 [b, s], already shifted: what position i shall predict.
        gradient_scale: gradients are that many times as large while they are rounded to the dtype of ``hidden`` (fp16).

    Returns:
        fp32 scalar; 0 (with zero gradients) where no position counts.
    """
    chosen = labels != IGNORE_INDEX
    rows, wanted = hidden[chosen], labels[chosen]
    if not len(wanted):
        return hidden.sum().float() * 0.0
    return cast(Tensor, _LinearCrossEntropy.apply(rows, weight, wanted, gradient_scale))  # type: ignore[no-untyped-call]


class _LinearCrossEntropy(torch.autograd.Function):
    """mean_i(logsumexp(W h_i) - (W h_i)[label_i]); the softmax in fp32."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, labels: Tensor, gradient_scale: float) -> Tensor:
        count, size = len(labels), max(1, _SLICE_ELEMENTS // weight.shape[0])
        loss = torch.zeros((), dtype=torch.float32, device=rows.device)
        rows_grad = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        # Memory that is used again for every slice: fresh pages cost more than the arithmetic on them.
        logits, log_p = (torch.empty(min(size, count), weight.shape[0], dtype=torch.float32, device=rows.device) for _ in range(2))
        for start in range(0, count, size):
            part, wanted = rows[start : start + size], labels[start : start + size, None]
            here = log_p[: len(part)]
            torch.log_softmax(_logits(part, weight, out=logits[: len(part)]), -1, out=here)
            loss -= here.gather(1, wanted).sum()
            if rows_grad is None and weight_grad is None:
                continue
            ones = torch.ones_like(wanted, dtype=here.dtype)
            slope = here.exp_().scatter_add_(1, wanted, -ones).div_(count / gradient_scale).to(rows.dtype)
            if rows_grad is not None:
                rows_grad[start : start + size] = product(slope, weight)
            if weight_grad is not None:
                _add_outer(weight_grad, slope, part)
        ctx.gradient_scale = gradient_scale
        ctx.save_for_backward(rows_grad, None if weight_grad is None else weight_grad.to(weight.dtype))
        return loss / count

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Scales the gradients in place: autograd refuses to ask for them a second time."""
        rows_grad, weight_grad = ctx.saved_tensors
        scale = outer[0] / ctx.gradient_scale
        return (
            None if rows_grad is None else rows_grad.mul_(scale),
            None if weight_grad is None else weight_grad.mul_(scale),
            None,
            None,
        )


def _logits(rows: Tensor, weight: Tensor, *, out: Tensor) -> Tensor:
    """rows @ weight.T in ``out`` (fp32), rounded to the model's dtype on the way as the model's own logits are."""
    return torch.mm(rows, weight.T, out=out) if rows.dtype == out.dtype else out.copy_(product(rows, weight.T))


def _add_outer(total: Tensor, slope: Tensor, rows: Tensor) -> None:
    """total (fp32 [V, H]) += slope.T @ rows; below fp32 in blocks, so that the product needs no second matrix of that size."""
    if slope.dtype == total.dtype:
        total.addmm_(slope.T, rows)
        return
    for start in range(0, len(total), _BLOCK):
        total[start : start + _BLOCK] += product(slope[:, start : start + _BLOCK].T, rows)
