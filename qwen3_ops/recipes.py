"""Recipes: typed functions returning a complete RunConfig."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from qwen3_ops.config import RunConfig, TargetModule
from qwen3_ops.numbers import Written

TWIN_DIR = "QWEN3_OPS_TWIN_DIR"
"""Environment variable naming the folder that ``qwen3-ops make-tiny`` filled."""

ALL_LINEAR: tuple[TargetModule, ...] = ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")

Kind = Literal["full", "lora", "pretrain"]
"""What is trained: all weights or LoRA on conversations, or all weights on plain text."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How MindSpeed-LLM's own script cuts a model and feeds it.

    Attributes:
        tp, pp, ep: tensor, pipeline and expert parallel size.
        mbs, gbs: micro and global batch size.
        seq: tokens of a sample.
        nnodes: of eight NPUs each.
        decay: of the learning rate.
        lr: where it is not that of the kind.
        recompute: every layer's activations in the backward pass.
    """

    tp: int = 1
    pp: int = 1
    ep: int = 1
    mbs: int = 1
    gbs: int
    seq: int = 4096
    nnodes: int = 1
    decay: Literal["linear", "cosine"] = "cosine"
    lr: str | None = None
    recompute: bool = False


FITS: Mapping[str, Mapping[Kind, Fit]] = {
    "0.6B": {
        "full": Fit(gbs=16, seq=8192, decay="linear"),
        "lora": Fit(gbs=16, seq=8192, decay="linear"),
        "pretrain": Fit(gbs=32, decay="linear"),
    },
    "1.7B": {"full": Fit(gbs=32, decay="linear"), "lora": Fit(gbs=16), "pretrain": Fit(gbs=32)},
    "4B": {"full": Fit(gbs=16, decay="linear"), "lora": Fit(gbs=16), "pretrain": Fit(gbs=64)},
    "8B": {"full": Fit(pp=2, gbs=16, decay="linear"), "lora": Fit(pp=2, mbs=4, gbs=16), "pretrain": Fit(pp=4, gbs=64)},
    "14B": {  # the runbook's: one checkpoint of TP2 PP4 serves every stage
        "full": Fit(tp=2, pp=4, gbs=16, decay="linear"),
        "lora": Fit(tp=2, pp=4, mbs=4, gbs=64),
        "pretrain": Fit(tp=2, pp=4, gbs=128, decay="linear"),
    },
    "32B": {
        "full": Fit(tp=8, pp=2, gbs=16, nnodes=2),
        "lora": Fit(tp=4, mbs=4, gbs=16),
        "pretrain": Fit(tp=8, pp=2, gbs=128, nnodes=2),
    },
    "30B-A3B": {
        "full": Fit(tp=4, pp=2, ep=2, mbs=4, gbs=64, nnodes=2, lr="1.25e-5"),
        "lora": Fit(tp=4, mbs=8, gbs=64),
        "pretrain": Fit(pp=2, ep=8, gbs=256, nnodes=2, recompute=True),
    },
}
"""Model size -> kind of training -> fit (``examples/mcore/qwen3`` and ``qwen3_moe`` of 2.1.0)."""

_OF_KIND: Mapping[Kind, Mapping[str, Any]] = {
    "full": {"input": "/apps/hw/datasets/train-00000-of-00001-a09b74b3ef9c3b56.parquet", "handler_name": "AlpacaStyleInstructionHandler"},
    "lora": {"input": "/apps/hw/datasets/train-00000-of-00001-a09b74b3ef9c3b56.parquet", "handler_name": "AlpacaStyleInstructionHandler"},
    "pretrain": {
        "input": "/apps/hw/datasets/enwiki/train-00000-of-00042-d964455e17e96d5a.parquet",
        "handler_name": "GeneralPretrainHandler",
        "hccl_if_base_port": 30000,
    },
}
_LR: Mapping[Kind, str] = {"full": "1.25e-6", "lora": "1.25e-5", "pretrain": "1.25e-6"}
_ITERATIONS: Mapping[Kind, int] = {"full": 1000, "lora": 2000, "pretrain": 2000}


def production(size: str, kind: Kind) -> RunConfig:
    """The runbook's values for one model size on NPUs; what differs by size is in ``FITS``."""
    fit = FITS[size][kind]
    return RunConfig(
        recipe=name_of(size, kind),
        model_dir=f"/apps/hw/weights/Qwen3-{size}",
        **_OF_KIND[kind],
        prompt_type="qwen",
        workers=4,
        task_data_path="/apps/hw/datasets/mmlu/data/test",
        output_root="/apps/hw/outputs/qwen3",
        nproc_per_node=8,
        nnodes=fit.nnodes,
        tensor_model_parallel_size=fit.tp,
        pipeline_model_parallel_size=fit.pp,
        context_parallel_size=1,
        expert_model_parallel_size=fit.ep,
        recompute_granularity="full" if fit.recompute else None,
        train_iters=_ITERATIONS[kind],
        micro_batch_size=fit.mbs,
        global_batch_size=fit.gbs,
        seq_length=fit.seq,
        lr=Written(fit.lr or _LR[kind]),
        min_lr=Written("1.25e-7"),
        lr_decay_style=fit.decay,
        lr_warmup_fraction=Written("0.01"),
        weight_decay=Written("1e-1"),
        clip_grad=Written("1.0"),
        adam_beta1=Written("0.9"),
        adam_beta2=Written("0.95"),
        seed=42,
        split="100,0,0",
        save_interval=200,  # the runbook saves once, at the end: a crash would lose everything
        keep_last=2,
        log_interval=1,
        lora_r=16,
        lora_alpha=32,
        lora_target_modules=ALL_LINEAR,
        max_new_tokens=256,
        engine="mindspeed",
        runtime="local",
    )


