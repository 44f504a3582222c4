"""Products of narrow numbers are rounded once, whatever the processor."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_ops.native import products
from qwen3_ops.native.products import attention, linear, product


@pytest.fixture(params=[False, True], ids=["without-units", "with-units"])
def units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(products, "_has_units", lambda: request.param)
    return bool(request.param)


def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_one_rounding(units: bool, dtype: torch.dtype) -> None:
    left, right = drawn(15, 64, dtype=dtype), drawn(64, 7, dtype=dtype)
    wanted = (left.double() @ right.double()).float()
    found = product(left, right)
    assert found.dtype == dtype
    assert ((found.float() - wanted).abs() <= wanted.abs() * torch.finfo(dtype).eps + 1e-6).all()


def test_few_rows_are_torchs_own(units: bool) -> None:
    left, right = drawn(2, 64), drawn(64, 7)
    assert torch.equal(product(left, right), left @ right)


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_has_units", lambda: False)
    left, right = drawn(15, 64), drawn(64, 70)
    whole = product(left, right)
    monkeypatch.setattr(products, "_BLOCK", 16)
    torch.testing.assert_close(product(left, right), whole, rtol=2**-7, atol=1e-6)


def test_fp32_is_torchs_own(units: bool) -> None:
    x, weight = drawn(2, 15, 64, dtype=torch.float32), drawn(7, 64, dtype=torch.float32)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_gradients_of_a_linear_layer(units: bool) -> None:
    x, weight = drawn(2, 15, 64).requires_grad_(), drawn(7, 64).requires_grad_()
    outer = drawn(2, 15, 7)
    found = torch.autograd.grad(linear(x, weight), (x, weight), outer)
    wide = (x.detach().float().requires_grad_(), weight.detach().float().requires_grad_())
    wanted = torch.autograd.grad(F.linear(*wide), wide, outer.float())
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), theirs, rtol=2**-7, atol=1e-5)


def test_a_frozen_weight_has_no_gradient(units: bool) -> None:
    x, weight = drawn(15, 64).requires_grad_(), drawn(7, 64)
    linear(x, weight).sum().backward()
    assert x.grad is not None
    assert weight.grad is None


@pytest.mark.parametrize("masked", [False, True])
def test_attention(units: bool, masked: bool) -> None:
    query, key, value = drawn(2, 4, 16, 8), drawn(2, 2, 16, 8), drawn(2, 2, 16, 9)[..., :8]
    seen = torch.ones(16, 16, dtype=torch.bool).tril()
    mask = seen.expand(2, 1, 16, 16) if masked else None
    found = attention(query, key, value, mask=mask, causal=not masked)
    wanted = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=seen, enable_gqa=True)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, rtol=2e-2, atol=2e-2)
    with torch.no_grad():
        torch.testing.assert_close(attention(query, key, value, mask=mask, causal=not masked).float(), wanted, rtol=2e-2, atol=2e-2)
