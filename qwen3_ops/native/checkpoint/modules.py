"""Every weight of Qwen3: its name in mcore and in Hugging Face, its shape, and how tensor parallelism cuts it.

Letters: L layers, H hidden, F feed-forward, E experts of M columns, V vocabulary, nh heads, ng
key/value groups, d head dimension, q = nh / ng heads a group, r LoRA rank. ``[out, in]``.

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
| .mlp.router.weight | [E, H] | - | mlp.gate |
| .mlp.experts.local_experts.J.linear_fc1.weight | [2*M, H] | as above | mlp.experts.J.gate_proj, .up_proj |
| .mlp.experts.local_experts.J.linear_fc2.weight | [H, M] | columns | mlp.experts.J.down_proj |
| decoder.final_layernorm.weight | [H] | - | model.norm |
| output_layer.weight | [V, H] | rows | lm_head |

Names are global: N and J count over the whole model. LoRA of a linear layer: ``lora_A [r, in]``
is cut with the columns of its layer, ``lora_B [out, r]`` with its rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from qwen3_ops.model import ModelSpec

Cut = Literal["whole", "rows", "columns", "gated rows"]

EMBEDDING = "embedding.word_embeddings.weight"
FINAL_NORM = "decoder.final_layernorm.weight"
OUTPUT = "output_layer.weight"

_ATTENTION: Mapping[str, Cut] = {
    "input_layernorm": "whole",
    "self_attention.linear_proj": "columns",
    "self_attention.linear_qkv": "rows",
    "self_attention.q_layernorm": "whole",
    "self_attention.k_layernorm": "whole",
    "pre_mlp_layernorm": "whole",
}
_DENSE: Mapping[str, Cut] = {"mlp.linear_fc1": "gated rows", "mlp.linear_fc2": "columns"}
_EXPERTS: Mapping[str, Cut] = {"mlp.router": "whole", "mlp.experts.linear_fc1": "gated rows", "mlp.experts.linear_fc2": "columns"}

CUTS: Mapping[str, Cut] = {**_ATTENTION, **_DENSE, **_EXPERTS}
"""Kinds of modules in the order of a checkpoint's keys; all experts of a layer are one kind."""

LINEAR_KINDS = tuple(kind for kind in CUTS if ".linear_" in kind)
"""Kinds that LoRA may adapt; ``--lora-target-modules`` names them by their last part."""

_HF: Mapping[str, tuple[str, ...]] = {
    "input_layernorm": ("input_layernorm",),
    "self_attention.linear_proj": ("self_attn.o_proj",),
    "self_attention.linear_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention.q_layernorm": ("self_attn.q_norm",),
    "self_attention.k_layernorm": ("self_attn.k_norm",),
    "pre_mlp_layernorm": ("post_attention_layernorm",),
    "mlp.linear_fc1": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.linear_fc2": ("mlp.down_proj",),
    "mlp.router": ("mlp.gate",),
    "mlp.experts.linear_fc1": ("mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj"),
    "mlp.experts.linear_fc2": ("mlp.experts.{}.down_proj",),
}
_HF_OUTSIDE = {EMBEDDING: "model.embed_tokens.weight", FINAL_NORM: "model.norm.weight", OUTPUT: "lm_head.weight"}

_NAME = re.compile(r"decoder\.layers\.(\d+)\.(.+?)(?:\.(base_layer|lora_A\.default|lora_B\.default))?\.weight")
_EXPERT = re.compile(r"mlp\.experts\.local_experts\.(\d+)\.(linear_fc[12])")


class LayerTensor(NamedTuple):
    """The name of a tensor inside a layer, taken apart.

    Attributes:
        module: as in the name, ``mlp.experts.local_experts.3.linear_fc1``.
        kind: key of `CUTS`, ``mlp.experts.linear_fc1``.
        expert: its number, None outside the experts.
        part: ``base_layer``, ``lora_A.default``, ``lora_B.default`` or None.
    """

    layer: int
    module: str
    kind: str
    expert: int | None
    part: str | None

    @property
    def is_lora(self) -> bool:
        return self.part is not None and self.part.startswith("lora_")


