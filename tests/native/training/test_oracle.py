"""A few steps against transformers' Qwen3 with torch's own AdamW, loss and clipping."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

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


def reference_losses(model: Any, steps: list[list[Batch]], *, lr: list[float]) -> list[float]:
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    means = []
    for step, rate in zip(steps, lr, strict=True):
        losses = [
            F.cross_entropy(model(tokens).logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX) for tokens, labels in step
        ]
        mean = torch.stack(losses).mean()
        mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
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
    wanted = reference_losses(reference, steps, lr=[1e-3] * len(steps))
    assert found == pytest.approx(wanted, abs=2e-5)
    assert wanted[-1] != pytest.approx(wanted[0], abs=1e-2)


def test_the_stored_batches(golden: Path) -> None:
    """``sft_full_fp32`` by transformers and torch alone: its batches, its learning rates, its curve."""
    from transformers import Qwen3ForCausalLM

    stored = golden / "train" / "sft_full_fp32"
    rows = json.loads((stored / "metrics.json").read_text())["iterations"]
    tensors = load_file(stored / "first_batches.safetensors")
    made: list[Batch] = []
    for number in range(len(tensors) // 3):
        tokens, labels = tensors[f"mb{number}.tokens"].long(), tensors[f"mb{number}.labels"].long()
        shifted = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORE_INDEX)], dim=1)
        made.append((tokens, shifted))
    model = Qwen3ForCausalLM.from_pretrained(golden / "ckpt" / "hf_tiny", dtype=torch.float32, attn_implementation="eager")
    steps = [made[n : n + 2] for n in range(0, len(made), 2)]
    losses = reference_losses(model, steps, lr=[row["lr_used"] for row in rows])
    assert losses == pytest.approx([row["lm_loss"] for row in rows], abs=1e-5)
