"""Where every weight of Qwen3 lies: its shape, how tensor parallelism cuts it, and what Hugging Face calls it.

Letters: L layers, H hidden, F feed-forward, V vocabulary, nh heads, ng key/value groups, d head
dimension, q = nh / ng heads a group, T tensor-parallel ranks, r LoRA rank. ``[out, in]``.

| mcore name | shape | cut over T | Hugging Face |
|---|---|---|---|
| embedding.word_embeddings.weight | [V, H] | rows | model.embed_tokens |
| decoder.layers.N.input_layernorm.weight | [H] | - | input_layernorm |
| .self_attention.linear_proj.weight | [H, nh*d] | columns | self_attn.o_proj |
| .self_attention.linear_qkv.weight | [ng*(q+2)*d, H] | rows | self_attn.{q,k,v}_proj, group by group |
| .self_attention.{q,k}_layernorm.weight | [d] | - | self_attn.{q,k}_norm |
| .pre_mlp_layernorm.weight | [H] | - | post_attention_layernorm |
| .mlp.linear_fc1.weight | [2*F, H] = [gate; up] | rows of gate, rows of up | mlp.gate_proj, mlp.up_proj |
| .mlp.linear_fc2.weight | [H, F] | columns | mlp.down_proj |
| decoder.final_layernorm.weight | [H] | - | model.norm |
| output_layer.weight | [V, H] | rows | lm_head |

LoRA of a linear layer: ``lora_A [r, in]`` is cut with the columns of its layer, ``lora_B [out, r]`` with its rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import ModelSpec

Cut = Literal["whole", "rows", "columns", "gated rows"]

EMBEDDING = "embedding.word_embeddings.weight"
FINAL_NORM = "decoder.final_layernorm.weight"
OUTPUT = "output_layer.weight"

LAYER_MODULES: Mapping[str, Cut] = {
    "input_layernorm": "whole",
    "self_attention.linear_proj": "columns",
    "self_attention.linear_qkv": "rows",
    "self_attention.q_layernorm": "whole",
    "self_attention.k_layernorm": "whole",
    "pre_mlp_layernorm": "whole",
    "mlp.linear_fc1": "gated rows",
    "mlp.linear_fc2": "columns",
}
"""Modules of a layer in the order of a checkpoint's keys."""

LORA_TARGETS: Mapping[str, str] = {module.rpartition(".")[2]: module for module in LAYER_MODULES if ".linear_" in module}
"""``linear_qkv`` -> ``self_attention.linear_qkv``: what ``--lora-target-modules`` may name."""

HF_MODULES: Mapping[str, tuple[str, ...]] = {
    "input_layernorm": ("input_layernorm",),
    "self_attention.linear_proj": ("self_attn.o_proj",),
    "self_attention.linear_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention.q_layernorm": ("self_attn.q_norm",),
    "self_attention.k_layernorm": ("self_attn.k_norm",),
    "pre_mlp_layernorm": ("post_attention_layernorm",),
    "mlp.linear_fc1": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.linear_fc2": ("mlp.down_proj",),
}

_LAYER_NAME = re.compile(r"decoder\.layers\.(\d+)\.(.+?)(?:\.(base_layer|lora_A\.default|lora_B\.default))?\.weight")


def check_layout(model: ModelSpec, layout: ParallelLayout) -> None:
    """Raises BadInput when the model can not be cut this way."""
    tp, pp = layout.tensor_model_parallel_size, layout.pipeline_model_parallel_size
    if tp < 1 or pp < 1:
        raise BadInput("parallel sizes must be at least 1", value=layout)
    for size, what, parts, flag in (
        (model.num_layers, "layers", pp, "pipeline"),
        (model.num_attention_heads, "attention heads", tp, "tensor"),
        (model.num_query_groups, "key/value groups", tp, "tensor"),
        (model.ffn_hidden_size, "feed-forward columns", tp, "tensor"),
    ):
        if size % parts:
            raise BadInput(
                f"{size} {what} can not be divided over {parts} {flag}-parallel ranks",
                value=layout,
                source=f"--target-{flag}-parallel-size",
                remedy=f"Choose a divisor of {size}.",
            )
    if model.num_attention_heads % model.num_query_groups:
        raise BadInput("heads must be a multiple of key/value groups", value=f"{model.num_attention_heads} and {model.num_query_groups}")


def parse_layer_name(name: str) -> tuple[int, str, str | None] | None:
    """``decoder.layers.7.mlp.linear_fc1.lora_A.default.weight`` -> (7, ``mlp.linear_fc1``, ``lora_A.default``); None outside the layers."""
    match = _LAYER_NAME.fullmatch(name)
    if match is None or match[2] not in LAYER_MODULES:
        return None
    return int(match[1]), match[2], match[3]


