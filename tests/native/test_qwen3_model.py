"""The model against transformers' Qwen3, with heads * head_dim != hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from qwen3_ops.errors import BadInput
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.model import KVCache, load_full_state

Pair = Callable[[ModelSpec], Any]


@pytest.mark.parametrize("untied", [True, False])
@torch.no_grad()
def test_logits_equal_transformers(untied: bool, spec: ModelSpec, both: Pair) -> None:
    model, reference = both(spec.model_copy(update={"untie_embeddings_and_output_weights": untied}))
    ids = torch.randint(0, spec.padded_vocab_size, (3, 17))
    torch.testing.assert_close(model(ids), reference(ids).logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_left_padding_equals_transformers(spec: ModelSpec, both: Pair) -> None:
    model, reference = both(spec)
    ids = torch.randint(0, spec.padded_vocab_size, (2, 9))
    padding = torch.zeros(2, 9, dtype=torch.bool)
    padding[1, :4] = True
    positions = ((~padding).long().cumsum(-1) - 1).clamp(min=0)
    wanted = reference(ids, attention_mask=(~padding).long(), position_ids=positions).logits
    found = model(ids, positions, padding=padding)
    torch.testing.assert_close(found[~padding], wanted[~padding], rtol=0, atol=1e-5)
    assert torch.isfinite(found).all()


@torch.no_grad()
def test_cache_changes_nothing(spec: ModelSpec, both: Pair) -> None:
    model, _ = both(spec)
    ids = torch.randint(0, spec.padded_vocab_size, (2, 11))
    cache = KVCache(spec, batch=2, max_length=11, dtype=torch.float32)
    pieces = [model(ids[:, :5], cache=cache), model(ids[:, 5:8], cache=cache)]
    pieces += [model(ids[:, n : n + 1], cache=cache) for n in range(8, 11)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), rtol=0, atol=1e-5)


@torch.no_grad()
def test_cache_rows_can_be_reordered(spec: ModelSpec, both: Pair) -> None:
    model, _ = both(spec)
    ids = torch.randint(0, spec.padded_vocab_size, (2, 6))
    cache = KVCache(spec, batch=2, max_length=7, dtype=torch.float32)
    model(ids, cache=cache)
    cache.reorder(torch.tensor([1, 1]))
    found = model(torch.tensor([[3], [3]]), cache=cache)
    wanted = model(torch.cat([ids[1], torch.tensor([3])])[None])[:, -1:]
    torch.testing.assert_close(found, wanted.expand(2, -1, -1), rtol=0, atol=1e-5)


def test_a_foreign_state_is_refused(spec: ModelSpec, both: Pair, as_mcore: Any) -> None:
    model, reference = both(spec)
    state = as_mcore(reference.state_dict(), spec)
    state["output_layer.weight"] = state["output_layer.weight"][:-1]
    state["decoder.layers.3.mlp.linear_fc2.weight"] = state.pop("decoder.layers.2.mlp.linear_fc2.weight")
    with pytest.raises(BadInput) as caught:
        load_full_state(model, state)
    assert "decoder.layers.2.mlp.linear_fc2.weight: not in the checkpoint" in str(caught.value)
    assert "decoder.layers.3.mlp.linear_fc2.weight: not in the model" in str(caught.value)
    assert "output_layer.weight: [96, 48] in the checkpoint, [97, 48] in the model" in str(caught.value)
