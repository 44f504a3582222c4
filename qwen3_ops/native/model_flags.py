"""The model's flags, the same in training, generation and evaluation."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from qwen3_ops.flags import Flags
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import Dtype, ModelSpec

SPEC = ("mindspeed_llm.tasks.models.spec.qwen3_spec", "layer_spec")

# Kernels, memory and communication: chosen by this engine itself, the result is the same.
ENGINE_FLAGS: dict[str, int] = {
    "--use-mcore-models": 0,
    "--use-flash-attn": 0,
    "--use-fused-rmsnorm": 0,
    "--use-fused-rotary-pos-emb": 0,
    "--use-fused-swiglu": 0,
    "--use-rotary-position-embeddings": 0,
    "--attention-softmax-in-fp32": 0,
    "--no-masked-softmax-fusion": 0,
    "--no-bias-swiglu-fusion": 0,
    "--no-gradient-accumulation-fusion": 0,
    "--sequence-parallel": 0,
    "--distributed-backend": 1,
    "--distributed-timeout-minutes": 1,
    "--context-parallel-algo": 1,
    "--transformer-impl": 1,
    "--use-cpu-initialization": 0,
    "--tokenizer-not-use-fast": 0,
    "--norm-topk-prob": 0,  # of experts; some of the original's scripts for dense models have it
    "--exit-on-missing-checkpoint": 0,  # a missing checkpoint always ends the run
}


class ModelFlags(Flags):
    """Shape, numerics and checkpoint layout; Megatron's defaults where a flag is left out.

    The parallel sizes are the layout of the checkpoints that are read and written; the model
    itself runs in one process.
    """

    INERT: ClassVar[dict[str, int]] = ENGINE_FLAGS
    REFUSED: ClassVar[dict[str, str]] = {
        "--num-layers-per-virtual-pipeline-stage": "virtual pipeline stages only pay on many devices; convert without them",
        "--num-layer-list": "stages of unequal depth are not supported; choose a pipeline size that divides --num-layers",
        "--add-qkv-bias": "no Qwen3 model has a bias there",
    }

    spec: tuple[str, ...] = SPEC
    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    group_query_attention: bool = False
    num_query_groups: int = 1
    kv_channels: int | None = None
    padded_vocab_size: int
    make_vocab_size_divisible_by: int = 128
    max_position_embeddings: int
    rotary_base: int = 10_000
    norm_epsilon: float = 1e-5
    normalization: str = "LayerNorm"
    position_embedding_type: str = "learned_absolute"
    qk_layernorm: bool = False
    swiglu: bool = False
    disable_bias_linear: bool = False
    untie_embeddings_and_output_weights: bool = False
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    bf16: bool = False
    fp16: bool = False
    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    context_parallel_size: int = 1
    tokenizer_type: Literal["PretrainedFromHF"] = "PretrainedFromHF"

    @model_validator(mode="after")
    def _is_qwen3(self) -> ModelFlags:
        wanted = {
            "--spec " + " ".join(SPEC): self.spec == SPEC,
            "--normalization RMSNorm": self.normalization == "RMSNorm",
            "--position-embedding-type rope": self.position_embedding_type == "rope",
            "--qk-layernorm": self.qk_layernorm,
            "--swiglu": self.swiglu,
            "--disable-bias-linear": self.disable_bias_linear,
            "--hidden-dropout 0": self.hidden_dropout == 0,
            "--attention-dropout 0": self.attention_dropout == 0,
            "--context-parallel-size 1": self.context_parallel_size == 1,
        }
        missing = [flag for flag, given in wanted.items() if not given]
        if missing:
            raise ValueError("this engine runs the dense Qwen3 only, which needs " + ", ".join(missing))
        if self.bf16 and self.fp16:
            raise ValueError("--bf16 and --fp16 exclude each other")
        self._check_divisions()
        return self

    def _check_divisions(self) -> None:
        tp, pp = self.tensor_model_parallel_size, self.pipeline_model_parallel_size
        groups = self.query_groups
        for what, number, by in (
            ("--num-attention-heads", self.num_attention_heads, groups),
            ("--num-attention-heads", self.num_attention_heads, tp),
            ("--num-query-groups", groups, tp),
            ("--ffn-hidden-size", self.ffn_hidden_size, tp),
            ("--padded-vocab-size", self.padded_vocab_size, tp),
            ("--num-layers", self.num_layers, pp),
        ):
            if by < 1 or number % by:
                raise ValueError(f"{what} {number} is not divisible by {by}")

    @property
    def query_groups(self) -> int:
        return self.num_query_groups if self.group_query_attention else self.num_attention_heads

    @property
    def params_dtype_name(self) -> Dtype:
        return "bf16" if self.bf16 else "fp16" if self.fp16 else "fp32"

    @property
    def layout(self) -> ParallelLayout:
        return ParallelLayout(
            tensor_model_parallel_size=self.tensor_model_parallel_size,
            pipeline_model_parallel_size=self.pipeline_model_parallel_size,
        )

    def model_spec(self) -> ModelSpec:
        return ModelSpec(
            model_type="qwen3",
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            ffn_hidden_size=self.ffn_hidden_size,
            num_attention_heads=self.num_attention_heads,
            num_query_groups=self.query_groups,
            kv_channels=self.kv_channels or self.hidden_size // self.num_attention_heads,
            padded_vocab_size=self.padded_vocab_size,
            rotary_base=self.rotary_base,
            norm_epsilon=self.norm_epsilon,
            max_position_embeddings=self.max_position_embeddings,
            untie_embeddings_and_output_weights=self.untie_embeddings_and_output_weights,
            params_dtype=self.params_dtype_name,
        )