def shape_of(name: str, model: ModelSpec, *, lora_r: int | None = None) -> tuple[int, ...]:
    """Shape of the whole tensor ``name``; ``lora_r`` is needed for LoRA's own."""
    hidden, heads, groups = model.hidden_size, model.num_attention_heads * model.kv_channels, model.num_query_groups * model.kv_channels
    parsed = parse_layer_name(name)
    if parsed is None:
        return (hidden,) if name == FINAL_NORM else (model.padded_vocab_size, hidden)
    _, module, part = parsed
    shape: tuple[int, ...] = {
        "self_attention.linear_proj": (hidden, heads),
        "self_attention.linear_qkv": (heads + 2 * groups, hidden),
        "self_attention.q_layernorm": (model.kv_channels,),
        "self_attention.k_layernorm": (model.kv_channels,),
        "mlp.linear_fc1": (2 * model.ffn_hidden_size, hidden),
        "mlp.linear_fc2": (hidden, model.ffn_hidden_size),
    }.get(module, (hidden,))
    if part is None or part == "base_layer":
        return shape
    if lora_r is None:
        raise ValueError(f"the shape of {name} needs the LoRA rank")
    return (lora_r, shape[1]) if part.startswith("lora_A") else (shape[0], lora_r)


def cut_of(name: str) -> Cut:
    """How tensor parallelism cuts ``name``."""
    parsed = parse_layer_name(name)
    if parsed is None:
        return "whole" if name == FINAL_NORM else "rows"
    _, module, part = parsed
    cut = LAYER_MODULES[module]
    if part == "lora_A.default":
        return cut if cut == "columns" else "whole"
    if part == "lora_B.default":
        return "whole" if cut == "columns" else cut
    return cut


def split(name: str, tensor: Tensor, parts: int) -> Sequence[Tensor]:
    """The shards of a whole tensor, one per tensor-parallel rank. Views where that is possible."""
    cut = cut_of(name)
    if cut == "whole" or parts == 1:
        return [tensor] * parts
    if cut == "gated rows":  # [gate; up] -> rank t holds [gate_t; up_t]
        gate, up = tensor.chunk(2)
        return [torch.cat(pair) for pair in zip(gate.chunk(parts), up.chunk(parts), strict=True)]
    return tensor.chunk(parts, dim=0 if cut == "rows" else 1)


def join(name: str, shards: Sequence[Tensor]) -> Tensor:
    """The whole tensor of one shard per tensor-parallel rank; the inverse of `split`."""
    cut = cut_of(name)
    if cut == "whole" or len(shards) == 1:
        return shards[0]
    if cut == "gated rows":
        halves = [shard.chunk(2) for shard in shards]
        return torch.cat([gate for gate, _ in halves] + [up for _, up in halves])
    return torch.cat(list(shards), dim=0 if cut == "rows" else 1)


def shard_shape(name: str, shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """Shape of one of ``parts`` equal shards of a tensor of ``shape``."""
    cut = cut_of(name)
    if cut == "whole":
        return shape
    return (shape[0], shape[1] // parts) if cut == "columns" else (shape[0] // parts, *shape[1:])


def hf_names(name: str) -> tuple[str, ...]:
    """Hugging Face's tensors that make up the mcore tensor ``name``: one, or q, k, v, or gate, up."""
    parsed = parse_layer_name(name)
    if parsed is None:
        return ({EMBEDDING: "model.embed_tokens.weight", FINAL_NORM: "model.norm.weight", OUTPUT: "lm_head.weight"}[name],)
    layer, module, _ = parsed
    return tuple(f"model.layers.{layer}.{hf}.weight" for hf in HF_MODULES[module])


def hf_shapes(name: str, model: ModelSpec) -> tuple[tuple[int, ...], ...]:
    """Shapes of `hf_names`, in their order."""
    whole = shape_of(name, model)
    if name.endswith("linear_qkv.weight"):  # [nh*d, H], [ng*d, H], [ng*d, H]
        groups = (model.num_query_groups * model.kv_channels, model.hidden_size)
        return (model.num_attention_heads * model.kv_channels, model.hidden_size), groups, groups
    if name.endswith("linear_fc1.weight"):  # [F, H] twice
        return ((model.ffn_hidden_size, model.hidden_size),) * 2
    return (whole,)


def from_hf(name: str, tensors: Sequence[Tensor], model: ModelSpec) -> Tensor:
    """The mcore tensor ``name`` of Hugging Face's ``tensors`` (order of `hf_names`)."""
    if name.endswith("linear_qkv.weight"):  # per group: q*d rows of Wq, d rows of Wk, d rows of Wv
        groups = [tensor.view(model.num_query_groups, -1, model.hidden_size) for tensor in tensors]
        return torch.cat(groups, dim=1).reshape(-1, model.hidden_size)
    return torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]


def to_hf(name: str, tensor: Tensor, model: ModelSpec) -> Sequence[Tensor]:
    """Hugging Face's tensors (order of `hf_names`) of the mcore tensor ``name``; the inverse of `from_hf`."""
    if name.endswith("linear_qkv.weight"):
        head, groups = model.kv_channels, model.num_query_groups
        per_group = tensor.view(groups, -1, model.hidden_size)  # [ng, (q+2)*d, H]
        rows = [model.num_attention_heads // groups * head, head, head]
        return [part.reshape(-1, model.hidden_size) for part in torch.split(per_group, rows, dim=1)]
    return tensor.chunk(2) if name.endswith("linear_fc1.weight") else [tensor]


def base_names(model: ModelSpec) -> Iterator[str]:
    """Names of the whole model without LoRA, in a checkpoint's order; a tied output layer has none."""
    yield EMBEDDING
    for layer in range(model.num_layers):
        for module in LAYER_MODULES:
            yield f"decoder.layers.{layer}.{module}.weight"
    yield FINAL_NORM
    if model.untie_embeddings_and_output_weights:
        yield OUTPUT
