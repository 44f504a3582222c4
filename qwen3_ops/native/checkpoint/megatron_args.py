"""The ``args`` inside a checkpoint: what Megatron and MindSpeed read when they load it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.checkpoint.dtypes import ElementType, bfloat16, dtype_name, float16
from qwen3_ops.native.checkpoint.unpickle import ModelType

_FROM_MODEL = (
    "num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels",
    "max_position_embeddings", "norm_epsilon", "rotary_base", "untie_embeddings_and_output_weights",
    "num_experts", "moe_intermediate_size",
)  # fmt: skip

_QWEN3: Mapping[str, Any] = {
    "position_embedding_type": "rope",
    "add_position_embedding": True,
    "use_rotary_position_embeddings": True,
    "rotary_percent": 1.0,
    "rotary_interleaved": False,
    "normalization": "RMSNorm",
    "apply_layernorm_1p": False,
    "apply_query_key_layer_scaling": False,
    "swiglu": True,
    "add_bias_linear": False,
    "add_qkv_bias": False,
    "add_dense_bias": False,
    "qk_layernorm": True,
    "post_norm": False,
    "make_vocab_size_divisible_by": 1,
    "tokenizer_type": "Llama2Tokenizer",  # what MindSpeed's converter writes; only read where training names none
    "spec": ["mindspeed_llm.tasks.models.spec.qwen3_spec", "layer_spec"],
    "use_mcore_models": True,
    "transformer_impl": "local",
    "moe_layer_freq": None,
    "first_k_dense_replace": None,
    "n_shared_experts": None,
    "shared_expert_gate": None,
    "multi_head_latent_attention": False,
    "q_lora_rank": None,
    "kv_lora_rank": None,
    "v_head_dim": None,
    "qk_rope_head_dim": None,
    "qk_nope_head_dim": None,
    "lora_target_modules": [],
    "lora_r": 16,  # MindSpeed's defaults, without meaning while there are no target modules
    "lora_alpha": 32,
    "lora_ckpt_filter": False,
    "lora_load": None,
    "context_parallel_size": 1,
    "consumed_train_samples": 0,
    "consumed_valid_samples": 0,
    "rank": 0,
}

# What convert_ckpt_v2.py calls otherwise: it keeps Hugging Face's names.
_V2_NAMES = {"num_query_groups": "num_key_value_heads", "ffn_hidden_size": "intermediate_size", "kv_channels": "head_dim"}


def build_args(
    model: ModelSpec,
    layout: ParallelLayout,
    *,
    padded_vocab_size: int,
    iteration: int,
    dtype: ElementType,
    grouped_gemm: bool,
    extra: Mapping[str, object],
) -> Namespace:
    """Args of a rank's file: Qwen3's constants, then ``extra``, then the model, the layout and the dtype, which are always ours.

    ``vocab_size`` is the unpadded number of rows. ``rotary_base`` is the model's own; MindSpeed's
    converter leaves 10000 there, which is Megatron's default and wrong for Qwen3 (it is not read on load).
    """
    tp, pp = layout.tensor_model_parallel_size, layout.pipeline_model_parallel_size
    total, per_chunk, counts = layout.total_layers(model.num_layers), layout.num_layers_per_virtual_pipeline_stage, layout.num_layer_list
    fields: dict[str, object] = {
        **_QWEN3,
        "seq_length": model.max_position_embeddings,
        "encoder_seq_length": model.max_position_embeddings,
        **extra,
        **{name: getattr(model, name) for name in _FROM_MODEL},
        "group_query_attention": True,
        "num_layers": total,  # Megatron counts the no-ops
        "encoder_num_layers": total,
        "vocab_size": model.padded_vocab_size,
    }
    if model.moe_router_topk is not None:
        fields["moe_router_topk"] = model.moe_router_topk
    fields |= {
        "padded_vocab_size": padded_vocab_size,
        "tensor_model_parallel_size": tp,
        "pipeline_model_parallel_size": pp,
        "transformer_pipeline_model_parallel_size": pp,
        "expert_model_parallel_size": layout.expert_model_parallel_size,
        "virtual_pipeline_model_parallel_size": None if per_chunk is None else layout.num_chunks(model.num_layers),
        "num_layers_per_virtual_pipeline_stage": per_chunk,
        "num_layer_list": None if counts is None else ",".join(map(str, counts)),
        "noop_layers": list(layout.noop_layers) or None,
        "moe_grouped_gemm": grouped_gemm,
        "sequence_parallel": model.num_experts is not None and tp > 1,  # Megatron demands it of experts
        "data_parallel_size": 1,
        "world_size": tp * pp,
        "params_dtype": dtype,
        "bf16": dtype == bfloat16,
        "fp16": dtype == float16,
        "model_type": ModelType.encoder_or_decoder,
        "iteration": iteration,
    }
    return Namespace(**fields)


def layout_of(args: Namespace, *, source: Path) -> ParallelLayout:
    """How the checkpoint with these args is cut.

    Raises:
        BadInput: the args do not say it.
    """
    tp, pp = (_required(args, f"{kind}_model_parallel_size", source) for kind in ("tensor", "pipeline"))
    per_chunk, chunks = (_or(args, name) for name in ("num_layers_per_virtual_pipeline_stage", "virtual_pipeline_model_parallel_size"))
    try:
        if per_chunk is None and chunks is not None:
            per_chunk = _required(args, "num_layers", source) // pp // chunks
        layout = ParallelLayout(
            tensor_model_parallel_size=tp,
            pipeline_model_parallel_size=pp,
            expert_model_parallel_size=_or(args, "expert_model_parallel_size") or 1,
            num_layers_per_virtual_pipeline_stage=per_chunk,
            num_layer_list=_numbers(_or(args, "num_layer_list")) or None,
            noop_layers=tuple(sorted(_numbers(_or(args, "noop_layers")))),
        )
        if min(layout.tensor_model_parallel_size, layout.pipeline_model_parallel_size, layout.expert_model_parallel_size) < 1:
            raise ValueError(f"{layout}: parallel sizes must be at least 1")
        return layout
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise BadInput("the checkpoint's args do not describe a layout", value=error, source=source) from error


def model_of(args: Namespace, layout: ParallelLayout, *, dtype: ElementType, padded_vocab_size: int, source: Path) -> ModelSpec:
    """The model that a checkpoint's args describe; its ``padded_vocab_size`` is the unpadded number of rows, see `vocab_size_of`."""
    values = {name: _or(args, name) for name in _FROM_MODEL}
    for name, theirs in _V2_NAMES.items():
        if values[name] is None or (name == "num_query_groups" and not _or(args, "group_query_attention")):
            values[name] = values[name] if _or(args, theirs) is None else _or(args, theirs)
    if values["untie_embeddings_and_output_weights"] is None and _or(args, "tie_word_embeddings") is not None:
        values["untie_embeddings_and_output_weights"] = not args.tie_word_embeddings
    experts = values["num_experts"] is not None
    for name, value in values.items():
        if value is None and (experts or name not in ("num_experts", "moe_intermediate_size")):
            _required(args, name, source)
    try:
        values["num_layers"] -= len(layout.noop_layers)
        return ModelSpec(
            model_type="qwen3_moe" if experts else "qwen3",
            params_dtype=dtype_name(dtype),
            padded_vocab_size=vocab_size_of(args, padded=padded_vocab_size, tp=layout.tensor_model_parallel_size),
            **values,
        )
    except (ValueError, TypeError) as error:
        raise BadInput("the checkpoint's args do not describe a Qwen3 model", value=error, source=source) from error


