"""The model's fused steps against the plain formulas, values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from qwen3_ops.native.kernels import rms_norm, rotate, swiglu
from qwen3_ops.native.model import rope_table

WEIGHT = torch.linspace(0.5, 1.5, 8)
ROPE = rope_table(torch.arange(5), head_dim=8, base=10_000, dtype=torch.float32)


def plain_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * weight


def plain_rotate(x: torch.Tensor) -> torch.Tensor:
    left, right = x.chunk(2, dim=-1)
    cos, sin = (table.to(x.dtype) for table in ROPE)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def plain_swiglu(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


CASES: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    "norm": (lambda x: rms_norm(x, WEIGHT.to(x.dtype), 1e-6), lambda x: plain_norm(x, WEIGHT.to(x.dtype))),
    "rotate": (lambda x: rotate(x, (ROPE[0].to(x.dtype), ROPE[1].to(x.dtype))), plain_rotate),
    "swiglu": (swiglu, plain_swiglu),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_values_and_gradients(name: str, dtype: torch.dtype, tolerance: float, transposed: bool) -> None:
    ours, plain = CASES[name]
    generator = torch.Generator().manual_seed(1)
    shape = (2, 5, 3, 8) if transposed else (2, 3, 5, 8)
    x = torch.randn(shape, generator=generator).to(dtype).requires_grad_()
    seen = x.transpose(1, 2) if transposed else x
    wanted, found = plain(seen), ours(seen)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)
    outer = torch.randn(wanted.shape, generator=generator).to(dtype)
    (mine,), (theirs,) = torch.autograd.grad(found, x, outer), torch.autograd.grad(wanted, x, outer)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)


def test_the_norms_weight_has_its_gradient() -> None:
    x, weight = torch.randn(2, 3, 8), WEIGHT.clone().requires_grad_()
    outer = torch.randn(2, 3, 8)
    found = torch.autograd.grad(rms_norm(x, weight, 1e-6), weight, outer)
    torch.testing.assert_close(found, torch.autograd.grad(plain_norm(x, weight), weight, outer))


def test_frozen_inputs_need_no_gradient() -> None:
    assert not rms_norm(torch.randn(2, 8), WEIGHT, 1e-6).requires_grad
