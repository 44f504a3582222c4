"""Recipes: typed functions returning a complete RunConfig."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from qwen3_ops.config import RunConfig, TargetModule

TWIN_DIR = "QWEN3_OPS_TWIN_DIR"
"""Environment variable naming the folder that ``qwen3-ops make-tiny`` filled."""

ALL_LINEAR: tuple[TargetModule, ...] = ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")


def qwen3_14b_lora() -> RunConfig:
    """Runbook section 5: LoRA of Qwen3-14B on Alpaca, TP2 PP4 on 8 NPUs."""
    return RunConfig(
        recipe="qwen3-14b-lora",
        model_dir="/apps/hw/weights/Qwen3-14B",
        input="/apps/hw/datasets/train-00000-of-00001-a09b74b3ef9c3b56.parquet",
        handler_name="AlpacaStyleInstructionHandler",
        prompt_type="qwen",
        workers=4,
        task_data_path="/apps/hw/datasets/mmlu/data/test",
        output_root="/apps/hw/outputs/qwen3",
        nproc_per_node=8,
        nnodes=1,
        tensor_model_parallel_size=2,
        pipeline_model_parallel_size=4,
        context_parallel_size=1,
        train_iters=2000,
        micro_batch_size=4,
        global_batch_size=64,
        seq_length=4096,
        lr=1.25e-5,
        min_lr=1.25e-7,
        lr_decay_style="cosine",
        lr_warmup_fraction=0.01,
        weight_decay=0.1,
        clip_grad=1.0,
        adam_beta1=0.9,
        adam_beta2=0.95,
        seed=42,
        split="100,0,0",
        save_interval=200,  # the runbook saves once, at the end: a crash would lose everything
        log_interval=1,
        lora_r=16,
        lora_alpha=32,
        lora_target_modules=ALL_LINEAR,
        max_new_tokens=256,
        engine="native",
        runtime="local",
    )


def tiny() -> RunConfig:
    """The laptop twin: the same stages, layout and artifacts, in minutes on a CPU."""
    twin = Path(os.environ.get(TWIN_DIR) or Path.cwd() / ".demo" / "twin")
    return qwen3_14b_lora().model_copy(
        update={
            "recipe": "tiny",
            "model_dir": str(twin / "model"),
            "input": str(twin / "alpaca.parquet"),
            "task_data_path": str(twin / "mmlu" / "data" / "test"),
            "output_root": str(twin.parent / "outputs"),
            "workers": 1,
            "train_iters": 120,
            "micro_batch_size": 16,
            "global_batch_size": 16,
            "seq_length": 256,
            "lr": 4e-3,
            "min_lr": 4e-5,
            "lr_warmup_fraction": 0.1,
            "save_interval": 40,
            "log_interval": 10,
            "max_new_tokens": 32,
        }
    )


RECIPES: Mapping[str, Callable[[], RunConfig]] = {"qwen3-14b-lora": qwen3_14b_lora, "tiny": tiny}
DEFAULT_RECIPE = "qwen3-14b-lora"
