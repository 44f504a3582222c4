"""The sliced cross-entropy against torch's own on whole logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from qwen3_ops.native.data.turns import IGNORE_INDEX
from qwen3_ops.native.training import loss as module
from qwen3_ops.native.training.loss import token_losses_mean


def problem(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 7, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(50, 16, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(0, 50, (3, 7), generator=generator)
    labels[0, :4] = IGNORE_INDEX
    labels[2] = IGNORE_INDEX
    return hidden, weight, labels


@pytest.mark.parametrize("slice_rows", [1, 4, 1000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_value_and_gradients(slice_rows: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLICE_ELEMENTS", 50 * slice_rows)
    hidden, weight, labels = problem(dtype)
    plain = F.cross_entropy(F.linear(hidden, weight).float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)
    wanted = torch.autograd.grad(plain / 3, [hidden, weight])
    found = token_losses_mean(hidden, weight, labels)
    torch.testing.assert_close(found, plain, rtol=0, atol=tolerance)
    for mine, theirs in zip(torch.autograd.grad(found / 3, [hidden, weight]), wanted, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)


def test_blocks_of_the_output_layer_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, labels = problem(torch.bfloat16)
    whole = torch.autograd.grad(token_losses_mean(hidden, weight, labels), [weight])
    monkeypatch.setattr(module, "_BLOCK", 7)
    blocks = torch.autograd.grad(token_losses_mean(hidden, weight, labels), [weight])
    torch.testing.assert_close(blocks, whole, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_a_gradient_scale_changes_the_rounding_only(scale: float) -> None:
    hidden, weight, labels = problem()
    found = torch.autograd.grad(token_losses_mean(hidden, weight, labels, gradient_scale=scale), [hidden, weight])
    torch.testing.assert_close(
        found, torch.autograd.grad(token_losses_mean(hidden, weight, labels), [hidden, weight]), rtol=1e-6, atol=1e-9
    )


def test_gradients_can_not_be_asked_for_twice() -> None:
    hidden, weight, labels = problem()
    loss = token_losses_mean(hidden, weight, labels)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_extreme_logits_stay_finite() -> None:
    hidden = (torch.randn(1, 5, 16) * 1e3).requires_grad_()
    weight, labels = torch.randn(50, 16), torch.arange(5)[None]
    loss = token_losses_mean(hidden, weight, labels)
    torch.testing.assert_close(loss, F.cross_entropy(F.linear(hidden, weight).flatten(0, 1), labels.flatten()))
    loss.backward()
    assert torch.isfinite(hidden.grad).all()


def test_a_frozen_output_layer_gets_no_gradient() -> None:
    hidden, weight, labels = problem()
    frozen = weight.detach()
    token_losses_mean(hidden, frozen, labels).backward()
    assert hidden.grad is not None
    assert hidden.grad[2].abs().sum() == 0
    assert frozen.grad is None


def test_nothing_to_learn_is_zero() -> None:
    hidden, weight, labels = problem()
    loss = token_losses_mean(hidden, weight, torch.full_like(labels, IGNORE_INDEX))
    loss.backward()
    assert loss == 0
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() == 0


def test_evaluation_needs_no_gradients() -> None:
    hidden, weight, labels = problem()
    with torch.no_grad():
        assert not token_losses_mean(hidden, weight, labels).requires_grad
