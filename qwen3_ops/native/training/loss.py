"""Cross-entropy of the output layer without its logits in memory.

The logits of a long vocabulary outweigh everything else in a step ([s, 151936] in fp32).
They are made in slices of rows, only for positions that count, and their gradient is taken
while a slice is at hand.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_ops.native.data.turns import IGNORE_INDEX

_SLICE_ELEMENTS = 1 << 25  # logits at hand at once: 128 MiB in fp32


def token_losses_mean(hidden: Tensor, weight: Tensor, labels: Tensor, *, gradient_scale: float = 1.0) -> Tensor:
    """Mean cross-entropy over the positions whose label is not ``IGNORE_INDEX``.

    Args:
        hidden: [b, s, H] normalised last hidden states.
        weight: [V, H] of the output layer.
        labels: int64 [b, s], already shifted: what position i shall predict.
        gradient_scale: gradients are that many times as large when they are rounded to the dtype of ``hidden`` (fp16).

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
        count = len(labels)
        loss = torch.zeros((), dtype=torch.float32, device=rows.device)
        rows_grad = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        step = max(1, _SLICE_ELEMENTS // weight.shape[0])
        for start in range(0, count, step):
            part, wanted = rows[start : start + step], labels[start : start + step, None]
            log_p = F.linear(part, weight).float().log_softmax(-1)
            loss -= log_p.gather(1, wanted).sum()
            if rows_grad is None and weight_grad is None:
                continue
            slope = log_p.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=log_p.dtype))
            slope = slope.div_(count / gradient_scale).to(rows.dtype)
            if rows_grad is not None:
                rows_grad[start : start + step] = slope @ weight
            if weight_grad is not None:
                weight_grad += slope.T @ part
        ctx.gradient_scale = gradient_scale
        ctx.save_for_backward(rows_grad, None if weight_grad is None else weight_grad.to(weight.dtype))
        return loss / count

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        rows_grad, weight_grad = ctx.saved_tensors
        scale = outer[0] / ctx.gradient_scale
        return (
            None if rows_grad is None else rows_grad * scale.to(rows_grad.dtype),
            None if weight_grad is None else weight_grad * scale.to(weight_grad.dtype),
            None,
            None,
        )