def vocab_size_of(args: Namespace, *, padded: int, tp: int) -> int:
    """Rows of the embedding before padding, as far as the checkpoint knows.

    ``vocab_size`` is trusted where padding it explains the ``padded`` rows; NullTokenizer's
    does not count its end token.
    """
    vocab = _or(args, "vocab_size")
    multiple = (_or(args, "make_vocab_size_divisible_by") or 1) * tp
    if vocab is None or _or(args, "tokenizer_type") == "NullTokenizer" or pad_vocab_size(vocab, multiple) != padded:
        return padded
    return int(vocab)


def pad_vocab_size(vocab_size: int, multiple: int) -> int:
    return -(-vocab_size // multiple) * multiple


def _or(args: Namespace, name: str) -> Any:
    return getattr(args, name, None)


def _numbers(value: Any) -> tuple[int, ...]:
    """``"1,2,1"``, ``[2, 5]`` or ``{2, 5}`` -> numbers; nothing for None."""
    items = value.split(",") if isinstance(value, str) else value or ()
    return tuple(int(item) for item in items)


def _required(args: Namespace, name: str, source: Path) -> Any:
    value = getattr(args, name, None)
    if value is None:
        raise BadInput(
            f"the checkpoint's args lack {name}", source=source, remedy="Give a checkpoint made by MindSpeed-LLM 2.1.0 or by qwen3-ops."
        )
    return value
