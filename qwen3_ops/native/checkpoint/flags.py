"""Flags of ``convert-ckpt``: those of MindSpeed-LLM's ``convert_ckpt.py``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from qwen3_ops.flags import Flags
from qwen3_ops.model import Dtype
from qwen3_ops.native.model_flags import SPEC

LoraTarget = Literal["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]

_UNEVEN = "not yet: every pipeline stage holds the same number of layers; choose a pipeline size that divides them"
_EXPERTS = "not yet: only dense Qwen3 models can be converted"


class FLAGS(Flags):
    """One conversion: hf to mg, mg to mg or mg to hf, the last two with a LoRA merge where there is LoRA.

    What is left out is taken from the source: its dtype, its layout (mg to mg), its LoRA settings.
    """

    INERT: ClassVar[dict[str, int]] = {
        "--use-mcore-models": 0,  # always
        "--model-type": 1,  # GPT; the model's own type is --model-type-hf
        "--tokenizer-model": 1,  # a conversion reads no text
        "--loader": 1,
        "--saver": 1,
        "--max-queue-size": 1,
        "--no-checking": 0,  # everything is always checked
        "--megatron-path": 1,
        "--load-hf-from-config": 0,  # the old weights are never needed for an export
    }
    REFUSED: ClassVar[dict[str, str]] = {
        "--num-layer-list": _UNEVEN,
        "--noop-layers": _UNEVEN,
        "--num-layers-per-virtual-pipeline-stage": _UNEVEN,
        "--vpp-stage": _UNEVEN,
        "--target-expert-parallel-size": _EXPERTS,
        "--expert-tensor-parallel-size": _EXPERTS,
        "--moe-grouped-gemm": _EXPERTS,
        "--num-experts": _EXPERTS,
        "--first-k-dense-replace": _EXPERTS,
        "--moe-layer-freq": _EXPERTS,
        "--save-lora-to-hf": "not yet: merge the adapter and export the whole model",
        "--load-checkpoint-loosely": "tensors that are missing or unknown always end a conversion",
        "--add-qkv-bias": "no Qwen3 model has a bias there",
        "--add-dense-bias": "no Qwen3 model has a bias there",
        "--qlora-nf4": "quantized weights are not supported",
        "--w-pack": "not a layout of Qwen3",
    }

    load_model_type: Literal["hf", "mg"]
    save_model_type: Literal["hf", "mg"]
    load_dir: Path
    save_dir: Path
    hf_cfg_dir: Path | None = None
    """Hugging Face folder of the base model: config and tokenizer of an exported model are its own."""
    target_tensor_parallel_size: int | None = Field(default=None, ge=1)
    target_pipeline_parallel_size: int | None = Field(default=None, ge=1)
    make_vocab_size_divisible_by: int | None = Field(default=None, ge=1)
    params_dtype: Dtype | None = None
    spec: tuple[str, ...] = SPEC
    model_type_hf: str = "qwen3"
    lora_load: Path | None = None
    lora_r: int | None = Field(default=None, ge=1)
    lora_alpha: int | None = Field(default=None, ge=1)
    lora_target_modules: tuple[LoraTarget, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> FLAGS:
        to_hf = self.save_model_type == "hf"
        whole = (self.target_tensor_parallel_size or 1, self.target_pipeline_parallel_size or 1) == (1, 1)
        rules = {
            "--load-model-type hf with --save-model-type hf converts nothing": (self.load_model_type, self.save_model_type) != ("hf", "hf"),
            "--target-*-parallel-size must be 1 with --save-model-type hf: a Hugging Face model is whole": not to_hf or whole,
            "--lora-* flags need --load-model-type mg": self.load_model_type == "mg" or not self.lora_flags,
            "--make-vocab-size-divisible-by needs --load-model-type hf: mg keeps its own padding": (
                self.load_model_type == "hf" or self.make_vocab_size_divisible_by is None
            ),
            "--hf-cfg-dir is for --save-model-type hf": to_hf or self.hf_cfg_dir is None,
            f"--spec must be {' '.join(SPEC)}": self.spec == SPEC,
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    @property
    def lora_flags(self) -> bool:
        return any((self.lora_load, self.lora_r, self.lora_alpha, self.lora_target_modules))
