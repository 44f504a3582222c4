"""The checkpoint of the stored generations and MMLU scores; a Qwen3 of ours and one of transformers' with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from qwen3_ops.model import ModelSpec
from qwen3_ops.native.model import Qwen3, build_model, load_full_state

SPEC = ModelSpec(
    model_type="qwen3",
    num_layers=3,
    hidden_size=48,
    ffn_hidden_size=80,
    num_attention_heads=6,
    num_query_groups=2,
    kv_channels=12,
    padded_vocab_size=97,
    rotary_base=1_000_000,
    norm_epsilon=1e-6,
    max_position_embeddings=64,
    untie_embeddings_and_output_weights=True,
    params_dtype="fp32",
)


def to_mcore(state: dict[str, torch.Tensor], spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Written apart from the converter, so that neither can hide the other's mistake."""
    d, per_group = spec.kv_channels, spec.num_attention_heads // spec.num_query_groups
    full = {
        "embedding.word_embeddings.weight": state["model.embed_tokens.weight"],
        "decoder.final_layernorm.weight": state["model.norm.weight"],
    }
    if spec.untie_embeddings_and_output_weights:
        full["output_layer.weight"] = state["lm_head.weight"]
    for n in range(spec.num_layers):
        hf, mg = f"model.layers.{n}.", f"decoder.layers.{n}."
        q, k, v = (state[f"{hf}self_attn.{x}_proj.weight"] for x in "qkv")
        rows = []
        for group in range(spec.num_query_groups):
            rows += [q[group * per_group * d : (group + 1) * per_group * d], k[group * d : (group + 1) * d], v[group * d : (group + 1) * d]]
        full[mg + "self_attention.linear_qkv.weight"] = torch.cat(rows)
        full[mg + "self_attention.linear_proj.weight"] = state[hf + "self_attn.o_proj.weight"]
        full[mg + "self_attention.q_layernorm.weight"] = state[hf + "self_attn.q_norm.weight"]
        full[mg + "self_attention.k_layernorm.weight"] = state[hf + "self_attn.k_norm.weight"]
        full[mg + "input_layernorm.weight"] = state[hf + "input_layernorm.weight"]
        full[mg + "pre_mlp_layernorm.weight"] = state[hf + "post_attention_layernorm.weight"]
        full[mg + "mlp.linear_fc1.weight"] = torch.cat([state[hf + "mlp.gate_proj.weight"], state[hf + "mlp.up_proj.weight"]])
        full[mg + "mlp.linear_fc2.weight"] = state[hf + "mlp.down_proj.weight"]
    return full


def pair(spec: ModelSpec) -> tuple[Qwen3, Qwen3ForCausalLM]:
    torch.manual_seed(7)
    reference = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=spec.padded_vocab_size,
            hidden_size=spec.hidden_size,
            intermediate_size=spec.ffn_hidden_size,
            num_hidden_layers=spec.num_layers,
            num_attention_heads=spec.num_attention_heads,
            num_key_value_heads=spec.num_query_groups,
            head_dim=spec.kv_channels,
            rope_theta=float(spec.rotary_base),
            rms_norm_eps=spec.norm_epsilon,
            max_position_embeddings=spec.max_position_embeddings,
            tie_word_embeddings=not spec.untie_embeddings_and_output_weights,
            attn_implementation="eager",
        )
    ).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(mean=1.0 if parameter.dim() == 1 else 0.0, std=0.2)
    model = build_model(spec, dtype=torch.float32)
    load_full_state(model, to_mcore(reference.state_dict(), spec))
    return model, reference


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    """Three layers; heads * head_dim is not the hidden size."""
    return SPEC


@pytest.fixture(scope="session")
def both() -> Callable[[ModelSpec], tuple[Qwen3, Qwen3ForCausalLM]]:
    return pair


@pytest.fixture(scope="session")
def as_mcore() -> Callable[[dict[str, torch.Tensor], ModelSpec], dict[str, torch.Tensor]]:
    return to_mcore


@pytest.fixture(scope="session")
def qa_checkpoint(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train/qa_tuned`` as an mcore checkpoint of TP2 PP2."""
    from safetensors.torch import load_file

    from qwen3_ops.layout import ParallelLayout
    from qwen3_ops.model import ModelSpec
    from qwen3_ops.native.checkpoint.mcore import write_checkpoint

    folder = tmp_path_factory.mktemp("qa_tuned")
    write_checkpoint(
        folder,
        iteration=200,
        state=load_file(golden / "train" / "qa_tuned" / "final_mp_rank_00.safetensors"),
        model=ModelSpec.from_hf(golden / "ckpt" / "hf_tiny"),
        layout=ParallelLayout(tensor_model_parallel_size=2, pipeline_model_parallel_size=2),
        dtype="bf16",
    )
    return folder


@pytest.fixture(scope="session")
def inference_argv(golden: Path, qa_checkpoint: Path) -> list[str]:
    """The runbook's flags that generation and evaluation share, for that checkpoint, in fp32."""
    return [
        "--use-mcore-models",
        *("--tensor-model-parallel-size", "2", "--pipeline-model-parallel-size", "2"),
        *("--load", str(qa_checkpoint)),
        *("--spec", "mindspeed_llm.tasks.models.spec.qwen3_spec", "layer_spec"),
        *("--kv-channels", "16", "--qk-layernorm", "--num-layers", "4", "--hidden-size", "64", "--ffn-hidden-size", "128"),
        *("--num-attention-heads", "8", "--group-query-attention", "--num-query-groups", "4"),
        *("--untie-embeddings-and-output-weights", "--max-position-embeddings", "4096", "--seq-length", "1024"),
        *("--make-vocab-size-divisible-by", "1", "--padded-vocab-size", "512", "--rotary-base", "1000000"),
        *("--micro-batch-size", "1", "--disable-bias-linear", "--swiglu", "--use-rotary-position-embeddings"),
        *("--tokenizer-type", "PretrainedFromHF", "--tokenizer-name-or-path", str(golden / "data" / "tok512")),
        *("--normalization", "RMSNorm", "--position-embedding-type", "rope", "--norm-epsilon", "1e-6"),
        *("--hidden-dropout", "0", "--attention-dropout", "0", "--attention-softmax-in-fp32"),
        *("--exit-on-missing-checkpoint", "--no-masked-softmax-fusion", "--no-gradient-accumulation-fusion", "--seed", "42"),
    ]
