"""Activation checkpointing by Megatron's flags: less is kept, nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from qwen3_ops.model import ModelSpec
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.recompute import recomputed_layers

FULL = ["--recompute-granularity", "full", "--recompute-method"]


@pytest.mark.parametrize(
    ("flags", "layers"),
    [
        ([], []),
        (["--recompute-granularity", "selective"], []),
        ([*FULL, "uniform"], [range(0, 1), range(1, 2), range(2, 3), range(3, 4)]),
        ([*FULL, "uniform", "--recompute-num-layers", "3"], [range(0, 3), range(3, 4)]),
        ([*FULL, "block", "--recompute-num-layers", "2"], [range(0, 1), range(1, 2)]),
        ([*FULL, "block", "--recompute-num-layers", "9"], [range(0, 1), range(1, 2), range(2, 3), range(3, 4)]),
    ],
)
def test_layers(sft: list[str], flags: list[str], layers: list[range]) -> None:
    assert recomputed_layers(FLAGS.parse([*sft, *flags])[0]) == layers


def kept_bytes(model: Any, recompute: Sequence[range]) -> tuple[int, list[torch.Tensor]]:
    """What the forward pass keeps for the backward pass, and the gradients."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.recompute = recompute
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden_states(torch.arange(32)[None])
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    gradients = torch.autograd.grad(hidden.square().sum(), [p for n, p in model.named_parameters() if "output_layer" not in n])
    return sum(size for storage, size in kept.items() if storage not in weights), list(gradients)


def test_less_is_kept(spec: ModelSpec, both: Callable[[ModelSpec], Any]) -> None:
    model, _ = both(spec)
    everything, wanted = kept_bytes(model, [])
    layer_by_layer, found = kept_bytes(model, [range(n, n + 1) for n in range(3)])
    first_two, _ = kept_bytes(model, [range(2)])
    assert layer_by_layer < first_two < everything
    assert layer_by_layer < everything / 4
    assert all(torch.equal(one, other) for one, other in zip(wanted, found, strict=True))
