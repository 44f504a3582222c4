"""A LoRA checkpoint as a PEFT adapter for the Hugging Face model (``--save-lora-to-hf``).

Megatron adapts fused layers. ``linear_qkv`` and ``linear_fc1`` have one A for all that is fused, so A is
given to each of q, k, v (gate, up); B's rows are theirs, group by group as the weight's own rows are.
"""

from __future__ import annotations

import json
from pathlib import Path

from qwen3_ops.artifacts import write_atomically
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.checkpoint.dtypes import ElementType
from qwen3_ops.native.checkpoint.hf import WeightsPlan
from qwen3_ops.native.checkpoint.lora import LoraSettings
from qwen3_ops.native.checkpoint.modules import hf_names, parse_layer_name, shape_of
from qwen3_ops.native.checkpoint.schema import LoraLayers, Schema
from qwen3_ops.native.checkpoint.sharding import Runs, hf_runs
from qwen3_ops.native.checkpoint.state import Part
from qwen3_ops.native.checkpoint.tensor_spec import TensorSpec
from qwen3_ops.native.checkpoint.transfer import Job

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def plan_adapter(model: ModelSpec, *, lora: LoraLayers, r: int, dtype: ElementType) -> WeightsPlan:
    """The adapter's file; A's copies come from one whole tensor, B's parts are runs of its rows."""
    only = LoraLayers(kinds=lora.kinds, only=True)
    jobs, specs = [], {}
    for name in Schema(model=model, layout=ParallelLayout(), lora=only).tensor_names():
        parts = []
        for hf, runs in _hf_parts(name, model, r):
            spec = TensorSpec(dtype, runs.shape(shape_of(name, model, lora_r=r)))
            specs[hf] = spec
            parts.append(Part(f"{WEIGHTS}:{hf}", spec, runs))
        jobs.append(Job((name,), tuple(parts)))
    return WeightsPlan({WEIGHTS: specs}, jobs)


def write_config(folder: Path, *, settings: LoraSettings, plan: WeightsPlan, base_model: Path | None) -> None:
    """``adapter_config.json`` as PEFT reads it."""
    modules = sorted({name.split(".")[-3] for name in plan.files[WEIGHTS]})
    config = {
        "base_model_name_or_path": None if base_model is None else str(base_model),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": settings.r,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
    }
    write_atomically(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def _hf_parts(name: str, model: ModelSpec, r: int) -> list[tuple[str, Runs]]:
    parsed = parse_layer_name(name)
    assert parsed is not None and parsed.part is not None  # LoRA is inside layers only
    half = parsed.part.removesuffix(".default")
    base = f"decoder.layers.{parsed.layer}.{parsed.module}.weight"
    rows = hf_runs(base, model) if half == "lora_B" else [Runs(0, ((0, r),))] * len(hf_names(base))
    return [(f"base_model.model.{hf.removesuffix('.weight')}.{half}.weight", runs) for hf, runs in zip(hf_names(base), rows, strict=True)]