def parse_layer_name(name: str) -> LayerTensor | None:
    """``decoder.layers.7.mlp.linear_fc1.lora_A.default.weight`` taken apart; None for anything that no layer of Qwen3 has."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    expert = _EXPERT.fullmatch(match[2])
    kind = match[2] if expert is None else f"mlp.experts.{expert[2]}"
    if kind not in CUTS or (expert is None) == kind.startswith("mlp.experts"):
        return None
    return LayerTensor(int(match[1]), match[2], kind, None if expert is None else int(expert[1]), match[3])


def layer_modules(model: ModelSpec, *, experts: range | None = None) -> Iterator[str]:
    """Modules of one layer in a checkpoint's order; ``experts``: those wanted, by default all."""
    yield from _ATTENTION
    if model.num_experts is None:
        yield from _DENSE
        return
    yield "mlp.router"
    for expert in range(model.num_experts) if experts is None else experts:
        yield f"mlp.experts.local_experts.{expert}.linear_fc1"
        yield f"mlp.experts.local_experts.{expert}.linear_fc2"


def base_names(model: ModelSpec) -> Iterator[str]:
    """Names of the whole model without LoRA, in a checkpoint's order; a tied output layer has none."""
    yield EMBEDDING
    for layer in range(model.num_layers):
        for module in layer_modules(model):
            yield f"decoder.layers.{layer}.{module}.weight"
    yield FINAL_NORM
    if model.untie_embeddings_and_output_weights:
        yield OUTPUT


def shape_of(name: str, model: ModelSpec, *, lora_r: int | None = None) -> tuple[int, ...]:
    """Shape of the whole tensor ``name``; ``lora_r`` is needed for LoRA's own."""
    hidden, heads, groups = model.hidden_size, model.num_attention_heads * model.kv_channels, model.num_query_groups * model.kv_channels
    parsed = parse_layer_name(name)
    if parsed is None:
        return (hidden,) if name == FINAL_NORM else (model.padded_vocab_size, hidden)
    width = (model.moe_intermediate_size or 0) if parsed.expert is not None else model.ffn_hidden_size
    shape: tuple[int, ...] = {
        "self_attention.linear_proj": (hidden, heads),
        "self_attention.linear_qkv": (heads + 2 * groups, hidden),
        "self_attention.q_layernorm": (model.kv_channels,),
        "self_attention.k_layernorm": (model.kv_channels,),
        "mlp.linear_fc1": (2 * width, hidden),
        "mlp.linear_fc2": (hidden, width),
        "mlp.router": (model.num_experts or 0, hidden),
        "mlp.experts.linear_fc1": (2 * width, hidden),
        "mlp.experts.linear_fc2": (hidden, width),
    }.get(parsed.kind, (hidden,))
    if not parsed.is_lora:
        return shape
    if lora_r is None:
        raise ValueError(f"the shape of {name} needs the LoRA rank")
    return (lora_r, shape[1]) if parsed.part == "lora_A.default" else (shape[0], lora_r)


def cut_of(name: str) -> Cut:
    """How tensor parallelism cuts ``name``."""
    parsed = parse_layer_name(name)
    if parsed is None:
        return "whole" if name == FINAL_NORM else "rows"
    cut = CUTS[parsed.kind]
    if parsed.part == "lora_A.default":
        return cut if cut == "columns" else "whole"
    if parsed.part == "lora_B.default":
        return "whole" if cut == "columns" else cut
    return cut


def hf_names(name: str) -> tuple[str, ...]:
    """Hugging Face's tensors that make up the mcore tensor ``name``: one, or q, k, v, or gate, up."""
    parsed = parse_layer_name(name)
    if parsed is None:
        return (_HF_OUTSIDE[name],)
    return tuple(f"model.layers.{parsed.layer}.{hf.format(parsed.expert)}.weight" for hf in _HF[parsed.kind])
