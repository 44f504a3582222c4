"""Steps of the model that keep less for the backward pass than autograd would, and take fewer passes over memory.

Each saves its inputs only and computes the rest again; the values are those of the plain formulas.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last dimension, [..., d] and [d]; the statistics in fp32."""
    return cast(Tensor, _RMSNorm.apply(x, weight, eps))  # type: ignore[no-untyped-call]


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding of [b, heads, s, d] by the cosines and sines of ``rope_table``, halves paired as Qwen3 does (not interleaved)."""
    return cast(Tensor, _Rotate.apply(x, *rope))  # type: ignore[no-untyped-call]


def swiglu(x: Tensor) -> Tensor:
    """silu(gate) * up of [..., 2F], whose first half is the gate; returns [..., F]."""
    return cast(Tensor, _SwiGLU.apply(x))  # type: ignore[no-untyped-call]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (slope,) = outer
        x, weight, scale = ctx.saved_tensors
        normed = x.float() * scale
        weight_grad = x_grad = None
        if ctx.needs_input_grad[1]:
            weight_grad = (slope * normed.to(slope.dtype)).flatten(0, -2).sum(0)
        if ctx.needs_input_grad[0]:
            wide = (slope * weight).float()
            # The order of autograd's own sums, so that curves stay the same to the last bit.
            along = (wide * x).sum(-1, keepdim=True).mul_(scale.pow(3)).mul_(-0.5).div_(x.shape[-1])
            turned = torch.mul(x, along, out=normed)
            x_grad = wide.mul_(scale).add_(turned).add_(turned).to(x.dtype)
        return x_grad, weight_grad, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = outer
        cos, sin = ctx.saved_tensors
        return _rotated(slope, cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    left, right = x[..., :half], x[..., half:]
    out = x * cos
    out[..., :half].sub_(right * sin[..., :half])
    out[..., half:].add_(left * sin[..., half:])
    return out


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor]:
        (slope,) = outer
        (x,) = ctx.saved_tensors
        gate, up = x.chunk(2, dim=-1)
        x_grad = torch.empty_like(x)
        gate_grad, up_grad = x_grad.chunk(2, dim=-1)
        torch.ops.aten.silu_backward.grad_input(slope * up, gate, grad_input=gate_grad)
        torch.mul(slope, F.silu(gate), out=up_grad)
        return (x_grad,)
