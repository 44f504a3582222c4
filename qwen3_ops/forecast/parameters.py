"""How many weights one device holds, and how many of them LoRA trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qwen3_ops.config import RunConfig
from qwen3_ops.model import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Share:
    """Of one device: ``dense`` weights, weights of ``experts``, and those of a LoRA ``adapter``."""

    dense: int
    experts: int = 0
    adapter: int = 0

    @property
    def weights(self) -> int:
        return self.dense + self.experts


def shares(run: RunConfig, model: ModelSpec, *, lora: bool) -> list[Share]:
    """One device's share in each pipeline stage, first to last.

    Matrices are cut over tensor ranks, experts over expert ranks besides; norms and the router
    lie on every rank. The first stage has the embedding, the last the final norm and the output
    layer, which is the embedding again where both are tied and one stage has both.
    """
    tp, pp = run.tensor_model_parallel_size, run.pipeline_model_parallel_size
    layers = _even(model.num_layers, pp)
    vocabulary = model.padded_vocab_size * model.hidden_size // tp
    result = []
    for stage, count in enumerate(layers):
        dense = count * _dense_layer(model, tp)
        if stage == 0:
            dense += vocabulary
        if stage == pp - 1:
            dense += model.hidden_size
            if model.untie_embeddings_and_output_weights or pp > 1:
                dense += vocabulary
        result.append(
            Share(
                dense=dense,
                experts=count * _experts(model, tp=tp, ep=run.expert_model_parallel_size),
                adapter=count * _adapter(run, model, tp) if lora else 0,
            )
        )
    return result


def adapter_parameters(run: RunConfig, model: ModelSpec) -> int:
    """Of the whole adapter."""
    return model.num_layers * _adapter(run.model_copy(update={"expert_model_parallel_size": 1}), model, 1)


def _even(number: int, parts: int) -> list[int]:
    return [number // parts + (part < number % parts) for part in range(parts)]


def _dense_layer(model: ModelSpec, tp: int) -> int:
    hidden, heads = model.hidden_size, model.num_attention_heads * model.kv_channels
    groups = model.num_query_groups * model.kv_channels
    matrices = hidden * (heads + 2 * groups) + heads * hidden
    if model.num_experts is None:
        matrices += 3 * hidden * model.ffn_hidden_size
    whole = 2 * hidden + 2 * model.kv_channels + (model.num_experts or 0) * hidden
    return matrices // tp + whole


def _experts(model: ModelSpec, *, tp: int, ep: int) -> int:
    return (model.num_experts or 0) * 3 * model.hidden_size * (model.moe_intermediate_size or 0) // ep // tp


def _adapter(run: RunConfig, model: ModelSpec, tp: int) -> int:
    """A is [r, in], B is [out, r]; the side that the base weight is cut on is cut over tensor ranks as well."""
    hidden, heads = model.hidden_size, model.num_attention_heads * model.kv_channels
    groups = model.num_query_groups * model.kv_channels
    experts = (model.num_experts or 1) // run.expert_model_parallel_size
    ffn = model.moe_intermediate_size or model.ffn_hidden_size
    rows: dict[str, Sequence[int]] = {
        "linear_qkv": (hidden, (heads + 2 * groups) // tp),
        "linear_proj": (heads // tp, hidden),
        "linear_fc1": (experts * hidden, experts * 2 * ffn // tp),
        "linear_fc2": (experts * ffn // tp, experts * hidden),
    }
    return run.lora_r * sum(sum(rows[target]) for target in run.lora_target_modules)
