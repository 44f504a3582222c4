"""The ``args`` inside a checkpoint: what Megatron and MindSpeed read when they load it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.checkpoint.dtypes import as_torch_dtype, dtype_name
from qwen3_ops.native.checkpoint.unpickle import ModelType

_FROM_MODEL = (
    "num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels",
    "max_position_embeddings", "norm_epsilon", "rotary_base", "untie_embeddings_and_output_weights",
)  # fmt: skip

_QWEN3: Mapping[str, Any] = {
    "group_query_attention": True,
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
    "num_experts": None,
    "moe_intermediate_size": None,
    "moe_grouped_gemm": False,
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
    "sequence_parallel": False,
    "context_parallel_size": 1,
    "consumed_train_samples": 0,
    "consumed_valid_samples": 0,
    "rank": 0,
}

_UNEVEN = ("virtual_pipeline_model_parallel_size", "num_layers_per_virtual_pipeline_stage", "num_layer_list", "noop_layers")


def build_args(
    model: ModelSpec,
    layout: ParallelLayout,
    *,
    padded_vocab_size: int,
    iteration: int,
    dtype: torch.dtype,
    extra: Mapping[str, object],
) -> Namespace:
    """Args of a rank's file: Qwen3's constants, the model, then ``extra``, then the layout and the dtype, which are always ours.

    ``vocab_size`` is the unpadded number of rows. ``rotary_base`` is the model's own; MindSpeed's
    converter leaves 10000 there, which is Megatron's default and wrong for Qwen3 (it is not read on load).
    """
    fields: dict[str, object] = {name: getattr(model, name) for name in _FROM_MODEL}
    fields |= {
        "encoder_num_layers": model.num_layers,
        "seq_length": model.max_position_embeddings,
        "encoder_seq_length": model.max_position_embeddings,
        "vocab_size": model.padded_vocab_size,
    }
    fields |= {**_QWEN3, **extra}
    fields |= {
        "padded_vocab_size": padded_vocab_size,
        "tensor_model_parallel_size": layout.tensor_model_parallel_size,
        "pipeline_model_parallel_size": layout.pipeline_model_parallel_size,
        "transformer_pipeline_model_parallel_size": layout.pipeline_model_parallel_size,
        "expert_model_parallel_size": 1,
        "data_parallel_size": 1,
        "world_size": layout.tensor_model_parallel_size * layout.pipeline_model_parallel_size,
        "params_dtype": dtype,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "model_type": ModelType.encoder_or_decoder,
        "iteration": iteration,
        **dict.fromkeys(_UNEVEN),
    }
    return Namespace(**fields)


def layout_of(args: Namespace, *, source: Path) -> ParallelLayout:
    """Raises BadInput for layouts that can not be read yet."""
    for name in _UNEVEN:
        if getattr(args, name, None) is not None:
            raise BadInput(f"checkpoints with {name} can not be read yet", value=getattr(args, name), source=source)
    if getattr(args, "num_experts", None) or (getattr(args, "expert_model_parallel_size", None) or 1) > 1:
        raise BadInput("mixture-of-experts checkpoints can not be read yet", value=f"num_experts {args.num_experts}", source=source)
    return ParallelLayout(
        tensor_model_parallel_size=_required(args, "tensor_model_parallel_size", source),
        pipeline_model_parallel_size=_required(args, "pipeline_model_parallel_size", source),
    )


def model_of(args: Namespace, *, dtype: torch.dtype, source: Path) -> ModelSpec:
    """The model that a checkpoint's args describe; ``padded_vocab_size`` is the unpadded number of rows, see `vocab_size_of`."""
    values = {name: _required(args, name, source) for name in _FROM_MODEL}
    try:
        return ModelSpec(
            model_type="qwen3",
            params_dtype=dtype_name(as_torch_dtype(dtype)),
            padded_vocab_size=vocab_size_of(args, source=source),
            **values,
        )
    except ValidationError as error:
        raise BadInput("the checkpoint's args do not describe a Qwen3 model", value=error, source=source) from error


def vocab_size_of(args: Namespace, *, source: Path) -> int:
    """Rows of the embedding before padding, as far as the checkpoint knows.

    ``vocab_size`` is trusted where padding it explains ``padded_vocab_size``; NullTokenizer's
    does not count its end token.
    """
    padded = int(_required(args, "padded_vocab_size", source))
    vocab = getattr(args, "vocab_size", None)
    multiple = (getattr(args, "make_vocab_size_divisible_by", None) or 1) * args.tensor_model_parallel_size
    if vocab is None or getattr(args, "tokenizer_type", None) == "NullTokenizer" or pad_vocab_size(vocab, multiple) != padded:
        return padded
    return int(vocab)


def pad_vocab_size(vocab_size: int, multiple: int) -> int:
    return -(-vocab_size // multiple) * multiple


def _required(args: Namespace, name: str, source: Path) -> Any:
    value = getattr(args, name, None)
    if value is None:
        raise BadInput(
            f"the checkpoint's args lack {name}", source=source, remedy="Give a checkpoint made by MindSpeed-LLM 2.1.0 or by qwen3-ops."
        )
    return value
