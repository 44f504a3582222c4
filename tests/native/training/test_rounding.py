"""How far two bf16 runs are apart that differ in nothing but the order in which the terms of a sum are added.

Processors, threads and layouts choose that order, so no curve can be nearer to a stored one than these are to each other: the tolerances
of ``test_golden_cases.py`` stand on this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from qwen3_ops.native import model

Train = Callable[[list[str]], Any]


@pytest.fixture
def runs(train: Train, pretrain: list[str], edit: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """The run ``pretrain_bf16`` (or fp32) several times, all but the first with the columns of every layer's product in another order."""
    plain = model.linear

    def shuffled(seed: int) -> Callable[[Tensor, Tensor], Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def linear(x: Tensor, weight: Tensor) -> Tensor:
            order = torch.randperm(weight.shape[1], generator=generator)
            return plain(x[..., order], weight[:, order])

        return linear

    def start(*flags: str, orders: int) -> list[Any]:
        results = []
        for seed in range(orders):
            monkeypatch.setattr(model, "linear", shuffled(seed) if seed else plain)
            results.append(train([*edit.changed(pretrain, train_iters=11), *flags, "--reproduce-loss-mask-defect", "2"]))
        return results

    return start


def spread(runs: list[Any], name: str) -> float:
    """The largest distance of two runs in the same iteration."""
    curves = [run.curve(name) for run in runs]
    return max(max(values) - min(values) for values in zip(*(curve.values() for curve in curves), strict=True))


def test_the_order_of_sums_moves_gradient_norms_in_bf16(runs: Callable[..., list[Any]]) -> None:
    """By more than 1e-3. Adam divides a gradient by its own size, so one that is mostly rounding moves its weight as far as any other:
    after the first step 3 % of the weights differ. The losses stay within 1e-3."""
    found = runs("--bf16", orders=4)
    assert 1e-6 < spread(found, "lm_loss") < 1e-3
    assert spread(found, "grad_norm") > 1e-3


def test_the_order_of_sums_is_nothing_in_fp32(runs: Callable[..., list[Any]]) -> None:
    found = runs(orders=2)
    assert 0 < spread(found, "lm_loss") < 1e-5
    assert 0 < spread(found, "grad_norm") < 1e-5
