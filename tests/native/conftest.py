"""The checkpoint that the stored generations and MMLU scores were made with."""

from __future__ import annotations

from pathlib import Path

import pytest


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
