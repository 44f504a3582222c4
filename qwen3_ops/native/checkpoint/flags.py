"""Flags of ``convert-ckpt``: those of MindSpeed-LLM's ``convert_ckpt.py``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from qwen3_ops.flags import Flags
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import Dtype, ModelType
from qwen3_ops.native.model_flags import SPEC

MergePrecision = Literal["default", "fp32"]
LoraTarget = Literal["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]

MODEL_TYPES: Mapping[str, ModelType] = {"qwen3": "qwen3", "qwen3-moe": "qwen3_moe"}
"""``--model-type-hf`` -> ``model_type`` of config.json."""

_NUMBERS = r"^\d+(,\d+)*$"
_ALL_LAYERS = "every layer of a Qwen3 mixture of experts has experts"


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
        "--vpp-stage": "give --num-layers-per-virtual-pipeline-stage",
        "--expert-tensor-parallel-size": "experts are cut over tensor ranks as everything else",
        "--moe-tp-extend-ep": "experts are cut over tensor ranks as everything else",
        "--first-k-dense-replace": _ALL_LAYERS,
        "--moe-layer-freq": _ALL_LAYERS,
        "--load-checkpoint-loosely": "tensors that are missing or unknown always end a conversion",
        "--add-qkv-bias": "no Qwen3 model has a bias there",
        "--add-dense-bias": "no Qwen3 model has a bias there",
        "--qlora-nf4": "quantized weights are not supported",
        "--w-pack": "not a layout of Qwen3",
    }

    load_model_type: Literal["hf", "mg"]
    save_model_type: Literal["hf", "mg"]
    load_dir: Path
    load_dir_extra: tuple[Path, ...] = ()
    """Ours: further folders with the rest of the ranks, of a training on nodes without shared storage."""
    save_dir: Path
    hf_cfg_dir: Path | None = None
    """Hugging Face folder of the base model: config and tokenizer of an exported model are its own."""
    target_tensor_parallel_size: int | None = Field(default=None, ge=1)
    target_pipeline_parallel_size: int | None = Field(default=None, ge=1)
    target_expert_parallel_size: int | None = Field(default=None, ge=1)
    num_layers_per_virtual_pipeline_stage: int | None = Field(default=None, ge=1)
    num_layer_list: str | None = Field(default=None, pattern=_NUMBERS)
    """Layers of each pipeline stage: ``1,2,1``."""
    noop_layers: str | None = Field(default=None, pattern=_NUMBERS)
    """Positions that hold no layer: ``2,5``."""
    num_experts: int | None = Field(default=None, ge=1)
    moe_grouped_gemm: bool = False
    no_moe_grouped_gemm: bool = False
    """Ours: mg to mg keeps grouped experts grouped; this takes them apart."""
    make_vocab_size_divisible_by: int | None = Field(default=None, ge=1)
    params_dtype: Dtype | None = None
    spec: tuple[str, ...] = SPEC
    model_type_hf: str = "qwen3"
    lora_load: Path | None = None
    lora_load_extra: tuple[Path, ...] = ()
    lora_r: int | None = Field(default=None, ge=1)
    lora_alpha: int | None = Field(default=None, ge=1)
    lora_target_modules: tuple[LoraTarget, ...] = ()
    merge_precision: MergePrecision = "default"
    """Ours: ``fp32`` rounds a merge once, at its end; ``default`` where MindSpeed-LLM does, bit for bit."""
    save_lora_to_hf: bool = False
    """Export the adapter itself, as PEFT's adapter_model.safetensors."""

    @model_validator(mode="after")
    def _consistent(self) -> FLAGS:
        to_hf = self.save_model_type == "hf"
        sizes = (self.target_tensor_parallel_size, self.target_pipeline_parallel_size, self.target_expert_parallel_size)
        whole = all(size in (None, 1) for size in sizes)
        rules = {
            "--load-model-type hf with --save-model-type hf converts nothing": (self.load_model_type, self.save_model_type) != ("hf", "hf"),
            "--target-*-parallel-size must be 1 with --save-model-type hf: a Hugging Face model is whole": not to_hf or whole,
            "--lora-* flags need --load-model-type mg": self.load_model_type == "mg" or not self.lora_flags,
            "--make-vocab-size-divisible-by needs --load-model-type hf: mg keeps its own padding": (
                self.load_model_type == "hf" or self.make_vocab_size_divisible_by is None
            ),
            "--save-lora-to-hf needs --load-model-type mg and --save-model-type hf": not self.save_lora_to_hf
            or (self.load_model_type, self.save_model_type) == ("mg", "hf"),
            "--load-dir-extra and --lora-load-extra are for mg checkpoints": self.load_model_type == "mg"
            or not (self.load_dir_extra or self.lora_load_extra),
            "--lora-load-extra needs --lora-load": self.lora_load is not None or not self.lora_load_extra,
            "--moe-grouped-gemm and --no-moe-grouped-gemm exclude each other": not (self.moe_grouped_gemm and self.no_moe_grouped_gemm),
            "layouts are for --save-model-type mg: a Hugging Face model is whole": not to_hf
            or not (self.num_layers_per_virtual_pipeline_stage or self.num_layer_list or self.noop_layers),
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

    @property
    def adapter_extra(self) -> tuple[Path, ...]:
        """Further folders of the checkpoint with the LoRA, which is ``--load-dir`` itself where there is no ``--lora-load``."""
        return self.load_dir_extra if self.lora_load is None else self.lora_load_extra

    def layout(self, source: ParallelLayout) -> ParallelLayout:
        """Of the result. ``source`` is kept whole where no flag says anything; else its sizes are, where they are not given."""
        given = {
            "tensor_model_parallel_size": self.target_tensor_parallel_size,
            "pipeline_model_parallel_size": self.target_pipeline_parallel_size,
            "expert_model_parallel_size": self.target_expert_parallel_size,
            "num_layers_per_virtual_pipeline_stage": self.num_layers_per_virtual_pipeline_stage,
            "num_layer_list": _numbers(self.num_layer_list) or None,
            "noop_layers": tuple(sorted(_numbers(self.noop_layers))) or None,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if not given:
            return source
        sizes = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "expert_model_parallel_size")
        return ParallelLayout.model_validate({**{name: getattr(source, name) for name in sizes}, **given})


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(item) for item in text.split(",")) if text else ()
