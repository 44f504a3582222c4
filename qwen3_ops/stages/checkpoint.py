"""Conversions: Hugging Face to Megatron, LoRA merge, export (runbook 3.1, 5.3, 5.4)."""

from __future__ import annotations

from qwen3_ops.config import RunConfig
from qwen3_ops.model import ModelSpec
from qwen3_ops.stages.model_flags import SPEC
from qwen3_ops.stages.paths import Paths


def convert_hf_to_mcore(run: RunConfig, model: ModelSpec, paths: Paths) -> list[str]:
    return [
        *_common(model, load="hf", save="mg", tp=run.tensor_model_parallel_size, pp=run.pipeline_model_parallel_size),
        *("--load-dir", paths.model),
        *("--save-dir", paths.output),
        *("--tokenizer-model", f"{paths.tokenizer}/tokenizer.json"),
    ]


def merge_lora(run: RunConfig, model: ModelSpec, paths: Paths) -> list[str]:
    return [
        *_common(model, load="mg", save="mg", tp=run.tensor_model_parallel_size, pp=run.pipeline_model_parallel_size),
        *_lora(run, paths),
        *("--save-dir", paths.output),
    ]


def export_lora_to_hf(run: RunConfig, model: ModelSpec, paths: Paths) -> list[str]:
    """The result is a folder of its own; the runbook writes into the base model's."""
    return [
        *_common(model, load="mg", save="hf", tp=1, pp=1),
        *_lora(run, paths),
        *("--save-dir", paths.output),
        *("--hf-cfg-dir", paths.model),
    ]


def _common(model: ModelSpec, *, load: str, save: str, tp: int, pp: int) -> list[str]:
    return [
        "--use-mcore-models",
        *("--model-type", "GPT"),
        *("--load-model-type", load),
        *("--save-model-type", save),
        *("--target-tensor-parallel-size", str(tp)),
        *("--target-pipeline-parallel-size", str(pp)),
        *SPEC,
        *("--params-dtype", model.params_dtype),
        *("--model-type-hf", model.model_type),
    ]


def _lora(run: RunConfig, paths: Paths) -> list[str]:
    return [
        *("--lora-r", str(run.lora_r)),
        *("--lora-alpha", str(run.lora_alpha)),
        *("--lora-target-modules", *run.lora_target_modules),
        *("--load-dir", paths.inputs["checkpoint"]),
        *("--lora-load", paths.inputs["adapter"]),
    ]