def tiny(kind: Kind = "lora") -> RunConfig:
    """The laptop twin: the same stages, layout and artifacts, in minutes on a CPU."""
    twin = Path(os.environ.get(TWIN_DIR) or Path.cwd() / ".demo" / "twin")
    lr = {"lora": 4e-3, "full": 1e-3, "pretrain": 1e-3}[kind]
    return production("14B", kind).model_copy(
        update={
            "recipe": name_of("tiny", kind),
            "model_dir": str(twin / "model"),
            "input": str(twin / ("pretrain.parquet" if kind == "pretrain" else "alpaca.parquet")),
            "task_data_path": str(twin / "mmlu" / "data" / "test"),
            "output_root": str(twin.parent / "outputs"),
            "workers": 1,
            "train_iters": 40 if kind == "pretrain" else 120,  # plain text fills every sample, conversations do not
            "micro_batch_size": 16,
            "global_batch_size": 16,
            "seq_length": 128 if kind == "pretrain" else 256,
            "lr": lr,
            "min_lr": lr / 100,
            "lr_decay_style": "cosine",
            "lr_warmup_fraction": 0.1,
            "save_interval": 20 if kind == "pretrain" else 40,
            "keep_last": None,
            "log_interval": 10,
            "max_new_tokens": 32,
            "engine": "native",
        }
    )


def name_of(size: str, kind: Kind) -> str:
    """``qwen3-14b-lora``; the twin's LoRA recipe, the first there was, is just ``tiny``."""
    if size == "tiny":
        return "tiny" if kind == "lora" else f"tiny-{kind}"
    return f"qwen3-{size.lower()}-{kind}"


RECIPES: Mapping[str, Callable[[], RunConfig]] = {
    **{name_of(size, kind): partial(production, size, kind) for size in FITS for kind in get_args(Kind)},
    **{name_of("tiny", kind): partial(tiny, kind) for kind in get_args(Kind)},
}
DEFAULT_RECIPE = "qwen3-14b-lora"
