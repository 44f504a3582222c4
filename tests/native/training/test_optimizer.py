"""AdamW by its formula, in fp32, whatever the weights' dtype."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qwen3_ops.errors import BadInput
from qwen3_ops.native.training.optimizer import AdamSettings, MixedPrecisionAdamW

SETTINGS = AdamSettings(betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip_grad=1.0)


class Net(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.matrix = nn.Parameter(torch.randn(4, 3, generator=generator).to(dtype))
        self.scale = nn.Parameter(torch.randn(3, generator=generator).to(dtype))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x @ self.matrix) * self.scale).float().square().sum()


def inputs(number: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(number)).to(dtype)


def by_hand(weight: torch.Tensor, grads: list[torch.Tensor], *, lr: float, decay: float) -> torch.Tensor:
    m, v = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, grad in enumerate(grads, start=1):
        weight = weight * (1 - lr * decay)
        m, v = 0.9 * m + 0.1 * grad, 0.95 * v + 0.05 * grad**2
        weight = weight - lr / (1 - 0.9**step) * m / ((v / (1 - 0.95**step)).sqrt() + 1e-8)
    return weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_equal_the_formula(dtype: torch.dtype) -> None:
    """Two micro batches a step; the reference takes its gradients at the weights that really were."""
    net = Net(dtype)
    start = {name: parameter.detach().float().clone() for name, parameter in net.named_parameters()}
    optimizer = MixedPrecisionAdamW(net.named_parameters(), SETTINGS)
    grads: dict[str, list[torch.Tensor]] = {"matrix": [], "scale": []}
    for step in range(3):
        sums = {name: torch.zeros_like(start[name]) for name in grads}
        for micro in range(2):
            gradients = torch.autograd.grad(net(inputs(2 * step + micro, dtype)), [net.matrix, net.scale])
            for name, gradient in zip(grads, gradients, strict=True):
                sums[name] += gradient.float()
            net(inputs(2 * step + micro, dtype)).backward()
        wanted_norm = torch.cat([gradient.flatten() for gradient in sums.values()]).norm()
        norm = optimizer.gradient_norm()
        optimizer.step(0.01, norm=norm)
        assert float(norm) == pytest.approx(float(wanted_norm), rel=1e-5)
        for name, history in grads.items():
            history.append(sums[name] * min(1.0, 1.0 / (float(wanted_norm) + 1e-6)))
    state = dict(optimizer.state())
    for name, decay in (("matrix", 0.1), ("scale", 0.0)):
        wanted = by_hand(start[name], grads[name], lr=0.01, decay=decay)
        found = state[f"master.{name}"] if dtype == torch.bfloat16 else net.get_parameter(name)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
        torch.testing.assert_close(net.get_parameter(name), wanted.to(dtype), rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-2)
    assert optimizer.num_trainable == 15


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_round(dtype: torch.dtype) -> None:
    def train(net: Net, optimizer: MixedPrecisionAdamW, steps: range) -> None:
        for step in steps:
            net(inputs(step, dtype)).backward()
            optimizer.step(0.1, norm=optimizer.gradient_norm())

    whole = Net(dtype)
    train(whole, MixedPrecisionAdamW(whole.named_parameters(), SETTINGS), range(4))
    first = Net(dtype)
    optimizer = MixedPrecisionAdamW(first.named_parameters(), SETTINGS)
    train(first, optimizer, range(2))
    second = Net(dtype)
    second.load_state_dict(first.state_dict())
    resumed = MixedPrecisionAdamW(second.named_parameters(), SETTINGS)
    resumed.load(dict(optimizer.state()), source="test")
    train(second, resumed, range(2, 4))
    assert torch.equal(whole.matrix, second.matrix)
    assert torch.equal(whole.scale, second.scale)


def test_a_foreign_state_is_refused() -> None:
    net = Net(torch.float32)
    optimizer = MixedPrecisionAdamW(net.named_parameters(), SETTINGS)
    with pytest.raises(BadInput, match="other trainable parameters: matrix"):
        optimizer.load({"exp_avg.scale": torch.zeros(3)}, source="test")


def test_learning_rate_zero_changes_moments_only() -> None:
    net = Net(torch.float32)
    before = net.matrix.detach().clone()
    optimizer = MixedPrecisionAdamW(net.named_parameters(), SETTINGS)
    net(inputs(0, torch.float32)).backward()
    optimizer.step(0.0, norm=optimizer.gradient_norm())
    assert torch.equal(net.matrix, before)
    assert dict(optimizer.state())["exp_avg.matrix"].abs().sum() > 0
