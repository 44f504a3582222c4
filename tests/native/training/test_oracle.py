"""A few steps against transformers' Qwen3 with torch's own AdamW, loss and clipping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from qwen3_ops.model import ModelSpec
from qwen3_ops.native.data.turns import IGNORE_INDEX
from qwen3_ops.native.training.loss import token_losses_mean
from qwen3_ops.native.training.optimizer import AdamSettings, MixedPrecisionAdamW

Batch = tuple[torch.Tensor, torch.Tensor]


def batches(spec: ModelSpec, count: int) -> list[Batch]:
    """Labels already shifted; the first tokens of each row are a prompt."""
    generator = torch.Generator().manual_seed(11)
    made = []
    for number in range(count):
        tokens = torch.randint(0, spec.padded_vocab_size, (2, 9 + number), generator=generator)
        labels = tokens.roll(-1, dims=1)
        labels[:, -1] = IGNORE_INDEX
        labels[0, : 2 + number] = IGNORE_INDEX
        made.append((tokens, labels))
    return made


def reference_losses(model: Any, steps: list[list[Batch]], *, lr: float) -> list[float]:
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8)
    means = []
    for step in steps:
        losses = [
            F.cross_entropy(model(tokens).logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX) for tokens, labels in step
        ]
        mean = torch.stack(losses).mean()
        mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        means.append(mean.item())
    return means


@pytest.mark.parametrize("untied", [True, False])
@pytest.mark.parametrize("recompute", [False, True])
def test_losses_of_six_steps(spec: ModelSpec, both: Callable[[ModelSpec], Any], untied: bool, recompute: bool) -> None:
    model, reference = both(spec.model_copy(update={"untie_embeddings_and_output_weights": untied}))
    model.recompute = [range(0, 2), range(2, 3)] if recompute else []
    made = batches(spec, 12)
    steps = [made[n : n + 2] for n in range(0, 12, 2)]
    optimizer = MixedPrecisionAdamW(model.named_parameters(), AdamSettings(betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip_grad=1.0))
    found = []
    for step in steps:
        losses = [token_losses_mean(model.hidden_states(tokens), model.output_weight, labels) for tokens, labels in step]
        (torch.stack(losses).sum() / 2).backward()
        optimizer.step(1e-3, norm=optimizer.gradient_norm())
        found.append(torch.stack(losses).mean().item())
    wanted = reference_losses(reference, steps, lr=1e-3)
    assert found == pytest.approx(wanted, abs=2e-5)
    assert wanted[-1] != pytest.approx(wanted[0], abs=1e-2)
