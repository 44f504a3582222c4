"""The model's flags, the same for training, generation and evaluation."""

from __future__ import annotations

from qwen3_ops.config import RunConfig
from qwen3_ops.model import ModelSpec
from qwen3_ops.stages.paths import Paths

SPEC = ["--spec", "mindspeed_llm.tasks.models.spec.qwen3_spec", "layer_spec"]


def layout_flags(run: RunConfig) -> list[str]:
    return [
        *("--tensor-model-parallel-size", str(run.tensor_model_parallel_size)),
        *("--pipeline-model-parallel-size", str(run.pipeline_model_parallel_size)),
    ]


def model_flags(run: RunConfig, model: ModelSpec, paths: Paths) -> list[str]:
    """Shape and numerics from ``config.json``: the runbook's hand-typed list, none forgotten."""
    tied = [] if not model.untie_embeddings_and_output_weights else ["--untie-embeddings-and-output-weights"]
    return [
        "--use-mcore-models",
        *SPEC,
        *("--kv-channels", str(model.kv_channels)),
        "--qk-layernorm",
        *("--num-layers", str(model.num_layers)),
        *("--hidden-size", str(model.hidden_size)),
        *("--ffn-hidden-size", str(model.ffn_hidden_size)),
        *("--num-attention-heads", str(model.num_attention_heads)),
        *("--group-query-attention", "--num-query-groups", str(model.num_query_groups)),
        *("--max-position-embeddings", str(model.max_position_embeddings)),
        *("--seq-length", str(run.seq_length)),
        *("--make-vocab-size-divisible-by", "1"),
        *("--padded-vocab-size", str(model.padded_vocab_size)),
        *("--position-embedding-type", "rope"),
        "--use-rotary-position-embeddings",
        *("--rotary-base", str(model.rotary_base)),
        *("--normalization", "RMSNorm"),
        *("--norm-epsilon", repr(model.norm_epsilon)),
        *tied,
        "--disable-bias-linear",
        "--swiglu",
        "--attention-softmax-in-fp32",
        "--no-masked-softmax-fusion",
        "--no-gradient-accumulation-fusion",
        *("--attention-dropout", "0.0"),
        *("--hidden-dropout", "0.0"),
        *("--tokenizer-type", "PretrainedFromHF"),
        *("--tokenizer-name-or-path", paths.tokenizer),
        *precision_flags(model),
    ]


def precision_flags(model: ModelSpec) -> list[str]:
    return [] if model.params_dtype == "fp32" else [f"--{model.params_dtype}"]
